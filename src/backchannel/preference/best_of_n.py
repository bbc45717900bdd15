"""Best of n: draws n answers, and gives the one that a reward likes best.

The simplest way to more reward trains nothing: ask the model n times, keep the best. All about it is exact. It needs
the order of rewards alone, it stays near the model, and what n would bring can be read off answers that are there. And
it shows overoptimisation at its plainest: if the reward is a proxy, more draws find where the proxy errs.

Equations (Stiennon et al. 2020; Nakano et al. 2021; Beirami et al. 2025; the numbers are ours). With p the law of an
answer, F(x) = P(r <= x), F(x-) = P(r < x), and ties broken evenly, the best of n has the law

    P_n(y) = p(y) (F(r(y))^n - F(r(y)-)^n) / (F(r(y)) - F(r(y)-))  <=  n p(y)                                    (1)
    KL(P_n | p)  <=  log n - (n - 1) / n                                                                         (2)

and beats a draw of p, ties counting half, with probability

    W_n = sum over values x of (F(x)^n - F(x-)^n) (F(x) + F(x-)) / 2  <=  n / (n + 1),                           (3)

with equality in (2) and (3) where rewards are continuous; where many answers tie, both are far below. From N scored
answers the value v of the best of k <= N has an unbiased estimate: its mean over all subsets of k. With answers in
ascending order of their scores that is

    V_k = sum_j (G_k(j) - G_k(j - 1)) v_j,    G_k(j) = C(j, k) / C(N, k)                                         (4)

where G_k(j), the share of subsets with nothing above place j, stands for F^k; of ties, each has the mean of their v.
v may be the score itself, or another value of the answers: what people think of what a proxy chose.

Steps: `best_of_n` chooses; `expected` is (4) for k = 1 ... N; `best_law` is (1) to (3) for outcomes that are known, or
for N answers as they are. A policy that is tuned to give at once what the best of n is: `raft`.

Deviations: none.

    >>> import numpy as np
    >>> scores, people = np.array([[0.1, 0.7, 0.4]]), np.array([[3.0, 1.0, 5.0]])
    >>> best_of_n(scores).tolist()
    [1]
    >>> expected(scores, people).round(3).tolist()  # of 1, 2 and all 3: the best by the score is the worst for people
    [[3.0, 2.333, 1.0]]
    >>> found = best_law(np.full(4, 0.25), np.array([0.0, 0.0, 1.0, 2.0]), 2)
    >>> found.law.round(4).tolist(), round(found.reward, 4), round(found.win_rate, 4), round(found.divergence, 4)
    ([0.125, 0.125, 0.3125, 0.4375], 1.1875, 0.6406, 0.1413)

References: stiennon2020learning, nakano2021webgpt, beirami2025theoretical, gao2023scaling.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backchannel.card import Card
from backchannel.parts.best_of_n import log_ratio

CARD = Card(
    name="Best of n",
    summary="Gives the best of n answers by a reward; its law, divergence and win rate, and what each n would bring.",
    paper="stiennon2020learning",
    topics=("best of n", "overoptimisation"),
    feedback=("reward",),
    protocol="artefact",
    engine="none",
    neighbour="alignment_asymptotics",
    example={"scores": [[0.1, 0.7, 0.4], [0.3, 0.3, 0.2]]},
    strength="simple",
)


class Best(NamedTuple):
    """The best of n draws, exactly."""

    law: np.ndarray  # float64[outcomes]: (1)
    divergence: float  # KL(P_n | p), in nats
    reward: float  # the expected one
    win_rate: float  # (3)


def best_of_n(scores: object, seed: int = 0) -> np.ndarray:
    """Which of its n answers each prompt gets: int64[prompts].

    Args:
        scores: rewards of the answers, [prompts, n].
        seed: of the lot that decides between ties.
    """
    s = _scored(scores)
    lot = np.random.default_rng(seed).random(s.shape)
    best: np.ndarray = np.where(s == s.max(1, keepdims=True), lot, -1.0).argmax(1)
    return best


def expected(scores: object, values: object = None) -> np.ndarray:
    """(4), for the best of 1, 2 ... N of the answers to each prompt: float64[prompts, N].

    Args:
        scores: by which is chosen, [prompts, N].
        values: what the answers are worth, [prompts, N]; None: their scores.
    """
    s = _scored(scores)
    v = s if values is None else _scored(values)
    if v.shape != s.shape:
        raise ValueError(f"values must be of the answers that have scores, {s.shape}, not {v.shape}")
    g, found = _subsets(s.shape[1]), np.empty_like(s)
    for i, (score, value) in enumerate(zip(s, v, strict=True)):
        _, of, many = np.unique(score, return_inverse=True, return_counts=True)
        last = many.cumsum()
        found[i] = np.bincount(of, value) / many @ (g[last] - g[last - many])  # (4)
    return found


def best_law(law: np.ndarray, reward: np.ndarray, n: float) -> Best:
    """The best of n draws on finitely many outcomes.

    Args:
        law: p, positive probabilities of the outcomes.
        reward: of each.
        n: at least 1.
    """
    p, r = np.asarray(law, float), np.asarray(reward, float)
    if not (p > 0).all() or not np.isfinite(r).all():
        raise ValueError("law must be positive, and rewards finite")
    ratio = log_ratio(p, r, n)
    best = p * np.exp(ratio)  # (1)
    seen = best > 0
    below, tied = (p * (r < r[:, None])).sum(1), (p * (r == r[:, None])).sum(1)
    return Best(best, float(best[seen] @ ratio[seen]), float(best @ r), float(best @ (below + tied / 2)))  # (3)


def _subsets(n: int) -> np.ndarray:
    """G_k(j) of (4) for j = 0 ... n and k = 1 ... n: float64[n + 1, n]."""
    j, i = np.arange(n + 1)[:, None], np.arange(n)
    found: np.ndarray = np.cumprod(np.maximum(j - i, 0) / (n - i), 1)
    return found


def _scored(scores: object) -> np.ndarray:
    s = np.asarray(scores, float)
    if s.ndim != 2 or not s.size:
        raise ValueError(f"scores must have a row for each prompt and a column for each answer, not {s.shape}")
    if not np.isfinite(s).all():
        row, column = np.argwhere(~np.isfinite(s))[0].tolist()
        raise ValueError(f"the score of answer {column} to prompt {row} is not finite")
    return s
