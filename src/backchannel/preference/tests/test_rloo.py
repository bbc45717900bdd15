"""RLOO: proofs and contrast."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Rollouts, random_batch  # noqa: E402
from backchannel.preference.reinforce import reinforce  # noqa: E402
from backchannel.preference.rloo import leave_one_out, rloo  # noqa: E402
from backchannel.preference.tests.trl_oracle import rollout_losses  # noqa: E402


def _whole(batch):
    """One advantage for all tokens of an answer, and ratios on both sides of the clip."""
    return batch._replace(
        advantage=batch.advantage[:, :1].expand_as(batch.advantage),
        sampled=batch.policy + 0.1 * (batch.sampled - batch.policy),
    )


def test_step_loss_by_hand():
    batch = _whole(random_batch(Rollouts, 9, seed=1))
    policy, sampled, _, mask, advantage = (np.asarray(x) for x in batch[:5])
    expected = []
    for p, s, m, a in zip(policy, sampled, mask, advantage, strict=True):
        rho = np.exp((p[m] - s[m]).sum())
        expected.append(-min(rho * a[0], np.clip(rho, 0.9, 1.1) * a[0]))
    np.testing.assert_allclose(rloo(0.1)(batch)[0], expected, rtol=1e-10)


def test_step_advantages_leave_one_out():
    rewards = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = [[row[i] - np.delete(row, i).mean() for i in range(5)] for row in rewards.numpy()]
    np.testing.assert_allclose(leave_one_out(rewards), expected, rtol=1e-12)


def test_known_trl():
    batch = _whole(random_batch(Rollouts, 9, seed=2))
    torch.testing.assert_close(rloo(0.1)(batch)[0], rollout_losses("RLOO", batch, low=0.1), rtol=0, atol=1e-6)


def test_known_it_is_unbiased_over_all_pairs_of_answers():
    # Three answers, two drawn at a time: every pair with its probability.
    logits = torch.tensor([0.3, -1.0, 0.8], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    policy = torch.softmax(logits, 0)
    (exact,) = torch.autograd.grad((policy * reward).sum(), logits, retain_graph=True)
    total = torch.zeros(3, dtype=torch.float64)
    for pair in itertools.product(range(3), repeat=2):
        logs = policy.log()[list(pair)][:, None]
        advantage = leave_one_out(reward[list(pair)][None])[0][:, None]
        batch = Rollouts(logs, logs.detach(), logs.detach(), torch.ones(2, 1, dtype=torch.bool), advantage)
        chance = policy.detach()[list(pair)].prod()
        (gradient,) = torch.autograd.grad(rloo(0.2)(batch)[0].mean(), logits, retain_graph=True)
        total -= chance * gradient
    torch.testing.assert_close(total, exact)


def test_limit_on_policy_its_gradient_is_reinforces():
    batch = _whole(random_batch(Rollouts, 5, seed=3))
    policy = batch.policy.clone().requires_grad_()
    batch = batch._replace(policy=policy, sampled=policy.detach())
    (ours,) = torch.autograd.grad(rloo(0.2)(batch)[0].sum(), policy)
    (theirs,) = torch.autograd.grad(reinforce()(batch)[0].sum(), policy)
    torch.testing.assert_close(ours, theirs)


def test_contrast_reinforce_with_raw_rewards_has_more_variance():
    # Rewards 10 and 11, answers drawn evenly, two at a time: all four outcomes, with variances written out.
    rewards = torch.tensor([[10.0, 10.0], [10.0, 11.0], [11.0, 10.0], [11.0, 11.0]], dtype=torch.float64)
    score = 2 * (rewards - 10.5)  # d log pi / d logit difference, doubled
    ours, raw = (leave_one_out(rewards) * score).mean(1), (rewards * score).mean(1)
    assert float(ours.mean()) == pytest.approx(float(raw.mean()))
    assert float(raw.var()) > 100 * float(ours.var())


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"epsilon must lie in \(0, 1\), not 1"):
        rloo(1)
    with pytest.raises(ValueError, match="at least 2 answers"):
        leave_one_out(torch.zeros(3, 1))
