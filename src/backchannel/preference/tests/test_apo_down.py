"""APO-down: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, random_pairs  # noqa: E402
from backchannel.preference.apo_down import apo_down  # noqa: E402
from backchannel.preference.apo_zero import apo_zero  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402


def _train(objective, steps=3000):
    """Log-ratios of a chosen and a rejected answer, by gradient descent from the reference."""
    r = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(objective(Pairs(r[:1], r[1:], zero, zero))[0].sum(), r)
        r = (r - gradient).detach().requires_grad_()
    return r.tolist()


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    up, h = 0.3 * (w - rw), 0.3 * (w - rw - v + rv)
    loss, info = apo_down(0.3)(pairs)
    np.testing.assert_allclose(loss, 1 / (1 + np.exp(-up)) + 1 - 1 / (1 + np.exp(-h)), rtol=1e-10)
    np.testing.assert_allclose(info.margin, h, rtol=1e-12)


def test_known_trl():
    pairs = random_batch(Pairs, 6, seed=2)
    torch.testing.assert_close(apo_down(0.3)(pairs)[0], dpo_losses("apo_down", pairs, beta=0.3), rtol=0, atol=1e-6)


def test_known_first_step_lowers_the_rejected_answer_alone():
    chosen, rejected = (torch.zeros(1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    zero = torch.zeros(1, dtype=torch.float64)
    loss = apo_down(0.4)(Pairs(chosen, rejected, zero, zero))[0].sum()
    up, down = torch.autograd.grad(loss, (chosen, rejected))
    assert float(up) == 0
    assert float(down) == pytest.approx(0.4 / 4)


def test_limit_far_apart_only_the_chosen_answer_is_pulled():
    pairs = random_pairs(6, seed=3)
    far = pairs._replace(policy_rejected=pairs.policy_rejected - 1000)
    expected = torch.sigmoid(0.3 * (pairs.policy_chosen - pairs.reference_chosen))
    torch.testing.assert_close(apo_down(0.3)(far)[0], expected)


def test_contrast_apo_zero_imitates_the_chosen_answer():
    chosen, rejected = _train(apo_down(1.0))
    assert rejected < chosen - 3 < -3
    chosen, rejected = _train(apo_zero(1.0))
    assert rejected < -3 < 3 < chosen


def test_wrong_arguments():
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        apo_down(0)
