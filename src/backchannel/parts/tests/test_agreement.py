"""Agreement of annotators, and how far labels move choices."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import cohen_kappa_score

from backchannel.parts.agreement import alpha, kappa, shift
from backchannel.parts.comparisons import comparisons, pair_numbers, tally


def made(rng, pairs, annotators, ties=0.2):
    first, second, vote, annotator = [], [], [], []
    for pair, who in itertools.product(range(pairs), range(annotators)):
        if rng.random() < 0.8:
            first.append(2 * pair)
            second.append(2 * pair + 1)
            vote.append(int(rng.choice([-1, 0, 1], p=[0.5 - ties, ties, 0.5])))
            annotator.append(who)
    return comparisons(first, second, vote, annotator)


def test_alpha_is_krippendorffs_with_both_directions():
    rng = np.random.default_rng(0)
    data = made(rng, 30, 4)
    pair = pair_numbers(data)
    units = [data.vote[pair == u] for u in np.unique(pair) if (pair == u).sum() > 1]
    observed = sum((x != y) / (len(u) - 1) for u in units for x, y in itertools.permutations(u, 2))
    both = np.concatenate([np.concatenate(units), -np.concatenate(units)])
    n = both.size / 2
    # Values of the votes with either direction as likely: n / 2 of each vote's two directions.
    share = np.array([(both == c).sum() / 2 for c in (-1, 0, 1)])
    expected = (n**2 - (share**2).sum()) / (n * (n - 1))
    found = alpha(data, rng)
    assert found.value == pytest.approx(1 - observed / n / expected, rel=1e-12)
    assert found.pairs == len(units)
    assert found.low < found.value < found.high
    assert alpha(comparisons([0, 0], [1, 1], [1, 1]), rng).value == 1.0


def test_alpha_is_about_0_for_coins_and_its_interval_holds():
    # 60 data sets; an interval of 95 % misses in at most 12 of them (binomial: below 1e-4 at a true 93 %).
    missed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = alpha(
            comparisons(*np.tile([[0], [1]], 600) + 2 * np.repeat(np.arange(200), 3), rng.choice([-1, 1], 600)),
            rng,
            200,
        )
        missed += not found.low <= 0 <= found.high
    assert missed <= binom.isf(1e-4, 60, 0.07)


def test_kappa_is_cohens_with_both_directions():
    rng = np.random.default_rng(1)
    votes = rng.choice([-1, 0, 1], (2, 80), p=[0.3, 0.2, 0.5])
    votes[1, :40] = votes[0, :40]
    pairs = np.arange(80)
    data = comparisons(np.tile(2 * pairs, 2), np.tile(2 * pairs + 1, 2), votes.ravel())
    both = np.concatenate([votes, -votes], axis=1)
    found = kappa(data, np.repeat([0, 1], 80), rng)
    assert found.value == pytest.approx(cohen_kappa_score(both[0], both[1]), rel=1e-12)
    with pytest.raises(ValueError, match="two groups"):
        kappa(data, np.repeat([1, 2], 80), rng)


def test_shift_is_without_bias():
    # Every outcome of 2 votes at p and 3 at q, with its probability: the mean of the estimate of |p - q|^2 / 2 (binary:
    # (p - q)^2) is exact.
    p, q, mean = 0.3, 0.8, 0.0
    from backchannel.parts.agreement import _squared

    for votes in itertools.product([-1, 1], repeat=5):
        chance = np.prod([c if v > 0 else 1 - c for v, c in zip(votes, [p, p, q, q, q], strict=True)])
        found, pairs = _squared(np.zeros(5, np.int64), np.array(votes), np.array([0, 0, 1, 1, 1]), 2)
        assert pairs == 1
        mean += chance * found / 2
    assert mean == pytest.approx((p - q) ** 2, rel=1e-12)


def test_shift_finds_its_size_and_holds_its_level():
    rng = np.random.default_rng(2)
    first = np.repeat(2 * np.arange(300), 20)
    label = np.tile([0, 1], 3000)
    chance = np.where(label, 0.65, 0.45)
    moved = comparisons(first, first + 1, np.where(rng.random(6000) < chance, 1, -1))
    found = shift(moved, label, rng, draws=99)
    assert (found.p, found.pairs) == (0.01, 300)
    assert found.value == pytest.approx(0.2, abs=0.05)
    small = []
    for _ in range(100):
        same = comparisons(first[:400], first[:400] + 1, rng.choice([-1, 1], 400))
        small.append(shift(same, label[:400], rng, draws=19).p)
    assert (np.array(small) <= 0.1).sum() <= binom.isf(1e-5, 100, 0.1)


def test_shift_between_people_exchanges_people():
    # Ten people, of whom each always votes alike, split by a label that means nothing: votes of one person hang
    # together, so that exchanging votes rejects far too often and exchanging people does not.
    rng, by_person, by_vote = np.random.default_rng(3), [], []
    for _ in range(60):
        taste = rng.choice([-1, 1], 10)
        person, pair = np.tile(np.arange(10), 40), np.repeat(np.arange(40), 10)
        data = comparisons(2 * pair, 2 * pair + 1, taste[person])
        label = rng.permutation(np.arange(10) % 2)[person]
        by_person.append(shift(data, label, rng, person, draws=39).p)
        by_vote.append(shift(data, label, rng, draws=39).p)
    assert (np.array(by_person) <= 0.05).sum() <= binom.isf(1e-5, 60, 0.05)
    assert (np.array(by_vote) <= 0.05).sum() > 15
    with pytest.raises(ValueError, match="more than one label"):
        shift(data, np.arange(400) % 2, rng, np.zeros(400, np.int64))


def test_nothing_to_compare_is_said():
    rng = np.random.default_rng(0)
    once = comparisons([0, 2], [1, 3], [1, 1])
    assert alpha(once, rng).pairs == 0
    assert shift(once, np.array([0, 1]), rng).pairs == 0


def test_comparisons_are_turned_and_checked():
    data = comparisons(["b", "a", "c"], ["a", "b", "b"], [1, 1, 0], annotator=["x", "y", "x"])
    assert data.first.tolist() == [0, 0, 1]
    assert data.vote.tolist() == [-1, 1, 0]
    assert data.items.tolist() == ["a", "b", "c"]
    assert data.annotator.tolist() == [0, 1, 0]
    votes = tally(data)
    assert (votes.a.tolist(), votes.b.tolist(), votes.votes.tolist(), votes.wins.tolist()) == ([0], [1], [2], [1])
    apart = tally(data, data.annotator)
    assert apart.votes.tolist() == [1, 1]
    for wrong, said in (
        (([0], [0], [1]), "with itself"),
        (([0], [1], [2]), "a vote must be"),
        (([0, 1], [1], [1]), "one length"),
        (([0], [1], [1], [0, 1]), "annotator must have one entry"),
    ):
        with pytest.raises(ValueError, match=said):
            comparisons(*wrong)
