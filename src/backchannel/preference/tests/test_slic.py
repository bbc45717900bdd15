"""SLiC-HF: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, random_pairs  # noqa: E402
from backchannel.preference.hinge_norm import hinge_norm  # noqa: E402
from backchannel.preference.slic import slic  # noqa: E402
from backchannel.preference.tests.trl_oracle import cpo_losses  # noqa: E402


def test_step_loss_by_hand():
    pairs = random_pairs(9, seed=1)
    w, v = (np.asarray(x) for x in pairs[:2])
    loss, info = slic(1.5, 0.25)(pairs)
    np.testing.assert_allclose(loss, np.maximum(0, 1.5 - w + v) - 0.25 * w, rtol=1e-12)
    np.testing.assert_allclose(info.margin, w - v, rtol=1e-12)
    assert 0 < int((w - v > 1.5).sum()) < 9  # both sides of the hinge


def test_known_trl_has_the_hinge():
    # CPO's hinge at beta 1; TRL adds a mean over the tokens of the batch, ours is of the answer.
    pairs = random_batch(Pairs, 6, seed=2)
    torch.testing.assert_close(slic(1.0, 0.0)(pairs)[0], cpo_losses(pairs, "hinge", beta=1.0), rtol=0, atol=1e-6)


def test_known_minimiser_on_two_answers():
    # delta - x + lambda log(1 + exp(-x)) below the hinge falls in x, above it the cross-entropy alone still pulls:
    # with two answers, nothing stops at delta, but the slope there drops from 1 + lambda (1 - p) to lambda (1 - p).
    x = torch.tensor([0.9, 1.1], dtype=torch.float64, requires_grad=True)
    logs = torch.stack([-torch.log1p(torch.exp(-x)), -torch.log1p(torch.exp(x))])
    loss, _ = slic(1.0, 0.5)(Pairs(logs[0], logs[1], logs[0].detach(), logs[1].detach()))
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    rest = 0.5 * torch.sigmoid(-x.detach())
    torch.testing.assert_close(gradient, -rest - torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_limit_no_margin_and_no_weight_is_the_perceptron():
    pairs = random_pairs(9, seed=3)
    x = pairs.policy_rejected - pairs.policy_chosen
    torch.testing.assert_close(slic(0.0, 0.0)(pairs)[0], torch.where(x > 0, x, torch.zeros_like(x)))


def test_contrast_without_cross_entropy_both_answers_may_fall():
    # Both answers lose 8 nats while their order is kept: the hinge on log-ratios sees nothing, SLiC's target does.
    pairs = Pairs(*(torch.tensor([x], dtype=torch.float64) for x in (-5.0, -9.0, -5.0, -7.0)))
    fallen = pairs._replace(policy_chosen=pairs.policy_chosen - 8, policy_rejected=pairs.policy_rejected - 8)
    assert float(hinge_norm(0.5)(fallen)[0] - hinge_norm(0.5)(pairs)[0]) == 0
    assert float(slic(1.0, 0.5)(fallen)[0] - slic(1.0, 0.5)(pairs)[0]) == pytest.approx(4)


@pytest.mark.parametrize(("delta", "weight", "word"), [(-1, 1, "delta"), (1, -1, "weight")])
def test_wrong_arguments(delta, weight, word):
    with pytest.raises(ValueError, match=f"{word} must be at least 0, not -1"):
        slic(delta, weight)
