"""Ratings vs rankings: proofs and contrast."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest

from backchannel.preference.ratings_vs_rankings import (
    best_of,
    from_choices,
    from_ratings,
    ratings_vs_rankings,
    tilt,
    wilson,
)
from backchannel.tasks.two_protocols import Annotator, calibrated, choices, ratings, win_rate


def judged(annotator, pairs, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, pairs, 2))
    return x, y, ratings(annotator, x, rng), ratings(annotator, y, rng), choices(annotator, x, y, rng)


def test_step_counts_by_hand():
    found = ratings_vs_rankings([5, 5, 2, 3, 1, 7], [1, 5, 4, 3, 2, 1], [1, 0, 1, -1, 0, -1])
    # ratings say a, equal, b, equal, b, a
    assert found.inconsistent == pytest.approx(4 / 6)
    assert found.reversed == pytest.approx(2 / 6)
    assert found.table.tolist() == [[0, 1, 1], [1, 1, 0], [1, 0, 1]]
    interval = binomtest(4, 6).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-4)
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(1.0, 10)[1] == 1.0


def test_step_tilt_and_its_error_by_hand():
    # The delta method by differences: weight = theta / |theta| of each fit, errors of both added.
    annotator = Annotator(noise=1.0)
    x, y, rx, ry, c = judged(annotator, 500, 0)
    rated = np.sign(rx - ry)
    found, error = tilt(x - y, rated, c), 0.0
    weights = []
    for said in (rated, c):
        z, sign = (x - y)[said != 0], said[said != 0]
        theta = minimize(lambda t, z=z, sign=sign: np.logaddexp(0, -sign * (z @ t)).sum(), np.zeros(2), tol=1e-10).x
        p = 1 / (1 + np.exp(-(z @ theta)))
        bread = np.linalg.inv((z * (p * (1 - p))[:, None]).T @ z)
        scores = z * ((sign > 0) - p)[:, None]
        covariance = bread @ scores.T @ scores @ bread
        steps = 1e-5 * np.eye(2)
        slope = np.stack(
            [((theta + h) / np.linalg.norm(theta + h) - (theta - h) / np.linalg.norm(theta - h)) / 2e-5 for h in steps],
            1,
        )
        error = error + np.diag(slope @ covariance @ slope.T)
        weights.append(theta / np.linalg.norm(theta))
    np.testing.assert_allclose(found.tilt, weights[0] - weights[1], atol=1e-5)
    np.testing.assert_allclose(found.error, np.sqrt(error), rtol=1e-4)
    np.testing.assert_allclose(found.ratings, weights[0], atol=1e-5)


def test_known_reward_models_are_least_squares_and_the_most_likely():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 2))
    scores = rng.integers(1, 8, 50)
    centred = x - x.mean(0)
    y = (scores - scores.min()) / (scores.max() - scores.min())
    by_hand = np.linalg.solve(centred.T @ centred, centred.T @ (y - y.mean()))
    np.testing.assert_allclose(from_ratings(x, scores), by_hand, rtol=1e-9)
    c = np.where(np.arange(50) % 5 == 0, 0, np.where(rng.random(50) < 1 / (1 + np.exp(-x[:, 0])), 1, -1))
    best = minimize(lambda t: np.logaddexp(0, -c[c != 0] * (x[c != 0] @ t)).sum(), np.zeros(2), tol=1e-10).x
    np.testing.assert_allclose(from_choices(x, c), best, atol=1e-4)
    with pytest.raises(ValueError, match="alike"):
        from_ratings(x, np.ones(50))


@pytest.mark.parametrize("protocol", ["choice", "rating"])
@pytest.mark.parametrize("n", [1, 8])
def test_known_win_rates_are_those_of_drawn_answers(protocol, n):
    # 100,000 comparisons: five standard errors of 1/632 are 0.008 (below 1e-6).
    annotator, reward, rng = Annotator(noise=0.7), np.array([0.6, -0.9]), np.random.default_rng(2)
    answers = rng.normal(size=(100_000, n, 2))
    own = answers[np.arange(100_000), best_of(reward, answers)]
    plain = rng.normal(size=(100_000, 2))
    if protocol == "choice":
        said = choices(annotator, own, plain, rng)
    else:
        said = np.sign(ratings(annotator, own, rng) - ratings(annotator, plain, rng))
    assert win_rate(annotator, reward, n, protocol) == pytest.approx((1 + said.mean()) / 2, abs=0.008)
    if n == 1:
        assert win_rate(annotator, reward, n, protocol) == pytest.approx(0.5, abs=1e-6)


def test_known_calibration_holds_on_other_luck():
    # 20,000 fresh pairs: standard error 0.0035; the calibration's own is 0.0011. Five of them together: below 1e-6.
    annotator = calibrated(Annotator(), 0.6)
    _, _, rx, ry, c = judged(annotator, 20_000, 7)
    assert ratings_vs_rankings(rx, ry, c).inconsistent == pytest.approx(0.6, abs=0.019)
    with pytest.raises(ValueError, match="no noise gives the rate"):
        calibrated(Annotator(), 0.9)


def test_limit_one_scale_without_noise_contradicts_itself_only_by_ties():
    rng = np.random.default_rng(3)
    worth = rng.normal(size=(2, 400))
    fine = ratings_vs_rankings(worth[0], worth[1], np.sign(worth[0] - worth[1]))
    assert (fine.inconsistent, fine.reversed) == (0.0, 0.0)
    coarse = ratings_vs_rankings(np.rint(worth[0]), np.rint(worth[1]), np.sign(worth[0] - worth[1]))
    assert coarse.reversed == 0.0
    assert coarse.inconsistent == pytest.approx((np.rint(worth[0]) == np.rint(worth[1])).mean())


def test_limit_rows_that_are_copies_count_once_where_they_are_clusters():
    x, y, rx, ry, c = judged(Annotator(), 300, 4)
    once = tilt(x - y, np.sign(rx - ry), c)
    four = [np.concatenate([each] * 4) for each in (x - y, np.sign(rx - ry), c)]
    np.testing.assert_allclose(tilt(*four, np.tile(np.arange(300), 4)).error, once.error, rtol=1e-9)
    np.testing.assert_allclose(tilt(*four).error, once.error / 2, rtol=1e-9)


def test_contrast_noise_contradicts_as_often_as_a_bias_and_has_no_tilt():
    # The nearest measure is the rate of contradictions alone: it is 0.6 for both annotators. 8,000 pairs: tilts have
    # standard errors near 0.05, so that 6 of them tell bias from noise (errors below 1e-6).
    found = {}
    for name, weights in (("biased", (0.5, 1.0)), ("noisy", (1.0, 0.0))):
        annotator = calibrated(Annotator(rating=weights), 0.6, 50_000)
        x, y, rx, ry, c = judged(annotator, 8000, 5)
        found[name] = ratings_vs_rankings(rx, ry, c, x - y)
    assert abs(found["biased"].inconsistent - found["noisy"].inconsistent) < 0.04
    score = {name: each.tilt.tilt[1] / each.tilt.error[1] for name, each in found.items()}
    assert score["biased"] > 6
    assert abs(score["noisy"]) < 6


def test_bad_input_is_refused():
    for given, said in (
        (([1], [1, 2], [1]), "one length"),
        (([], [], []), "one length"),
        (([1.0], [np.nan], [1]), "finite"),
        (([1], [2], [2]), "a choice 1, -1 or 0"),
    ):
        with pytest.raises(ValueError, match=said):
            ratings_vs_rankings(*given)
    with pytest.raises(ValueError, match="'rating' or 'choice'"):
        win_rate(Annotator(), np.ones(2), 2, "both")
