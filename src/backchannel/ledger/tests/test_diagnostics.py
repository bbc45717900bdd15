"""Diagnostics: proofs, false alarms and power with stated error rates, and contrasts."""

import math

import numpy as np
import pytest
from scipy import stats

from backchannel.ledger import diagnostics as d
from backchannel.ledger.estimators import evaluated, ips
from backchannel.ledger.intervals import student


def weighted(weight, reward=1.0):
    return evaluated(np.full(len(weight), reward), np.full(len(weight), 0.01), np.asarray(weight) / 100)


def test_step_diagnosis_by_hand():
    seen = d.diagnose(weighted([0.0, 1.0, 3.0, 4.0]), largest_weight=10)
    assert seen.rows == 4
    assert seen.effective_rows == seen.effective_rewards == pytest.approx(64 / 26)
    rewarded = weighted([0.0, 1.0, 3.0, 4.0])._replace(reward=np.array([5.0, -2.0, 1.0, 0.0]))
    assert d.diagnose(rewarded).effective_rewards == pytest.approx((2 + 3) ** 2 / (4 + 9))
    assert d.diagnose(weighted([1.0, 2.0], reward=0.0)).effective_rewards == 0
    assert (seen.largest_weight, seen.largest_share, seen.zero_share) == pytest.approx((4, 0.5, 0.25))
    assert seen.mean_weight == pytest.approx(2.0)
    assert (seen.reach, seen.reach_assumed) == (10, False)
    assert (seen.too_large, seen.too_small) == (False, False)  # four rows prove nothing
    matched = evaluated(np.zeros(4), np.ones(4), np.ones(4), matched=[True, False, False, True])
    assert d.diagnose(matched).matched_share == 0.5


def test_step_option_totals_by_hand():
    totals = d.option_totals([0, 0, 1, 2], [0.5, 0.25, 0.5, 0.5], 4, offered=[4, 2, 4, 0])
    np.testing.assert_allclose(totals.total, [6 / 4, 2 / 4, 2 / 4, 0])
    np.testing.assert_allclose(totals.expected, [1, 0.5, 1, 0])
    assert not totals.alarm.any()


def test_step_option_totals_alarm_where_the_bernstein_bound_says_so():
    # n rows, k of them with option 1 at propensity 1/4: x is 4 in k rows, else 0. Four tests share the false alarm.
    n, alarm, doubt = 1000, 0.01, math.log(2 * 4 / 0.01)
    for k in range(250, 400):
        x = np.where(np.arange(n) < k, 4.0, 0.0)
        slack = math.sqrt(2 * x.var(ddof=1) * doubt / n) + 7 * 4 * doubt / (3 * (n - 1))
        totals = d.option_totals(x > 0, np.where(x > 0, 0.25, 0.75), 2, smallest_propensity=0.25, false_alarm=alarm)
        assert totals.alarm[1] == (abs(x.mean() - 1) > slack), k
    assert totals.alarm[1]


def test_step_too_small_where_the_bernstein_bound_says_so():
    # Constant weights: no variance, so that 1 - mean must exceed 7 reach log(4 / f) / (3 (n - 1)).
    n, reach, alarm = 1001, 2.0, 0.01
    slack = 7 * reach * math.log(4 / alarm) / 3000
    below, above = weighted(np.full(n, 1 - slack - 1e-6)), weighted(np.full(n, 1 - slack + 1e-6))
    assert d.diagnose(below, reach, alarm).too_small
    assert not d.diagnose(above, reach, alarm).too_small


def test_step_too_large_by_the_best_clip():
    # Constant weights between 1 and 2 pass the clip at 2 whole, with the least slack: 7 * 2 log(40 / f) / (3 (n - 1)).
    alarm, slack = 0.01, 14 * math.log(4000) / 3000
    assert d.diagnose(weighted(np.full(1001, 1 + slack + 1e-6)), false_alarm=alarm).too_large
    assert not d.diagnose(weighted(np.full(1001, 1 + slack - 1e-6)), false_alarm=alarm).too_large
    # Weights of 64 in a fortieth of the rows average 1.6; cut at 2 they average 0.05, so that a higher clip finds it.
    assert d.diagnose(weighted(np.where(np.arange(20_000) % 40 == 0, 64.0, 0.0))).too_large
    assert not d.diagnose(weighted(np.where(np.arange(20_000) % 80 == 0, 64.0, 0.0))).too_large  # average 0.8


