"""hinge-norm: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, random_pairs, swapped  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.hinge_norm import hinge_norm  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402


def _at(h):
    zero = torch.zeros(1, dtype=torch.float64)
    return Pairs(zero + h, zero, zero, zero)


def test_step_loss_by_hand():
    pairs = random_pairs(9, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    h = 0.3 * ((w - rw) - (v - rv))
    loss, info = hinge_norm(0.3)(pairs)
    np.testing.assert_allclose(loss, np.maximum(0, 1 - h), rtol=1e-12)
    np.testing.assert_allclose(info.margin, h, rtol=1e-12)


def test_known_trl():
    # TRL 1.16 takes label_smoothing with this loss and ignores it.
    pairs = random_batch(Pairs, 6, seed=2)
    expected = dpo_losses("hinge", pairs, beta=0.3, label_smoothing=0.4)
    torch.testing.assert_close(hinge_norm(0.3)(pairs)[0], expected, rtol=0, atol=1e-6)


def test_known_minimiser_is_the_majority_at_margin_one():
    # p max(0, 1 - h) + (1 - p) max(0, 1 + h) is linear between -1 and 1: least at the sign of 2 p - 1.
    h = torch.linspace(-3, 3, 601, dtype=torch.float64)
    for p, best in ((0.6, 1.0), (0.95, 1.0), (0.3, -1.0)):
        loss = torch.cat([p * hinge_norm(1.0)(_at(x))[0] + (1 - p) * hinge_norm(1.0)(swapped(_at(x)))[0] for x in h])
        assert float(h[loss.argmin()]) == pytest.approx(best)


def test_limit_it_is_linear_below_the_hinge_and_zero_above():
    x = torch.tensor([-50.0, 0.0, 0.999, 1.001, 50.0], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(5, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(hinge_norm(1.0)(Pairs(x, zero, zero, zero))[0].sum(), x)
    torch.testing.assert_close(gradient, torch.tensor([-1.0, -1, -1, 0, 0], dtype=torch.float64), rtol=0, atol=0)


def test_contrast_clear_pairs_teach_dpo_still():
    x = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    assert float(torch.autograd.grad(dpo(1.0)(_at(x))[0].sum(), x)[0]) < -1e-3
    assert float(torch.autograd.grad(hinge_norm(1.0)(_at(x))[0].sum(), x)[0]) == 0


def test_wrong_arguments():
    with pytest.raises(ValueError, match="gamma must be positive, not 0"):
        hinge_norm(0)
