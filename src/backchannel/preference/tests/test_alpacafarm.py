"""AlpacaFarm: proofs and contrast."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pools are functions of tensors")

from backchannel.card import Method  # noqa: E402
from backchannel.preference import alpacafarm as module  # noqa: E402
from backchannel.preference.alpacafarm import agreement, alpacafarm, quantiles, rank_agreement, win_rate  # noqa: E402
from backchannel.testing.battery import check_card  # noqa: E402


def given(table):
    """Utilities of answers that are rows of a table."""
    return lambda answers: torch.tensor(table, dtype=torch.float64)[answers]


TABLE = [[0.0, 1.0], [0.5, -1.0], [0.5, 1.2], [2.0, 0.0]]  # of four answers, to two annotators
ONE, OTHER = torch.tensor([0, 1, 2, 3, 2]), torch.tensor([1, 2, 0, 0, 2])
Z = 5.0  # standard errors: one failure in a million


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_card():
    check_card(Method("alpacafarm", "preference", module.CARD, module))


def test_step_preferences_by_hand():
    pool = alpacafarm(given(TABLE), order=[0.3, -0.6], sharpness=1.7, flips=0.25)
    u, order = np.array(TABLE), np.array([0.3, -0.6])
    lead = u[ONE] - u[OTHER]
    shown_first, shown_second = sigmoid(1.7 * (lead + order)), 1 - sigmoid(1.7 * (-lead + order))
    clean = ((shown_first + shown_second) / 2).mean(1)
    np.testing.assert_allclose(pool.prefers(ONE, OTHER), 0.75 * clean + 0.25 * (1 - clean), rtol=1e-12)
    np.testing.assert_allclose(pool.evaluator().prefers(ONE, OTHER), clean, rtol=1e-12)
    assert pool.queries == 0
    assert pool.prefers(ONE, OTHER)[4].item() == pytest.approx(0.5, abs=1e-12)  # an answer against itself


def test_step_labels_are_drawn_from_the_preferences_and_counted():
    pool, rng = alpacafarm(given(TABLE), order=[0.3, -0.6], sharpness=1.7, price=0.02), torch.Generator().manual_seed(0)
    many = 20_000
    one, other = ONE.repeat_interleave(many), OTHER.repeat_interleave(many)
    labels = pool.label(one, other, rng)
    share, p = labels.first.double().view(5, many).mean(1), pool.prefers(ONE, OTHER)
    assert ((share - p).abs() < Z * (p * (1 - p) / many).sqrt()).all()
    # Each annotator is asked equally often, and answers for itself.
    assert abs(labels.annotator.double().mean() - 0.5) < Z * 0.5 / math.sqrt(5 * many)
    for k, order in enumerate((0.3, -0.6)):
        asked = labels.annotator.view(5, many) == k
        # Shown first, an answer has what its place adds.
        lead = 1.7 * (np.array(TABLE)[ONE, k] - np.array(TABLE)[OTHER, k] + order)
        early, expected = (labels.shown.view(5, many) & asked).numpy(), 0.25 + 0.5 * sigmoid(lead)
        won = (labels.first.view(5, many).numpy() & early).sum(1) / early.sum(1)
        assert (np.abs(won - expected) < Z * np.sqrt(expected * (1 - expected) / early.sum(1))).all()
    assert (pool.queries, pool.spent) == (5 * many, pytest.approx(2000.0))
    fresh = pool.evaluator()
    assert (fresh.queries, fresh.flips, fresh.order, fresh.price) == (0, 0.0, [0.3, -0.6], 0.02)


def test_step_win_rate_is_the_share_of_queries_won():
    rng, again = (torch.Generator().manual_seed(3) for _ in range(2))
    pool = alpacafarm(given(TABLE), flips=0.0)
    won = pool.label(ONE.repeat(8), OTHER.repeat(8), again).first
    found = win_rate(pool, ONE.repeat(8), OTHER.repeat(8), rng)
    assert found.value == pytest.approx(float(won.double().mean()))
    assert found.low < found.value < found.high
    assert pool.queries == 80
    wide = win_rate(pool, ONE.repeat(8), OTHER.repeat(8), torch.Generator().manual_seed(3), error=0.01)
    assert wide.low < found.low < found.high < wide.high


def test_known_interval_covers():
    # 200 evaluations with 100 prompts each of a policy that wins with probability 0.6: an interval of 95 percent misses
    # 10 times, and 30 times once in ten million.
    rng, pool = torch.Generator().manual_seed(1), alpacafarm(given([[math.log(1.5)], [0.0]]), sharpness=1.0, flips=0.0)
    ours, theirs = torch.zeros(100, dtype=torch.int64), torch.ones(100, dtype=torch.int64)
    rates = [win_rate(pool, ours, theirs, rng) for _ in range(200)]
    missed = sum(not each.low <= 0.6 <= each.high for each in rates)
    assert missed < 30
    assert np.mean([each.high - each.low for each in rates]) == pytest.approx(
        2 * 1.96 * math.sqrt(0.24 / 100), rel=0.05
    )


def test_known_agreement_of_sure_annotators_and_of_coins():
    half, sure, ones = torch.full((4,), 0.5), torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.ones(4)
    assert agreement(half, sure) == agreement(half, half) == 0.5
    assert (agreement(sure, sure), agreement(sure, ones), agreement(sure, 1 - sure)) == (1.0, 0.75, 0.0)
    quarter = 0.25 + 0.5 * sure  # two sure annotators who agree, with flips of a quarter each
    assert agreement(quarter, quarter) == pytest.approx(0.75**2 + 0.25**2)


def test_known_rank_agreement():
    scipy_stats = pytest.importorskip("scipy.stats", reason="an independent implementation")
    rng, names = np.random.default_rng(0), list("abcdefghi")
    x, y = rng.integers(0, 4, 9) / 4, rng.normal(size=9)  # with ties
    found = rank_agreement(dict(zip(names, x, strict=True)), dict(zip(names[::-1], y[::-1], strict=True)))
    assert found.spearman == pytest.approx(scipy_stats.spearmanr(x, y).statistic)
    rows = list(zip(names, x, y, strict=True))
    swapped = {(a, b) for a, i, k in rows for b, j, m in rows if i > j and k < m}
    assert set(found.swapped) == swapped
    assert rank_agreement({"a": 1.0, "b": 2.0}, {"a": 5.0, "b": 9.0}) == (pytest.approx(1.0), [])
    assert rank_agreement({"a": 1.0, "b": 2.0}, {"a": 0.5, "b": 0.4}) == (pytest.approx(-1.0), [("b", "a")])
    level = rank_agreement({"a": 1.0, "b": 2.0}, {"a": 0.5, "b": 0.5})
    assert math.isnan(level.spearman)
    assert level.swapped == []


def test_known_quantiles():
    scores = torch.tensor([3.0, -1.0, 10.0, 4.0, 0.0, 5.0])
    assert quantiles(scores, 3).tolist() == [1, 0, 2, 1, 0, 2]
    assert quantiles(scores, 2).tolist() == [0, 0, 1, 1, 0, 1]
    assert quantiles(torch.arange(7.0), 3).bincount().tolist() == [3, 2, 2]
    assert quantiles(torch.zeros(4), 4).sort()[0].tolist() == [0, 1, 2, 3]  # ties are split


def test_limit_sharpness_without_end_is_the_better_answer():
    sharp, sure = (alpacafarm(given(TABLE), order=0.01, sharpness=g, flips=0.1) for g in (1e4, math.inf))
    np.testing.assert_allclose(sharp.prefers(ONE[:4], OTHER[:4]), sure.prefers(ONE[:4], OTHER[:4]), rtol=1e-9)
    assert sure.prefers(ONE, OTHER).tolist() == pytest.approx([0.5, 0.3, 0.9, 0.5, 0.5])
    fair = alpacafarm(given(TABLE))  # without a liking for a place, equal utilities are a coin; a quarter of flips
    assert fair.prefers(ONE, OTHER).tolist() == pytest.approx([0.5, 0.375, 0.75, 0.5, 0.5])


def test_limit_a_strong_liking_for_the_first_place_is_a_coin():
    pool = alpacafarm(given(TABLE), order=100.0, flips=0.25)
    assert pool.prefers(ONE, OTHER).tolist() == [0.5] * 5


def test_limit_one_annotator_without_bias_and_flips_is_bradley_and_terry():
    utilities = [[0.3], [-1.0], [0.5], [2.0]]
    pool = alpacafarm(given(utilities), sharpness=2.0, flips=0.0)
    gap = np.array(utilities)[ONE, 0] - np.array(utilities)[OTHER, 0]
    np.testing.assert_allclose(pool.prefers(ONE, OTHER), sigmoid(2 * gap))


def test_contrast_a_varied_pool_agrees_with_itself_as_people_do_and_one_annotator_always():
    # Eight annotators whose utilities share half of their variance, and the first of them alone. The paper's people
    # agree on two pairs of three; so may a pool, and no annotator without noise ever disagrees with itself.
    rng = np.random.default_rng(0)
    table = rng.normal(size=(400, 1)) + rng.normal(size=(400, 8))
    one, other = torch.arange(200), torch.arange(200, 400)
    pool, single = (alpacafarm(given(each), flips=0.0).prefers(one, other) for each in (table, table[:, :1]))
    assert agreement(single, single) == 1.0
    assert 0.6 < agreement(pool, pool) < 0.8
    flipped = alpacafarm(given(table)).prefers(one, other)
    assert 0.5 < agreement(flipped, flipped) < agreement(pool, pool) - 0.05


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: alpacafarm(given(TABLE), sharpness=0.0), "sharpness must be positive, not 0"),
        (lambda: alpacafarm(given(TABLE), sharpness=math.nan), "sharpness must be positive, not nan"),
        (lambda: alpacafarm(given(TABLE), flips=0.5), r"flips must lie in \[0, 0.5\), not 0.5"),
        (lambda: alpacafarm(given(TABLE), price=-1.0), "price must be at least 0, not -1"),
        (lambda: alpacafarm(lambda answers: torch.zeros(3)).prefers([], []), r"utilities must be \[n, K\]"),
        (lambda: alpacafarm(given(TABLE)).prefers(ONE, OTHER[:2]), r"not \[5, 2\] and \[2, 2\]"),
        (lambda: win_rate(alpacafarm(given(TABLE)), ONE, OTHER, torch.Generator()), "at least 20 rows, not 5"),
        (lambda: rank_agreement({"a": 1.0, "b": 2.0}, {"a": 1.0, "c": 2.0}), "the same methods"),
        (lambda: rank_agreement({"a": 1.0}, {"a": 1.0}), "at least 2"),
        (lambda: agreement(torch.zeros(3), torch.zeros(2)), r"not \[3\] and \[2\]"),
        (lambda: agreement(torch.tensor([math.nan]), torch.zeros(1)), "outside of"),
        (lambda: quantiles(torch.zeros(3), 4), r"bins must lie in 2..3, the number of scores, not 4"),
        (lambda: quantiles(torch.zeros(3), 1), "not 1"),
        (lambda: quantiles(torch.tensor([math.nan, 1.0, 2.0]), 2), "scores must be finite numbers"),
        (lambda: quantiles(torch.zeros(3, 2), 2), r"not of the shape \[3, 2\]"),
        (lambda: alpacafarm(given(TABLE), order=[0.0, math.nan]), "order must be one finite number"),
        (lambda: alpacafarm(given([[math.nan]] * 4)).prefers(ONE, OTHER), "utilities must be finite"),
    ],
)
def test_wrong_arguments(call, words):
    with pytest.raises(ValueError, match=words):
        call()
