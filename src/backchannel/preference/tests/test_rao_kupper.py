"""Rao-Kupper: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Scores, random_batch  # noqa: E402
from backchannel.preference.bradley_terry import bradley_terry  # noqa: E402
from backchannel.preference.davidson import davidson  # noqa: E402
from backchannel.preference.rao_kupper import rao_kupper  # noqa: E402


def _chances(objective, d):
    """P(first wins), P(tie), P(second wins)."""
    one, zero, tied = (
        torch.full((1,), d, dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
        torch.tensor([True]),
    )
    rows = [Scores(one, zero, tie=~tied), Scores(one, zero, tie=tied), Scores(zero, one, tie=~tied)]
    return [float(torch.exp(-objective(row)[0])) for row in rows]


def test_step_loss_by_hand():
    scores = random_batch(Scores, 9, seed=1)
    a, b, tie = (np.asarray(scores[i]) for i in (0, 1, 4))
    p, q, theta = np.exp(a), np.exp(b), 1.7
    expected = np.where(tie, p * q * (theta**2 - 1) / ((p + theta * q) * (theta * p + q)), p / (p + theta * q))
    loss, info = rao_kupper(theta)(scores)
    np.testing.assert_allclose(loss, -np.log(expected), rtol=1e-9)
    np.testing.assert_allclose(info.margin, a - b, rtol=1e-12)


@pytest.mark.parametrize("d", [-2.0, 0.0, 1.3])
def test_known_chances_are_those_of_logistic_noise_within_a_threshold(d):
    # With F the logistic law of the difference of impressions, a win is F's mass above log theta.
    e = np.log(1.7)
    win, tie, loss = _chances(rao_kupper(1.7), d)
    assert win + tie + loss == pytest.approx(1, rel=1e-12)
    cumulative = 1 / (1 + np.exp(-(np.array([-e, e]) - d)))
    assert (loss, tie, win) == pytest.approx((cumulative[0], cumulative[1] - cumulative[0], 1 - cumulative[1]))


def test_known_share_of_ties_among_equals():
    assert _chances(rao_kupper(1.4 / 0.6), 0.0)[1] == pytest.approx(0.4)


def test_limit_without_a_threshold_it_is_bradley_terry():
    plain = random_batch(Scores, 9, seed=2)._replace(tie=torch.zeros(9, dtype=torch.bool))
    torch.testing.assert_close(rao_kupper(1 + 1e-12)(plain)[0], bradley_terry()(plain)[0])


def test_contrast_ties_of_unequals_are_likelier_under_davidson():
    # The same share of ties among equals. Far apart Davidson's ties fall as exp(-d / 2), a threshold's as exp(-d).
    for d in (6.0, 12.0):
        assert _chances(davidson(1.0), d)[1] == pytest.approx(np.exp(-d / 2), rel=0.06)
        assert _chances(rao_kupper(2.0), d)[1] == pytest.approx(1.5 * np.exp(-d), rel=0.06)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="theta must be above 1, not 1"):
        rao_kupper(1)
    with pytest.raises(ValueError, match="needs the tie"):
        rao_kupper(2)(Scores(torch.zeros(2), torch.zeros(2)))
