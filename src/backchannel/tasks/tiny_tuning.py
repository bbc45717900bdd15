"""Tuning the tiny language model of `tasks/tiny_answers.py` on feedback: labels, batches, steps, reward models.

    start = reference(seed)
    data = label(*drawn_twice(start, 2000, rng), rng)
    tuned = tune(start, given(data, 64), dpo(0.5), steps=200, learning_rate=1e-3, seed=seed)

`tune` asks a source for the data of each step, so that fixed data sets (`given`) and answers that the model draws as it
goes are one loop. It serves every objective of parts/objectives.py, by the kind of batch that it reads. `improve` runs
a recipe of parts/recipes.py in rounds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backchannel.parts.objectives import Objective, Pairs, Rollouts, Scores, Singles
from backchannel.parts.recipes import Compared, Kept, Recipe
from backchannel.parts.torch_fit import fit
from backchannel.tasks.tiny_answers import LENGTH, AnswerLM, Answers, fresh, gold, random_prompts, sample


class Labelled(NamedTuple):
    """Pairs of answers, as labelled; tensors are [n]."""

    chosen: Answers
    rejected: Answers
    strength: Tensor | None = None
    gap: Tensor | None = None


class Judged(NamedTuple):
    """Answers with what was said of each; tensors are [n]."""

    answers: Answers
    good: Tensor | None = None
    score: Tensor | None = None


class Drawn(NamedTuple):
    """Answers with their advantages, and how likely each token was when it was drawn; tensors are [n, LENGTH]."""

    answers: Answers
    advantage: Tensor
    sampled: Tensor


Data = Labelled | Judged | Drawn
Source = Callable[[AnswerLM, int, torch.Generator], Data]
"""(the model now, the step, a generator) -> the data of this step."""


class Annotator(NamedTuple):
    """Who compares: Bradley and Terry's model on `scale` gold rewards and `length` for every token, with flips."""

    scale: float = 2.0
    length: float = 0.0
    flips: float = 0.0

    def prefers(self, one: Answers, other: Answers) -> Tensor:
        """The probability that the first answer is called the better one: [n]."""
        ahead = self.scale * (gold(one) - gold(other)) + self.length * (one.length - other.length)
        clean = torch.sigmoid(ahead)
        return (1 - self.flips) * clean + self.flips * (1 - clean)


def drawn_twice(model: AnswerLM, n: int, rng: torch.Generator) -> tuple[Answers, Answers]:
    """Two answers to each of `n` prompts."""
    prompts = random_prompts(n, rng)
    return model.sample(prompts, rng), model.sample(prompts, rng)


def label(one: Answers, other: Answers, rng: torch.Generator, who: Annotator | None = None) -> Labelled:
    """Have an annotator compare two answers to each prompt."""
    who = who or Annotator()
    first = torch.rand(len(one.tokens), generator=rng) < who.prefers(one, other)
    return ordered(one, other, first)


def ordered(one: Answers, other: Answers, first: Tensor) -> Labelled:
    """Pairs in which the first answer was chosen where `first`, bool[n]."""
    pick = first[:, None]
    chosen, rejected = torch.where(pick, one.tokens, other.tokens), torch.where(pick, other.tokens, one.tokens)
    return Labelled(Answers(one.prompts, chosen), Answers(one.prompts, rejected))


def rows(data: Any, chosen: Tensor) -> Any:
    """Some examples of a data set."""
    return type(data)(
        *(None if each is None else each.rows(chosen) if isinstance(each, Answers) else each[chosen] for each in data)
    )


def given(data: Data, batch: int) -> Source:
    """Random batches of a fixed data set."""

    def source(model: AnswerLM, step: int, rng: torch.Generator) -> Data:
        some: Data = rows(data, torch.randint(len(data[0].prompts), (batch,), generator=rng))
        return some

    return source


def measured(model: AnswerLM, start: AnswerLM | None, data: Data) -> Any:
    """The batch that an objective reads: log-probabilities under `model` and `start`, or zeros where there is none."""

    def before(answers: Answers) -> Tensor:
        with torch.no_grad():
            return start.log_probabilities(answers) if start is not None else torch.zeros(answers.tokens.shape)

    if isinstance(data, Labelled):
        both = Answers(*(torch.cat(each) for each in zip(data.chosen, data.rejected, strict=True)))
        n = len(data.chosen.tokens)
        now, then = model.log_probability(both), before(both).sum(1)
        lengths = data.chosen.length, data.rejected.length
        return Pairs(now[:n], now[n:], then[:n], then[n:], *lengths, data.strength, data.gap)
    if isinstance(data, Judged):
        answers = data.answers
        now, then = model.log_probability(answers), before(answers).sum(1)
        return Singles(now, then, answers.length, data.good, data.score)
    answers = data.answers
    return Rollouts(model.log_probabilities(answers), data.sampled, before(answers), answers.mask, data.advantage)


def tune(
    start: AnswerLM,
    source: Source,
    objective: Objective[Any],
    steps: int,
    learning_rate: float,
    seed: int,
    anchor: AnswerLM | None = None,
) -> AnswerLM:
    """A copy of `start`, tuned with Adam.

    Args:
        start: where training begins.
        source: the data of each step.
        objective: a loss.
        steps: of Adam.
        learning_rate: constant.
        seed: of the draws.
        anchor: the reference of the objective; None: `start`.
    """
    model, rng = copy.deepcopy(start).requires_grad_(True), torch.Generator().manual_seed(seed)
    still = (anchor or start) if objective.reference else None

    def loss(step: int) -> Tensor:
        batch = measured(model, still, source(model, step, rng))
        each, _ = objective(batch)
        if objective.weight is None:
            return each.mean()
        weight = objective.weight(batch)
        return (each * weight).sum() / weight.sum()

    fit(model.parameters(), loss, steps, torch.optim.Adam, learning_rate)
    return model.requires_grad_(False)


