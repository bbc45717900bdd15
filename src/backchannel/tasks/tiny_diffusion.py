"""A tiny diffusion model of points in the plane: generation by denoising, in seconds, of a known distribution.

Data are a mixture of `MODES` Gaussians on the unit circle, each of standard deviation `SPREAD`. In `TIMES` steps noise
is added to a point (Ho et al. 2020), with a_t the share of its variance that is left after t steps:

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise,    a_t = cos^2(pi/2 (t/TIMES + 0.008) / 1.008), cut where it gets small

and a perceptron learns to tell the noise from x_t and t. Drawn backwards, each step is a Gaussian around what the
noise that was told leaves, so that a whole chain x_TIMES ... x_0 has a density: what methods that follow gradients of
reward need, and methods that only ask for points do not.
"""

from __future__ import annotations

import copy
import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from backchannel.parts.torch_fit import fit

MODES, SPREAD, TIMES, WIDTH = 8, 0.1, 20, 64


def _left() -> Tensor:
    """a_0 = 1, a_1 ... a_TIMES: [TIMES + 1]."""
    t = torch.arange(TIMES + 1) / TIMES
    curve = torch.cos(math.pi / 2 * (t + 0.008) / 1.008).square()
    return (curve / curve[0]).clamp_min(1e-3)


LEFT = _left()


class Denoiser(nn.Module):
    """The noise in x_t: a perceptron that sees the point and the time as waves."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 8, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 2)
        )

    def forward(self, points: Tensor, times: Tensor) -> Tensor:
        """[n, 2] and int64[n] -> [n, 2]."""
        angle = times[:, None] / TIMES * math.pi * torch.tensor([0.5, 1.0, 2.0, 4.0])
        out: Tensor = self.layers(torch.cat([points, angle.sin(), angle.cos()], 1))
        return out


def mixture(n: int, rng: torch.Generator) -> Tensor:
    """Points of the data: [n, 2]."""
    angle = 2 * math.pi / MODES * torch.randint(MODES, (n,), generator=rng)
    return torch.stack([angle.cos(), angle.sin()], 1) + SPREAD * torch.randn(n, 2, generator=rng)


def backward(model: Denoiser, points: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """The mean [n, 2] and the standard deviation [n, 1] of x_{t-1} given x_t."""
    now, before = LEFT[times][:, None], LEFT[times - 1][:, None]
    step = now / before
    start = (points - (1 - now).sqrt() * model(points, times)) / now.sqrt()
    start = start.clamp(-2, 2)  # where hardly anything is left, what the noise leaves is anything
    mean = (before.sqrt() * (1 - step) * start + step.sqrt() * (1 - before) * points) / (1 - now)
    return mean, ((1 - before) / (1 - now) * (1 - step)).sqrt().clamp_min(0.02)


@torch.no_grad()
def chains(model: Denoiser, n: int, rng: torch.Generator) -> Tensor:
    """Drawn backwards, x_TIMES first: [n, TIMES + 1, 2]."""
    points = [torch.randn(n, 2, generator=rng)]
    for t in range(TIMES, 0, -1):
        mean, spread = backward(model, points[-1], torch.full((n,), t))
        points.append(mean + spread * torch.randn(n, 2, generator=rng))
    return torch.stack(points, 1)


def sample(model: Denoiser, n: int, rng: torch.Generator) -> Tensor:
    """Points: [n, 2]."""
    return chains(model, n, rng)[:, -1]


def log_densities(model: Denoiser, path: Tensor) -> Tensor:
    """log p of each step of chains: [n, TIMES]."""
    n = len(path)
    times = torch.arange(TIMES, 0, -1).repeat(n)
    mean, spread = backward(model, path[:, :-1].reshape(-1, 2), times)
    z = (path[:, 1:].reshape(-1, 2) - mean) / spread
    found: Tensor = (-0.5 * z.square() - spread.log() - 0.5 * math.log(2 * math.pi)).sum(1).reshape(n, TIMES)
    return found


def denoise(model: Denoiser, points: Tensor, steps: int, learning_rate: float, seed: int, batch: int = 256) -> None:
    """Train `model`, in place, to generate such points, with Adam."""
    rng = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        some = points[torch.randint(len(points), (batch,), generator=rng)]
        times = torch.randint(1, TIMES + 1, (batch,), generator=rng)
        noise, left = torch.randn(batch, 2, generator=rng), LEFT[times][:, None]
        return (model(left.sqrt() * some + (1 - left).sqrt() * noise, times) - noise).square().mean()

    fit(model.parameters(), loss, steps, torch.optim.Adam, learning_rate)


def reference(seed: int) -> Denoiser:
    """A model trained on the mixture: a copy of its own for each caller."""
    return copy.deepcopy(_reference(seed))


@lru_cache(maxsize=4)
def _reference(seed: int) -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Denoiser()
    denoise(model, mixture(20_000, torch.Generator().manual_seed(seed)), 2000, 2e-3, seed)
    return model
