"""Linear contextual losses: each round shows a row of features for every arm, and the expected loss is linear in them.

The row of arm a in round t is x = (1, u) / sqrt(2) with u uniform on the unit sphere, so that |x| = 1. A hidden unit
vector v, drawn once from the task's seed, makes the expected loss 1/2 + s <u, v>; in terms of x it is <theta, x> with
theta = sqrt(2) (1/2, s v) and |theta| at most 1. The loss is that plus uniform noise in [-noise, noise]; s is at most
1/2 - noise, so that losses lie in [0, 1] without clipping. A small s, of the order of dimension / sqrt(T), is the
hard case in which regret grows as sqrt(T).

`context` fills one buffer of the State again every round: whoever keeps a context must copy it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from backchannel.base import Task
from backchannel.engine import compiled
from backchannel.parts.counter_random import normal_at, uniform_at


class State(NamedTuple):
    """The hidden theta, the noise, the luck and the buffer of rows."""

    theta: np.ndarray  # float64[dimension]
    noise: np.ndarray  # float64[1]
    seed: np.ndarray  # uint64[1]
    rows: np.ndarray  # float64[arms, dimension]: the context last shown


def linear(arms: int, dimension: int, seed: int = 0, noise: float = 0.1, signal: float | None = None) -> Task:
    """Arms with losses in [0, 1] whose expectation is linear in `dimension` features of norm 1.

    Args:
        arms: rows in each round's context.
        dimension: features of a row, the constant included; at least 2.
        seed: draws the hidden direction v; the luck of a run is its own.
        noise: half the width of the uniform noise, in [0, 1/2).
        signal: s, how far the expected loss reaches from 1/2; in (0, 1/2 - noise], which is the default.
    """
    if arms < 1 or dimension < 2:
        raise ValueError(f"arms must be at least 1 and dimension at least 2, not {arms} and {dimension}")
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise must lie in [0, 1/2), not {noise}")
    reach = 0.5 - noise if signal is None else signal
    if not 0 < reach <= 0.5 - noise:
        raise ValueError(f"signal must lie in (0, 1/2 - noise] = (0, {0.5 - noise}], not {signal}")
    theta = math.sqrt(2) * np.r_[0.5, reach * hidden_direction(dimension - 1, seed)]
    state = State(theta, np.array([noise]), np.zeros(1, np.uint64), np.zeros((arms, dimension)))
    return Task(state, arms, rows_of, _loss, _mean, reseed)


def hidden_direction(dimension: int, seed: int) -> np.ndarray:
    """A unit vector drawn from `seed`."""
    direction = np.random.default_rng(seed).standard_normal(dimension)
    return direction / np.linalg.norm(direction)


def reseed(state: Any, seed: int) -> Any:
    """The same task with other luck and a buffer of its own (for any State with `seed` and `rows`)."""
    return state._replace(seed=np.array([seed], np.uint64), rows=np.zeros_like(state.rows))


@compiled
def rows_of(state: Any, t: int) -> np.ndarray:
    """The context of round t (for any State with `seed` and `rows`), in the State's buffer."""
    for arm in range(state.rows.shape[0]):
        fill_row(state, t, arm)
    return state.rows


@compiled
def fill_row(state: Any, t: int, arm: int) -> None:
    """Row `arm` of round t: (1, u) / sqrt(2), u uniform on the sphere."""
    row = state.rows[arm]
    norm = 0.0
    for j in range(1, row.shape[0]):
        row[j] = normal_at(state.seed[0], t, arm * row.shape[0] + j)
        norm += row[j] ** 2
    row[0] = math.sqrt(0.5)
    for j in range(1, row.shape[0]):
        row[j] *= math.sqrt(0.5 / norm)


@compiled
def luck(state: Any, t: int, arm: int) -> float:
    """A uniform number in [0, 1) for the noise of (t, arm), apart from those that make the rows."""
    return uniform_at(state.seed[0], t, 2 * state.rows.size + arm)


@compiled
def inner(row: np.ndarray, theta: np.ndarray) -> float:
    """The inner product of a row with theta."""
    total = 0.0
    for j in range(row.shape[0]):
        total += row[j] * theta[j]
    return total


@compiled
def _mean(state, t, action):
    fill_row(state, t, action)
    return inner(state.rows[action], state.theta)


@compiled
def _loss(state, t, action):
    return _mean(state, t, action) + state.noise[0] * (2.0 * luck(state, t, action) - 1.0)
