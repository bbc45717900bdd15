"""Best of n, exactly: the law of the best of n draws on finitely many outcomes, and how far it can be from the draws'.

With F(x) = P(r <= x) and F(x-) = P(r < x) under the law p of a draw, and ties broken evenly, the best of n is

    P_n(y) / p(y) = (F(r(y))^n - F(r(y)-)^n) / (F(r(y)) - F(r(y)-)),          KL(P_n | p) <= log n - (n - 1) / n

with equality where no two outcomes tie and none has much of the probability.
"""

from __future__ import annotations

import math

import numpy as np

TIED = 1e-9  # rewards that differ by less than this part of their range are equal: sums of symbols are rounded


def log_ratio(law: np.ndarray, reward: np.ndarray, n: float) -> np.ndarray:
    """log P_n(y) / p(y) for each outcome, or type of outcomes with one reward: float64[outcomes].

    Args:
        law: p, probabilities of the outcomes.
        reward: of each.
        n: how many are drawn, at least 1; large numbers need not be whole.
    """
    p, r = np.asarray(law, float), np.asarray(reward, float)
    if not 1 <= n < math.inf:
        raise ValueError(f"n must be at least 1, and finite, not {n}")
    if p.ndim != 1 or p.shape != r.shape or not abs(p.sum() - 1) <= 1e-9:
        raise ValueError(f"law must sum to 1 and have a reward for each outcome, not be {p.shape} for {r.shape}")
    grain = TIED * max(float(np.ptp(r)), np.finfo(float).tiny)
    _, of = np.unique(np.round((r - r.min()) / grain), return_inverse=True)
    tie = np.bincount(of, p)
    above = np.concatenate([np.cumsum(tie[::-1])[::-1][1:], [0.0]])
    up_to = np.minimum(np.cumsum(tie), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):  # log 0 = -inf is meant: F(x-) = 0 for the worst
        log_f = np.where(above < 0.5, np.log1p(-above), np.log(up_to))
        share = np.minimum(tie / np.exp(log_f), 1.0)
        ratio = n * log_f + np.log(-np.expm1(n * np.log1p(-share))) - np.log(tie)
    found: np.ndarray = ratio[of]
    return found


def divergence_bound(n: float) -> float:
    """The greatest divergence of the best of n from a draw, in nats."""
    if n < 1:
        raise ValueError(f"n must be at least 1, not {n}")
    return math.log(n) - (n - 1) / n