def test_known_estimated_propensities_are_shares():
    p, note = d.estimated_propensities([0, 0, 1, 2], 3)
    np.testing.assert_allclose(p, [0.5, 0.5, 0.25, 0.25])
    assert "estimated as the options' shares" in note
    p, note = d.estimated_propensities([0, 0, 1, 2, 1], 3, ["u", "v", "v", "v", "u"])
    np.testing.assert_allclose(p, [1 / 2, 1 / 3, 1 / 3, 1 / 3, 1 / 2])
    assert "2 groups of 2 rows or more" in note
    # By construction the weights of a policy without context then average exactly 1.
    assert np.bincount([0, 0, 1, 2], np.array([0.2, 0.2, 0.5, 0.3]) / [0.5, 0.5, 0.25, 0.25]).sum() == pytest.approx(4)


def test_known_rows_to_settle():
    # The textbook case: half a standard deviation, 5 % and 80 %: (1.95996 + 0.84162)^2 / 0.25 = 31.4.
    assert d.rows_to_settle(0.5, 1.0) == 32
    assert d.rows_to_settle(-0.05, 0.1) == d.rows_to_settle(0.5, 1.0)
    assert d.rows_to_settle(0.5, 1.0, error=0.01, power=0.95) == math.ceil(4 * (2.575829 + 1.644854) ** 2)


def test_known_rows_to_settle_give_the_stated_power():
    # 2000 logs of that many rows, two policies 0.05 apart: the test of the difference sees it in 80 % +- 5 standard
    # errors of 0.9 %, and 1 % for the approximation.
    rng, seen = np.random.default_rng(0), 0
    option_value, first, second = np.array([0.5, 0.3]), np.array([0.75, 0.25]), np.array([0.5, 0.5])

    def differences(n):
        option = rng.integers(2, size=n)
        reward = (rng.random(n) < option_value[option]).astype(float)
        p = np.full(n, 0.5)
        return ips(evaluated(reward, p, first[option])) - ips(evaluated(reward, p, second[option]))

    rows = d.rows_to_settle(0.05, differences(400_000).std())
    for _ in range(2000):
        low, high = student(differences(rows))
        seen += low > 0 or high < 0
    assert abs(seen / 2000 - 0.8) < 0.055


def test_known_calibration_of_a_right_and_a_wrong_model():
    # 40,000 rows in 10 groups: a group's mean is off by at most 0.5 / sqrt(4000) = 0.008 standard errors, five of
    # which are 0.04; the wrong model is off by 0.2 everywhere.
    rng = np.random.default_rng(1)
    q = rng.random(40_000) * 0.8
    reward = (rng.random(40_000) < q).astype(float)
    p = np.ones(40_000)
    right, wrong = (d.calibration(evaluated(reward, p, p, None, model, model)) for model in (q, q + 0.2))
    assert right.error < 0.04
    assert (np.abs(right.observed - right.predicted) < 5 * right.standard_error).all()
    assert np.all(np.diff(right.predicted) > 0)
    assert wrong.error == pytest.approx(0.2, abs=0.04)
    np.testing.assert_allclose(wrong.predicted - right.predicted, 0.2)
    hand = d.calibration(evaluated([0, 1, 1, 1.0], np.ones(4), np.ones(4), None, [0.9, 0.1, 0.2, 0.8], np.zeros(4)), 2)
    np.testing.assert_allclose(hand.predicted, [0.15, 0.85])
    np.testing.assert_allclose(hand.observed, [1.0, 0.5])
    assert hand.error == pytest.approx((0.85 + 0.35) / 2)
    np.testing.assert_allclose(hand.standard_error, [np.std([0.9, 0.8]), np.std([-0.9, 0.2])])


def test_limit_on_policy_every_row_counts():
    seen = d.diagnose(weighted(np.ones(500)))
    assert seen.effective_rows == pytest.approx(500)
    assert seen.zero_share == 0
    assert d.verdict(seen) == []


def log(rng, n, wrong=1.0):
    """Five options, logged with a softmax of the context; the evaluated policy is another. Logs p times `wrong`."""
    scores = rng.normal(size=(n, 5))
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    action = (rng.random(n)[:, None] > np.cumsum(p, axis=1)[:, :4]).sum(axis=1)
    policy = np.exp(-0.5 * scores) / np.exp(-0.5 * scores).sum(axis=1, keepdims=True)
    row = np.arange(n)
    return action, np.minimum(p[row, action] * wrong, 1.0), policy[row, action]


