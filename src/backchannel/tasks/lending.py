"""Lending in a closed loop: who is accepted today changes who applies tomorrow, in two groups, at one threshold.

In each round as many applicants of either group stand before the same threshold theta_a; whoever scores at least that
is accepted. An applicant of group g is qualified with probability q_g; scores are normal with standard deviation 1 and
mean +d/2 for the qualified, -d/2 for the others. With Phi the normal distribution function,

    TPR(a) = 1 - Phi(theta_a - d/2),  FPR(a) = 1 - Phi(theta_a + d/2),  r_g = FPR + q_g (TPR - FPR)    accepted
    q_g <- (1 - rate) q_g + rate (base_g + lift r_g)                                                    the feedback

Acceptance is an opportunity: it raises the group's share of the qualified. q_g moves by a factor of at most
1 - rate (1 - lift) towards where a threshold that stays would lead it, so that for lift < 1 the loop is a contraction.
That place is q_g = (base_g + lift FPR) / (1 - lift (TPR - FPR)).

A round answers with several numbers, each the mean over its applicants. The loss is that of an applicant: the
lender earns 1 with an accepted applicant who is qualified, pays `cost` for one who is not, and
loss = (1 - reward) / (1 + cost). The residuals are at most 0 where a constraint is met:

    r_1 - r_0 - tolerance,  r_0 - r_1 - tolerance    demographic parity, |r_1 - r_0| <= tolerance, without bias
    floor - (r_0 + r_1) / 2                          service: so large a share is accepted

`loss(state, t, index)` answers with number `index // K` for arm `index % K`, the layout of `channels.hide.constrained`;
with `bandit` the loss alone is seen. The same applicants stand before every threshold, and their luck is pure in
(seed, t).

The loop needs a memory: `path[t]` holds q before round t. The loss of round t writes `path[t + 1]`, always the same for
the same action, and reads `path[t]`; `mean` only reads. So asking again changes nothing, meters see the world as it
was, and a resumed run goes on in the world that it left. But rounds are asked in their order, one action in each:
anything else is an error. (Feedback may be late: the loop asks at once and tells later.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backchannel.base import NOTHING, Task
from backchannel.engine import compiled
from backchannel.parts.counter_random import uniform_at
from backchannel.tasks.bernoulli import nothing

CONSTRAINTS = 3


class State(NamedTuple):
    """The lender's choices, the groups, and the way that they went."""

    thresholds: np.ndarray  # float64[arms]: theta
    separation: np.ndarray  # float64[1]: d
    base: np.ndarray  # float64[2]
    lift: np.ndarray  # float64[1]
    rate: np.ndarray  # float64[1]
    cost: np.ndarray  # float64[1]
    tolerance: np.ndarray  # float64[1]
    floor: np.ndarray  # float64[1]
    applicants: np.ndarray  # int64[1]: of either group, in a round
    path: np.ndarray  # float64[horizon + 1, 2]: q before each round; nan where it has not been yet
    seed: np.ndarray  # uint64[1]
    context: np.ndarray  # float64[0]


def lending(
    thresholds: Sequence[float] | np.ndarray,
    horizon: int,
    base: tuple[float, float] = (0.25, 0.5),
    lift: float = 0.3,
    rate: float = 0.05,
    separation: float = 2.0,
    cost: float = 1.0,
    tolerance: float = 0.05,
    floor: float = 0.3,
    applicants: int = 10,
) -> Task:
    """Two groups of applicants and a grid of thresholds, for at most `horizon` rounds.

    Args:
        thresholds: theta, one for each arm.
        horizon: rounds that the task can be asked.
        base: share of the qualified in either group where nobody is accepted; the first round starts there.
        lift: how much acceptance adds to it; base and lift together at most 1, lift below 1.
        rate: how fast the groups move, in [0, 1]; with 0 the loop is open.
        separation: d, between the mean scores of the qualified and of the others.
        cost: of accepting an applicant who is not qualified, in units of what one who is brings in.
        tolerance: the largest gap between the groups' acceptance rates that is allowed.
        floor: the least share of applicants to be accepted.
        applicants: of either group in each round; the more, the less luck.
    """
    grid = np.array(thresholds, float)
    if grid.ndim != 1 or grid.size == 0 or not np.isfinite(grid).all():
        raise ValueError(f"thresholds must be a non-empty list of finite numbers, not {thresholds!r}")
    if horizon < 1 or applicants < 1:
        raise ValueError(f"horizon and applicants must be at least 1, not {horizon} and {applicants}")
    if not (0 <= lift < 1 and min(base) >= 0 and max(base) + lift <= 1):
        raise ValueError(f"base and lift must not be negative, base + lift at most 1, lift below 1: {base}, {lift}")
    if not 0 <= rate <= 1 or cost < 0:
        raise ValueError(f"rate must lie in [0, 1] and cost must not be negative, not {rate} and {cost}")
    start = np.array(base, float)
    state = State(
        thresholds=grid,
        separation=np.array([float(separation)]),
        base=start,
        lift=np.array([float(lift)]),
        rate=np.array([float(rate)]),
        cost=np.array([float(cost)]),
        tolerance=np.array([float(tolerance)]),
        floor=np.array([float(floor)]),
        applicants=np.array([applicants]),
        path=_fresh(start, horizon),
        seed=np.zeros(1, np.uint64),
        context=NOTHING,
    )
    return Task(state, grid.size, nothing, _loss, _mean, _anew)


