"""Logistic contextual losses: the loss is 1 with probability sigma(score), where the score is linear in features.

`logistic` shows dense rows (those of `tasks/linear.py`); `sparse_logistic` shows options with hashed features, as a
recommender has them: a constant, the option's own id, its crossings with the visitor's group and device, and a number
(say, the price) that each option weighs differently. Both draw their hidden weights once from the task's seed. The
weights of the sparse task live in the same table of 2^bits entries that a learner has: where two features collide,
they share their true weight too, and the problem stays realisable at any number of bits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from backchannel.base import Task
from backchannel.engine import compiled
from backchannel.parts.counter_random import mix, uniform_at
from backchannel.parts.sparse import Sparse, predict
from backchannel.tasks.linear import fill_row, hidden_direction, inner, luck, reseed, rows_of

GROUPS, DEVICES, FEATURES = 8, 4, 5  # kinds of visitors, kinds of devices, features of an option


class Dense(NamedTuple):
    """The hidden theta, the luck and the buffer of rows."""

    theta: np.ndarray  # float64[dimension]
    seed: np.ndarray  # uint64[1]
    rows: np.ndarray  # float64[arms, dimension]: the context last shown


class Hashed(NamedTuple):
    """The hidden table of weights, the luck and the buffers of the context last shown."""

    weights: np.ndarray  # float64[2^bits]
    seed: np.ndarray  # uint64[1]
    start: np.ndarray  # int64[arms + 1]
    indices: np.ndarray  # int64[arms * FEATURES]
    value: np.ndarray  # float64[arms * FEATURES]


def logistic(arms: int, dimension: int, seed: int = 0, scale: float = 3.0) -> Task:
    """Dense rows (1, u) / sqrt(2); the loss is 1 with probability sigma(scale <u, v>) for a hidden unit vector v."""
    if arms < 1 or dimension < 2:
        raise ValueError(f"arms must be at least 1 and dimension at least 2, not {arms} and {dimension}")
    if not scale > 0:
        raise ValueError(f"scale must be positive, not {scale}")
    theta = math.sqrt(2) * np.r_[0.0, scale * hidden_direction(dimension - 1, seed)]
    state = Dense(theta, np.zeros(1, np.uint64), np.zeros((arms, dimension)))
    return Task(state, arms, rows_of, _dense_loss, _dense_mean, reseed)


def sparse_logistic(arms: int, bits: int, seed: int = 0, offset: float = 0.0) -> Task:
    """Options with five hashed features in a table of 2^bits; the loss is 1 with probability sigma(<w, x>).

    `offset` is added to the weight of the constant: losses are rare where it is far below 0.
    """
    if arms < 1 or not 1 <= bits <= 30:
        raise ValueError(f"arms must be at least 1 and bits in 1..30, not {arms} and {bits}")
    weights = np.random.default_rng(seed).standard_normal(2**bits)
    weights[table_index(0, 2**bits)] += offset
    start = np.arange(arms + 1) * FEATURES
    state = Hashed(
        weights, np.zeros(1, np.uint64), start, np.zeros(arms * FEATURES, np.int64), np.ones(arms * FEATURES)
    )
    return Task(state, arms, _options, _hashed_loss, _hashed_mean, _own_buffers)


@compiled
def sigmoid(score: float) -> float:
    """1 / (1 + exp(-score))."""
    return 1.0 / (1.0 + math.exp(-score))


@compiled
def table_index(key: int, size: int) -> int:
    """Where a feature's key lies in a table of `size` = 2^bits entries."""
    return int(mix(np.uint64(key)) & np.uint64(size - 1))


def _own_buffers(state: Any, seed: int) -> Any:
    own = {"indices": np.zeros_like(state.indices), "value": np.ones_like(state.value)}
    return state._replace(seed=np.array([seed], np.uint64), **own)


@compiled
def _dense_mean(state, t, action):
    fill_row(state, t, action)
    return sigmoid(inner(state.rows[action], state.theta))


@compiled
def _dense_loss(state, t, action):
    return 1.0 if luck(state, t, action) < _dense_mean(state, t, action) else 0.0


@compiled
def _fill_option(state, t, arm):
    """Option `arm` of round t: constant, id, id x group, id x device, id x number."""
    size, at = state.weights.shape[0], state.start[arm]
    group = int(GROUPS * uniform_at(state.seed[0], t, 0))
    device = int(DEVICES * uniform_at(state.seed[0], t, 1))
    own = 1 + arm * (2 + GROUPS + DEVICES)  # the first key of this option
    state.indices[at] = table_index(0, size)
    state.indices[at + 1] = table_index(own, size)
    state.indices[at + 2] = table_index(own + 1, size)
    state.indices[at + 3] = table_index(own + 2 + group, size)
    state.indices[at + 4] = table_index(own + 2 + GROUPS + device, size)
    state.value[at + 2] = 2.0 * uniform_at(state.seed[0], t, 2 + 2 * arm) - 1.0


@compiled
def _options(state, t):
    for arm in range(state.start.shape[0] - 1):
        _fill_option(state, t, arm)
    return Sparse(state.start, state.indices, state.value)


@compiled
def _hashed_mean(state, t, action):
    _fill_option(state, t, action)
    return sigmoid(predict(state.weights, Sparse(state.start, state.indices, state.value), action))


@compiled
def _hashed_loss(state, t, action):
    return 1.0 if uniform_at(state.seed[0], t, 3 + 2 * action) < _hashed_mean(state, t, action) else 0.0
