"""Tsallis-INF: one bandit for both worlds, adversarial and stochastic, without knowing which or for how long.

Follow the regularised leader on importance-weighted losses, with the Tsallis entropy of 1/2 in place of Shannon's.
Its tails are heavier than exponential ones: an arm that looks bad is tried at a rate of the inverse square of its
estimated deficit. That removes the logarithm from the worst case, and makes the regret logarithmic when losses are
drawn independently.

Equations (Zimmert and Seldin 2021, algorithm 1, with alpha = 1/2 and the estimator IW), losses in [0, 1]:

    w_t = argmin_{w in simplex} <w, L_{t-1}> - (4 / eta_t) sum_i sqrt(w_i),   eta_t = 2 / sqrt(t)
    w_t(i) = 4 (eta_t (L_{t-1}(i) - x))^-2,   with x such that they sum to 1
    L_t(i) = L_{t-1}(i) + 1{I_t = i} l_t(i) / w_t(i)

The expected regret against any fixed arm is at most 4 sqrt(K T) + 1 (theorem 1).

Steps: solve for x; draw I_t from w_t; see l_t; add l_t / w_t(I_t) to the drawn arm's estimate. With late feedback t
still counts decisions, and the divisor is the probability that the answered decision had.

Deviations: none; the estimator with reduced variance (RV) is left out. The solver (`parts/barrier.py`) works with
sqrt(t) Psi in place of Psi / eta_t, which is the same map.

    >>> from backchannel import play
    >>> from backchannel.online.tsallis_inf import tsallis_inf
    >>> from backchannel.tasks.bernoulli import bernoulli
    >>> result = play(tsallis_inf(arms=2), bernoulli([0.2, 0.8]), horizon=2000, replicates=8)
    >>> bool(result.final("regret").mean() < 60)
    True

References: zimmert2021tsallis.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.barrier import inverse_power
from backchannel.parts.sampling import draw

CARD = Card(
    name="Tsallis-INF",
    summary="Bandit for both worlds: optimal on adversarial losses, logarithmic regret on stochastic ones.",
    paper="zimmert2021tsallis",
    topics=("adversarial", "stochastic", "best of both worlds", "importance weighting"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="exp3",
    example={"arms": 3},
    strength="strong",
)


class State(NamedTuple):
    """L_t, t and w_t."""

    losses: np.ndarray  # float64[arms]: estimated cumulative losses
    round: np.ndarray  # int64[1]: decisions so far
    weights: np.ndarray  # float64[arms]: the last decision's distribution


def tsallis_inf(arms: int) -> Learner:
    """Tsallis-INF for `arms` arms with losses in [0, 1]; it needs no horizon."""
    if arms < 1:
        raise ValueError(f"arms must be at least 1, not {arms}")
    state = State(np.zeros(arms), np.zeros(1, np.int64), np.full(arms, 1 / arms))
    return Learner(state, _act, _update, _probabilities)


def regret_bound(arms: int, horizon: int = 1000) -> float:
    """Theorem 1: the expected regret is at most 4 sqrt(K T) + 1."""
    return 4 * math.sqrt(arms * horizon) + 1


@compiled
def _act(state, context, rng):
    _probabilities(state, context, state.weights)
    state.round[0] += 1
    action = draw(state.weights, rng)
    return action, state.weights[action]


@compiled
def _update(state, context, action, propensity, loss):
    state.losses[action] += loss / propensity


@compiled
def _probabilities(state, context, out):
    half_rate = 1.0 / np.sqrt(state.round[0] + 1.0)  # eta_t / 2
    inverse_power(half_rate * state.losses, 2.0, out)
