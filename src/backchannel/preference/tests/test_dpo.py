"""DPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_pairs, swapped  # noqa: E402
from backchannel.preference.cdpo import cdpo  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.tasks.preferences_loglinear import (  # noqa: E402
    cell_probabilities,
    cells,
    preferences_loglinear,
    regularised,
    reward,
)


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    h = 0.3 * ((w - rw) - (v - rv))
    loss, info = dpo(0.3)(pairs)
    np.testing.assert_allclose(info.margin, h, rtol=1e-12)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-h)), rtol=1e-12)


def test_step_swapping_the_answers_adds_the_margin():
    pairs = random_pairs(7, seed=2)
    loss, info = dpo(0.3)(pairs)
    torch.testing.assert_close(dpo(0.3)(swapped(pairs))[0], loss + info.margin)


def test_known_truth_is_the_minimiser_on_clean_preferences():
    # The population loss over all cells, with their exact probabilities, has gradient 0 at theta*, and rises around it.
    task = preferences_loglinear(dimension=4, prompts=3, actions=3, seed=3)
    weights = cell_probabilities(task, 0.0)
    theta = task.truth.clone().requires_grad_()
    loss = (dpo(task.beta)(cells(task, theta))[0] * weights).sum()
    (gradient,) = torch.autograd.grad(loss, theta)
    torch.testing.assert_close(gradient, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    for shift in torch.eye(4, dtype=torch.float64):
        for sign in (-0.1, 0.1):
            other = (dpo(task.beta)(cells(task, task.truth + sign * shift))[0] * weights).sum()
            assert float(other) > float(loss.detach()) + 1e-6


def test_known_optimum_has_its_closed_form():
    # pi* = ref exp(r / beta) / Z, and no policy of a grid has a larger regularised reward.
    task = preferences_loglinear(dimension=4, prompts=3, actions=3, seed=3)
    true = task.beta * (task.features @ task.truth).numpy()
    closed = np.exp(true / task.beta) / np.exp(true / task.beta).sum(1, keepdims=True)
    assert float(reward(task, task.truth)) == pytest.approx((closed * true).sum(1).mean(), rel=1e-12)
    best = task.beta * (np.log(np.exp(true / task.beta).mean(1))).mean()  # beta log Z
    assert float(regularised(task, task.truth)) == pytest.approx(best, rel=1e-12)
    others = task.truth + torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(regularised(task, others).max()) < best


def test_limit_at_the_reference_every_pair_costs_log_two():
    pairs = random_pairs(5, seed=4)
    same = Pairs(pairs.policy_chosen, pairs.policy_rejected, pairs.policy_chosen, pairs.policy_rejected)
    torch.testing.assert_close(dpo(0.1)(same)[0], torch.full((5,), np.log(2), dtype=torch.float64))


def test_contrast_confidence_is_free_for_dpo_and_not_for_cdpo():
    # Four pairs that agree: DPO's loss falls for ever as the margin grows; label smoothing turns it round.
    def loss(objective, h):
        zero = torch.zeros(1, dtype=torch.float64)
        return float(objective(Pairs(zero + h, zero, zero, zero))[0])

    assert loss(dpo(1.0), 20) < loss(dpo(1.0), 5) < loss(dpo(1.0), 1)
    assert loss(cdpo(0.2, 1.0), 20) > loss(cdpo(0.2, 1.0), 5) > loss(cdpo(0.2, 1.0), np.log(4))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        dpo(0)
