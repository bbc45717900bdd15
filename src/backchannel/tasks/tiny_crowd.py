"""A crowd and a pool that imitates it, of the tiny language model of `tasks/tiny_answers.py`: who likes what.

Everybody's utility of an answer is the gold reward and a taste of one's own,

    u_k = gold + d_k . (length, style, filler, repeated),

style being how many key words are the second of their topic, less how many are the first: synonyms, of which the gold
reward knows nothing. The tastes d_k of `crowd` are Gaussian and sum to nothing, so that the mean utility of its users
is the gold reward. Those of `imitators` are Gaussian about `LIKED`: as a group they like length, and mind repetitions
less than they should.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from backchannel.tasks.tiny_answers import FILL, VOCABULARY, WORD, Answers, counts, gold

SPREAD = (0.15, 0.3, 0.15, 0.15)  # standard deviations of d
LIKED = (0.08, 0.0, 0.0, 0.05)  # the mean of d among imitators


@dataclass(frozen=True)
class Tastes:
    """What each of K people adds to the gold reward."""

    weights: Tensor  # d: float32[K, 4]

    def __call__(self, answers: Answers) -> Tensor:
        """Utilities, [n, K]."""
        return gold(answers)[:, None] + traits(answers) @ self.weights.T


def traits(answers: Answers) -> Tensor:
    """Length, style, filler and repetitions: float32[n, 4]."""
    has = counts(answers)
    words = one_hot(answers.tokens, VOCABULARY)[:, :, WORD:FILL].sum(1)
    style = words[:, 1::2].sum(1) - words[:, ::2].sum(1)
    return torch.stack([answers.length.float(), style.float(), has.filler, has.repeated], 1)


def crowd(many: int, seed: int) -> Tastes:
    """Users whose mean utility is the gold reward."""
    weights = _drawn(many, seed)
    return Tastes(weights - weights.mean(0))


def imitators(many: int, seed: int) -> Tastes:
    """Annotators that are like the users but for what they like as a group."""
    return Tastes(_drawn(many, seed) + torch.tensor(LIKED))


def _drawn(many: int, seed: int) -> Tensor:
    return torch.tensor(SPREAD) * torch.randn(many, len(SPREAD), generator=torch.Generator().manual_seed(seed))
