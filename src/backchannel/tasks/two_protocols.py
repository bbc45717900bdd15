"""An annotator who weighs answers one way when rating them and another way when choosing between two.

An answer has features x ~ N(0, I): how accurate it is, and how dense. With weights v for ratings and w for choices,

    rating(x)    = the level 1..7 nearest to 4 + 1.5 (v . x + s e)
    choice(x, y) = sign of w . (x - y) + s e sqrt 2,   a tie where that is less than `indifference`

with fresh e ~ N(0, 1) each time. `calibrated` finds the noise s at which ratings and choices contradict each other at a
given rate. A policy takes the best of n answers by a linear reward; how often the annotator prefers it to a plain
answer, by either protocol, is an integral in one dimension (`win_rate`): along the reward's direction the best of n is
the largest of n normal draws, and across it nothing is selected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

LEVELS = np.arange(1, 8)
SCALE = 1.5
_erf = np.vectorize(math.erf)


@dataclass(frozen=True)
class Annotator:
    """Weights of (accuracy, density) in either protocol, noise, and the difference that is too small to choose by."""

    rating: tuple[float, float] = (0.5, 1.0)
    choice: tuple[float, float] = (1.0, 0.0)
    noise: float = 1.0
    indifference: float = 0.4


def ratings(annotator: Annotator, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A rating of each answer: int64[n]."""
    worth = x @ np.array(annotator.rating) + annotator.noise * rng.normal(size=len(x))
    return np.clip(np.rint(4 + SCALE * worth), 1, 7).astype(np.int64)


def choices(annotator: Annotator, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """1 where x is chosen, -1 where y is, 0 for a tie."""
    z = (x - y) @ np.array(annotator.choice) + annotator.noise * math.sqrt(2) * rng.normal(size=len(x))
    return np.where(np.abs(z) < annotator.indifference, 0, np.sign(z)).astype(np.int64)


def calibrated(annotator: Annotator, rate: float, pairs: int = 200_000) -> Annotator:
    """The same annotator with the noise at which ratings and choices disagree at `rate`, by bisection on fixed luck."""

    def disagreement(noise: float) -> float:
        rng, tried = np.random.default_rng(0), replace(annotator, noise=noise)
        x, y = rng.normal(size=(2, pairs, 2))
        rated = np.sign(ratings(tried, x, rng) - ratings(tried, y, rng))
        return float((rated != choices(tried, x, y, rng)).mean())

    low, high = 0.0, 20.0
    if not disagreement(low) < rate < disagreement(high):
        raise ValueError(
            f"no noise gives the rate {rate}: it lies between {disagreement(low)} and {disagreement(high)}"
        )
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if disagreement(middle) < rate else (low, middle)
    return replace(annotator, noise=(low + high) / 2)


def win_rate(annotator: Annotator, reward: np.ndarray, n: int, protocol: str) -> float:
    """How often the best of n by `reward` is preferred to a plain answer, a tie counting half."""
    along = np.asarray(reward, float) / np.linalg.norm(reward)
    edges = np.linspace(-8, 8, 4001)
    middle, mass = (edges[1:] + edges[:-1]) / 2, np.diff(_normal(edges) ** n)  # of the largest of n
    if protocol == "choice":
        w = np.array(annotator.choice)
        mean, spread = (w @ along) * middle, math.sqrt(w @ w - (w @ along) ** 2 + w @ w + 2 * annotator.noise**2)
        chosen = _normal((mean - annotator.indifference) / spread)
        return float(mass @ (chosen + (_normal((mean + annotator.indifference) / spread) - chosen) / 2))
    if protocol != "rating":
        raise ValueError(f"protocol must be 'rating' or 'choice', not {protocol!r}")
    v = np.array(annotator.rating)
    across = v @ v - (v @ along) ** 2
    own = mass @ _levels((v @ along) * middle, math.sqrt(max(across, 0.0) + annotator.noise**2))
    plain = _levels(np.zeros(1), math.sqrt(v @ v + annotator.noise**2))[0]
    below = np.cumsum(plain) - plain
    return float(own @ (below + plain / 2))


def _levels(mean: np.ndarray, spread: float) -> np.ndarray:
    """Probability of each level: [means, 7]."""
    cuts = (np.concatenate([[-np.inf], LEVELS[:-1] + 0.5, [np.inf]]) - 4) / SCALE
    return np.diff(_normal((cuts - mean[:, None]) / max(spread, 1e-12)), axis=1)


def _normal(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + _erf(x / math.sqrt(2))))
