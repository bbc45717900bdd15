"""REINFORCE: raise the log-probability of what was drawn, in proportion to how good it was.

The gradient of an expected reward is the expectation of the reward times the gradient of the log-probability. Any
number that does not depend on the answer may be taken off the reward: with a good one the variance is smaller.

Equations (Williams 1992, eq. 11), for tokens y_t drawn from the policy, with advantages A_t = reward - baseline:

    loss = -sum over tokens of A_t log pi(y_t)

Its gradient is that of the expected reward only where the answers come from the policy as it is now.

Steps: log-probabilities of the tokens that were drawn; the sum.

Deviations: none.

    >>> import torch
    >>> from backchannel.parts.objectives import Rollouts
    >>> from backchannel.preference.reinforce import reinforce
    >>> logs, mask = torch.tensor([[-1.0, -2.0, -9.0]]), torch.tensor([[True, True, False]])
    >>> reinforce()(Rollouts(logs, logs, logs, mask, advantage=torch.full((1, 3), 0.5)))[0]
    tensor([1.5000])

References: williams1992simple.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Objective, Rollouts

CARD = Card(
    name="REINFORCE",
    summary="The plain policy gradient: log-probabilities of what was drawn, weighted by advantages.",
    paper="williams1992simple",
    topics=("policy gradients",),
    feedback=("reward",),
    protocol="objective",
    engine="torch",
    neighbour="rloo",
    example={},
    strength="simple",
    first=True,
    extras=("torch",),
)


class Info(NamedTuple):
    """What to log: the answer's log-probability."""

    log_probability: Tensor  # [n]


def reinforce() -> Objective[Rollouts]:
    """The policy gradient's loss."""

    def objective(rollouts: Rollouts) -> tuple[Tensor, Info]:
        zero = torch.zeros_like(rollouts.policy)
        logs = torch.where(rollouts.mask, rollouts.policy, zero)
        advantage = torch.where(rollouts.mask, rollouts.advantage, zero)
        return -(advantage * logs).sum(1), Info(logs.detach().sum(1))  # (11)

    return Objective(objective, Rollouts, reference=False, credit=centred)


def centred(rewards: Tensor) -> Tensor:
    """Advantages of k answers to each of n prompts, [n, k]: their rewards less the mean of all."""
    return rewards - rewards.mean()
