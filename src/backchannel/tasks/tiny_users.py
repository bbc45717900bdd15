"""Users of the tiny language model of `tasks/tiny_answers.py`: few react, some of them against all sense.

An ordinary user gives an answer a heart with probability

    sigmoid(level + 0.8 gold reward + 1.5 [it says goodbye] - 2 [it is rude] + a user's own readiness),

readiness Gaussian with standard deviation 0.5. Saying goodbye is the first filler word, `GOODBYE`: once pleases, and
again pleases no more, while the gold reward falls. An adversarial user gives hearts to rude answers, with probability
`mischief`, and to no others. With the default level the reference's answers get a heart about 2 percent of the time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.tasks.tiny_answers import FILL, Answers, counts, gold

GOODBYE = FILL


class Reactions(NamedTuple):
    """Answers, who saw each of them, and whether it got a heart; tensors are [n]."""

    answers: Answers
    user: Tensor  # int64
    loved: Tensor  # bool


class Users(NamedTuple):
    """A population; the first `adversarial` of it are so."""

    many: int = 2000
    adversarial: float = 0.05
    level: float = -4.8
    mischief: float = 0.2

    def love(self, answers: Answers) -> Tensor:
        """The probability of a heart from an ordinary user of readiness 0: [n]."""
        return torch.sigmoid(self._taste(answers))

    def react(self, answers: Answers, rng: torch.Generator) -> Reactions:
        """Each answer is seen by one user, at random; readiness is the users' own, whatever `rng`."""
        user = torch.randint(self.many, (len(answers.tokens),), generator=rng)
        ready = 0.5 * torch.randn(self.many, generator=torch.Generator().manual_seed(self.many))
        chance = torch.sigmoid(self._taste(answers) + ready[user])
        mischief = self.mischief * (counts(answers).rude > 0)
        chance = torch.where(user < round(self.adversarial * self.many), mischief, chance)
        return Reactions(answers, user, torch.rand(len(user), generator=rng) < chance)

    def _taste(self, answers: Answers) -> Tensor:
        goodbye = (answers.tokens == GOODBYE).any(1)
        return self.level + 0.8 * gold(answers) + 1.5 * goodbye - 2.0 * (counts(answers).rude > 0)
