"""Soft DPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, random_pairs, swapped  # noqa: E402
from backchannel.preference.cdpo import cdpo  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.soft_dpo import soft_dpo  # noqa: E402


def _full(pairs, p):
    return pairs._replace(strength=torch.full_like(pairs.policy_chosen, p))


def test_step_loss_by_hand():
    pairs = random_batch(Pairs, 7, seed=1)
    w, v, rw, rv, _, _, p = (np.asarray(x) for x in pairs[:7])
    h = 0.3 * (w - rw - v + rv)
    loss, info = soft_dpo(0.3)(pairs)
    np.testing.assert_allclose(loss, p * np.log1p(np.exp(-h)) + (1 - p) * np.log1p(np.exp(h)), rtol=1e-12)
    np.testing.assert_allclose(info.margin, h, rtol=1e-12)


def test_step_swapping_answers_and_strength_changes_nothing():
    pairs = random_batch(Pairs, 7, seed=2)
    torch.testing.assert_close(soft_dpo(0.3)(swapped(pairs))[0], soft_dpo(0.3)(pairs)[0])


def test_known_each_margin_stops_at_its_own_log_odds():
    p = torch.tensor([0.55, 0.7, 0.99], dtype=torch.float64)
    h = torch.log(p / (1 - p)).requires_grad_()
    zero = torch.zeros(3, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(soft_dpo(1.0)(Pairs(h, zero, zero, zero, strength=p))[0].sum(), h)
    assert float(gradient.abs().max()) < 1e-15


def test_limit_certain_labels_are_dpo_and_a_constant_is_cdpo():
    # TRL 1.16 has neither: its `label_smoothing` is ignored by the loss type "sigmoid".
    pairs = random_pairs(7, seed=3)
    torch.testing.assert_close(soft_dpo(0.3)(_full(pairs, 1.0))[0], dpo(0.3)(pairs)[0])
    torch.testing.assert_close(soft_dpo(0.3)(_full(pairs, 0.8))[0], cdpo(0.2, 0.3)(pairs)[0])


def test_contrast_cdpo_cannot_tell_a_clear_pair_from_a_coin():
    # Two pairs, of strengths 0.99 and 0.51; cDPO has one rate, their mean, 0.25.
    p = torch.tensor([0.99, 0.51], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)

    def minimiser(objective):
        h = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        for _ in range(2000):
            loss = objective(Pairs(h, zero, zero, zero, strength=p))[0].sum()
            h = (h - 4 * torch.autograd.grad(loss, h)[0]).detach().requires_grad_()
        return torch.sigmoid(h.detach())

    torch.testing.assert_close(minimiser(soft_dpo(1.0)), p)
    torch.testing.assert_close(minimiser(cdpo(0.25, 1.0)), torch.full((2,), 0.75, dtype=torch.float64))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        soft_dpo(0)
    with pytest.raises(ValueError, match="needs the strength"):
        soft_dpo(0.1)(Pairs(*torch.zeros(4, 2)))
