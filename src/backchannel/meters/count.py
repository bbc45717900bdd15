"""Counts: switches, queries, violations. What a learner spent besides its losses."""

from __future__ import annotations

import numpy as np

from backchannel.base import Meter
from backchannel.engine import compiled


def switches() -> Meter:
    """Rounds in which the action differs from the last round's, for where changing costs."""
    return Meter(_two, _switches)


def queries() -> Meter:
    """Losses that were revealed to the learner (asked for, or given)."""
    return Meter(_two, _queries)


def violations(limit: float) -> Meter:
    """Rounds whose action had an expected loss above `limit`."""
    return Meter(lambda arms: np.array([0.0, limit]), _violations)


def _two(arms: int) -> np.ndarray:
    return np.array([0.0, -1.0])


@compiled
def _switches(memory, t, context, action, expected, queries):
    if t > 0 and action != memory[1]:
        memory[0] += 1.0
    memory[1] = action
    return memory[0]


@compiled
def _queries(memory, t, context, action, expected, queries):
    memory[0] += queries
    return memory[0]


@compiled
def _violations(memory, t, context, action, expected, queries):
    if expected[action] > memory[1]:
        memory[0] += 1.0
    return memory[0]
