"""The best fixed option: by hand, and that its interval is right where the largest mean's own is not."""

import numpy as np
import pytest
from scipy import stats

from backchannel.decide.hindsight import best_fixed, regret
from backchannel.decide.learn import learn
from backchannel.decide.replay import DIGITS, ReplayedTable
from backchannel.decide.result import Estimate


def _log(rng, chance, n):
    """A uniform log of options that pay 1 with these chances."""
    action = rng.integers(len(chance), size=n)
    return action, (rng.random(n) < chance[action]).astype(float), np.full(n, 1 / len(chance)), rng.random(n) < 0.5


def test_known_by_hand():
    action = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    reward = np.array([2.0, 1.0, 0.0, 0.5, 2.0, 0.0, 2.0, 1.5])
    half = np.array([False] * 4 + [True] * 4)
    # The first half's means are 1 and 0.75: option 0, which earned 2 in the second; there 2 and 0.75: 0 again, 1.
    found = best_fixed(action, reward, np.full(8, 0.5), half, 2, 0.0, 2.0)
    assert found.value == pytest.approx(1.5)
    # 4 rows of mean 3/4 (scaled), one-sided errors 0.025 / 4 and 0.025 / 2: both ends solve n kl(mean, V) = log(1 / e).
    for end, doubt in ((found.low / 2, np.log(160)), (found.high / 2, np.log(80))):
        kl = 0.75 * np.log(0.75 / end) + 0.25 * np.log(0.25 / (1 - end))
        assert 4 * kl == pytest.approx(doubt)
    assert found.low / 2 < 0.75 < found.high / 2


def test_limit_an_option_without_a_reward_is_not_certain():
    # 0 of n: kl(0, V) = -log(1 - V), so the bound is 1 - (error / 2)^(1 / n).
    n = 200
    found = best_fixed(np.arange(n) % 2, np.zeros(n), np.full(n, 0.5), np.arange(n) < n // 2, 2, 0.0, 1.0, error=0.05)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (2 / n))


def test_contrast_the_largest_mean_is_too_large_and_this_interval_holds():
    # 40 options of nearly one value, 50 rows each. The largest mean, taken as known, misses almost always; ours at most
    # as often as stated: 5 % of 400 logs, up to Binomial's 1e-5 upper quantile.
    rng = np.random.default_rng(0)
    chance = np.linspace(0.18, 0.2, 40)
    missed = fooled = 0
    values = []
    for _ in range(400):
        action, reward, propensity, half = _log(rng, chance, 2000)
        found = best_fixed(action, reward, propensity, half, 40, 0.0, 1.0, error=0.05)
        missed += not found.low <= 0.2 <= found.high
        values.append(found.value)
        n = np.bincount(action, minlength=40)
        mean = np.bincount(action, reward, 40) / n
        best = mean.argmax()
        fooled += mean[best] - 1.96 * np.sqrt(mean[best] * (1 - mean[best]) / n[best]) > 0.2
    assert missed <= stats.binom(400, 0.05).isf(1e-5)
    assert fooled > 100
    # The honest value is at most the best's on average: 400 means of spread 0.06 or less, 4.3 standard errors.
    assert np.mean(values) < 0.2 + 4.3 * 0.06 / 20


def test_regret_is_a_difference_whose_ends_hold_together():
    found = regret(Estimate(0.5, 0.4, 0.7), Estimate(0.6, 0.55, 0.65))
    np.testing.assert_allclose([found.value, found.low, found.high], [-0.1, -0.25, 0.15])


def test_only_a_uniform_log_has_it():
    rng = np.random.default_rng(1)
    action, reward, propensity, half = _log(rng, np.array([0.1, 0.9]), 400)
    assert best_fixed(action, reward, propensity, half, 2, 0.0, 1.0) is not None
    propensity[7] = 0.4
    assert best_fixed(action, reward, propensity, half, 2, 0.0, 1.0) is None
    assert best_fixed(action, reward, np.full(400, 0.5), half, 0, 0.0, 1.0) is None


def test_learn_shows_it_where_the_log_is_uniform():
    found, _ = learn(ReplayedTable(DIGITS, "digit", "uniform", 0), ["square_cb", "constant_best"])
    by_key = {p.key: p for p in found.policies}
    # Every digit is right in a tenth of the rows, the most frequent in 183 of 1,797.
    assert found.best_fixed.low < 183 / 1797 < found.best_fixed.high
    assert by_key["square_cb"].regret.high < -0.3  # it sees the image
    assert by_key["constant_best"].regret.low < 0 < by_key["constant_best"].regret.high
    assert by_key["square_cb"].regret.value == pytest.approx(found.best_fixed.value - by_key["square_cb"].value.value)
    stale, _ = learn(ReplayedTable(DIGITS, "digit", "stale", 0), ["constant_best"])
    assert stale.best_fixed is None
    assert stale.policies[0].regret is None
