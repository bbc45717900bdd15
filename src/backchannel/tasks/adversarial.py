"""Adversarial sequences: losses written down in advance, whatever the learner does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backchannel.base import NOTHING, Task
from backchannel.engine import compiled
from backchannel.tasks.bernoulli import nothing


class State(NamedTuple):
    """The table; rounds past its end begin again at its start."""

    table: np.ndarray  # float64[rounds, arms]
    context: np.ndarray  # float64[0]


def sequence(table: np.ndarray | Sequence[Sequence[float]]) -> Task:
    """The losses `table[t, arm]`, repeated from the start when the run is longer."""
    losses = np.array(table, float)
    if losses.ndim != 2 or losses.size == 0 or not np.isfinite(losses).all():
        raise ValueError(f"table must be a finite matrix, rounds x arms; got shape {losses.shape}")
    return Task(State(losses, NOTHING), losses.shape[1], nothing, _loss, _loss, lambda state, seed: state)


def random_walk(arms: int, horizon: int, step: float, seed: int) -> Task:
    """Each arm's loss is a random walk from 1/2 with uniform steps in [-step, step], reflected into [0, 1]."""
    rng = np.random.default_rng(seed)
    walk = 0.5 + np.cumsum(rng.uniform(-step, step, (horizon, arms)), axis=0)
    return sequence(np.abs((walk + 1) % 2 - 1) if step > 0 else np.full((horizon, arms), 0.5))


@compiled
def _loss(state, t, action):
    return state.table[t % state.table.shape[0], action]
