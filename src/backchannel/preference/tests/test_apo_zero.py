"""APO-zero: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, Singles, random_batch, random_pairs  # noqa: E402
from backchannel.preference.apo_down import apo_down  # noqa: E402
from backchannel.preference.apo_zero import apo_zero  # noqa: E402
from backchannel.preference.kto import kto  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    up, down = 0.3 * (w - rw), 0.3 * (v - rv)
    loss, info = apo_zero(0.3)(pairs)
    np.testing.assert_allclose(loss, 1 - 1 / (1 + np.exp(-up)) + 1 / (1 + np.exp(-down)), rtol=1e-10)
    np.testing.assert_allclose(info.margin, up - down, rtol=1e-12)


def test_known_trl():
    pairs = random_batch(Pairs, 6, seed=2)
    torch.testing.assert_close(apo_zero(0.3)(pairs)[0], dpo_losses("apo_zero", pairs, beta=0.3), rtol=0, atol=1e-6)


def test_known_each_answer_is_pulled_most_at_the_reference():
    r = torch.linspace(-8, 8, 161, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(161, dtype=torch.float64)
    (up,) = torch.autograd.grad(apo_zero(1.0)(Pairs(r, zero, zero, zero))[0].sum(), r)
    (down,) = torch.autograd.grad(apo_zero(1.0)(Pairs(zero, r, zero, zero))[0].sum(), r)
    s = torch.sigmoid(r.detach())
    torch.testing.assert_close(up, -s * (1 - s))
    torch.testing.assert_close(down, s * (1 - s))


def test_limit_it_is_kto_at_a_reference_point_of_zero():
    pairs = random_pairs(6, seed=3)
    good = torch.ones(6, dtype=torch.bool)
    up = kto(0.3)(Singles(pairs.policy_chosen, pairs.reference_chosen, good=good))[0]
    down = kto(0.3)(Singles(pairs.policy_rejected, pairs.reference_rejected, good=~good))[0]
    torch.testing.assert_close(apo_zero(0.3)(pairs)[0], up + down)


def test_contrast_apo_down_lowers_the_chosen_answer():
    # Both start a little above the reference.
    start = torch.ones(1, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    (ours,) = torch.autograd.grad(apo_zero(1.0)(Pairs(start, zero + 0.5, zero, zero))[0].sum(), start)
    (theirs,) = torch.autograd.grad(apo_down(1.0)(Pairs(start, zero - 1, zero, zero))[0].sum(), start)
    assert float(ours) < -0.1
    assert float(theirs) > 0.05


def test_wrong_arguments():
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        apo_zero(0)
