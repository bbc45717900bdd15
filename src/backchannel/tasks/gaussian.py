"""Gaussian arms: real-valued losses with a mean and a deviation for each arm; and such tasks drawn from a prior.

gaussian([0.3, 0.5], [0.1, 0.4])                                # one task
play(learner, normal_gamma(10, 0.5, 1.0, 4.0, 0.12), 2000)      # another task for each replicate: Bayes regret
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from backchannel.base import NOTHING, Task
from backchannel.engine import compiled
from backchannel.parts.counter_random import normal_at
from backchannel.tasks.bernoulli import nothing, reseed

Numbers = float | Sequence[float] | np.ndarray


class State(NamedTuple):
    """The arms' expected losses, their standard deviations, and the luck."""

    means: np.ndarray  # float64[arms]
    deviations: np.ndarray  # float64[arms]
    seed: np.ndarray  # uint64[1]
    context: np.ndarray  # float64[0]


def gaussian(means: Sequence[float] | np.ndarray, deviations: Numbers) -> Task:
    """Arms whose loss is normal with `means[arm]` and `deviations[arm]` (or one deviation for all)."""
    centres = np.array(means, float)
    if centres.ndim != 1 or centres.size == 0 or not np.isfinite(centres).all():
        raise ValueError(f"means must be a non-empty list of finite numbers, not {means!r}")
    widths = np.array(np.broadcast_to(np.asarray(deviations, float), centres.shape))
    if not ((widths >= 0) & np.isfinite(widths)).all():
        raise ValueError(f"deviations must be finite and at least 0, not {deviations!r}")
    state = State(centres, widths, np.zeros(1, np.uint64), NOTHING)
    return Task(state, centres.size, nothing, _loss, _mean, reseed)


def normal_gamma(arms: int, mean: Numbers, strength: Numbers, shape: Numbers, rate: Numbers) -> Callable[[int], Task]:
    """A prior over Gaussian tasks: a function from a seed to the task that it draws; for `play`.

    Each arm on its own: precision ~ Gamma(shape, rate), then mean ~ N(mean, 1 / (strength precision)), and losses
    ~ N(mean, 1 / precision). The arguments are numbers, or one for each arm.
    """
    for name, values in (("strength", strength), ("shape", shape), ("rate", rate)):
        if not (np.asarray(values, float) > 0).all():
            raise ValueError(f"{name} must be positive, not {values!r}")

    def drawn(seed: int) -> Task:
        rng = np.random.default_rng(seed)
        precision = rng.gamma(shape, 1 / np.asarray(rate, float), arms)
        means = rng.normal(mean, 1 / np.sqrt(strength * precision), arms)
        return gaussian(means, 1 / np.sqrt(precision))

    return drawn


@compiled
def _loss(state, t, action):
    return state.means[action] + state.deviations[action] * normal_at(state.seed[0], t, action)


@compiled
def _mean(state, t, action):
    return state.means[action]
