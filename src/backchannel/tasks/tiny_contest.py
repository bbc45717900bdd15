"""A judge of the tiny language model's answers whose taste runs in circles, so that no reward explains it.

Answers (`tasks/tiny_answers.py`) have a quality, the gold reward, and a style, two numbers that the gold reward hardly
knows: how many filler words there are, and how many key words name a topic once more with its other word. Each is at
most `MOST`, less half of it. The judge prefers answer a to answer b with probability

    sigmoid(scale (gold_a - gold_b) + length (|a| - |b|) + turn (x_a y_b - y_a x_b)),   (x, y) the style.

The last term makes a circle: of answers that are equally good, doubled words beat plain answers, plain ones beat chatty
ones, these beat answers that are both, and these beat doubled words. It changes its sign with the order of a and b, as
all terms do, so that P(a > b) + P(b > a) = 1. With `turn` 0 the judge is Bradley and Terry's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.tasks.tiny_answers import (
    FILL,
    TOPIC,
    TOPICS,
    VOCABULARY,
    WORD,
    WORDS,
    AnswerLM,
    Answers,
    counts,
    gold,
    random_prompts,
    sample,
)

MOST = 3  # of either feature of style


class Contest(NamedTuple):
    """The judge."""

    scale: float = 1.0  # log-odds for a point of gold reward
    turn: float = 1.0  # the strength of the circle
    length: float = 0.0  # log-odds for a token

    def prefers(self, one: Answers, other: Answers) -> Tensor:
        """The probability that the first answer beats the second: [n]."""
        quality = self.scale * (gold(one) - gold(other)) + self.length * (one.length - other.length)
        a, b = style(one), style(other)
        return torch.sigmoid(quality + self.turn * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]))

    def wins(self, one: Answers, other: Answers, rng: torch.Generator) -> Tensor:
        """Whether the first beats the second, judged once: bool[n]."""
        return torch.rand(len(one.tokens), generator=rng) < self.prefers(one, other)

    def judged(self, drawn: list[Answers], rng: torch.Generator) -> Tensor:
        """Each pair of k answers to a prompt judged once: 1 where the row's answer beats the column's, [n, k, k]."""
        won = torch.zeros(len(drawn[0].tokens), len(drawn), len(drawn))
        for i, one in enumerate(drawn):
            for j, other in enumerate(drawn[:i]):
                first = self.wins(one, other, rng).float()
                won[:, i, j], won[:, j, i] = first, 1 - first
        return won


def style(answers: Answers) -> Tensor:
    """Filler and doubled key words, each in -MOST / 2 .. MOST / 2: [n, 2]."""
    many = torch.nn.functional.one_hot(answers.tokens, VOCABULARY)[:, :, WORD:FILL].sum(1).view(-1, TOPICS, WORDS)
    twice = (many > 0).all(2).float().gather(1, answers.prompts[:, 1:] - TOPIC).sum(1)
    return torch.stack([counts(answers).filler, twice], 1).clamp_max(MOST) - MOST / 2


@torch.no_grad()
def versus(model: AnswerLM, other: AnswerLM, judge: Contest, n: int, seed: int) -> tuple[float, float]:
    """The probability that `model` beats `other`, a fresh answer of each to `n` prompts; and the standard error."""
    rng = torch.Generator().manual_seed(seed)
    prompts = random_prompts(n, rng)
    chance = judge.prefers(model.sample(prompts, rng), other.sample(prompts, rng))
    return float(chance.mean()), float(chance.std()) / n**0.5


class Rival:
    """A reward for answers: whether each beats one of an opponent, the mixture of the policy and the start.

    Attributes:
        policy: the policy of the moment; `follow` keeps it so.
    """

    def __init__(self, judge: Contest, start: AnswerLM, weight: float, seed: int):
        """`weight` of the start in the mixture, token by token: 0 is self-play, 1 the start alone."""
        if not 0 <= weight <= 1:
            raise ValueError(f"weight must lie in [0, 1], not {weight}")
        self.judge, self.start, self.policy, self.weight = judge, start, start, weight
        self._rng = torch.Generator().manual_seed(seed)

    def __call__(self, answers: Answers) -> Tensor:
        """1 where an answer wins and 0 where it loses, judged once: [n]."""
        parts = [(self.policy, 1 - self.weight), (self.start, self.weight)]
        other = sample([(model, answers.prompts, share) for model, share in parts if share], self._rng)
        return self.judge.wins(answers, other, self._rng).float()

    def follow(self, each: int, model: AnswerLM, rolled: object) -> None:
        """What `policy_gradient` calls after each round."""
        self.policy = model
