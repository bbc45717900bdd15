"""Do annotators agree? Chance-corrected agreement on comparisons, and tests of groups and contexts.

Krippendorff's alpha is 1 less what annotators disagree over what votes drawn at random would: with n_uc votes c on pair
u, n_u = sum_c n_uc >= 2 and n = sum_u n_u,

    observed = 1/n sum_u sum_{c != d} n_uc n_ud / (n_u - 1),    expected = sum_{c != d} n_c n_d / (n (n - 1)).      (1)

Which answer of a pair is called the first says nothing, so each pair is counted in both directions: a random vote is as
likely for either. Cohen's kappa is 1 less the same ratio, between a random annotator of one group and one of another:

    observed = mean_u (1 - sum_c p_uc q_uc),                    expected = 1 - sum_c p_c q_c.                      (2)

How far two labels (groups of annotators, contexts) move a choice: with p_u and q_u a pair's shares of the votes under
either label, the mean over pairs of |p_u - q_u|^2 is estimated without bias, from the agreement of two *different*
votes,

    |p - q|^2 = within_p + within_q - 2 between,                                                     (3)
    within_p = sum_c n_c (n_c - 1) / (n (n - 1)),    between = sum_c p_c q_c,

and `shift` is the root of half of it: the typical difference of the probability of a choice. Its test exchanges labels
between votes of the same pair, or between whole annotators where labels belong to annotators: all such exchanges are
equally likely if labels do not matter, so that p = (1 + #{at least as large}) / (1 + draws) is valid at any count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from backchannel.parts.comparisons import Comparisons, pair_numbers


class Agreement(NamedTuple):
    """A chance-corrected coefficient with a 95 % interval from resampling pairs, and how many pairs it rests on."""

    value: float
    low: float
    high: float
    pairs: int


class Shift(NamedTuple):
    """How far labels move choices (3); nan where no pair has two votes under one label and one under another."""

    value: float
    p: float
    pairs: int


def alpha(data: Comparisons, rng: np.random.Generator, draws: int = 500) -> Agreement:
    """Krippendorff's alpha (1), nominal, of all votes of a pair."""
    counts = _counts(pair_numbers(data), data.vote)
    counts = counts[counts.sum(1) >= 2]
    size = counts.sum(1)
    # Of each pair: disagreeing ordered votes / (n_u - 1), votes, votes for a side, ties.
    apart = (size**2 - (counts**2).sum(1)) / np.maximum(size - 1, 1)
    return _resampled(np.stack([apart, size, counts[:, 1]], 1), _alpha, rng, draws)


def kappa(data: Comparisons, labels: np.ndarray, rng: np.random.Generator, draws: int = 500) -> Agreement:
    """Cohen's kappa (2) between two groups; `labels` is 0 or 1 for each vote."""
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("kappa is between two groups, labelled 0 and 1")
    pairs = pair_numbers(data)
    size = int(pairs.max(initial=-1)) + 1
    p, q = (_counts(pairs[labels == k], data.vote[labels == k], size) for k in (0, 1))
    both = (p.sum(1) > 0) & (q.sum(1) > 0)
    p, q = (each[both] / each[both].sum(1, keepdims=True) for each in (p, q))
    terms = [1 - (p * q).sum(1), np.ones(len(p)), p[:, 1], q[:, 1]]
    return _resampled(np.stack(terms, 1), _kappa, rng, draws)


