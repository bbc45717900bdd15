"""OFS: the best arm among those that may yet be feasible, for thresholds that must be fair.

A decision answers with a reward and with residuals, numbers that are at most 0 where a constraint is met: the gap
between the groups' acceptance rates is within its tolerance, enough applicants are served. Nothing is known of them
before. Optimistic Feasible Search keeps confidence bounds of all of these for each threshold of a grid, gives every
threshold the benefit of the doubt twice, as to its reward and as to its feasibility, and plays the best of those left.

Equations (Du 2025), with losses x, residuals g^c, c = 1..C, arms a = 1..K, n_a answers of arm a and n in all:

    low(a) = mean x_a - sqrt(beta log n / n_a)                             optimistic loss                (1)
    g_low^c(a) = mean g^c_a - sqrt(beta_g log n / n_a)                     optimistic residual            (2)
    F = {a : g_low^c(a) <= 0 for all c}                                    what may be feasible           (3)
    A = argmin_{a in F} low(a)                                             if F is not empty              (4)
    A = argmin_a sum_c max(g_low^c(a), 0)                                  else the least violation       (5)

An infeasible arm whose residual is G > 0 has n_a <= beta_g log n / G^2 or so answers before (3) rules it out, so that
its violations sum to beta_g log n / G; no arm is ruled out for good, since log n grows.

In the closed loop decisions move the population, and an arm's answers depend on what was played before. Where the loop
is a contraction it settles once the play does, and (1) and (2) average over an unsettled beginning that weighs less
and less. There is no theorem for that here.

Steps: play each arm once; then (4), or (5) with ties to the lower loss; further ties to the lowest arm; average loss
and residuals in.

`primal_dual` is the usual alternative and the contrast. A multiplier for each constraint is the price of its residual;
the play is optimistic in the priced loss, and the prices follow the residuals:

    A = argmin_a low(a) + sum_c lambda^c g_low^c(a),    lambda^c <- max(lambda^c + eta g^c, 0)            (6)

It meets constraints on average over time, at best: a round that breaks one is paid back by another that has slack.

Deviations: the paper's constants were not at hand; beta = 2 is UCB1's for losses in [0, 1], beta_g = 8 the same for
residuals, whose range is 2 (x b^2 for range b), and both are data. The violation in (5) is the sum over constraints.
The score that the learner sees before it decides plays no part in the choice, and is left out. Demographic parity
|r_1 - r_0| <= tolerance is two residuals with signs (`tasks/lending.py`), since the absolute value of a noisy gap is
biased. Feedback is that of `channels.hide.constrained`; arms other than the chosen one that it happens to show are
averaged in as well.

    >>> from backchannel.channels.hide import constrained
    >>> from backchannel.loop import Run
    >>> from backchannel.online.ofs import ofs
    >>> from backchannel.tasks.lending import lending, outcomes
    >>> task = lending([-2.5, -0.6, 2.5], horizon=400, applicants=50)     # only the first is feasible
    >>> learner = ofs(arms=3, constraints=3, exploration=2 / 100, residual_exploration=8 / 100)
    >>> run = Run(learner, task, horizon=400, channel=constrained(arms=3, constraints=3)).advance()
    >>> bool((run.trace.actions[200:] == 0).mean() > 0.95)
    True
    >>> bool((outcomes(task.state, run.trace.actions)[:, 1:].max(axis=1) > 0).mean() < 0.1)
    True

References: du2025optimistic, auer2002finite.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.tries import untried

CARD = Card(
    name="OFS",
    summary="The best arm among those that may be feasible, where constraints are learned too: fair thresholds.",
    paper="du2025optimistic",
    row=77,
    topics=("stochastic", "optimism", "constraints", "fairness"),
    feedback=("constrained",),
    protocol="learner",
    engine="numba",
    neighbour="ucb1",
    example={"arms": 5, "constraints": 3},
)


class State(NamedTuple):
    """Means, counts, the constants under the roots, and the prices of `primal_dual`."""

    means: np.ndarray  # float64[1 + constraints, arms]: losses, then residuals
    counts: np.ndarray  # int64[arms]: answers, n_a
    tries: np.ndarray  # int64[arms]: choices
    exploration: np.ndarray  # float64[1 + constraints]: beta, then beta_g
    prices: np.ndarray  # float64[constraints]: lambda
    step_size: np.ndarray  # float64[1]: eta


def ofs(arms: int, constraints: int, exploration: float = 2.0, residual_exploration: float = 8.0) -> Learner:
    """Optimistic Feasible Search for `arms` arms with losses in [0, 1].

    Args:
        arms: K, at least 1: the thresholds of the grid.
        constraints: C, at least 0; without any it is UCB1.
        exploration: beta in (1); with less luck in a round, less.
        residual_exploration: beta_g in (2).
    """
    return Learner(_state(arms, constraints, exploration, residual_exploration, 0.0), _act, _update, _probabilities)


def primal_dual(
    arms: int, constraints: int, step_size: float, exploration: float = 2.0, residual_exploration: float = 8.0
) -> Learner:
    """The primal-dual bandit of (6), with the bounds of (1) and (2); the other arguments are those of `ofs`.

    Args:
        step_size: eta, above 0.
    """
    if not step_size > 0:
        raise ValueError(f"step_size must be above 0, not {step_size}")
    state = _state(arms, constraints, exploration, residual_exploration, step_size)
    return Learner(state, _act_priced, _update_priced, _probabilities_priced)


def _state(arms: int, constraints: int, exploration: float, residual_exploration: float, step_size: float) -> State:
    if arms < 1 or constraints < 0:
        raise ValueError(f"arms must be at least 1 and constraints at least 0, not {arms} and {constraints}")
    if exploration < 0 or residual_exploration < 0:
        raise ValueError(f"exploration must not be negative, not {exploration} and {residual_exploration}")
    return State(
        means=np.zeros((1 + constraints, arms)),
        counts=np.zeros(arms, np.int64),
        tries=np.zeros(arms, np.int64),
        exploration=np.array([exploration, *[residual_exploration] * constraints], float),
        prices=np.zeros(constraints),
        step_size=np.array([float(step_size)]),
    )


@compiled
def _low(state, number, arm):
    """(1) for number 0, (2) for the number of a constraint."""
    return state.means[number, arm] - math.sqrt(
        state.exploration[number] * math.log(state.counts.sum()) / state.counts[arm]
    )


@compiled
def _choice(state):
    first = untried(state.counts, state.tries)
    if first >= 0:
        return first
    best, least, fewest = 0, np.inf, np.inf
    for arm in range(state.counts.shape[0]):
        violation = 0.0
        for c in range(1, state.means.shape[0]):
            violation += max(_low(state, c, arm), 0.0)
        loss = _low(state, 0, arm)
        if violation < fewest or (violation == fewest and loss < least):  # (4) where it is 0, else (5)
            best, least, fewest = arm, loss, violation
    return best


@compiled
def _choice_priced(state):
    first = untried(state.counts, state.tries)
    if first >= 0:
        return first
    best, least = 0, np.inf
    for arm in range(state.counts.shape[0]):
        priced = _low(state, 0, arm)
        for c in range(1, state.means.shape[0]):
            priced += state.prices[c - 1] * _low(state, c, arm)  # (6)
        if priced < least:
            best, least = arm, priced
    return best


@compiled
def _act(state, context, rng):
    action = _choice(state)
    state.tries[action] += 1
    return action, 1.0


@compiled
def _act_priced(state, context, rng):
    action = _choice_priced(state)
    state.tries[action] += 1
    return action, 1.0


@compiled
def _update(state, context, action, propensity, feedback):
    arms = state.counts.shape[0]
    for arm in range(arms):
        if np.isnan(feedback[arm]):
            continue
        state.counts[arm] += 1
        for number in range(state.means.shape[0]):
            state.means[number, arm] += (feedback[number * arms + arm] - state.means[number, arm]) / state.counts[arm]


@compiled
def _update_priced(state, context, action, propensity, feedback):
    _update(state, context, action, propensity, feedback)
    for c in range(state.prices.shape[0]):
        residual = feedback[(1 + c) * state.counts.shape[0] + action]
        state.prices[c] = max(state.prices[c] + state.step_size[0] * residual, 0.0)  # (6)


@compiled
def _probabilities(state, context, out):
    out[:] = 0.0
    out[_choice(state)] = 1.0


@compiled
def _probabilities_priced(state, context, out):
    out[:] = 0.0
    out[_choice_priced(state)] = 1.0
