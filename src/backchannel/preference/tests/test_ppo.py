"""PPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Rollouts, random_batch  # noqa: E402
from backchannel.preference.grpo import grpo  # noqa: E402
from backchannel.preference.ppo import generalised_advantage, ppo  # noqa: E402
from backchannel.preference.tests.ppo_by_hand import ppo_by_hand  # noqa: E402


def test_step_loss_by_hand():
    batch = random_batch(Rollouts, 9, seed=1)
    losses, shares, errors = ppo_by_hand(batch, 0.2, 0.3)
    loss, info = ppo(0.2, 0.3)(batch)
    np.testing.assert_allclose(loss, losses, rtol=1e-10)
    np.testing.assert_allclose(info.clipped, shares, rtol=1e-12)
    np.testing.assert_allclose(info.value_error, errors, rtol=1e-12)


def test_step_the_critic_learns():
    batch = random_batch(Rollouts, 4, seed=2)
    value = batch.value.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ppo(0.2, 0.3)(batch._replace(value=value))[0].sum(), value)
    expected = 0.6 * (batch.value - batch.returns) * batch.mask / batch.mask.sum(1, keepdim=True)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("discount", "trace"), [(1.0, 0.95), (0.9, 0.5), (0.9, 1.0), (1.0, 0.0)])
def test_known_advantages_are_the_sum_that_defines_them(discount, trace):
    batch = random_batch(Rollouts, 5, seed=3)
    rewards = batch.returns
    advantage, returns = generalised_advantage(rewards, batch.value, batch.mask, discount, trace)
    for i in range(5):
        n = int(batch.mask[i].sum())
        r, v = rewards[i, :n].numpy(), np.append(batch.value[i, :n].numpy(), 0)
        delta = [r[t] + discount * v[t + 1] - v[t] for t in range(n)]
        for t in range(n):
            expected = sum((discount * trace) ** k * delta[t + k] for k in range(n - t))
            assert float(advantage[i, t]) == pytest.approx(expected, rel=1e-10, abs=1e-12)
            if trace == 1:
                assert float(returns[i, t]) == pytest.approx(sum(discount**k * r[t + k] for k in range(n - t)))
    assert float(advantage[~batch.mask].abs().sum()) == 0
    if discount == 1:  # the rule of whoever plays the loss
        played = ppo(0.2, 0.3, trace).critic(rewards, batch.value, batch.mask)
        torch.testing.assert_close(played, (advantage, returns), rtol=0, atol=0)


def test_limit_with_a_perfect_critic_and_no_price_it_is_grpo():
    # TRL 1.16 has no PPO any more; its GRPO, to which ours is held, is the oracle of the clipped term.
    batch = random_batch(Rollouts, 9, seed=4)
    torch.testing.assert_close(ppo(0.2, 0.5)(batch._replace(returns=batch.value))[0], grpo(0.2, 0.0)(batch)[0])


def test_contrast_a_critic_credits_tokens_and_a_group_answers():
    # The second of three tokens settles the reward, and the critic has seen it: its advantage is there alone.
    mask, value = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[0.0, 0.0, 1.0]])
    advantage, _ = generalised_advantage(torch.tensor([[0.0, 0.0, 1.0]]), value, mask, 1.0, 0.0)
    assert advantage.tolist() == [[0.0, 1.0, 0.0]]
    logs = torch.full((1, 3), -1.0, requires_grad=True)
    critic = Rollouts(logs, logs.detach(), logs.detach(), mask, advantage, value, value)
    group = critic._replace(advantage=torch.ones(1, 3))
    assert torch.autograd.grad(ppo(0.2, 0.1)(critic)[0].sum(), logs)[0].count_nonzero() == 1
    assert torch.autograd.grad(grpo(0.2, 0.0)(group)[0].sum(), logs)[0].count_nonzero() == 3


@pytest.mark.parametrize(("epsilon", "weight", "word"), [(1, 0, "epsilon"), (0.2, -1, "value_weight")])
def test_wrong_arguments(epsilon, weight, word):
    with pytest.raises(ValueError, match=word):
        ppo(epsilon, weight)
    with pytest.raises(ValueError, match="trace must lie in"):
        ppo(0.2, 0.1, trace=1.5)
    with pytest.raises(ValueError, match="needs the value"):
        ppo(0.2, 0.1)(random_batch(Rollouts, 3, seed=0)._replace(value=None))
