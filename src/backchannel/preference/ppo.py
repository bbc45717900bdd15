"""PPO: clipped policy steps token by token, with a critic that says what to expect.

A token's ratio of probabilities, now to when it was drawn, may gain only within [1 - epsilon, 1 + epsilon]; so a batch
of answers can be used for several steps. The critic's error is part of the loss; its expectations make advantages.

Equations (Schulman et al. 2017, eqs. 7 and 9, 11 and 12), with rho_t = pi(y_t) / pi_old(y_t), V a critic:

    delta_t = r_t + discount V_{t+1} - V_t
    A_t     = delta_t + discount lambda A_{t+1}
    loss    = mean over tokens of (-min(rho_t A_t, clip(rho_t, 1 - epsilon, 1 + epsilon) A_t) + c_1 (V_t - G_t)^2)

where G_t = A_t + V_t when the answer was drawn (`returns`). In tuning language models r_t is -beta times the
log-ratio to the reference, and the reward comes with the last token.

Steps: rewards and the critic's values; advantages and returns (`generalised_advantage`); ratios, clipped; both terms.

Deviations: no entropy bonus (rarely used in tuning) and no clipping of values. Answers count alike, whatever their
length. Log-ratios are cut at +-20.

    >>> import torch
    >>> from backchannel.parts.objectives import Rollouts
    >>> from backchannel.preference.ppo import generalised_advantage, ppo
    >>> mask, value = torch.tensor([[True, True]]), torch.tensor([[0.5, 0.5]])
    >>> advantage, returns = generalised_advantage(torch.tensor([[0.0, 1.0]]), value, mask, discount=1.0, trace=1.0)
    >>> logs = torch.tensor([[-1.0, -2.0]])
    >>> ppo(epsilon=0.2, value_weight=0.1)(Rollouts(logs, logs, logs, mask, advantage, value, returns))[0]
    tensor([-0.4750])

References: schulman2017proximal, schulman2016high, ouyang2022training.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Objective, Rollouts, known
from backchannel.parts.rollout_losses import clipped, log_ratio, mean_of_tokens

CARD = Card(
    name="PPO",
    summary="Clipped policy gradient token by token, with a critic.",
    paper="schulman2017proximal",
    topics=("policy gradients",),
    feedback=("reward",),
    protocol="objective",
    engine="torch",
    neighbour="grpo",
    example={"epsilon": 0.2, "value_weight": 0.1},
    strength="simple",
    extras=("torch",),
)


class Info(NamedTuple):
    """What to log: of each answer, the share of its tokens that were clipped and the critic's mean squared error."""

    clipped: Tensor  # [n]
    value_error: Tensor  # [n]


def ppo(epsilon: float, value_weight: float, trace: float = 0.95) -> Objective[Rollouts]:
    """Proximal policy optimisation.

    Args:
        epsilon: how far a token's ratio may go from 1, in (0, 1).
        value_weight: c_1, of the critic's error, at least 0.
        trace: lambda, of the advantages that whoever plays it computes, in [0, 1].
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must lie in (0, 1), not {epsilon}")
    if not 0 <= value_weight < float("inf"):
        raise ValueError(f"value_weight must be at least 0, not {value_weight}")
    if not 0 <= trace <= 1:
        raise ValueError(f"trace must lie in [0, 1], not {trace}")

    def objective(rollouts: Rollouts) -> tuple[Tensor, Info]:
        mask, advantage = rollouts.mask, rollouts.advantage
        rho = torch.exp(log_ratio(rollouts.policy, rollouts.sampled, mask))
        error = mean_of_tokens((known(rollouts, "value") - known(rollouts, "returns")).square(), mask)
        past = ((rho < 1 - epsilon) & (advantage < 0)) | ((rho > 1 + epsilon) & (advantage > 0))
        loss = mean_of_tokens(clipped(rho, advantage, epsilon, epsilon), mask) + value_weight * error  # (7), (9)
        return loss, Info(mean_of_tokens(past.to(rho.dtype), mask), error.detach())

    def critic(rewards: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return generalised_advantage(rewards, value, mask, discount=1.0, trace=trace)

    return Objective(objective, Rollouts, reference=False, critic=critic)


def generalised_advantage(
    rewards: Tensor, value: Tensor, mask: Tensor, discount: float, trace: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of each token, [n, tokens], without gradients.

    Args:
        rewards: after each token.
        value: what the critic expected at each.
        mask: bool: the answer's tokens, which come first.
        discount: of what comes a token later, in [0, 1].
        trace: lambda, in [0, 1]: 0 trusts the critic, 1 the rewards.
    """
    zero = torch.zeros_like(value)
    r, v = torch.where(mask, rewards, zero).detach(), torch.where(mask, value, zero).detach()
    following, ahead, out = zero[:, 0], zero[:, 0], []
    for t in reversed(range(value.shape[1])):
        delta = r[:, t] + discount * following - v[:, t]  # (12)
        ahead = torch.where(mask[:, t], delta + discount * trace * ahead, zero[:, 0])  # (11)
        following = v[:, t]
        out.append(ahead)
    advantage = torch.stack(out[::-1], 1)
    return advantage, advantage + v
