"""Best of n: proofs and contrast."""

import itertools
import math

import numpy as np
import pytest

from backchannel.card import Method
from backchannel.parts.best_of_n import divergence_bound, log_ratio
from backchannel.preference import best_of_n as module
from backchannel.preference.alignment_asymptotics import alignment_asymptotics
from backchannel.preference.best_of_n import best_law, best_of_n, expected
from backchannel.testing.battery import check_card

P, R = np.array([0.4, 0.3, 0.1, 0.2]), np.array([0.0, 0.3, 1.0, 0.3])  # the second and the fourth tie


def _by_draws(n):
    """The law of the best of n, and how often it beats a draw, by enumeration of all draws."""
    law, wins = np.zeros(4), 0.0
    for draw in itertools.product(range(4), repeat=n):
        best = [y for y in draw if R[y] == R[list(draw)].max()]
        for y in best:
            law[y] += P[list(draw)].prod() / len(best)
        rival = P @ ((R[best[0]] > R) + 0.5 * (R[best[0]] == R))
        wins += P[list(draw)].prod() * rival
    return law, wins


def test_card():
    check_card(Method("best_of_n", "preference", module.CARD, module))


def test_step_the_best_is_chosen_and_ties_are_broken_evenly():
    scores = np.array([[0.1, 0.9, 0.5], [-1.0, -3.0, -2.0], [2.0, 1.0, 2.0]])
    assert best_of_n(scores)[:2].tolist() == [1, 0]
    assert [best_of_n(scores, seed)[2] for seed in range(3)] == [best_of_n(scores, seed)[2] for seed in range(3)]
    chosen = best_of_n(np.tile(scores[2:], (4000, 1)), seed=1)
    assert set(chosen.tolist()) == {0, 2}
    assert abs((chosen == 0).sum() - 2000) < 4 * math.sqrt(1000)  # of a fair coin: fails once in 10^4


