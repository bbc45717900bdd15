"""Step sizes of error feedback, in the constants of Richtarik, Gasanov and Burlachenko (2024).

For a contractive compressor with constant alpha, s = sqrt(1 - alpha), theta = 1 - s and beta = (1 - alpha) / (1 - s):

    xi(alpha) = sqrt(beta / theta) = s / (1 - s)
    step = 1 / (L + M xi),   M the quadratic mean (the analysis of 2021) or the arithmetic mean (2024) of the L_i
"""

from __future__ import annotations

import math

from torch import Tensor


def xi(contraction: float) -> float:
    """sqrt(beta / theta): 0 without compression, about 2 / alpha for a strong one."""
    if not 0 < contraction <= 1:
        raise ValueError(f"a contraction constant must lie in (0, 1], not {contraction}")
    root = math.sqrt(1 - contraction)
    return root / (1 - root)


def quadratic_step(contraction: float, smoothness: float, worker_smoothness: Tensor) -> float:
    """1 / (L + L_QM xi)."""
    return 1 / (smoothness + float(worker_smoothness.square().mean().sqrt()) * xi(contraction))


def arithmetic_step(contraction: float, smoothness: float, worker_smoothness: Tensor) -> float:
    """1 / (L + L_AM xi)."""
    return 1 / (smoothness + float(worker_smoothness.mean()) * xi(contraction))
