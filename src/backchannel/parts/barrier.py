"""Mirror maps of the simplex whose inverse is a power: the log barrier and the Tsallis entropy of 1/2.

Minimising <x, y> + Psi(x) over the simplex gives x_i = (y_i - lambda)^-p, with lambda below every y_i and the sum 1:

| p | Psi(x)             | used by                                            |
|---|--------------------|----------------------------------------------------|
| 1 | -sum_i log x_i     | the log barrier: losses of any size                |
| 2 | -2 sum_i sqrt(x_i) | Tsallis entropy of 1/2, the INF family of bandits  |
"""

from __future__ import annotations

import numpy as np

from backchannel.engine import compiled


@compiled
def inverse_power(dual: np.ndarray, exponent: float, out: np.ndarray) -> None:
    """`out[i] = (dual[i] - lambda)^-exponent`, summing to 1; a constant added to `dual` changes nothing.

    Newton's method in m = min(dual) - lambda, from m = 1. The sum is convex and falls in m, and at 1 it is at least 1:
    the steps only go up and cannot overshoot.
    """
    least = dual[0]
    for i in range(1, dual.shape[0]):
        least = min(least, dual[i])
    margin = 1.0
    for _ in range(100):
        total, slope = 0.0, 0.0
        for i in range(dual.shape[0]):
            out[i] = (dual[i] - least + margin) ** -exponent
            total += out[i]
            slope += exponent * out[i] / (dual[i] - least + margin)
        step = (total - 1.0) / slope
        margin += step
        if step <= 1e-14 * margin:
            break
    for i in range(dual.shape[0]):
        out[i] /= total
