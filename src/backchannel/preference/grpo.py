"""GRPO: PPO's clipped steps, with the group of answers to a prompt in the place of a critic.

Each answer's advantage is its reward less the group's mean, in units of the group's standard deviation, for all of its
tokens alike. Ratios are clipped token by token, and each token pays for its divergence from the reference.

Equations (Shao et al. 2024, eqs. 3 and 4), for an answer of |y| tokens with rho_t = pi(y_t) / pi_old(y_t):

    A    = (R - mean of the group's R) / (their standard deviation + 1e-4)
    D_t  = ref(y_t) / pi(y_t) - log ref(y_t) / pi(y_t) - 1
    loss = 1 / |y| sum over t of (-min(rho_t A_t, clip(rho_t, 1 - epsilon, 1 + epsilon_high) A_t) + beta D_t)

Variants that are options here, as their papers name them: `epsilon_high` above epsilon is DAPO's clip-higher (Yu et al.
2025); `longest` divides the sum over tokens by one constant instead of |y|, and `group_advantage(scale=False)`
leaves the standard deviation out: together Dr. GRPO (Liu et al. 2025), without the bias to short right and long wrong
answers.

Steps: rewards of the group; advantages; ratios, clipped; divergence; the mean over tokens.

Deviations: none. Log-ratios are cut at +-20.

    >>> import torch
    >>> from backchannel.parts.objectives import Rollouts
    >>> from backchannel.preference.grpo import group_advantage, grpo
    >>> advantage = group_advantage(torch.tensor([[1.0, 0.0]]))
    >>> advantage
    tensor([[ 0.7070, -0.7070]])
    >>> logs, mask = torch.full((2, 2), -1.0), torch.ones(2, 2, dtype=torch.bool)
    >>> batch = Rollouts(logs, logs, logs, mask, advantage.T.expand(2, 2))
    >>> grpo(epsilon=0.2, beta=0.04)(batch)[0]
    tensor([-0.7070,  0.7070])

References: shao2024deepseekmath, liu2025understanding, yu2025dapo, schulman2017proximal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Objective, Rollouts, positive
from backchannel.parts.rollout_losses import clipped, divergence, log_ratio, mean_of_tokens

CARD = Card(
    name="GRPO",
    summary="Clipped policy gradient on groups of answers, whose mean and spread take the place of a critic.",
    paper="shao2024deepseekmath",
    topics=("policy gradients",),
    feedback=("reward",),
    protocol="objective",
    engine="torch",
    neighbour="rloo",
    example={"epsilon": 0.2, "beta": 0.04},
    strength="simple",
    extras=("torch",),
)


class Info(NamedTuple):
    """What to log: of each answer, the share of its tokens that were clipped and its mean divergence."""

    clipped: Tensor  # [n]
    divergence: Tensor  # [n]


def grpo(
    epsilon: float, beta: float, epsilon_high: float | None = None, longest: int | None = None
) -> Objective[Rollouts]:
    """Group relative policy optimisation.

    Args:
        epsilon: how far below 1 a token's ratio may go, in (0, 1).
        beta: the price of leaving the reference, at least 0; at 0 no reference is read.
        epsilon_high: how far above 1, positive; None: as far as below.
        longest: the constant to divide by, the longest answer that may be drawn; None: each answer's length.
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must lie in (0, 1), not {epsilon}")
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta must be at least 0, not {beta}")
    high = epsilon if epsilon_high is None else epsilon_high
    positive(epsilon_high=high, longest=1 if longest is None else longest)

    def objective(rollouts: Rollouts) -> tuple[Tensor, Info]:
        mask, advantage = rollouts.mask, rollouts.advantage
        rho = torch.exp(log_ratio(rollouts.policy, rollouts.sampled, mask))
        loss, price = clipped(rho, advantage, epsilon, high), torch.zeros_like(rho)
        if beta > 0:
            price = divergence(log_ratio(rollouts.policy, rollouts.reference, mask))  # (4)
            loss = loss + beta * price
        past = ((rho < 1 - epsilon) & (advantage < 0)) | ((rho > 1 + high) & (advantage > 0))
        mean = mean_of_tokens(loss, mask)  # (3)
        if longest is not None:
            mean = mean * mask.sum(1) / longest
        return mean, Info(mean_of_tokens(past.to(rho.dtype), mask), mean_of_tokens(price, mask).detach())

    return Objective(objective, Rollouts, reference=beta > 0, credit=group_advantage)


def group_advantage(rewards: Tensor, scale: bool = True) -> Tensor:
    """Advantages of k answers to each of n prompts, [n, k], from their rewards; k is at least 2."""
    if rewards.shape[1] < 2:
        raise ValueError(f"a group needs at least 2 answers to a prompt, not {rewards.shape[1]}")
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred / (rewards.std(1, keepdim=True) + 1e-4) if scale else centred
