"""Policy gradients on a language model: what each answer that it drew is credited with, ready to be learned from.

    answers -> log-probabilities of their tokens, of the model that drew them and of the reference
            -> rewards less the price of leaving the reference -> advantages -> steps down a loss over `Rollouts`

With the price c the reward of an answer y is score - c log(pi(y) / ref(y)), whose mean is the score less c times the
divergence from the reference. Advantages are those of the loss (`credit`): the other answers to the same prompt are
the yardstick, and no critic is trained.

Answers are drawn at temperature 1, because the ratios that these losses take are those of the model as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from backchannel.align.examples import Example
from backchannel.align.model import Answers, evaluating
from backchannel.align.reference import reference_logs
from backchannel.lm.answers import Rated, Text
from backchannel.parts.objectives import Objective, Rollouts
from backchannel.parts.recipes import Sources


@dataclass(frozen=True)
class PolicyGradient:
    """Rounds in which all answers are learned from.

    Attributes:
        objective: over `Rollouts`, with a `credit`.
        answers: to each prompt.
        price: of leaving the reference, per nat.
    """

    objective: Objective[Rollouts]
    answers: int = 4
    price: float = 0.0
    begin: ClassVar[Literal["last"]] = "last"

    def __post_init__(self) -> None:
        if self.objective.credit is None:
            raise ValueError("this loss needs a critic, which is not trained here: grpo, rloo and reinforce need none")
        if self.answers < 2:
            raise ValueError(f"answers must be 2 or more, each other's yardstick, not {self.answers}")
        if not 0 <= self.price < float("inf"):
            raise ValueError(f"the price of leaving the reference must be at least 0, not {self.price}")

    def sources(self) -> Sources:
        """As of a recipe: all from the policy."""
        return [(slice(None), [(1.0, 0.0)] * self.answers)]


def rolled(
    answers: Answers,
    recipe: PolicyGradient,
    prompts: Sequence[tuple[Text, list[int]]],
    drawn: Sequence[list[list[int]]],
    scores: Tensor,
) -> list[Example]:
    """Every answer with its advantage, and its tokens' log-probabilities as of now and under the reference.

    Args:
        answers: the model that drew them.
        recipe: whose loss follows.
        prompts: as text and in tokens.
        drawn: k answers to each.
        scores: [n, k].
    """
    now, before = [], []
    for (_, prompt), given in zip(prompts, drawn, strict=True):
        with torch.no_grad(), evaluating(answers):
            now.append([each.tolist() for each in answers([prompt], [given]).each()])
        if recipe.price or recipe.objective.reference:
            before.append([each.tolist() for each in reference_logs(answers, [prompt], [given]).each()])
        else:
            before.append([[0.0] * len(each) for each in given])
    away = torch.tensor(
        [[sum(one) - sum(other) for one, other in zip(*row, strict=True)] for row in zip(now, before, strict=True)]
    )
    assert recipe.objective.credit is not None
    advantage = recipe.objective.credit(scores - recipe.price * away if recipe.price else scores)
    return [
        Example(
            Rated(text, "(drawn)"),
            prompt,
            [answer],
            {"advantage": float(advantage[i, j]), "sampled": now[i][j], "reference": before[i][j]},
        )
        for i, (text, prompt) in enumerate(prompts)
        for j, answer in enumerate(drawn[i])
        if answer
    ]


def token_logs(answers: Answers) -> Any:
    """Log-probabilities token by token, [n, tokens], with zeros behind an answer; the model is the one in `answers`."""

    def logs(model: nn.Module, some: Sequence[Example]) -> Tensor:
        found = answers([each.prompt for each in some], [each.answers for each in some]).each()
        return pad_sequence(found, batch_first=True)

    return logs
