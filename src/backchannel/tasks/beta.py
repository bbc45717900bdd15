"""Beta arms: losses anywhere in [0, 1], by mean and concentration. Bernoulli arms are the limit of concentration 0.

A loss is X / (X + Y) with X and Y gamma distributed, each by Marsaglia and Tsang's (2000) rejection. The proposals are
numbered, so that a loss stays a pure function of (seed, round, arm) however many are rejected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backchannel.base import NOTHING, Task
from backchannel.engine import compiled
from backchannel.parts.counter_random import mix, normal_at, uniform_at
from backchannel.tasks.bernoulli import nothing, reseed


class State(NamedTuple):
    """The two parameters of every arm's beta distribution, and the luck."""

    a: np.ndarray  # float64[arms]: mean * concentration
    b: np.ndarray  # float64[arms]: (1 - mean) * concentration
    seed: np.ndarray  # uint64[1]
    context: np.ndarray  # float64[0]


def beta(means: Sequence[float] | np.ndarray, concentration: float | Sequence[float] | np.ndarray) -> Task:
    """Arms whose loss has the beta distribution of `means[arm]` and `concentration` (one for all, or one each).

    The variance is mean (1 - mean) / (1 + concentration).
    """
    centres = np.array(means, float)
    if centres.ndim != 1 or centres.size == 0 or not ((centres > 0) & (centres < 1)).all():
        raise ValueError(f"means must be a non-empty list of numbers between 0 and 1, not {means!r}")
    strength = np.broadcast_to(np.asarray(concentration, float), centres.shape)
    if not ((strength > 0) & np.isfinite(strength)).all():
        raise ValueError(f"concentration must be positive and finite, not {concentration!r}")
    state = State(centres * strength, (1 - centres) * strength, np.zeros(1, np.uint64), NOTHING)
    return Task(state, centres.size, nothing, _loss, _mean, reseed)


@compiled
def _log_gamma_at(seed, t, shape):
    """The logarithm of a gamma variate; shapes below 1 by Gamma(shape) = Gamma(shape + 1) U^(1 / shape)."""
    boosted = shape if shape >= 1.0 else shape + 1.0
    d = boosted - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    proposal = 0
    log_value = 0.0
    while True:
        x = normal_at(seed, t, 2 * proposal)
        v = (1.0 + c * x) ** 3
        if v > 0.0:
            u = 1.0 - uniform_at(seed, t, 4 * proposal + 2)
            if math.log(u) < 0.5 * x * x + d - d * v + d * math.log(v):
                log_value = math.log(d * v)
                break
        proposal += 1
    if shape < 1.0:
        log_value += math.log(1.0 - uniform_at(seed, t, 4 * proposal + 3)) / shape
    return log_value


@compiled
def _loss(state, t, action):
    x = _log_gamma_at(mix(state.seed[0] + np.uint64(2 * action + 1)), t, state.a[action])
    y = _log_gamma_at(mix(state.seed[0] + np.uint64(2 * action + 2)), t, state.b[action])
    if x > y:
        return 1.0 / (1.0 + math.exp(y - x))
    return math.exp(x - y) / (1.0 + math.exp(x - y))


@compiled
def _mean(state, t, action):
    return state.a[action] / (state.a[action] + state.b[action])