def test_known_false_alarms_are_rare():
    # Right propensities, false_alarm 0.02: of 500 logs, at most Binomial(500, 0.02)'s 1e-5 upper quantile raise one,
    # of either kind of check. The smallest propensity is stated: exp(-10) bounds it in all of these logs.
    rng, alarms, totals = np.random.default_rng(2), 0, 0
    for _ in range(500):
        action, p, policy = log(rng, 500)
        seen = d.diagnose(evaluated(np.zeros(500), p, policy), largest_weight=math.exp(10), false_alarm=0.02)
        alarms += seen.too_large or seen.too_small
        totals += d.option_totals(action, p, 5, smallest_propensity=math.exp(-10), false_alarm=0.02).alarm.any()
    assert alarms <= stats.binom(500, 0.02).isf(1e-5)
    assert totals <= stats.binom(500, 0.02).isf(1e-5)


@pytest.mark.parametrize(("wrong", "word"), [(0.6, "larger"), (1.8, "smaller")])
def test_contrast_wrong_propensities_are_found_and_right_ones_pass(wrong, word):
    # 20,000 rows: the mean weight's standard error is about 0.05 times the mean, which is 1.67 or about 0.6.
    rng = np.random.default_rng(3)
    action, p, policy = log(rng, 20_000)
    right = d.verdict(d.diagnose(evaluated(np.zeros(20_000), p, policy)))
    assert not any("propensities" in line for line in right)
    action, p, policy = log(rng, 20_000, wrong)
    lines = d.verdict(d.diagnose(evaluated(np.zeros(20_000), p, policy)))
    assert word in lines[0]
    assert "propensities" in lines[0]
    assert d.option_totals(action, p, 5).alarm.any()


def test_contrast_one_options_wrong_propensities_are_named():
    # Option 2's propensities are logged at half: its total, and no other, is twice what it should be.
    rng = np.random.default_rng(4)
    action = rng.integers(4, size=20_000)
    totals = d.option_totals(action, np.where(action == 2, 0.125, 0.25), 4)
    np.testing.assert_array_equal(totals.alarm, [False, False, True, False])
    assert totals.total[2] == pytest.approx(2, abs=0.15)


def test_contrast_an_option_never_tried_shows_in_the_mean_weight():
    # Two options logged at 1/2 each; the evaluated policy takes each at 1/4, and half of the time one that is never
    # logged: every weight is 1/2.
    lines = d.verdict(d.diagnose(evaluated(np.ones(2000), np.full(2000, 0.5), np.full(2000, 0.25))))
    assert len(lines) == 1
    assert "smaller than 1" in lines[0]
    assert "the largest one seen" in lines[0]


def test_contrast_verdicts_name_what_is_wrong():
    assert "cannot answer" in d.verdict(d.diagnose(weighted(np.zeros(30))))[0]
    few = np.zeros(3000)
    few[:60] = 10.0
    assert any("fewer than 100" in line for line in d.verdict(d.diagnose(weighted(few))))
    rare = d.diagnose(weighted(np.ones(3000))._replace(reward=(np.arange(3000) < 12).astype(float)))
    assert ["about 12 rows" in line for line in d.verdict(rare)] == [True]
    heavy = np.full(3000, 0.9)
    heavy[0] = 9.0
    assert not any("One row" in line for line in d.verdict(d.diagnose(weighted(heavy))))
    heavy[1:] = 0.01
    assert any("One row carries 23%" in line for line in d.verdict(d.diagnose(weighted(heavy))))


def test_verdicts_count_in_words_that_fit():
    def said(weight, reward):
        return d.verdict(d.diagnose(weighted(np.array(weight, float))._replace(reward=np.array(reward, float))))

    rewarded = np.zeros(1200)
    rewarded[0] = 1.0
    assert "those of about 1 row, fewer than 30: one rewarded row decides" in said(np.ones(1200), rewarded)[0]
    rewarded[1] = 1.0
    assert "those of about 2 rows, fewer than 30: a few rewarded rows decide" in said(np.ones(1200), rewarded)[0]
    assert said(np.ones(1200), np.zeros(1200))[0].startswith("Every row whose choice the policy would make has the")
    assert "worth about 1 row of its own, fewer than 100" in said(90.0 * (np.arange(90) == 0), np.ones(90))[0]
    assert said(np.zeros(1200), np.ones(1200))[0].startswith("None of the 1,200 logged choices is one that")
    assert said([0], [1])[0].startswith("The only logged choice is not one that the policy would make")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.diagnose(weighted([1.0, 2.0]), largest_weight=1.5), "largest_weight is 1.5"),
        (lambda: d.option_totals([0, 1], [0.5, 0.1], 2, smallest_propensity=0.2), "smallest_propensity is 0.2"),
        (lambda: d.rows_to_settle(0.0, 1.0), "no number of rows"),
        (lambda: d.rows_to_settle(1.0, 1.0, power=1.0), "power between"),
        (lambda: d.calibration(weighted([1.0, 2.0]), 2), "groups must lie between"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
