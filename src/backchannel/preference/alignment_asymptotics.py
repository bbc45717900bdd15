"""Alignment asymptotics: what best-of-n and reward under a divergence budget come to, exactly, and how far they agree.

Two ways to more reward at little distance from a reference p: the policy of greatest expected reward within a
Kullback-Leibler budget, and the best of n draws. On finitely many outcomes both have laws that can be written down; on
long memoryless sequences with additive rewards they become one (Yang et al. 2024).

Equations. The optimum within the budget Delta is p tilted by the reward, and the multiplier 1 / lambda = a solves (2):

    phi_a(y) = p(y) exp(a r(y)) / Z(a),    Z(a) = E_p exp(a r)                                                       (1)
    KL(phi_a | p) = Delta                                                                                            (2)

so that any other policy psi pays for its distance from phi with divergence or reward:

    KL(psi | phi_a) = KL(psi | p) - Delta + a (E_phi r - E_psi r)                                                    (3)

Best of n, ties broken evenly, with F(x) = P(r <= x) and F(x-) = P(r < x) under p:

    P_n(y) / p(y) = (F(r(y))^n - F(r(y)-)^n) / (F(r(y)) - F(r(y)-))                                                  (4)

A sequence of m independent symbols has the reward R = sum_i r(y_i), and phi_a is a product of symbols' tilted laws. The
budget m delta is that of n = exp(m delta) draws. Rewards of sequences depend on their type alone, how often each symbol
occurs; there are few types, and (4) is summed over them. Under phi_a, R / m obeys a large deviation principle with rate

    I(t) = KL(phi_b | phi_a), E_{phi_b} r = t,     P(R >= m t) = exp(-m I(t) + o(m)) for t above the mean            (5)

and its cumulants are those of a symbol, which with q prop. to exp(r) are Renyi cross entropies H:

    (1 / m) log E_phi exp(s R) = log Z(a + s) - log Z(a)                                                             (6)
    log sum_y p(y) q(y)^c = -c H_{1+c}(p, q),    H_k(p, q) = log(sum_y p(y) q(y)^(k-1)) / (1 - k)                    (7)

Steps: `alignment_asymptotics` solves (2) by bisection, since KL(phi_a | p) grows with a; (4) is `parts/best_of_n.py`,
for any n >= 1; `types` lists the types of a length with their probabilities; `rate` and `cumulant` are (5), (6).

Deviations: none known; the paper lets rewards be log-probabilities of a law q, which is (7).

    >>> optimum = alignment_asymptotics([0.5, 0.3, 0.2], [0.0, 0.5, 1.0], budget=0.1)
    >>> optimum.law.round(3).tolist(), round(optimum.reward, 3), round(optimum.tilt, 3)
    ([0.31, 0.321, 0.369], 0.53, 1.093)

References: yang2024asymptotics, dembo1998large.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backchannel.card import Card

CARD = Card(
    name="Alignment asymptotics",
    summary="Exact laws of best-of-n and of the best reward within a divergence budget; rates for long sequences.",
    paper="yang2024asymptotics",
    row=35,
    topics=("best of n", "theory"),
    feedback=("reward",),
    protocol="artefact",
    engine="none",
    neighbour="",
    example={"law": [0.5, 0.3, 0.2], "reward": [0.0, 0.5, 1.0], "budget": 0.1},
)

Numbers = np.ndarray | Sequence[float]


class Optimum(NamedTuple):
    """The policy of greatest expected reward within a divergence budget."""

    law: np.ndarray  # float64[outcomes]: phi_a
    tilt: float  # a = 1 / lambda
    divergence: float  # KL(phi_a | p)
    reward: float  # E_phi r


def alignment_asymptotics(law: Numbers, reward: Numbers, budget: float) -> Optimum:
    """(1) and (2) on finitely many outcomes: the symbols of a memoryless source, or all answers of a small model.

    Args:
        law: p, a distribution with positive probabilities.
        reward: r of each outcome.
        budget: Delta, positive, and less than that of always taking the best outcome.
    """
    p, r = _checked(law, reward)
    most = -math.log(p[r == r.max()].sum())
    if not 0 < budget < most:
        raise ValueError(f"budget must be positive and below that of the best outcome alone, {most:.6g}, not {budget}")
    low, high = 0.0, 1.0 / float(np.ptp(r))
    while _divergence(p, r, high) < budget:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _divergence(p, r, middle) < budget else (low, middle)
    phi = tilted(p, r, low)
    return Optimum(phi, low, _divergence(p, r, low), float(phi @ r))


def tilted(law: Numbers, reward: Numbers, tilt: float) -> np.ndarray:
    """phi_a of (1): float64[outcomes]."""
    p, r = _checked(law, reward)
    weight = np.log(p) + tilt * r
    weight = np.exp(weight - weight.max())
    phi: np.ndarray = weight / weight.sum()
    return phi


def types(law: Numbers, length: int) -> tuple[np.ndarray, np.ndarray]:
    """All types of sequences: counts int64[types, symbols] and their log-probabilities float64[types]."""
    p = np.asarray(law, float)
    if length < 1:
        raise ValueError(f"length must be at least 1, not {length}")
    symbols = len(p)
    bars = np.array(list(itertools.combinations(range(length + symbols - 1), symbols - 1)))
    edges = np.column_stack([np.full(len(bars), -1), bars, np.full(len(bars), length + symbols - 1)])
    counts = np.diff(edges, axis=1) - 1
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, length + 1)))])
    return counts, factorial[length] - factorial[counts].sum(1) + counts @ np.log(p)


def rate(law: Numbers, reward: Numbers, tilt: float, level: float) -> float:
    """I(t) of (5) for t = `level`, strictly between the least and the largest reward."""
    p, r = _checked(law, reward)
    if not r.min() < level < r.max():
        raise ValueError(f"level must lie strictly between the rewards {r.min():.6g} and {r.max():.6g}, not {level}")
    low, high = -1.0 / float(np.ptp(r)), 1.0 / float(np.ptp(r))
    while tilted(p, r, low) @ r > level:
        low *= 2
    while tilted(p, r, high) @ r < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if tilted(p, r, middle) @ r < level else (low, middle)
    return (low - tilt) * level - cumulant(p, r, tilt, low - tilt)


def cumulant(law: Numbers, reward: Numbers, tilt: float, s: float) -> float:
    """(6): the cumulant generating function of a symbol's reward under phi_a, at s."""
    p, r = _checked(law, reward)
    return _log_mean(p, (tilt + s) * r) - _log_mean(p, tilt * r)


