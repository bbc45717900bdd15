"""Drawing from a finite distribution, and exponential weights in the log domain."""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.engine import compiled


@compiled
def draw(probabilities: np.ndarray, rng: Any) -> int:
    """An index with the given probabilities (they sum to 1 up to rounding; the last positive one takes the rest)."""
    u = rng.random()
    last = 0
    for i in range(probabilities.shape[0]):
        if probabilities[i] > 0.0:
            last = i
            u -= probabilities[i]
            if u < 0.0:
                return i
    return last


@compiled
def exponential_weights(losses: np.ndarray, step_size: float, out: np.ndarray) -> None:
    """`out[a]` proportional to exp(-step_size * losses[a]), summing to 1; no overflow at any size of loss."""
    least = losses[0]
    for i in range(1, losses.shape[0]):
        least = min(least, losses[i])
    total = 0.0
    for i in range(losses.shape[0]):
        out[i] = np.exp(-step_size * (losses[i] - least))
        total += out[i]
    for i in range(losses.shape[0]):
        out[i] /= total
