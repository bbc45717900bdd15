"""Heterogeneous least squares: n workers whose smoothness constants are spread over decades.

Worker i has f_i(x) = |Z_i (x - c_i)|^2 / 2 with its own Gaussian Z_i (d + 5 rows) and its own centre c_i, scaled so
that the largest eigenvalue of Z_i^T Z_i is L_i. The L_i are evenly spaced in the logarithm, as far apart as it takes
for

    L_QM / L_AM = spread,    L_QM = sqrt(mean L_i^2),  L_AM = mean L_i = 1,    1 <= spread < sqrt(n)

Because centres differ, no worker's gradient vanishes at the optimum of the mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backchannel.parts.exchange import Problem


def heterogeneous_quadratics(workers: int, dimension: int, spread: float, seed: int) -> Problem:
    """A least-squares problem in float64; see above."""
    constants = log_spread(workers, spread)
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randn(workers, dimension + 5, dimension, generator=rng, dtype=torch.float64)
    matrices = rows.mT @ rows
    matrices = matrices * (constants / torch.linalg.eigvalsh(matrices)[:, -1])[:, None, None]
    centres = torch.randn(workers, dimension, generator=rng, dtype=torch.float64)

    def gradients(x: Tensor, local: Tensor) -> Tensor:
        return torch.einsum("nij,nj->ni", matrices[local], x - centres[local])

    def loss(x: Tensor) -> Tensor:
        away = x - centres
        return torch.einsum("ni,nij,nj->", away, matrices, away) / (2 * workers)

    smoothness = float(torch.linalg.eigvalsh(matrices.mean(0))[-1])
    return Problem(gradients, loss, smoothness, constants, dimension)


def log_spread(workers: int, spread: float) -> Tensor:
    """Constants with mean 1, evenly spaced in the logarithm, whose quadratic mean is `spread`: float64[workers]."""
    if not 1 <= spread < math.sqrt(workers):
        raise ValueError(f"spread must lie in [1, sqrt(workers)) = [1, {math.sqrt(workers):.3g}), not {spread}")
    places = torch.linspace(-1, 0, workers, dtype=torch.float64) if workers > 1 else torch.zeros(1, dtype=torch.float64)

    def at(decades: float) -> Tensor:
        constants = torch.exp(math.log(10) * decades * places)
        return constants / constants.mean()

    low, high = 0.0, 1.0
    while float(at(high).square().mean().sqrt()) < spread:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float(at(middle).square().mean().sqrt()) < spread else (low, middle)
    return at(high)
