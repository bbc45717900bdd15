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
    return action, (rng.random(n) < chance[action]).astype(float), np.full(n, 1 / len(chance))


def test_known_by_hand():
    action = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    reward = np.array([2.0, 1.0, 0.0, 0.5, 2.0, 0.0, 2.0, 1.5])
    # Means 3/2 and 3/4 around 9/8. Within: (3 + 5/4) / 6 = 17/24. Between: (8 (3/8)^2 - 17/24) / (8 - 32/8) = 5/48. So
    # a mean of 4 rows moves to (5/12) / (5/12 + 17/24) = 10/27 of its distance: 9/8 + 10/27 * 3/8 = 91/72.
    found = best_fixed(action, reward, np.full(8, 0.5), 2, 0.0, 2.0)
    assert found.value == pytest.approx(91 / 72)
    # Scaled, 4 rows of mean 3/4 and 8 of mean 9/16; one-sided errors 0.025 / 6 and 0.025 / 2. Then at both ends
    # n kl(mean, V) = log(1 / e), where the lower one is the mean of all: it has more rows.
    for n, mean, end, doubt in (
        (8, 9 / 16, found.low / 2, np.log(240)),
        (4, 3 / 4, found.high / 2, np.log(80)),
    ):
        assert n * (mean * np.log(mean / end) + (1 - mean) * np.log((1 - mean) / (1 - end))) == pytest.approx(doubt)
    assert found.low / 2 < 9 / 16 < 0.75 < found.high / 2


def test_limit_an_option_without_a_reward_is_not_certain():
    # 0 of n: kl(0, V) = -log(1 - V), so the bound is 1 - (error / 2)^(1 / n).
    n = 200
    found = best_fixed(np.arange(n) % 2, np.zeros(n), np.full(n, 0.5), 2, 0.0, 1.0, error=0.05)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(1 - 0.025 ** (2 / n))


def test_limit_the_best_is_never_less_than_the_mean_of_all_and_no_more_where_options_are_alike():
    # 34 options that pay 46 times in 10,000: most logs of 10,000 rows show nothing but luck.
    rng = np.random.default_rng(2)
    alike = 0
    for _ in range(200):
        action, reward, propensity = _log(rng, np.full(34, 0.0046), 10_000)
        found = best_fixed(action, reward, propensity, 34, 0.0, 1.0)
        assert found.low < reward.mean() <= found.value < found.high
        assert found.low > 0  # the log's own mean bounds it, where no option's rows do
        alike += found.value == reward.mean()
    assert alike > 80  # half of such logs, up to Binomial's 1e-3
    for n, rewards in ((2, [1.0, 0.0]), (3, [0.0, 0.0, 1.0])):  # each option once, or one option not at all
        found = best_fixed(np.arange(n) % 2, np.array(rewards), np.full(n, 1 / 3), 3, 0.0, 1.0)
        assert found.low < np.mean(rewards) <= found.value <= found.high == 1


def test_limit_a_clear_best_option_is_said_as_it_is():
    rng = np.random.default_rng(3)
    action, reward, propensity = _log(rng, np.array([0.1, 0.2, 0.7]), 9000)
    found = best_fixed(action, reward, propensity, 3, 0.0, 1.0)
    assert found.value == pytest.approx(reward[action == 2].mean(), abs=1e-3)
    # The same in another unit of reward, far from 0.
    other = best_fixed(action, 1e6 + 10 * reward, propensity, 3, 1e6, 1e6 + 10)
    np.testing.assert_allclose(
        [other.value, other.low, other.high], 1e6 + 10 * np.array([found.value, found.low, found.high])
    )


def test_contrast_the_largest_mean_is_too_large_and_this_interval_holds():
    # 40 options of nearly one value, 50 rows each. The largest mean, taken as known, misses almost always; ours at most
    # as often as stated: 5 % of 400 logs, up to Binomial's 1e-5 upper quantile.
    rng = np.random.default_rng(0)
    chance = np.linspace(0.18, 0.2, 40)
    missed = fooled = 0
    values = []
    for _ in range(400):
        action, reward, propensity = _log(rng, chance, 2000)
        found = best_fixed(action, reward, propensity, 40, 0.0, 1.0, error=0.05)
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
    action, reward, propensity = _log(rng, np.array([0.1, 0.9]), 400)
    assert best_fixed(action, reward, propensity, 2, 0.0, 1.0) is not None
    propensity[7] = 0.4
    assert best_fixed(action, reward, propensity, 2, 0.0, 1.0) is None
    assert best_fixed(action, reward, np.full(400, 0.5), 0, 0.0, 1.0) is None


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
