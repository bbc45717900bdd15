"""What is said of one policy."""

from types import SimpleNamespace

import numpy as np

from backchannel.card import find
from backchannel.decide.summary import against, policy_result
from backchannel.ledger.estimators import evaluated

SCAN = SimpleNamespace(low=0.0, high=1.0, uniform=False, least_propensity=0.5)


def test_an_estimate_outside_the_range_of_rewards_is_cut_and_doubted():
    # The model promises more than 0 where the policy goes, and the residuals take back more than it promised.
    n = 2000
    reward = (np.arange(n) < 400).astype(float)
    rows = evaluated(reward, np.full(n, 0.5), np.full(n, 0.5), None, np.full(n, 0.9), np.full(n, 0.5))
    assert np.isclose((rows.policy_q + rows.reward - rows.chosen_q).mean(), -0.2)
    found = policy_result(find("uniform"), rows, SCAN, [], None, None, 0)
    assert (found.value.value, found.value.low) == (0.0, 0.0)
    # It earns at least 0, so that the lift is at least what the log's own policy earned, with a minus.
    assert (found.lift.value, found.lift.low) == (-0.2, -0.2)
    assert found.verdict.startswith("The estimate lies outside the range of rewards")
    inside = policy_result(find("uniform"), rows._replace(policy_q=rows.chosen_q), SCAN, [], None, None, 0)
    assert inside.verdict == "Cannot be told apart from the log's own policy."


def test_lift_and_value_stay_within_what_is_possible_and_agree():
    # 5 rewards in 1,000 rows, and weights that all fall on rows without one: the model's -0.05 is corrected by nothing.
    n = 1000
    reward = (np.arange(n) % 200 == 0).astype(float)
    rows = evaluated(reward, np.full(n, 0.5), np.where(reward, 0.0, 0.5), None, np.zeros(n), np.full(n, -0.05))
    found = policy_result(find("uniform"), rows, SCAN, [], None, None, 0)
    assert found.value.value == 0.0
    assert found.lift.value == found.lift.low == -0.005
    assert found.lift.high <= 0.995
    assert "value and lift were cut" in found.verdict


def test_nothing_is_estimated_where_the_log_cannot_answer():
    n = 200
    p = np.where(np.arange(n) < 50, 0.5, 0.0)
    rows = evaluated(np.ones(n), np.full(n, 0.5), p, None, np.zeros(n), np.zeros(n))
    found = policy_result(find("uniform"), rows, SCAN, [], None, None, 0)
    assert not found.answered
    assert (found.value, found.lift, found.regret, found.rows_to_settle) == (None, None, None, None)


def test_another_logs_policy_is_judged_like_any_other():
    rng = np.random.default_rng(0)
    reward = (rng.random(1000) < 0.5).astype(float)
    weight = np.full(1000, 1.0)
    sound = against("other", weight, reward, reward, SCAN, 0)
    assert (sound.answered, sound.doubts, sound.estimate.value) == (True, "", reward.mean())
    weight[0] = 60.0
    one = against("other", weight, reward, reward, SCAN, 0)
    assert one.answered
    assert one.doubts.startswith("One row carries 6% of the total weight")
    few = np.where(np.arange(1000) < 2, 1.0, 0.0)
    silent = against("other", few, reward, reward, SCAN, 0)
    assert (silent.answered, silent.estimate, silent.effective_rows) == (False, None, 2.0)
    assert "worth about 2 rows of its own" in silent.doubts
    assert against("other", 0 * weight, reward, reward, SCAN, 0).doubts.endswith("the log cannot answer.")