def test_step_estimates_are_means_over_all_subsets():
    rng = np.random.default_rng(0)
    scores, values = rng.integers(0, 4, (5, 6)).astype(float), rng.normal(size=(5, 6))  # with ties
    found, own = expected(scores, values), expected(scores)
    for i, k in itertools.product(range(5), range(1, 7)):
        subsets = [list(each) for each in itertools.combinations(range(6), k)]
        top = [scores[i][each].max() for each in subsets]
        best = [[j for j in each if scores[i][j] == high] for each, high in zip(subsets, top, strict=True)]
        worth = [values[i][each].mean() for each in best]
        assert found[i, k - 1] == pytest.approx(np.mean(worth), rel=1e-12)
        assert own[i, k - 1] == pytest.approx(np.mean(top), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_known_law_divergence_and_wins_by_enumeration_of_draws(n):
    law, wins = _by_draws(n)
    found = best_law(P, R, n)
    np.testing.assert_allclose(found.law, law, rtol=1e-12)
    assert found.reward == pytest.approx(law @ R, rel=1e-12)
    assert found.win_rate == pytest.approx(wins, rel=1e-12)
    assert found.divergence == pytest.approx(law @ np.log(law / P), rel=1e-12, abs=1e-15)
    assert found.divergence <= divergence_bound(n)
    assert found.win_rate <= n / (n + 1) + 1e-15
    assert (found.law <= n * P * (1 + 1e-12)).all()


def test_known_estimates_have_the_exact_expectation():
    # By enumeration of all 4^3 draws: their mean, weighted by probability, is that of the law for each k. So is a
    # proxy's choice.
    values = np.array([5.0, 1.0, 2.0, -1.0])
    total = np.zeros((2, 3))
    for draw in itertools.product(range(4), repeat=3):
        some = list(draw)
        total += P[some].prod() * np.array([expected([R[some]])[0], expected([R[some]], [values[some]])[0]])
    for k in (1, 2, 3):
        law = best_law(P, R, k).law
        np.testing.assert_allclose(total[:, k - 1], [law @ R, law @ values], rtol=1e-12)


def test_known_continuous_rewards_reach_the_bounds():
    # 20,000 even outcomes that do not tie; by quadrature the density is n u^(n-1).
    even, reward = np.full(20_000, 1 / 20_000), np.random.default_rng(0).normal(size=20_000)
    u = (np.arange(200_000) + 0.5) / 200_000
    for n in (2, 16, 64):
        ratio = log_ratio(even, reward, n)
        log_density = math.log(n) + (n - 1) * np.log(u)
        assert divergence_bound(n) == pytest.approx(float((np.exp(log_density) * log_density).mean()), abs=1e-4)
        assert float((np.exp(ratio) / 20_000) @ ratio) == pytest.approx(divergence_bound(n), abs=1e-3)
    small = best_law(np.full(400, 1 / 400), reward[:400], 3)
    assert small.win_rate == pytest.approx(3 / 4, abs=1e-5)


def test_limit_one_draw_is_the_reference_and_all_of_them_the_best():
    one, many = best_law(P, R, 1), best_law(P, R, 1e6)
    np.testing.assert_allclose(one.law, P, rtol=1e-12)
    assert (one.divergence, one.win_rate) == (pytest.approx(0, abs=1e-15), pytest.approx(0.5))
    assert divergence_bound(1) == 0
    np.testing.assert_allclose(many.law, [0, 0, 1, 0], atol=1e-12)
    assert many.divergence == pytest.approx(math.log(10))
    scores = np.random.default_rng(1).normal(size=(3, 7))
    found = expected(scores)
    np.testing.assert_allclose(found[:, 0], scores.mean(1))
    np.testing.assert_allclose(found[:, -1], scores.max(1))


def test_limit_rewards_that_all_tie_change_nothing():
    found = best_law(P, np.zeros(4), 50)
    np.testing.assert_allclose(found.law, P, rtol=1e-12)
    assert (found.divergence, found.win_rate) == (pytest.approx(0, abs=1e-12), pytest.approx(0.5))
    np.testing.assert_allclose(expected([[2.0, 2.0, 2.0]], [[1.0, 2.0, 6.0]]), [[3, 3, 3]])


def test_contrast_the_order_of_rewards_is_all_that_counts():
    # A reward model errs: a rare bad answer gets 50 instead of -1. The policy of greatest expected reward within the
    # divergence of the best of 4 turns to that answer for all that its budget allows; the best of 4 gives it at most 4
    # times as often as the reference, however large the error.
    p, errs = np.array([0.5, 0.3, 0.19, 0.01]), np.array([0.0, 1.0, 2.0, 50.0])
    best = best_law(p, errs, 4)
    np.testing.assert_allclose(best.law, best_law(p, np.array([0.0, 1.0, 2.0, 2.1]), 4).law, rtol=1e-12)
    tilted = alignment_asymptotics(p, errs, best.divergence).law
    assert best.law[3] <= 0.04
    assert tilted[3] > 0.15


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: best_of_n([1.0, 2.0]), "scores must have a row for each prompt"),
        (lambda: best_of_n([[1.0, np.nan]]), "the score of answer 1 to prompt 0 is not finite"),
        (lambda: expected([[1.0, 2.0]], [[1.0]]), r"values must be of the answers that have scores, \(1, 2\)"),
        (lambda: best_law(np.array([0.0, 1.0]), np.ones(2), 2), "law must be positive"),
        (lambda: best_law(P, R, 0.5), "n must be at least 1, and finite, not 0.5"),
        (lambda: best_law(P, R, np.nan), "n must be at least 1, and finite, not nan"),
        (lambda: best_law(np.array([]), np.array([]), 2), "law must sum to 1"),
        (lambda: best_law(P[:3], R[:3], 2), "law must sum to 1"),
        (lambda: divergence_bound(0), "n must be at least 1, not 0"),
    ],
)
def test_wrong_arguments(call, said):
    with pytest.raises(ValueError, match=said):
        call()
