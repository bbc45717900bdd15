"""Bradley-Terry: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Scores, random_batch  # noqa: E402
from backchannel.preference.bradley_terry import bradley_terry  # noqa: E402
from backchannel.preference.davidson import davidson  # noqa: E402
from backchannel.preference.tests.trl_oracle import reward_losses  # noqa: E402


def test_step_loss_by_hand():
    scores = random_batch(Scores, 9, seed=1)
    a, b, _, gap, tie = (np.asarray(x) for x in scores)
    x = a - b
    half = 0.5 * np.log1p(np.exp(-x)) + 0.5 * np.log1p(np.exp(x))
    loss, info = bradley_terry(center=0.05, use_gap=True)(scores)
    np.testing.assert_allclose(loss, np.where(tie, half, np.log1p(np.exp(gap - x))) + 0.05 * (a + b) ** 2, rtol=1e-12)
    np.testing.assert_allclose(info.margin, x, rtol=1e-12)
    np.testing.assert_allclose(bradley_terry()(scores)[0], np.where(tie, half, np.log1p(np.exp(-x))), rtol=1e-12)


def test_known_trl():
    # TRL uses a margin wherever the data have one, asked or not; it has no ties.
    scores = random_batch(Scores, 6, seed=2)._replace(tie=None)
    plain, full = bradley_terry()(scores)[0], bradley_terry(center=0.01, use_gap=True)(scores)[0]
    torch.testing.assert_close(plain, reward_losses(scores), rtol=0, atol=1e-6)
    torch.testing.assert_close(full, reward_losses(scores, scores.gap, 0.01), rtol=0, atol=1e-6)


def test_known_fit_of_three_players_is_fords():
    # Wins of i over j in a table; the likelihood's maximum by Zermelo's and Ford's iteration, which is another way.
    wins = np.array([[0, 7, 9], [3, 0, 6], [1, 4, 0]], float)
    strength = np.ones(3)
    for _ in range(2000):
        both = (wins + wins.T) / (strength[:, None] + strength[None, :])
        strength = wins.sum(1) / both.sum(1)
        strength /= np.exp(np.log(strength).mean())
    i, j = np.nonzero(wins)
    count, r = torch.from_numpy(wins[i, j]), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(500):
        loss = (bradley_terry(center=1e-9)(Scores(r[i], r[j]))[0] * count).sum()
        r = (r - 0.1 * torch.autograd.grad(loss, r)[0]).detach().requires_grad_()
    np.testing.assert_allclose((r - r.mean()).detach(), np.log(strength), atol=1e-6)


def test_limit_a_shift_of_all_rewards_costs_only_the_centering():
    scores = random_batch(Scores, 6, seed=3)
    moved = scores._replace(chosen=scores.chosen + 3, rejected=scores.rejected + 3)
    torch.testing.assert_close(bradley_terry()(moved)[0], bradley_terry()(scores)[0])
    assert not torch.allclose(bradley_terry(0.1)(moved)[0], bradley_terry(0.1)(scores)[0])


def test_contrast_a_rule_that_ties_often_is_not_a_rule_that_hesitates():
    # Of a hundred comparisons 30 are won, 10 lost and 60 tied. With halves the odds are 60 to 40; Davidson's model,
    # which expects ties, has 30 to 10.
    def best(objective):
        x = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
        zero, tied = torch.zeros_like(x), torch.ones_like(x, dtype=torch.bool)
        loss = 30 * objective(Scores(x, zero, tie=~tied))[0] + 10 * objective(Scores(zero, x, tie=~tied))[0]
        return float(x[(loss + 60 * objective(Scores(x, zero, tie=tied))[0]).argmin()])

    assert best(bradley_terry()) == pytest.approx(np.log(60 / 40), abs=1e-3)
    share_of_ties = 60 / np.sqrt(30 * 10)  # where nu = P(tie) / sqrt(P(win) P(loss)), the fit is exact
    assert best(davidson(share_of_ties)) == pytest.approx(np.log(30 / 10), abs=1e-3)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="center must be at least 0, not -1"):
        bradley_terry(-1)
    with pytest.raises(ValueError, match="needs the gap"):
        bradley_terry(use_gap=True)(Scores(torch.zeros(2), torch.zeros(2)))
