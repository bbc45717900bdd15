"""The exact test of one utility an item."""

import itertools
from math import comb

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom

from backchannel.parts.comparisons import Votes, comparisons, tally
from backchannel.parts.scalar_utility import components, cycles, freedom, log_likelihood, scalar_utility, utilities
from backchannel.tasks.voted_menus import voted_menus

K4 = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])


def votes_of(pairs, votes, wins):
    pairs = np.asarray(pairs)
    return Votes(pairs[:, 0], pairs[:, 1], np.broadcast_to(votes, len(pairs)).astype(np.int64), np.asarray(wins))


def scores(data, wins):
    items = int(max(data.a.max(), data.b.max())) + 1
    return np.bincount(data.a, wins, items) + np.bincount(data.b, data.votes - wins, items)


def unrestricted(n, w):
    return sum(k * np.log(k / n_e) for n_e, w_e in zip(n, w, strict=True) for k in (w_e, n_e - w_e) if k)


def by_enumeration(data):
    """Every table with the scores of the data: its probability (2) and its unrestricted log-likelihood."""
    found = []
    for wins in itertools.product(*(range(n + 1) for n in data.votes)):
        if (scores(data, np.array(wins)) == scores(data, data.wins)).all():
            weight = np.prod([float(comb(int(n), w)) for n, w in zip(data.votes, wins, strict=True)])
            found.append((weight, unrestricted(data.votes, wins)))
    weight, value = np.array(found).T
    return weight / weight.sum(), value


GRAPHS = {
    "triangle": votes_of([[0, 1], [0, 2], [1, 2]], [5, 7, 4], [4, 2, 3]),
    "four items": votes_of(K4, 2, [2, 1, 0, 1, 2, 1]),
    "a square with a tail": votes_of([[0, 1], [0, 3], [1, 2], [2, 3], [3, 4]], [3, 2, 4, 3, 5], [2, 0, 3, 2, 1]),
    "one vote a pair": votes_of(K4, 1, [1, 0, 1, 1, 0, 1]),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_p_and_mean_are_those_of_all_tables_with_the_same_scores(name):
    # p is a binomial share of 4,000 nearly independent draws: 8 standard errors, below 1e-9 if they were independent.
    data = GRAPHS[name]
    weight, value = by_enumeration(data)
    own = unrestricted(data.votes, data.wins)
    exact = weight[value >= own - 1e-9].sum()
    found = scalar_utility(data, np.random.default_rng(0), draws=4000)
    assert found.p == pytest.approx(exact, abs=8 * np.sqrt(exact * (1 - exact) / 4000) + 1e-3)
    mean, spread = weight @ value, np.sqrt(weight @ (value - weight @ value) ** 2)
    assert found.expected == pytest.approx(2 * (mean - found.scalar), abs=2 * 8 * spread / np.sqrt(4000) + 1e-6)
    assert found.unrestricted == pytest.approx(own)
    assert found.coin == pytest.approx(data.votes.sum() * np.log(0.5))
    assert found.statistic == pytest.approx(2 * (own - found.scalar))


@pytest.mark.parametrize("name", ["triangle", "a square with a tail"])
def test_utilities_are_the_most_likely(name):
    data = GRAPHS[name]
    items = int(data.b.max()) + 1
    best = minimize(lambda u: -log_likelihood(data, u) + 1e-9 * u @ u, np.zeros(items), tol=1e-12).fun
    assert -log_likelihood(data, utilities(data)) == pytest.approx(best, abs=1e-6)
    pair = votes_of([[0, 1]], [10], np.array([8]))
    assert np.diff(utilities(pair))[0] == pytest.approx(-np.log(8 / 2), abs=1e-6)


def test_likelihood_by_hand():
    data = GRAPHS["triangle"]
    u = np.array([0.3, -0.2, 1.0])
    p = 1 / (1 + np.exp(-(u[data.a] - u[data.b])))
    assert log_likelihood(data, u) == pytest.approx((np.log(p) @ data.wins) + np.log(1 - p) @ (data.votes - data.wins))


def test_freedom_is_what_utilities_leave_of_the_pairs():
    for data in GRAPHS.values():
        design = np.zeros((data.a.size, int(data.b.max()) + 1))
        design[range(data.a.size), data.a], design[range(data.a.size), data.b] = 1, -1
        assert freedom(data) == data.a.size - np.linalg.matrix_rank(design)
    apart = votes_of([[0, 1], [2, 5], [3, 5], [2, 3]], 1, [1, 0, 0, 0])
    assert components(apart).tolist() == [0, 0, 2, 2, 4, 2]
    assert freedom(apart) == 1


def test_cycles_leave_out_what_lies_on_none():
    start, arcs, partner = cycles(GRAPHS["a square with a tail"])
    assert sorted(arcs.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert start.tolist() == [0, 2, 4, 6, 8, 8]
    assert sorted(partner[start[0] : start[1]].tolist()) == [1, 3]
    chain = votes_of([[0, 1], [1, 2]], 9, [9, 0])
    found = scalar_utility(chain, np.random.default_rng(0), 19)
    assert (found.p, found.freedom) == (1.0, 0)
    assert found.statistic == pytest.approx(0, abs=1e-6)


def test_the_level_holds_where_chi_square_does_not():
    # 120 data sets of 40 menus with 6 votes a pair and a utility each: p <= 0.1 in at most binom(150, 0.1) of them.
    # Chi-square with as many degrees of freedom has another mean.
    rng, ps = np.random.default_rng(1), []
    for seed in range(120):
        data = voted_menus(40, 3, 0.0, int(rng.integers(2**31)) + seed)
        ps.append(scalar_utility(tally(data), rng, 39).p)
    assert (np.array(ps) <= 0.1).sum() <= binom.isf(1e-5, 120, 0.1)
    assert (np.array(ps) <= 0.5).sum() >= binom.ppf(1e-5, 120, 0.35)  # and it is not merely silent
    few = scalar_utility(tally(voted_menus(800, 1, 0.0, 5)), rng, 39)
    assert few.expected - few.freedom < -4 * np.sqrt(2 * few.freedom)  # where chi-square expects none


def test_it_sees_what_goes_round():
    data = tally(voted_menus(200, 6, 0.2, 3))
    assert scalar_utility(data, np.random.default_rng(0), 99).p == 0.01


def test_nothing_to_test_is_refused():
    with pytest.raises(ValueError, match="no comparisons without a tie"):
        scalar_utility(tally(comparisons([1], [2], [0])), np.random.default_rng(0))
