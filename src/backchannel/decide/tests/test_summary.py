"""What is said of one policy."""

from types import SimpleNamespace

import numpy as np

from backchannel.card import find
from backchannel.decide.summary import policy_result
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
    assert found.verdict.startswith("The estimate lies outside the range of rewards")
    inside = policy_result(find("uniform"), rows._replace(policy_q=rows.chosen_q), SCAN, [], None, None, 0)
    assert inside.verdict == "Cannot be told apart from the log's own policy."
