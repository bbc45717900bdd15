"""Ranks and their correlation."""

import math

import numpy as np
import pytest
from scipy import stats

from backchannel.parts.ranks import rank_correlation, ranks


def test_as_scipy_has_them_ties_too():
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.integers(0, 6, (2, 15))
        np.testing.assert_allclose(ranks(x), stats.rankdata(x))
        assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_only_the_order_counts():
    assert rank_correlation([1, 2, 3], [10, 20, 400]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(rank_correlation([1, 2, 3], [5, 5, 5]))


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ([1, 2], [1, 2, 3], "the same things, not 2 and 3"),
        ([1, math.nan], [1, 2], "finite numbers"),
        ([[1, 2]], [1, 2], r"shape \(1, 2\)"),
    ],
)
def test_what_has_no_ranks_is_refused(x, y, said):
    with pytest.raises(ValueError, match=said):
        rank_correlation(x, y)