def shift(
    data: Comparisons,
    labels: np.ndarray,
    rng: np.random.Generator,
    units: np.ndarray | None = None,
    draws: int = 199,
) -> Shift:
    """How far `labels` (int64[n]) move choices (3), and the test; with `units`, labels belong to these (annotators)."""
    pairs = pair_numbers(data)
    known = np.bincount(pairs, minlength=1)[pairs] > 1 if pairs.size else np.zeros(0, bool)
    pairs, votes, labels = np.unique(pairs[known], return_inverse=True)[1], data.vote[known], labels[known]
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        return Shift(np.nan, np.nan, 0)
    if units is None:
        order = np.argsort(pairs, kind="stable")
        pairs, votes, numbers = pairs[order], votes[order], numbers[order]
        sampled = [numbers[np.lexsort((rng.random(pairs.size), pairs))] for _ in range(draws)]
    else:
        held, unit = np.unique(units[known], return_inverse=True)
        of = np.zeros(held.size, np.int64)
        of[unit] = numbers
        if (of[unit] != numbers).any():
            raise ValueError("an annotator has more than one label")
        sampled = [rng.permutation(of)[unit] for _ in range(draws)]
    value, count = _squared(pairs, votes, numbers, len(names))
    spread = _spread(pairs, votes, numbers, len(names))
    if not count:
        return Shift(np.nan, np.nan, 0)
    others = np.array([_spread(pairs, votes, each, len(names)) for each in sampled])
    p = float((1 + (others >= spread - 1e-9 * abs(spread)).sum()) / (1 + draws))
    return Shift(float(np.sqrt(max(value, 0.0) / 2)), p, count)


def _squared(pairs: np.ndarray, votes: np.ndarray, labels: np.ndarray, kinds: int) -> tuple[float, int]:
    """The mean of |p - q|^2 (3) over pairs with two votes under either of two labels, and how many these are."""
    found = []
    for p, q, n, m in _under(pairs, votes, labels, kinds, 2):
        within = (p * (p - 1)).sum(1) / (n * (n - 1)) + (q * (q - 1)).sum(1) / (m * (m - 1))
        found.append(within - 2 * (p * q).sum(1) / (n * m))
    each = np.concatenate(found)
    return (float(each.mean()) if each.size else np.nan), each.size


def _spread(pairs: np.ndarray, votes: np.ndarray, labels: np.ndarray, kinds: int) -> float:
    """What the test looks at: the sum of |p - q|^2 n m / (n + m), as votes show it, over pairs under both labels."""
    return sum(
        float((((p / n[:, None] - q / m[:, None]) ** 2).sum(1) * n * m / (n + m)).sum())
        for p, q, n, m in _under(pairs, votes, labels, kinds, 1)
    )


def _under(
    pairs: np.ndarray, votes: np.ndarray, labels: np.ndarray, kinds: int, least: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Counts of votes and their sums under either of two labels, of pairs with at least `least` votes under both."""
    size = int(pairs.max()) + 1
    counts = [_counts(pairs[labels == k], votes[labels == k], size) for k in range(kinds)]
    for k in range(kinds):
        for j in range(k):
            n, m = counts[k].sum(1), counts[j].sum(1)
            both = (n >= least) & (m >= least)
            yield counts[k][both], counts[j][both], n[both], m[both]


def _counts(pairs: np.ndarray, votes: np.ndarray, size: int | None = None) -> np.ndarray:
    """Votes of each pair for the second item, for neither, for the first: float64[pairs, 3]."""
    size = int(pairs.max(initial=-1)) + 1 if size is None else size
    return np.bincount(3 * pairs + votes + 1, minlength=3 * size).reshape(size, 3).astype(float)


def _alpha(sums: np.ndarray) -> np.ndarray:
    apart, n, ties = sums[..., 0], sums[..., 1], sums[..., 2]
    side = (n - ties) / 2  # votes for either side, both directions counted
    expected = (n**2 - 2 * side**2 - ties**2) / (n * (n - 1))
    return 1 - apart / n / expected


def _kappa(sums: np.ndarray) -> np.ndarray:
    apart, pairs, p, q = (sums[..., k] for k in range(4))
    ties = p / pairs, q / pairs
    expected = 1 - ties[0] * ties[1] - (1 - ties[0]) * (1 - ties[1]) / 2
    return 1 - apart / pairs / expected


def _resampled(
    terms: np.ndarray, value: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator, draws: int
) -> Agreement:
    """A ratio of sums over pairs, with the 2.5 % and 97.5 % points of its bootstrap."""
    if not len(terms):
        return Agreement(np.nan, np.nan, np.nan, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        even = np.full(len(terms), 1 / len(terms))
        each = value(np.stack([rng.multinomial(len(terms), even) @ terms for _ in range(draws)]))
        low, high = np.nanquantile(each, [0.025, 0.975]) if np.isfinite(each).any() else (np.nan, np.nan)
        return Agreement(float(value(terms.sum(0))), float(low), float(high), len(terms))
