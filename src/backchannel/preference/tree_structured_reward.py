"""Tree-structured rewards: which answers to compare, judged by what a reward model would still not know.

Answers that begin alike have rewards that are alike: a reward model generalises along shared prefixes. An induced
Bayesian network writes this down as edges, of inductive bias between prefixes and of comparisons between answers; what
is still not known of two answers is the effective resistance between them. So data sets can be judged before anything
is trained: comparisons of independent answers (a chain), or of answers that grow from shared prefixes (a tree).

Equations (after Qiu et al. 2025; Gaussian here). Answers are the leaves of a binary tree of tokens with `depth` levels.
The reward of an answer is the sum over its prefixes of independent increments, of variance s_k at level k, so that with
c(x, y) the length of the common prefix

    Cov(r(x), r(y)) = sum_{k<=c(x,y)} s_k                                                                            (1)

A comparison of answers a_i and b_i says r(a_i) - r(b_i) with Gaussian noise of variance beta. With the differences'
prior covariance D, of the data (D_ij), of tests with the data (d) and of tests (D_0), a margin m observed gives

    E(r(x) - r(y) | m) = d^T (D + beta I)^-1 m,    Var(r(x) - r(y) | m) = D_0 - d^T (D + beta I)^-1 d                (2)

(2) is the effective resistance between x and y in the network whose edges are the prefix tree's, of resistance s_k, and
the comparisons, of resistance beta.

The tree data set: n + 1 answers, each with a different beginning, as evenly as can be; at each place where beginnings
part, one answer of either side is compared, and one of them, drawn evenly, stands for both further up. The chain: n
pairs of answers drawn independently.

Steps: `tree_structured_reward(n, depth, rng)` or `chain(n, depth, rng)` choose comparisons; `uncertainty` says what
remains unknown of pairs of answers, and `predicted` is the reward model that has seen the comparisons' margins.

Deviations: the paper's comparisons are logistic, and its inference distance is along the best single path; ours are
Gaussian, and resistance counts all paths. Its full text was not at hand: the inductive bias and both data sets are
built from its abstract. The cost is that of n x n matrices.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> network, tests = Network(np.ones(12), noise=0.001), rng.integers(2**12, size=(1000, 2))
    >>> [round(float(uncertainty(pairs, tests, network).mean()), 1)
    ...  for pairs in (tree_structured_reward(255, 12, rng), chain(255, 12, rng))]
    [9.0, 10.0]

References: qiu2025reward.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backchannel.card import Card

CARD = Card(
    name="Tree-structured rewards",
    summary="Chooses comparisons of answers with shared prefixes; what a reward model would not know after them.",
    paper="qiu2025reward",
    row=57,
    topics=("reward models", "theory"),
    feedback=("comparison",),
    protocol="artefact",
    engine="none",
    neighbour="",
    example={"comparisons": 7, "depth": 5, "rng": np.random.default_rng(0)},
)

DEEPEST = 40  # levels: answers are numbers below 2^depth


class Network(NamedTuple):
    """The induced Bayesian network: answers are the numbers below 2^levels, whose leading bits are their prefixes."""

    spread: np.ndarray  # float64[levels]: s_1, s_2, ..., the resistance of a prefix tree's edge at each level
    noise: float  # beta, the resistance of a comparison


def tree_structured_reward(comparisons: int, depth: int, rng: np.random.Generator) -> np.ndarray:
    """The tree data set: int64[comparisons, 2], pairs of answers.

    Args:
        comparisons: n, of n + 1 answers.
        depth: levels of the prefix tree, with at least n + 1 leaves.
        rng: draws an answer for each beginning, and who stands for both sides.
    """
    _checked(comparisons, depth)
    if comparisons >= 2**depth:
        raise ValueError(f"{comparisons} comparisons in a tree need {comparisons + 1} answers, more than 2^{depth}")
    edges = np.arange(comparisons + 2) * 2**depth // (comparisons + 1)
    standing = rng.integers(edges[:-1], edges[1:])
    pairs = []
    while len(standing) > 1:
        even = len(standing) // 2 * 2
        left, right = standing[0:even:2], standing[1:even:2]
        pairs.append(np.stack([left, right], 1))
        standing = np.concatenate([np.where(rng.random(even // 2) < 0.5, left, right), standing[even:]])
    return np.concatenate(pairs)


def chain(comparisons: int, depth: int, rng: np.random.Generator) -> np.ndarray:
    """The chain data set: int64[comparisons, 2], all answers drawn independently."""
    _checked(comparisons, depth)
    return rng.integers(2**depth, size=(comparisons, 2))


def uncertainty(pairs: np.ndarray, tests: np.ndarray, network: Network) -> np.ndarray:
    """The variance in (2), the effective resistance, of each pair of `tests`: float64[tests].

    Args:
        pairs: the comparisons, int64[n, 2].
        tests: pairs of answers, int64[tests, 2].
        network: the inductive bias and the noise.
    """
    root, across = _factor(pairs, tests, network)
    common = _common(tests[:, 0], tests[:, 1], len(network.spread))
    prior = 2 * (np.sum(network.spread) - _summed(network)[common])
    return prior - (np.linalg.solve(root, across) ** 2).sum(0)


def predicted(pairs: np.ndarray, margins: np.ndarray, tests: np.ndarray, network: Network) -> np.ndarray:
    """The mean in (2), given the margin of each comparison, float64[n]: float64[tests]."""
    root, across = _factor(pairs, tests, network)
    found: np.ndarray = np.linalg.solve(root, across).T @ np.linalg.solve(root, margins)
    return found


# ---- private


def _factor(pairs: np.ndarray, tests: np.ndarray, network: Network) -> tuple[np.ndarray, np.ndarray]:
    """The Cholesky factor of D + beta I, and d."""
    if not network.noise > 0 or not (np.asarray(network.spread) >= 0).all():
        raise ValueError("the noise must be positive and spreads at least 0")
    levels = len(network.spread)
    for each in (pairs, tests):
        if each.ndim != 2 or each.shape[1] != 2 or each.min() < 0 or each.max() >= 2**levels:
            raise ValueError(f"pairs must be [n, 2] answers from 0 to 2^{levels} - 1")
    inner = _differences(pairs, pairs, network)
    return np.linalg.cholesky(inner + network.noise * np.eye(len(pairs))), _differences(pairs, tests, network)


def _differences(one: np.ndarray, other: np.ndarray, network: Network) -> np.ndarray:
    """Cov(r(a) - r(b), r(x) - r(y)) of all pairs of pairs, by (1)."""
    summed, levels = _summed(network), len(network.spread)
    out = np.zeros((len(one), len(other)))
    for i in (0, 1):
        for j in (0, 1):
            out += (1 if i == j else -1) * summed[_common(one[:, i, None], other[None, :, j], levels)]
    return out


def _common(x: np.ndarray, y: np.ndarray, levels: int) -> np.ndarray:
    """How many leading bits two answers share."""
    found: np.ndarray = levels - np.frexp((x ^ y).astype(float))[1]
    return found


def _summed(network: Network) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(network.spread)])


def _checked(comparisons: int, depth: int) -> None:
    if comparisons < 1 or not 1 <= depth <= DEEPEST:
        raise ValueError(f"comparisons must be at least 1 and depth in 1 to {DEEPEST}, not {comparisons} and {depth}")