@compiled
def outcomes(state: Any, actions: np.ndarray) -> np.ndarray:
    """float64[rounds, 4]: the expected loss and residuals of each round if these are the actions, from the start.

    The closed loop without luck and without a learner: what a fixed threshold would have brought, or what a run did.
    """
    out = np.empty((actions.shape[0], 1 + CONSTRAINTS))
    q = state.base.copy()
    for t in range(actions.shape[0]):
        for number in range(1 + CONSTRAINTS):
            out[t, number] = _expected(state, q, actions[t], number)
        for group in range(2):
            q[group] = _next(state, q, group, actions[t])
    return out


def _fresh(base: np.ndarray, horizon: int) -> np.ndarray:
    path = np.full((horizon + 1, 2), np.nan)
    path[0] = base
    return path


def _anew(state: Any, seed: int) -> Any:
    return state._replace(seed=np.array([seed], np.uint64), path=_fresh(state.base, state.path.shape[0] - 1))


@compiled
def _tail(x):
    """1 - Phi(x)."""
    return 0.5 * math.erfc(x / math.sqrt(2.0))


@compiled
def _rates(state, arm):
    """TPR and FPR."""
    half = state.separation[0] / 2
    return _tail(state.thresholds[arm] - half), _tail(state.thresholds[arm] + half)


@compiled
def _next(state, q, group, arm):
    """q of the group after a round."""
    tpr, fpr = _rates(state, arm)
    accepted = fpr + q[group] * (tpr - fpr)
    return q[group] + state.rate[0] * (state.base[group] + state.lift[0] * accepted - q[group])


@compiled
def _answer(state, number, good_0, good_1, bad_0, bad_1):
    """The loss, number 0, or a residual, from the shares of either group accepted: qualified (good), not (bad)."""
    r_0, r_1 = good_0 + bad_0, good_1 + bad_1
    if number == 0:
        reward = 0.5 * (good_0 + good_1) - 0.5 * state.cost[0] * (bad_0 + bad_1)
        return (1.0 - reward) / (1.0 + state.cost[0])
    if number == 1:
        return r_1 - r_0 - state.tolerance[0]
    if number == 2:
        return r_0 - r_1 - state.tolerance[0]
    return state.floor[0] - 0.5 * (r_0 + r_1)


@compiled
def _expected(state, q, arm, number):
    tpr, fpr = _rates(state, arm)
    return _answer(state, number, q[0] * tpr, q[1] * tpr, (1 - q[0]) * fpr, (1 - q[1]) * fpr)


@compiled
def _mean(state, t, index):
    arms = state.thresholds.shape[0]
    return _expected(state, state.path[t], index % arms, index // arms)


@compiled
def _shares(state, t, group, arm):
    """The shares of the group's applicants in round t who are accepted: qualified, and not."""
    tpr, fpr = _rates(state, arm)
    good, bad = 0, 0
    many = state.applicants[0]
    for i in range(many):
        place = 2 * (group * many + i)
        qualified = uniform_at(state.seed[0], t, place) < state.path[t, group]
        score = uniform_at(state.seed[0], t, place + 1)  # its place in the distribution of scores, from the top
        if qualified and score < tpr:
            good += 1
        elif not qualified and score < fpr:
            bad += 1
    return good / many, bad / many


@compiled
def _loss(state, t, index):
    if t + 1 >= state.path.shape[0]:
        raise ValueError("the task was made for fewer rounds: give lending a longer horizon")
    if np.isnan(state.path[t, 0]):
        raise ValueError("lending is a closed loop: its rounds are asked one after the other")
    arms = state.thresholds.shape[0]
    arm, number = index % arms, index // arms
    for group in range(2):
        after = _next(state, state.path[t], group, arm)
        if not np.isnan(state.path[t + 1, group]) and state.path[t + 1, group] != after:
            raise ValueError("lending is a closed loop: a round answers to one action only")
        state.path[t + 1, group] = after
    good_0, bad_0 = _shares(state, t, 0, arm)
    good_1, bad_1 = _shares(state, t, 1, arm)
    return _answer(state, number, good_0, good_1, bad_0, bad_1)
