"""GRPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Rollouts, random_batch  # noqa: E402
from backchannel.preference.grpo import group_advantage, grpo  # noqa: E402
from backchannel.preference.rloo import leave_one_out, rloo  # noqa: E402
from backchannel.preference.tests.trl_oracle import rollout_losses  # noqa: E402


def _whole(batch):
    return batch._replace(advantage=batch.advantage[:, :1].expand_as(batch.advantage))


def test_step_loss_by_hand():
    batch = random_batch(Rollouts, 9, seed=1)
    policy, sampled, reference, mask, advantage = (np.asarray(x) for x in batch[:5])
    losses, shares, prices = [], [], []
    for p, s, r, m, a in zip(policy, sampled, reference, mask, advantage, strict=True):
        terms, past, price = [], [], []
        for t in np.nonzero(m)[0]:
            rho, d = np.exp(p[t] - s[t]), np.exp(r[t] - p[t]) - (r[t] - p[t]) - 1
            terms.append(-min(rho * a[t], np.clip(rho, 0.8, 1.3) * a[t]) + 0.5 * d)
            past.append((rho < 0.8 and a[t] < 0) or (rho > 1.3 and a[t] > 0))
            price.append(d)
        losses.append(np.mean(terms)), shares.append(np.mean(past)), prices.append(np.mean(price))
    loss, info = grpo(0.2, 0.5, epsilon_high=0.3)(batch)
    np.testing.assert_allclose(loss, losses, rtol=1e-10)
    np.testing.assert_allclose(info.clipped, shares, rtol=1e-12)
    np.testing.assert_allclose(info.divergence, prices, rtol=1e-10)
    assert 0 < np.mean(shares) < 1
    constant = grpo(0.2, 0.5, epsilon_high=0.3, longest=12)(batch)[0]
    np.testing.assert_allclose(constant, np.array(losses) * mask.sum(1) / 12, rtol=1e-10)


def test_step_advantages_of_a_group():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [3.0, 3.0, 3.0, 3.0]], dtype=torch.float64)
    spread = np.std([1, 0, 0, 1], ddof=1) + 1e-4
    np.testing.assert_allclose(group_advantage(rewards), [np.array([0.5, -0.5, -0.5, 0.5]) / spread, np.zeros(4)])
    np.testing.assert_allclose(group_advantage(rewards, scale=False)[0], [0.5, -0.5, -0.5, 0.5])


def test_known_trl():
    batch = _whole(random_batch(Rollouts, 9, seed=2))
    plain = rollout_losses("GRPO", batch, low=0.2, beta=0.04)
    torch.testing.assert_close(grpo(0.2, 0.04)(batch)[0], plain, rtol=0, atol=1e-6)
    higher = rollout_losses("GRPO", batch, low=0.2, high=0.28, loss_type="dapo")
    torch.testing.assert_close(grpo(0.2, 0.0, epsilon_high=0.28)(batch)[0], higher, rtol=0, atol=1e-6)
    constant = rollout_losses("GRPO", batch, low=0.2, loss_type="dr_grpo", longest=12)
    torch.testing.assert_close(grpo(0.2, 0.0, longest=12)(batch)[0], constant, rtol=0, atol=1e-6)


def test_known_mean_of_the_divergence_estimate_is_the_divergence():
    policy = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    reference = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    logs, other = policy.log()[:, None], reference.log()[:, None]
    batch = Rollouts(logs, logs, other, torch.ones(3, 1, dtype=torch.bool), torch.zeros(3, 1, dtype=torch.float64))
    estimate = grpo(0.2, 1.0)(batch)[1].divergence
    assert bool((estimate >= 0).all())
    assert float((policy * estimate).sum()) == pytest.approx(float((policy * (policy / reference).log()).sum()))


def test_limit_of_one_token_without_price_it_is_rloo():
    batch = random_batch(Rollouts, 9, seed=3)
    first = batch._replace(mask=torch.arange(9).expand(9, 9) < 1)
    torch.testing.assert_close(grpo(0.2, 0.0)(first)[0], rloo(0.2)(first)[0])


def test_limit_without_a_scale_advantages_are_rloos_shrunk():
    rewards = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(group_advantage(rewards, scale=False) * 4 / 3, leave_one_out(rewards))


def test_contrast_rloo_clips_answers_and_grpo_tokens():
    # Ten tokens, each 5 percent likelier than when drawn: no token has left the clip; the answer has, at 1.05^10.
    policy = torch.full((1, 10), -1.0, requires_grad=True)
    old = policy.detach() - np.log(1.05)
    batch = Rollouts(policy, old, old, torch.ones(1, 10, dtype=torch.bool), torch.ones(1, 10))
    assert float(torch.autograd.grad(rloo(0.2)(batch)[0].sum(), policy)[0].abs().sum()) == 0
    assert float(torch.autograd.grad(grpo(0.2, 0.0)(batch)[0].sum(), policy)[0].sum()) == pytest.approx(-1.05, rel=1e-5)


def test_limit_what_is_masked_may_be_nan():
    batch = random_batch(Rollouts, 5, seed=3)
    hole = torch.where(batch.mask, batch.policy, torch.full_like(batch.policy, torch.nan)).requires_grad_()
    loss, _ = grpo(0.2, 0.04)(batch._replace(policy=hole, sampled=torch.where(batch.mask, batch.sampled, torch.nan)))
    torch.testing.assert_close(loss.detach(), grpo(0.2, 0.04)(batch)[0])
    assert bool(torch.isfinite(torch.autograd.grad(loss.sum(), hole)[0]).all())


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"epsilon": 1, "beta": 0}, "epsilon"),
        ({"epsilon": 0.2, "beta": -1}, "beta"),
        ({"epsilon": 0.2, "beta": 0, "epsilon_high": 0}, "epsilon_high"),
        ({"epsilon": 0.2, "beta": 0, "longest": 0}, "longest"),
    ],
)
def test_wrong_arguments(settings, word):
    with pytest.raises(ValueError, match=word):
        grpo(**settings)
    with pytest.raises(ValueError, match="at least 2 answers"):
        group_advantage(torch.zeros(3, 1))