class Between(AnswerLM):
    """The geometric mixture of two models, but for its constant: a reference, which differences are taken of."""

    def __init__(self, start: AnswerLM, last: AnswerLM, share: float):
        """`share` of the start: 1 is the start alone, 0 the other."""
        nn.Module.__init__(self)
        self.start, self.last, self.share = start, last, share

    def log_probabilities(self, answers: Answers) -> Tensor:
        """Of each token: [n, LENGTH]."""
        parts = [(self.share, self.start), (1 - self.share, self.last)]
        found: Tensor = sum(share * model.log_probabilities(answers) for share, model in parts if share)  # type: ignore[assignment]
        return found


Feedback = Callable[[list[Answers], torch.Generator], Tensor]
"""(k answers to each of n prompts, a generator) -> their scores, [n, k]; or what else the recipe's `select` reads."""


def gold_scores(drawn: list[Answers], rng: torch.Generator) -> Tensor:
    """Feedback that knows the gold reward."""
    return torch.stack([gold(each) for each in drawn], 1)


def improve(
    start: AnswerLM,
    recipe: Recipe,
    feedback: Feedback,
    rounds: int,
    prompts: int,
    steps: int,
    learning_rate: float,
    seed: int,
    batch: int = 64,
    after: Callable[[int, AnswerLM], None] | None = None,
) -> AnswerLM:
    """A copy of `start` that learned by a recipe.

    Args:
        start: the first policy, and the reference.
        recipe: the method.
        feedback: says how good answers are.
        rounds: of drawing and learning.
        prompts: in a round.
        steps: of Adam in a round; its moments begin anew.
        learning_rate: constant.
        seed: of all draws.
        batch: examples in a step; a selection that is not larger is taken whole.
        after: hears the model after each round.
    """
    rng, last = torch.Generator().manual_seed(seed), start
    for each in range(rounds):
        asked = random_prompts(prompts, rng)
        drawn = answered(recipe, last, start, asked, rng)
        scores = feedback(drawn, rng)
        if recipe.token_price:
            scores = scores - recipe.token_price * torch.stack([each.length for each in drawn], 1)
        selection = recipe.select(scores, rng)
        if len(selection.row):
            data = selected(drawn, selection)
            source = given(data, batch) if len(selection.row) > batch else _whole(data)
            begin = start if recipe.begin == "start" else last
            anchor = Between(start, last, recipe.share)
            last = tune(begin, source, recipe.objective, steps, learning_rate, seed + 1 + each, anchor)
        if after is not None:
            after(each, last)
    return last


def answered(recipe: Recipe, last: AnswerLM, start: AnswerLM, asked: Tensor, rng: torch.Generator) -> list[Answers]:
    """k answers to each prompt, from the recipe's mixtures of the policy and the reference."""
    tokens = torch.empty(recipe.answers, len(asked), LENGTH, dtype=torch.int64)
    for some, mixtures in recipe.sources():
        for k, (a, b) in enumerate(mixtures):
            mixture = [(model, asked[some], weight) for model, weight in ((last, a), (start, b)) if weight]
            tokens[k, some] = sample(mixture, rng).tokens
    return [Answers(asked, each) for each in tokens]


def selected(drawn: list[Answers], selection: Compared | Kept) -> Labelled | Judged:
    """The answers that a recipe selected: answer j to prompt i is row i of `drawn[j]`."""
    prompts, tokens = drawn[0].prompts[selection.row], torch.stack([each.tokens for each in drawn], 1)
    if isinstance(selection, Compared):
        better, worse = (Answers(prompts, tokens[selection.row, each]) for each in (selection.better, selection.worse))
        return Labelled(better, worse, selection.strength, selection.gap)
    return Judged(Answers(prompts, tokens[selection.row, selection.answer]), selection.good, selection.score)


def _whole(data: Data) -> Source:
    return lambda model, step, rng: data


class Rewarder(nn.Module):
    """A reward model: a transformer that reads prompt and answer, and a number after the last token."""

    def __init__(self, seed: int, width: int = 48, layers: int = 2, outputs: int = 1):
        super().__init__()
        self.body = fresh(seed, width, layers)
        self.score = nn.Linear(width, outputs)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def features(self, answers: Answers) -> Tensor:
        """[n, width]: the mean over the answer's hidden states."""
        hidden = self.body.hidden(torch.cat([answers.prompts, answers.tokens], 1))[:, answers.prompts.shape[1] :]
        mask = answers.mask[:, :, None]
        mean: Tensor = (hidden * mask).sum(1) / mask.sum(1)
        return mean

    def forward(self, answers: Answers) -> Tensor:
        """[n], or [n, outputs] where there are several."""
        out: Tensor = self.score(self.features(answers))
        return out[:, 0] if out.shape[1] == 1 else out


def learn_reward(
    data: Labelled,
    objective: Objective[Scores],
    steps: int,
    learning_rate: float,
    seed: int,
    batch: int = 64,
    width: int = 48,
    layers: int = 2,
) -> Rewarder:
    """A reward model that is trained from scratch on comparisons with Adam."""
    model, rng = Rewarder(seed, width, layers), torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        some = rows(data, torch.randint(len(data.chosen.tokens), (batch,), generator=rng))
        return objective(Scores(model(some.chosen), model(some.rejected), some.strength, some.gap))[0].mean()

    fit(model.parameters(), loss, steps, torch.optim.Adam, learning_rate)
    return model.requires_grad_(False)
