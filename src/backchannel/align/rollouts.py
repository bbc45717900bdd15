"""Policy gradients on a language model: what each answer that it drew is credited with, ready to be learned from.

    answers -> log-probabilities of their tokens, of the model that drew them and of the reference
            -> rewards less the price of leaving the reference -> advantages -> steps down a loss over `Rollouts`

With the price c the reward of an answer y is score - c log(pi(y) / ref(y)), whose mean is the score less c times the
divergence from the reference. Advantages are those of the loss. For most (`credit`) the other answers to the same
prompt are the yardstick, and every token of an answer earned the same. PPO trains a critic, which says before each
token what to expect: there each token pays its own part of the price, and the score comes with the last one. The
critic is one row of weights over the model's own last hidden states (`Critic`), trained beside the adapter, and not
saved with it. It begins with 0, so that what it is to learn is told in a unit of its own: rewards less the mean score
of the first round, over its standard deviation, which changes nothing of which policy is best.

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
        objective: over `Rollouts`, with a `credit` or a `critic`.
        answers: to each prompt.
        price: of leaving the reference, per nat.
    """

    objective: Objective[Rollouts]
    answers: int = 4
    price: float = 0.0
    begin: ClassVar[Literal["last"]] = "last"

    def __post_init__(self) -> None:
        if self.objective.credit is None and self.objective.critic is None:
            raise ValueError("this loss does not say what its tokens are credited with: it has no credit and no critic")
        if self.answers < 2:
            raise ValueError(f"answers must be 2 or more, each other's yardstick, not {self.answers}")
        if not 0 <= self.price < float("inf"):
            raise ValueError(f"the price of leaving the reference must be at least 0, not {self.price}")

    def sources(self) -> Sources:
        """As of a recipe: all from the policy."""
        return [(slice(None), [(1.0, 0.0)] * self.answers)]


class Critic(nn.Linear):
    """What is to be expected from a token on: a row of weights over hidden states, which begins with 0."""

    def __init__(self, model: Any):
        """For a causal model, of which it becomes a part: what trains the model trains it, too."""
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        weight = base.get_output_embeddings().weight
        super().__init__(weight.shape[1], 1, device=weight.device, dtype=weight.dtype)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        model.critic = self


def rolled(
    answers: Answers,
    recipe: PolicyGradient,
    prompts: Sequence[tuple[Text, list[int]]],
    drawn: Sequence[list[list[int]]],
    scores: Tensor,
    unit: tuple[float, float] = (0.0, 1.0),
) -> list[Example]:
    """Every answer with its advantage, and its tokens' log-probabilities as of now and under the reference.

    Args:
        answers: the model that drew them.
        recipe: whose loss follows.
        prompts: as text and in tokens.
        drawn: k answers to each.
        scores: [n, k].
        unit: what a critic counts from, and in.
    """
    now, before = [], []
    for (_, prompt), given in zip(prompts, drawn, strict=True):
        with torch.no_grad(), evaluating(answers):
            now += [each.cpu() for each in answers([prompt], [given]).each()]
        if recipe.price or recipe.objective.reference:
            logs = reference_logs(answers, [prompt], [given]).each()
            before += [each.cpu().reshape(len(each), -1)[:, 0] for each in logs]
        else:
            before += [torch.zeros(len(each)) for each in given]
    sampled, reference, mask = _padded(now), _padded(before), _padded([torch.ones(len(each)) for each in now]) > 0
    sampled, value = (sampled[..., 0], sampled[..., 1]) if sampled.dim() == 3 else (sampled, None)
    priced = recipe.price * (sampled - reference)  # 0 behind an answer
    returns = None
    if recipe.objective.critic is not None:
        assert value is not None
        last = torch.nn.functional.one_hot(mask.sum(1) - 1, mask.shape[1])
        zero, one = unit
        rewards = ((scores.reshape(-1, 1) - zero) * last - priced) / one
        advantage, returns = recipe.objective.critic(rewards, value, mask)
    else:
        assert recipe.objective.credit is not None
        each = recipe.objective.credit(scores - priced.sum(1).reshape(scores.shape))
        advantage = each.reshape(-1, 1).expand_as(sampled)
    known = {"advantage": advantage, "sampled": sampled, "reference": reference, "returns": returns}
    asked = [prompt for prompt in prompts for _ in range(recipe.answers)]
    given = [answer for row in drawn for answer in row]
    return [
        Example(
            Rated(text, "(drawn)"),
            prompt,
            [answer],
            {name: of[i, : len(answer)].tolist() for name, of in known.items() if of is not None},
        )
        for i, ((text, prompt), answer) in enumerate(zip(asked, given, strict=True))
    ]


def token_logs(answers: Answers) -> Any:
    """Log-probabilities token by token, [n, tokens], with zeros behind an answer; the model is the one in `answers`.

    With a critic [n, tokens, 2], its values behind them.
    """

    def logs(model: nn.Module, some: Sequence[Example]) -> Tensor:
        return _padded(answers([each.prompt for each in some], [each.answers for each in some]).each())

    return logs


def _padded(rows: list[Tensor]) -> Tensor:
    return pad_sequence(rows, batch_first=True)
