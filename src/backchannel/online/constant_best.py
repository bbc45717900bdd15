"""Constant best: the single arm with the least estimated mean loss, and nothing else.

Over a log it answers the plainest question: which one action, played always, would have lost least? Played live it is
follow-the-leader. A log's own averages mislead where the logging policy looked at circumstances that also move the
loss (an easy case gets the cheap action, a hard one the dear action): each answer counts with weight 1 / propensity.

Equations: with w_s = 1 / p_s, the inverse of the propensity with which decision s was taken (1 where it is unknown),

    W_t(a) = sum_{s <= t, A_s = a} w_s,    L_t(a) = sum_{s <= t, A_s = a} w_s x_s / W_t(a),    A_{t+1} = argmin_a L_t(a)

L is the self-normalised importance-weighted mean (Hajek's; Swaminathan and Joachims 2015 for policies): consistent for
the loss of "always a", never outside the range of the losses seen, and the plain mean where propensities are equal, as
they are when it plays by itself (1).

Steps: play each arm once; then always the leader, ties to the lowest index; add the answer to its arm.

Deviations: the paper estimates any policy from a log; here only the constant ones. There is no regret bound: the
leader may be wrong for good (with probability that does not fall with T), and then regret is linear.

    >>> from backchannel.base import NOTHING
    >>> from backchannel.live import Live
    >>> from backchannel.online.constant_best import constant_best
    >>> best = Live(constant_best(arms=2))
    >>> for action, propensity, loss in [(0, 0.9, 0.0), (0, 0.1, 1.0), (1, 0.1, 0.3), (1, 0.9, 0.9)]:
    ...     best.update(action, propensity, loss)
    >>> best.act()                      # plain means say 0 (0.5 against 0.6); weighted, 1 is better (0.36 against 0.9)
    (1, 1.0)

References: swaminathan2015self.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.tries import untried

CARD = Card(
    name="Constant best",
    summary="The single best action so far, by importance-weighted means: what a log says of always doing one thing.",
    paper="swaminathan2015self",
    topics=("baseline", "importance weighting", "greedy"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="epsilon_greedy",
    example={"arms": 3},
    strength="simple",
)


class State(NamedTuple):
    """Weighted sums for each arm, and how often it was answered and chosen."""

    losses: np.ndarray  # float64[arms]: sum of w x
    weights: np.ndarray  # float64[arms]: W, sum of w
    counts: np.ndarray  # int64[arms]: answers
    tries: np.ndarray  # int64[arms]: choices


def constant_best(arms: int) -> Learner:
    """The single best of `arms` actions (at least 1)."""
    if arms < 1:
        raise ValueError(f"arms must be at least 1, not {arms}")
    none = np.zeros(arms, np.int64)
    return Learner(State(np.zeros(arms), np.zeros(arms), none, none.copy()), _act, _update, _probabilities)


@compiled
def _leader(state):
    best = untried(state.counts, state.tries)
    if best >= 0:
        return best
    best = 0
    for arm in range(1, state.losses.shape[0]):
        if state.losses[arm] / state.weights[arm] < state.losses[best] / state.weights[best]:
            best = arm
    return best


@compiled
def _act(state, context, rng):
    action = _leader(state)
    state.tries[action] += 1
    return action, 1.0


@compiled
def _update(state, context, action, propensity, loss):
    weight = 1.0 if np.isnan(propensity) else 1.0 / propensity
    state.losses[action] += weight * loss
    state.weights[action] += weight
    state.counts[action] += 1


@compiled
def _probabilities(state, context, out):
    out[:] = 0.0
    out[_leader(state)] = 1.0
