"""Ranks, and how alike two orders are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def ranks(values: ArrayLike) -> np.ndarray:
    """The place of each of n finite numbers, 1 for the lowest, ties at their mean place. float64[n].

    >>> ranks([0.3, 0.1, 0.3])
    array([2.5, 1. , 2.5])
    """
    given = np.asarray(values, dtype=float)
    if given.ndim != 1 or not np.isfinite(given).all():
        raise ValueError(f"only finite numbers in one row have ranks, not values of shape {given.shape}: {given}")
    _, place, many = np.unique(given, return_inverse=True, return_counts=True)
    return (many.cumsum() - (many - 1) / 2)[place]


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's (1904): the correlation of ranks, in [-1, 1]; nan where one of the two does not vary.

    >>> rank_correlation([1, 2, 3], [10, 40, 20])
    0.5
    """
    a, b = ranks(x), ranks(y)
    if len(a) != len(b):
        raise ValueError(f"both must rank the same things, not {len(a)} and {len(b)} of them")
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b) / (float((a @ a) * (b @ b)) ** 0.5 or float("nan"))
