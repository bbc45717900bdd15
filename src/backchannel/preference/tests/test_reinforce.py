"""REINFORCE: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Rollouts, random_batch  # noqa: E402
from backchannel.preference.reinforce import reinforce  # noqa: E402
from backchannel.preference.rloo import rloo  # noqa: E402


def _one_token(logs, advantage):
    column = logs[:, None]
    return Rollouts(
        column, column.detach(), column.detach(), torch.ones_like(column, dtype=torch.bool), advantage[:, None]
    )


def test_step_loss_by_hand():
    batch = random_batch(Rollouts, 5, seed=1)
    policy, mask, advantage = (np.asarray(batch[i]) for i in (0, 3, 4))
    loss, info = reinforce()(batch)
    np.testing.assert_allclose(
        loss, [-(a[m] * p[m]).sum() for p, m, a in zip(policy, mask, advantage, strict=True)], rtol=1e-12
    )
    np.testing.assert_allclose(
        info.log_probability, [p[m].sum() for p, m in zip(policy, mask, strict=True)], rtol=1e-12
    )


def test_known_mean_gradient_is_that_of_the_expected_reward():
    # All four answers with their probabilities; the gradient of the expected reward by autograd.
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    policy = torch.softmax(logits, 0)
    (exact,) = torch.autograd.grad((policy * reward).sum(), logits, retain_graph=True)
    for baseline in (0.0, 1.7):
        loss = reinforce()(_one_token(policy.log(), reward - baseline))[0]
        (gradient,) = torch.autograd.grad((policy.detach() * loss).sum(), logits, retain_graph=True)
        torch.testing.assert_close(-gradient, exact)


def test_limit_without_advantage_nothing_moves():
    batch = random_batch(Rollouts, 5, seed=2)
    assert float(reinforce()(batch._replace(advantage=torch.zeros_like(batch.advantage)))[0].abs().sum()) == 0


def test_limit_what_is_masked_may_be_nan():
    batch = random_batch(Rollouts, 5, seed=3)
    hole = torch.where(batch.mask, batch.policy, torch.full_like(batch.policy, torch.nan)).requires_grad_()
    loss, _ = reinforce()(batch._replace(policy=hole))
    torch.testing.assert_close(loss.detach(), reinforce()(batch)[0])
    assert bool(torch.isfinite(torch.autograd.grad(loss.sum(), hole)[0]).all())


def test_contrast_old_answers_pull_reinforce_for_ever():
    # One answer, drawn long ago, is good: its probability has grown threefold since. RLOO's clipping has had enough.
    logs = torch.tensor([[-1.0]], requires_grad=True)
    batch = Rollouts(logs, logs.detach() - np.log(3), logs.detach(), torch.tensor([[True]]), torch.ones(1, 1))
    assert float(torch.autograd.grad(reinforce()(batch)[0].sum(), logs)[0]) == -1
    assert float(torch.autograd.grad(rloo(0.2)(batch)[0].sum(), logs)[0]) == 0
