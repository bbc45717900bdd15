"""Corrupt: what noise or malice makes of feedback on its way. Wrap a channel; at most one corruption each.

    flip(bandit(), 0.05)            # a loss x in [0, 1] becomes 1 - x with probability 0.05
    noise(bandit(), 0.1)            # Gaussian noise of that standard deviation
    adversary(bandit(), 500)        # the first 500 rounds lie: losses are turned round

Corruptions are pure in (seed, t): a decision's feedback is corrupted the same way whenever it is delivered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from backchannel.base import Channel
from backchannel.channels.hide import intact
from backchannel.engine import compiled
from backchannel.parts.counter_random import normal_at, uniform_at


class Corruption(NamedTuple):
    """How much, and the luck."""

    amount: np.ndarray  # float64[1]
    seed: np.ndarray  # uint64[1]


def flip(channel: Channel, probability: float, seed: int = 0) -> Channel:
    """Losses in [0, 1] are turned into 1 - loss, independently for each decision."""
    if not 0 <= probability <= 1:
        raise ValueError(f"the probability of a flip must lie in [0, 1], not {probability}")
    return _corrupted(channel, _flip, probability, seed)


def noise(channel: Channel, deviation: float, seed: int = 0) -> Channel:
    """Gaussian noise with this standard deviation is added to every loss that is seen."""
    if deviation < 0:
        raise ValueError(f"a standard deviation must be at least 0, not {deviation}")
    return _corrupted(channel, _noise, deviation, seed)


def adversary(channel: Channel, rounds: int) -> Channel:
    """The first `rounds` rounds lie: a loss in [0, 1] is turned into 1 - loss."""
    if rounds < 0:
        raise ValueError(f"rounds must be at least 0, not {rounds}")
    return _corrupted(channel, _adversary, rounds, 0)


def _corrupted(channel: Channel, corrupt: Callable[..., object], amount: float, seed: int) -> Channel:
    if channel.corrupt is not intact:
        raise ValueError("this channel is corrupted already: a channel takes one corruption")
    state = Corruption(np.array([float(amount)]), np.array([seed], np.uint64))
    return channel._replace(corruption=state, corrupt=corrupt)


@compiled
def _flip(corruption, t, feedback):
    if uniform_at(corruption.seed[0], t, 0) < corruption.amount[0]:
        return 1.0 - feedback
    return feedback * 1.0


@compiled
def _noise(corruption, t, feedback):
    return feedback + corruption.amount[0] * normal_at(corruption.seed[0], t, 0)


@compiled
def _adversary(corruption, t, feedback):
    if t < corruption.amount[0]:
        return 1.0 - feedback
    return feedback * 1.0
