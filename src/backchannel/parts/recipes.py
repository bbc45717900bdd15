"""Recipes: methods that learn from answers that the model itself draws, in rounds.

    draw k answers to each prompt -> score them -> select what is learned from -> some steps down an objective -> again

What is a method's own is said in numbers, so that one recipe serves a table of actions, a tiny transformer and a large
model: from which distribution an answer is drawn, which answers are selected by their scores, which loss follows, and
what each round begins with. Scores, float[n, k], are rewards or wins by a judge, higher is better.

A selection is a list of pairs (`Compared`: of prompt `row` answer `better` against answer `worse`) or of single answers
(`Kept`). It may be shorter or longer than n; where nothing is worth learning from, it is empty.

An answer is drawn token by token from

    p(token) proportional to pi(token)^a ref(token)^b

for (a, b) in `mixtures`: (1, 0) is the policy, (0, 1) the reference, and the k answers to a prompt take them in turns.
(1 / T, 0) is the policy at the temperature T. Every second prompt may have mixtures of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from backchannel.parts.objectives import Objective


class Compared(NamedTuple):
    """Pairs of answers to one prompt; tensors are [m]."""

    row: Tensor  # int64
    better: Tensor  # int64
    worse: Tensor  # int64
    strength: Tensor | None = None  # the probability that `better` is better
    gap: Tensor | None = None  # by how much its score is higher


class Kept(NamedTuple):
    """Single answers; tensors are [m]."""

    row: Tensor  # int64
    answer: Tensor  # int64
    good: Tensor | None = None  # bool
    score: Tensor | None = None


Selection = Compared | Kept
Sources = list[tuple[slice, list[tuple[float, float]]]]


@dataclass(frozen=True)
class Recipe:
    """How a model learns from its own answers.

    Attributes:
        answers: k, drawn to each prompt.
        select: of scores, float[n, k], and a generator: what is learned from.
        objective: the loss of what was selected.
        mixtures: (a, b) of each answer, in turns.
        second: (a, b) of each answer to the second, fourth, ... prompt of a round; empty: as `mixtures`.
        token_price: what each token of an answer takes from its score, before `select`.
        begin: "last": a round goes on with the weights of the round before; "start": it begins anew.
        anchor: the objective's reference: the model from the "start", that of the "last" round, or the start's share in
            a geometric mixture of the two.
        compares: of a judge without scores, `select` takes judgements of pairs, [n, k, k] with how likely the row's
            answer is the better one; else it gets each answer's share of wins.
    """

    answers: int
    select: Callable[[Tensor, torch.Generator], Selection]
    objective: Objective[Any]
    mixtures: tuple[tuple[float, float], ...] = ((1.0, 0.0),)
    begin: Literal["last", "start"] = "last"
    anchor: Literal["start", "last"] | float = "start"
    second: tuple[tuple[float, float], ...] = ()
    token_price: float = 0.0
    compares: bool = False

    @property
    def share(self) -> float:
        """The start's share in the reference."""
        return {"start": 1.0, "last": 0.0}[self.anchor] if isinstance(self.anchor, str) else self.anchor

    def sources(self) -> Sources:
        """Which prompts of a round are answered from which mixtures: (a, b) of each of the k answers."""
        shares = [(slice(0, None), self.mixtures)]
        if self.second:
            shares = [(slice(0, None, 2), self.mixtures), (slice(1, None, 2), self.second)]
        return [(rows, [some[k % len(some)] for k in range(self.answers)]) for rows, some in shares]


def scored(scores: Tensor, least: int = 1) -> Tensor:
    """The scores; ValueError unless they are finite numbers in [n, k] with k at least `least`."""
    if scores.dim() != 2 or scores.shape[1] < least:
        raise ValueError(
            f"scores must have a row for each prompt and a column for each answer, of at least {least}, "
            f"not {tuple(scores.shape)}"
        )
    if not bool(torch.isfinite(scores).all()):
        row, column = (int(each) for each in (~torch.isfinite(scores)).nonzero()[0])
        raise ValueError(f"the score of answer {column} to prompt {row} is not finite")
    return scores


def best_and_worst(scores: Tensor) -> Compared:
    """Of each prompt the best answer against the worst, where they differ."""
    scored(scores)
    gap, better, worse = scores.max(1)[0] - scores.min(1)[0], scores.argmax(1), scores.argmin(1)
    row = (gap > 0).nonzero()[:, 0]
    return Compared(row, better[row], worse[row], gap=gap[row])
