"""Tuning: proofs and contrast. The choices of the Open Bandit Pipeline are compared in tests/test_obp_numbers.py."""

import math

import numpy as np
import pytest
from scipy import stats

from backchannel.ledger.estimators import clipped, doubly_robust, evaluated, shrunk, sub_gaussian, switched
from backchannel.ledger.tuning import estimated_error, tune_by_error, tune_by_slope


def log_with_a_rare_option(rng, n, rare=0.005, q=0.4):
    """The evaluated policy prefers an option that the log has seldom; both options are worth 0.5."""
    option = rng.random(n) < rare
    reward = (rng.random(n) < 0.5).astype(float)
    return evaluated(
        reward, np.where(option, rare, 1 - rare), np.where(option, 0.9, 0.1), None, np.full(n, q), np.full(n, q)
    )


def test_step_estimated_error_by_hand():
    rows = evaluated([1.0, 0.0], [0.25, 0.5], [1.0, 0.5], None, [0.5, 0.5], [0.5, 0.25])  # weights 4, 1
    # clipped at 2: contributions 0.5 + 2 * 0.5, 0.25 - 0.5; variance 0.875^2; bias |(4 - 2) * 0.5 + 0| / 2
    assert estimated_error(rows, clipped(rows.weight, 2.0), None) == pytest.approx(0.875**2 / 2 + 0.25)
    doubt = math.log(20)
    bias = 0.5 + math.sqrt(2 * 8.5 * doubt / 2) + 2 * 4 * doubt / 6
    assert estimated_error(rows, clipped(rows.weight, 2.0), 0.1) == pytest.approx(0.875**2 / 2 + bias**2)


def test_step_slope_by_hand():
    rng = np.random.default_rng(0)
    rows = log_with_a_rare_option(rng, 400, rare=0.02, q=0.1)
    candidates = [np.inf, 20.0, 5.0, 1.0, 0.1, 0.0]
    tuned = tune_by_slope(rows, clipped, candidates, delta=0.1)
    kept = []
    for value in candidates:  # widths shrink along this list
        x = doubly_robust(rows._replace(weight=clipped(rows.weight, value)))
        theta, c = x.mean(), x.std(ddof=1) / 20 * stats.t(399).ppf(0.9) * math.sqrt(399 / 400) * math.sqrt(400 / 399)
        if any(abs(theta - other) > c + 1.449489742783178 * wide for other, wide in kept):
            break
        kept.append((theta, c))
        chosen = value
    np.testing.assert_allclose(tuned.scores[: len(kept)], [c for _, c in kept], rtol=1e-9)
    assert tuned.value == chosen
    assert 0.0 < chosen < np.inf  # neither end: the rule went on, and stopped


def test_known_a_right_model_is_left_alone_and_a_wrong_one_is_not():
    # 20,000 rows, weights at most 2: with any candidate the width is below 0.02, and the wrong model is off by 0.4, so
    # switching everything off is rejected; with the right model it is the narrowest and agrees.
    rng = np.random.default_rng(1)
    p, reward = np.full(20_000, 0.5), (rng.random(20_000) < 0.5).astype(float)
    wrong, right = (evaluated(reward, p, np.full(20_000, 0.9), None, *[np.full(20_000, q)] * 2) for q in (0.1, 0.5))
    assert tune_by_slope(wrong, switched, [np.inf, 0.0], delta=1e-4).value == np.inf
    assert tune_by_slope(right, switched, [np.inf, 0.0], delta=1e-4).value == 0.0
    assert tune_by_error(wrong, switched, [np.inf, 0.0], None).value == np.inf


def test_limit_one_candidate_and_ties():
    rows = log_with_a_rare_option(np.random.default_rng(2), 100)
    assert tune_by_error(rows, shrunk, [3.0]).value == tune_by_slope(rows, shrunk, [3.0]).value == 3.0
    assert tune_by_error(rows, clipped, [1e9, 1e8]).value == 1e9  # the same weights: the first is chosen
    with pytest.raises(ValueError, match="at least one value"):
        tune_by_error(rows, shrunk, [])
    with pytest.raises(ValueError, match="delta must lie between"):
        tune_by_slope(rows, shrunk, [1.0], delta=1.0)


@pytest.mark.parametrize(
    ("shape", "candidates"),
    [(clipped, [np.inf, 20.0, 1.0]), (shrunk, [np.inf, 100.0, 1.0]), (sub_gaussian, [0.0, 0.01, 0.5])],
)
def test_contrast_slope_helps_where_weights_are_large_and_the_estimated_error_does_not(shape, candidates):
    # Weights of 180, in a row of 200: untuned doubly robust with a slightly wrong model has a mean squared error near
    # 0.26 * 0.9^2 / (0.005 * 500) = 0.08. Slope makes it at most 0.022, so that a half of untuned's is more than 5
    # standard errors away over 1000 logs. The pessimistic estimated error keeps the plain estimate nearly always.
    rng = np.random.default_rng(3)
    errors = {"plain": [], "slope": [], "pessimistic": []}
    for _ in range(1000):
        rows = log_with_a_rare_option(rng, 500)
        values = (
            candidates[0],
            tune_by_slope(rows, shape, candidates).value,
            tune_by_error(rows, shape, candidates).value,
        )
        for name, value in zip(errors, values, strict=True):
            errors[name].append(doubly_robust(rows._replace(weight=shape(rows.weight, value))).mean() - 0.5)
    square = {name: np.mean(np.square(e)) for name, e in errors.items()}
    assert square["slope"] < 0.5 * square["plain"]
    assert square["pessimistic"] > 0.9 * square["plain"]
