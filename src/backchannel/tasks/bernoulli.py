"""Bernoulli arms: every arm answers 1 (a loss) with a probability of its own, in every round anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from backchannel.base import NOTHING, Task
from backchannel.engine import compiled
from backchannel.parts.counter_random import uniform_at


class State(NamedTuple):
    """The arms' expected losses and the luck."""

    means: np.ndarray  # float64[arms]
    seed: np.ndarray  # uint64[1]
    context: np.ndarray  # float64[0]


def bernoulli(means: Sequence[float] | np.ndarray) -> Task:
    """Arms whose loss is 1 with probability `means[arm]`, else 0.

    Raises:
        ValueError: if a mean lies outside [0, 1] or there is none.
    """
    values = np.array(means, float)
    if values.ndim != 1 or values.size == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"means must be a non-empty list of numbers in [0, 1], not {means!r}")
    state = State(values, np.zeros(1, np.uint64), NOTHING)
    return Task(state, values.size, nothing, _loss, _mean, reseed)


def reseed(state: Any, seed: int) -> Any:
    """The same task with other luck (for any State with a `seed`)."""
    return state._replace(seed=np.array([seed], np.uint64))


@compiled
def nothing(state: Any, t: int) -> np.ndarray:
    """The context of a task that shows none."""
    return state.context


@compiled
def _loss(state, t, action):
    return 1.0 if uniform_at(state.seed[0], t, action) < state.means[action] else 0.0


@compiled
def _mean(state, t, action):
    return state.means[action]
