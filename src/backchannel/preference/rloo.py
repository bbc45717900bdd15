"""RLOO: REINFORCE where each answer's baseline is the mean reward of the other answers to its prompt.

Several answers to one prompt are each other's baseline: it costs nothing, needs no critic, does not depend on the
answer itself, and so leaves the gradient unbiased. The whole answer is one action.

Equations (Ahmadian et al. 2024, section 2.2; the numbers are ours), for k answers to a prompt with rewards R_i:

    A_i  = R_i - mean of R_j over j != i                                                         (1)
    rho  = pi(y_i) / pi_old(y_i), of whole answers
    loss = -min(rho A_i, clip(rho, 1 - epsilon, 1 + epsilon) A_i)                                (2)

Where answers are drawn from the policy as it is, rho is 1 and the gradient is REINFORCE's.

Steps: rewards of k answers; advantages (`leave_one_out`), the same for all tokens of an answer; the clipped loss.

Deviations: the paper draws anew before each step and clips nothing; ours, and TRL's, may take several steps. A price of
leaving the reference belongs in the reward. Log-ratios of answers are cut at +-20.

    >>> import torch
    >>> from backchannel.parts.objectives import Rollouts
    >>> from backchannel.preference.rloo import leave_one_out, rloo
    >>> leave_one_out(torch.tensor([[1.0, 0.0, 0.5, 0.5]]))
    tensor([[ 0.6667, -0.6667,  0.0000,  0.0000]])
    >>> logs, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
    >>> rloo(epsilon=0.2)(Rollouts(logs, logs - 0.5, logs, mask, advantage=torch.full((1, 2), 0.6667)))[0]
    tensor([-0.8000])

References: ahmadian2024back, williams1992simple.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Objective, Rollouts
from backchannel.parts.rollout_losses import LARGEST, clipped, mean_of_tokens

CARD = Card(
    name="RLOO",
    summary="REINFORCE on several answers to each prompt, each the others' baseline; no critic.",
    paper="ahmadian2024back",
    topics=("policy gradients",),
    feedback=("reward",),
    protocol="objective",
    engine="torch",
    neighbour="reinforce",
    example={"epsilon": 0.2},
    strength="simple",
    extras=("torch",),
)


class Info(NamedTuple):
    """What to log: the ratio of each answer's probabilities, now to when it was drawn."""

    ratio: Tensor  # [n]


def rloo(epsilon: float) -> Objective[Rollouts]:
    """REINFORCE leave-one-out, clipped.

    Args:
        epsilon: how far the ratio of an answer's probabilities may go, in (0, 1).
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must lie in (0, 1), not {epsilon}")

    def objective(rollouts: Rollouts) -> tuple[Tensor, Info]:
        difference = torch.where(rollouts.mask, rollouts.policy - rollouts.sampled, torch.zeros_like(rollouts.policy))
        rho = torch.exp(difference.sum(1).clamp(-LARGEST, LARGEST))
        advantage = mean_of_tokens(rollouts.advantage, rollouts.mask)  # of the answer: all of its tokens share it
        loss = clipped(rho, advantage, epsilon, epsilon)  # (2)
        return loss, Info(rho.detach())

    return Objective(objective, Rollouts, reference=False, credit=leave_one_out)


def leave_one_out(rewards: Tensor) -> Tensor:
    """Advantages of k answers to each of n prompts, [n, k], from their rewards; k is at least 2."""
    k = rewards.shape[1]
    if k < 2:
        raise ValueError(f"leaving one out needs at least 2 answers to a prompt, not {k}")
    return (rewards - rewards.mean(1, keepdim=True)) * (k / (k - 1))  # (1)