def renyi_cross_entropy(p: Numbers, q: Numbers, order: float) -> float:
    """H_k(p, q) of (7); order 1 is the cross entropy."""
    p, logs = np.asarray(p, float), np.log(np.asarray(q, float))
    if order == 1:
        return float(-(p @ logs))
    return _log_mean(p, (order - 1) * logs) / (1 - order)


# ---- private


def _divergence(p: np.ndarray, r: np.ndarray, tilt: float) -> float:
    return tilt * float(tilted(p, r, tilt) @ r) - _log_mean(p, tilt * r)


def _log_mean(p: np.ndarray, exponent: np.ndarray) -> float:
    """log E_p exp(exponent)."""
    top = float(exponent.max())
    return top + math.log(float(p @ np.exp(exponent - top)))


def _checked(law: Numbers, reward: Numbers) -> tuple[np.ndarray, np.ndarray]:
    p, r = np.asarray(law, float), np.asarray(reward, float)
    if p.ndim != 1 or p.shape != r.shape or not (p > 0).all() or abs(p.sum() - 1) > 1e-9:
        raise ValueError("law must be positive probabilities that sum to 1, with a reward for each")
    if not np.isfinite(r).all() or np.ptp(r) == 0:
        raise ValueError("rewards must be finite and not all equal")
    return p, r
