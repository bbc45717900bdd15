"""Uniform: every arm with the same probability, in every round. The reference that never learns.

Whoever claims to learn must beat it; and its log is worth keeping, since every arm is seen equally often and no choice
depends on what was seen: averages of its log are unbiased, for any arm and any policy.

Equation: P_t(a) = 1 / K. With gaps D_a = m_a - min_b m_b of the expected losses, the expected regret is exactly
T sum_a D_a / K, and at most T (K - 1) / K with losses in [0, 1].

Steps: draw A_t from P_t; ignore x_t.

Deviations: none.

    >>> from backchannel import play
    >>> from backchannel.online.uniform import uniform
    >>> from backchannel.tasks.bernoulli import bernoulli
    >>> result = play(uniform(arms=2), bernoulli([0.2, 0.8]), horizon=2000, replicates=8)
    >>> bool(abs(result.final("regret").mean() / (2000 * 0.3) - 1) < 0.1)
    True

References: lattimore2020bandit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled

CARD = Card(
    name="Uniform",
    summary="The reference that never learns: every arm with equal probability; its log answers any question.",
    paper="lattimore2020bandit",
    topics=("baseline", "logging"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="constant_best",
    example={"arms": 3},
    strength="simple",
)


class State(NamedTuple):
    """The distribution."""

    probabilities: np.ndarray  # float64[arms]: 1 / K each


def uniform(arms: int) -> Learner:
    """Uniform play over `arms` arms, at least 1."""
    if arms < 1:
        raise ValueError(f"arms must be at least 1, not {arms}")
    return Learner(State(np.full(arms, 1 / arms)), _act, _update, _probabilities)


def regret_bound(arms: int, horizon: int) -> float:
    """The worst case, all arms but one losing 1 more in every round: T (K - 1) / K."""
    return horizon * (arms - 1) / arms


@compiled
def _act(state, context, rng):
    action = rng.integers(0, state.probabilities.shape[0])
    return action, state.probabilities[action]


@compiled
def _update(state, context, action, propensity, loss):
    pass


@compiled
def _probabilities(state, context, out):
    out[:] = state.probabilities
