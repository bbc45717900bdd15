"""Davidson: proofs and contrast."""

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
    p, q = np.exp(a), np.exp(b)
    middle = 0.7 * np.sqrt(p * q)
    loss, info = davidson(0.7)(scores)
    np.testing.assert_allclose(loss, -np.log(np.where(tie, middle, p) / (p + q + middle)), rtol=1e-10)
    np.testing.assert_allclose(info.margin, a - b, rtol=1e-12)


@pytest.mark.parametrize("d", [-2.0, 0.0, 1.3])
def test_known_chances_sum_to_one_and_keep_the_odds(d):
    win, tie, loss = _chances(davidson(0.7), d)
    assert win + tie + loss == pytest.approx(1, rel=1e-12)
    assert win / loss == pytest.approx(np.exp(d), rel=1e-12)
    assert tie / np.sqrt(win * loss) == pytest.approx(0.7, rel=1e-12)


def test_known_share_of_ties_among_equals():
    share = 0.4
    assert _chances(davidson(2 * share / (1 - share)), 0.0)[1] == pytest.approx(share)


def test_limit_without_ties_it_is_bradley_terry():
    scores = random_batch(Scores, 9, seed=2)
    plain = scores._replace(tie=torch.zeros(9, dtype=torch.bool))
    torch.testing.assert_close(davidson(1e-12)(plain)[0], bradley_terry()(plain)[0])


def test_contrast_rao_kupper_does_not_keep_the_odds():
    # The same share of ties among equals, 1/3: at d = 2 Davidson's wins to losses are still exp(2) to 1.
    ours, theirs = _chances(davidson(1.0), 2.0), _chances(rao_kupper(2.0), 2.0)
    assert _chances(davidson(1.0), 0.0)[1] == pytest.approx(1 / 3)
    assert _chances(rao_kupper(2.0), 0.0)[1] == pytest.approx(1 / 3)
    assert ours[0] / ours[2] == pytest.approx(np.exp(2))
    assert theirs[0] / theirs[2] > 1.3 * np.exp(2)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="nu must be positive, not 0"):
        davidson(0)
    with pytest.raises(ValueError, match="needs the tie"):
        davidson(1)(Scores(torch.zeros(2), torch.zeros(2)))
