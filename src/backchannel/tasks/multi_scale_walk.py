"""The multi-scale random walk: losses that betray their gap only to a learner who switches arms or asks for more.

All arms move together, so that whoever stays on one arm sees the walk and not the gap; and the walk is far from where
it was a round ago, at every scale, so that a switch tells little. Dekel, Ding, Koren and Peres (2014) prove with it
that switching costs make bandits strictly harder: T^(2/3) instead of T^(1/2). In round t = 1, ..., T

    W_0 = 0,  W_t = W_{t - 2^d(t)} + xi_t,   xi_t ~ N(0, deviation^2),   2^d(t) the largest power of 2 that divides t
    loss(t, a) = clip(1/2 + W_t - gap 1{a = best}, spread, 1 - spread) + spread U_{t,a},   U uniform in [-1, 1]

The parent of t is t with its lowest one-bit cleared, so W_t is a sum of at most log2(T) + 1 normal numbers: it is
computed when it is asked for, and nothing is stored. The best arm is drawn with the seed.

`spread` 0 is the construction of the paper. It hides the gap from one observation a round; two in the same round
give it away. With noise of its own on each arm (`spread` > 0) the losses are hard for every budget of observations.

References: dekel2014bandits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import NOTHING, Task
from backchannel.engine import compiled
from backchannel.parts.counter_random import normal_at, uniform_at
from backchannel.tasks.bernoulli import nothing, reseed


class State(NamedTuple):
    """The walk's and the arms' sizes, and the luck."""

    arms: np.ndarray  # int64[1]
    gap: np.ndarray  # float64[1]
    deviation: np.ndarray  # float64[1]: of one step of the walk
    spread: np.ndarray  # float64[1]: half the width of each arm's own noise
    seed: np.ndarray  # uint64[1]
    context: np.ndarray  # float64[0]


def multi_scale_walk(
    arms: int, horizon: int, gap: float | None = None, deviation: float | None = None, spread: float = 0.0
) -> Task:
    """`arms` arms that walk together, one of them `gap` below the others.

    Args:
        arms: K, at least 1.
        horizon: T, the length for which the defaults are set.
        gap: default K^(1/3) T^(-1/3) / (9 log2 T), the paper's.
        deviation: of one step; default 1 / (9 log2 T), the paper's, which keeps the walk from the ends of [0, 1].
        spread: half the width of each arm's own noise, below 1/2.
    """
    if arms < 1 or horizon < 2:
        raise ValueError(f"arms must be at least 1 and horizon at least 2, not {arms} and {horizon}")
    if not 0 <= spread < 0.5:
        raise ValueError(f"spread must lie in [0, 1/2), not {spread}")
    scale = 1 / (9 * math.log2(horizon))
    below = gap if gap is not None else (arms / horizon) ** (1 / 3) * scale
    step = deviation if deviation is not None else scale
    if below < 0 or step < 0:
        raise ValueError(f"gap and deviation must be at least 0, not {below} and {step}")
    gap_, step_, spread_ = (np.array([float(value)]) for value in (below, step, spread))
    state = State(np.array([arms]), gap_, step_, spread_, np.zeros(1, np.uint64), NOTHING)
    return Task(state, arms, nothing, _loss, _mean, reseed)


@compiled
def walk(seed, deviation, t):
    """W_t: the sum of xi over t, its parent, its parent's parent, ..., down to 0."""
    total = 0.0
    while t > 0:
        total += normal_at(seed, t, 0)
        t &= t - 1  # clears the lowest one-bit: t - 2^d(t)
    return deviation * total


@compiled
def best_arm(state):
    """The arm that lies below the others, drawn with the seed."""
    return int(uniform_at(state.seed[0], 0, 0) * state.arms[0])


@compiled
def _mean(state, t, action):
    level = 0.5 + walk(state.seed[0], state.deviation[0], t + 1)
    if action == best_arm(state):
        level -= state.gap[0]
    return min(max(level, state.spread[0]), 1.0 - state.spread[0])


@compiled
def _loss(state, t, action):
    own = 2.0 * uniform_at(state.seed[0], t + 1, 2 + action) - 1.0  # normal_at takes the indices 0 and 1
    return _mean(state, t, action) + state.spread[0] * own
