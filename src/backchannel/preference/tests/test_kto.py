"""KTO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Singles, random_batch  # noqa: E402
from backchannel.preference.bco import bco  # noqa: E402
from backchannel.preference.kto import kto, reference_point  # noqa: E402
from backchannel.preference.tests.trl_oracle import kto_losses  # noqa: E402


def test_step_loss_by_hand():
    batch = random_batch(Singles, 8, seed=1)
    policy, reference, good, z = (np.asarray(batch[i]) for i in (0, 1, 3, 5))
    r = policy - reference
    v = 1 / (1 + np.exp(-0.3 * np.where(good, r - z, z - r)))
    loss, info = kto(0.3, desirable=1.5, undesirable=0.5)(batch)
    np.testing.assert_allclose(loss, np.where(good, 1.5, 0.5) * (1 - v), rtol=1e-12)
    np.testing.assert_allclose(info.reward, 0.3 * r, rtol=1e-12)


def test_step_the_reference_point_is_a_clamped_mean_without_gradient():
    policy = torch.tensor([-3.0, -5.0, -4.0], requires_grad=True)
    z = reference_point(policy, torch.tensor([-4.0, -4.0, -6.0]))
    assert float(z) == pytest.approx(2 / 3)
    assert not z.requires_grad
    assert float(reference_point(policy, torch.zeros(3))) == 0
    batch = Singles(policy, torch.zeros(3), good=torch.tensor([True] * 3), baseline=policy)
    (gradient,) = torch.autograd.grad(kto(1.0)(batch)[0].sum(), policy)
    torch.testing.assert_close(gradient, torch.full((3,), -0.25))  # as if the baseline were a number


@pytest.mark.parametrize("kl", [0.7, -0.7])
def test_known_trl(kl):
    # TRL estimates z0 in each small batch, from as few answers as that has; here it is told. TRL drops none of it.
    batch = random_batch(Singles, 6, seed=2)
    z = reference_point(torch.tensor([kl], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    ours = kto(0.3, desirable=1.5, undesirable=0.5)(batch._replace(baseline=z.expand(6)))[0]
    torch.testing.assert_close(ours, kto_losses(batch, 0.3, 1.5, 0.5, kl), rtol=0, atol=1e-6)


def test_known_slope_is_that_of_the_value_function():
    # d loss / d r = -lambda beta v (1 - v) for a good answer and + for a bad one: largest at the reference point.
    r = torch.linspace(-9, 9, 181, dtype=torch.float64, requires_grad=True)
    for good, sign in ((True, -1), (False, 1)):
        batch = Singles(r, torch.zeros(181, dtype=torch.float64), good=torch.full((181,), good), baseline=r * 0 + 2)
        (gradient,) = torch.autograd.grad(kto(0.5, 2.0, 2.0)(batch)[0].sum(), r)
        v = 1 / (1 + np.exp(-0.5 * (r.detach().numpy() - 2)))
        np.testing.assert_allclose(gradient, sign * 2 * 0.5 * v * (1 - v), rtol=1e-10)
        assert float(r[gradient.abs().argmax()].detach()) == pytest.approx(2)


def test_limit_without_a_reference_point_it_is_trls_apo_zero_unpaired():
    batch = random_batch(Singles, 6, seed=3)._replace(baseline=None)
    expected = kto_losses(batch, 0.3, 1.0, 1.0, 0.0, loss_type="apo_zero_unpaired")
    torch.testing.assert_close(kto(0.3)(batch)[0], expected, rtol=0, atol=1e-6)


def test_contrast_a_wrong_label_far_away_pulls_bco_and_not_kto():
    # An answer that the policy has all but ruled out is called good, by mistake.
    r = torch.tensor([-80.0], dtype=torch.float64, requires_grad=True)
    batch = Singles(r, torch.zeros(1, dtype=torch.float64), good=torch.tensor([True]))
    (ours,) = torch.autograd.grad(kto(0.2)(batch)[0].sum(), r)
    (theirs,) = torch.autograd.grad(bco(0.2)(batch)[0].sum(), r)
    assert abs(float(ours)) < 1e-7
    assert float(theirs) == pytest.approx(-0.2, rel=1e-6)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="undesirable must be positive, not 0"):
        kto(0.1, undesirable=0)
    with pytest.raises(ValueError, match="needs the good of each example"):
        kto(0.1)(Singles(torch.zeros(2), torch.zeros(2)))
