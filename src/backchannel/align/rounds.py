"""Rounds of a recipe: a model answers prompts, a judge scores its answers, and it learns from a selection of them.

    answers to some prompts -> scores -> selection -> log-probabilities under the anchor -> steps -> answers ...

Answers are learned from as they were drawn, token by token: they are not decoded and read again, which would move token
borders. One that was cut off has no end, and none is added. Two answers to a prompt that are the same say nothing of
each other; such pairs are left out and counted.

Scores are a judge's own where it gives any, else each answer's share of wins against the others to its prompt. An
answer of which the judge says nothing takes its prompt out of the round, and is counted.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from backchannel.align.asked import away
from backchannel.align.examples import Example
from backchannel.align.guards import Guards
from backchannel.align.judges import Judge, told
from backchannel.align.loop import Interrupt, Loop, Progress
from backchannel.align.model import Answers, evaluating
from backchannel.align.reference import reference_logs
from backchannel.align.rollouts import Critic, PolicyGradient, rolled, token_logs
from backchannel.align.tune import Tell, sums
from backchannel.lm.answer_kinds import left_out
from backchannel.lm.answers import Rated, Text
from backchannel.parts.recipes import Compared, Recipe, Selection

Prompt = tuple[Text, list[int]]
Drawn = list[list[list[int]]]
"""Answers in tokens: k to each prompt."""


class Rounds:
    """What a run learns from, round by round, and what became of it.

    Attributes:
        answers: the model's log-probabilities, with those of a critic where the recipe has one.
        history: what each step logged.
        steps: of all rounds.
        path: before each round the mean score, and the divergence from the start in nats.
        learned: the prompts that were learned from, in tokens.
        left: what was left out, counted.
        guards: what should be said.
        interrupt: hears signals.
        failed: what ended the rounds too early.
    """

    def __init__(self, model: Any, recipe: Recipe | PolicyGradient, judge: Judge, args: Any, seed: int, tell: Tell):
        """For a model that is ready for training, where the Trainer's `args` say."""
        self.model, self.recipe, self.judge, self.args, self.seed, self.tell = model, recipe, judge, args, seed, tell
        if isinstance(recipe, PolicyGradient):
            self.answers = Answers(model, Critic(model) if recipe.objective.critic else None)
            self._logs = token_logs(self.answers)
        else:
            self.answers = Answers(model)
            self._logs = sums(self.answers)
        self.history: list[dict[str, float]] = []
        self.path: list[tuple[float, float]] = []
        self.steps, self.learned, self.left = 0, set[tuple[int, ...]](), Counter[str]()
        self.failed: BaseException | None = None
        self.interrupt, self.guards = Interrupt(save=False), Guards()
        self._first = copy.deepcopy(_adapter(model))
        self._rng = torch.Generator().manual_seed(seed)
        self._unit: tuple[float, float] | None = None

    def play(self, train: Sequence[Prompt], rounds: int, prompts: int, draw: Any, tokenizer: Any, name: str) -> None:
        """All rounds, until a signal or an error ends them, or a judge that says nothing.

        Args:
            train: the prompts, in turns.
            rounds: how many.
            prompts: in each.
            draw: answers of the model.
            tokenizer: reads them to the judge.
            name: the judge's.
        """
        order = itertools.cycle(train)
        self.interrupt.at_once = True  # but for steps of training: drawing and judging take long
        try:
            with self.interrupt.listening():
                for number in range(rounds):
                    self.tell(f"round {number + 1}: answering", number / rounds)
                    some = list(itertools.islice(order, min(prompts, len(train))))
                    drawn = _drawn(self.recipe, draw, [tokens for _, tokens in some], self.seed + 1 + number)
                    texts = [[tokenizer.decode(answer, skip_special_tokens=True) for answer in row] for row in drawn]
                    kept, scores, wins = _scores(self.judge, [text for text, _ in some], texts, self.left)
                    if not kept:
                        _silent(self.judge, name, self.steps)
                        said = f"no answers of round {number + 1} were judged in full: the run ends before it"
                        self.guards.notes.append(said)
                        break
                    self._learn([some[i] for i in kept], [drawn[i] for i in kept], scores, wins)
                    if self.interrupt.asked:
                        break
        except KeyboardInterrupt as error:
            if not self.interrupt.asked:
                self.failed = error
        except (Exception, SystemExit) as error:  # a judge's, too: what was learned before is kept
            self.failed = error

    def notes(self) -> list[str]:
        """What a user should know."""
        return [*self.answers.notes, *self.guards.notes, *left_out(self.left)]

    def _learn(self, some: list[Prompt], drawn: Drawn, scores: Tensor, wins: Tensor | None) -> None:
        """The steps of one round."""
        if not mixed(self.recipe):
            firsts = [(prompt, row[0]) for (_, prompt), row in zip(some, drawn, strict=True)]
            self.path.append((float(scores.mean()), away(self.answers, firsts)))
        chosen = self._chosen(some, drawn, scores, wins)
        if not chosen:
            self.left["rounds without anything to learn from"] += 1
            return
        progress = [Progress(self.tell), self.interrupt, self.guards]
        loop = Loop(self.model, self.args, chosen, self.recipe.objective, self._logs, progress)
        earlier, whole = None, False
        self.interrupt.at_once = False
        try:
            if self.recipe.begin == "start":
                earlier = copy.deepcopy(_adapter(self.model)) if self.steps else None
                _restore(self.model, self._first)
            loop.train()
            whole = loop.state.global_step == loop.state.max_steps
        except FloatingPointError as error:
            ends = f"{float(scores.min()):.3g} to {float(scores.max()):.3g}"
            raise FloatingPointError(f"{error}; the judge's scores were {ends}") from None
        finally:
            if whole or earlier is None:
                self._count(loop, chosen)
            else:  # of a round that began anew, a part is less than the round before
                _restore(self.model, earlier)
                self.guards.notes.append("the last round was cut off: what is kept is the round before it")
            self.interrupt.at_once = True

    def _count(self, loop: Loop, chosen: list[Example]) -> None:
        """What a round did."""
        self.learned |= {tuple(each.prompt) for each in chosen}
        seen = [log for log in loop.state.log_history if "loss" in log]
        self.history += [
            {name: float(value) for name, value in log.items()} | {"step": self.steps + log["step"]} for log in seen
        ]
        self.steps += loop.state.global_step

    def _chosen(self, some: list[Prompt], drawn: Drawn, scores: Tensor, wins: Tensor | None) -> list[Example]:
        """What is learned from: with log-probabilities under the anchor, or with advantages."""
        if isinstance(self.recipe, PolicyGradient):
            self._unit = self._unit or (float(scores.mean()), float(scores.std()) or 1.0)
            return rolled(self.answers, self.recipe, some, drawn, scores, self._unit)
        lengths = torch.tensor([[len(answer) for answer in row] for row in drawn]).reshape(scores.shape)
        judged = scores - self.recipe.token_price * lengths
        if self.recipe.compares and wins is not None:
            judged = wins
        selection = self.recipe.select(judged, self._rng)
        return _measured(self.answers, _examples(selection, some, drawn, self.left), self.recipe)


def mixed(recipe: Recipe | PolicyGradient) -> bool:
    """Whether it draws from mixtures with the reference."""
    return any(each != (1.0, 0.0) for _, mixtures in recipe.sources() for each in mixtures)


def _drawn(recipe: Recipe | PolicyGradient, draw: Any, prompts: list[list[int]], seed: int) -> Drawn:
    """k answers to each prompt, from the mixtures that the recipe has for it; a seed for each of a round's mixtures."""
    rows: Drawn = [[] for _ in prompts]
    seeds = itertools.count(seed, 1_000_003)
    for some, mixtures in recipe.sources():
        found = {}
        for each in dict.fromkeys(mixtures):
            source = draw if each == (1.0, 0.0) else draw.mixing(*each)
            found[each] = [iter(answers) for answers in source(prompts[some], mixtures.count(each), next(seeds))]
        for i, row in enumerate(rows[some]):
            row.extend(next(found[each][i]) for each in mixtures)
    return rows


def _scores(
    judge: Judge, prompts: Sequence[Text], texts: list[list[str]], left: Counter[str]
) -> tuple[list[int], Tensor, Tensor | None]:
    """Which prompts the judge spoke of, the scores of their answers, [kept, k], and of a judge that compares its wins.

    These are [kept, k, k]: how likely the row's answer is better than the column's; a half on the diagonal.
    """
    k = len(texts[0])
    pairs = list(itertools.combinations(range(k), 2)) or [(0, 0)]
    kept, rows, won = [], [], []
    for i, (prompt, answers) in enumerate(zip(prompts, texts, strict=True)):
        verdict = judge([prompt] * len(pairs), [answers[a] for a, _ in pairs], [answers[b] for _, b in pairs])
        if any(win is None for win in verdict.wins):
            left["prompts of which the judge said nothing"] += 1
            continue
        if verdict.scores is None:
            if k < 2:
                raise ValueError(
                    "a judge that compares needs two answers or more to a prompt, and the recipe draws one"
                )
            wins = torch.full((k, k), 0.5, dtype=torch.float64)
            for (a, b), win in zip(pairs, verdict.wins, strict=True):
                assert win is not None
                wins[a, b], wins[b, a] = win, 1 - win
            won.append(wins)
            row = (wins.sum(1) - 0.5) / (k - 1)
        else:
            row = torch.zeros(k, dtype=torch.float64)
            for (a, b), known in zip(pairs, verdict.scores, strict=True):
                assert known is not None
                row[a], row[b] = known
        kept.append(i)
        rows.append(row)
    return kept, torch.stack(rows) if rows else torch.zeros(0, k), torch.stack(won) if won else None


def _silent(judge: Judge, name: str, steps: int) -> None:
    """ValueError where a judge said nothing before anything was learned; what was learned is kept."""
    if not steps:
        said = f"of no prompt in a round did the judge {name} score all answers, so that nothing can be learned"
        raise ValueError("; ".join([said, *told(judge)]))


def _examples(selection: Selection, prompts: list[Prompt], drawn: Drawn, left: Counter[str]) -> list[Example]:
    found = []
    for m, i in enumerate(selection.row.tolist()):
        text, tokens = prompts[i]
        columns = (selection.better, selection.worse) if isinstance(selection, Compared) else (selection.answer,)
        answers = [drawn[i][int(column[m])] for column in columns]
        if not all(answers) or (len(answers) == 2 and answers[0] == answers[1]):
            left["pairs of answers that are the same"] += 1
            continue
        names = ("strength", "gap") if isinstance(selection, Compared) else ("good", "score")
        facts = {name: getattr(selection, name)[m].item() for name in names if getattr(selection, name) is not None}
        found.append(Example(Rated(text, "(drawn)"), tokens, answers, facts))
    return found


def _measured(answers: Answers, some: list[Example], recipe: Recipe) -> list[Example]:
    """With the log-probabilities under the anchor, a few examples at a time."""
    if not recipe.objective.reference:
        return some
    found = []
    for each in some:
        prompts, given, share = [each.prompt], [each.answers], recipe.share
        logs = torch.zeros(len(each.answers), dtype=torch.float64)
        if share > 0:
            logs += share * reference_logs(answers, prompts, given).sums().double().cpu()
        if share < 1:
            with torch.no_grad(), evaluating(answers):
                logs += (1 - share) * answers(prompts, given).sums().double().cpu()
        found.append(each._replace(before=tuple(logs.tolist())))
    return found


def _adapter(model: Any) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}


@torch.no_grad()
def _restore(model: Any, saved: dict[str, Tensor]) -> None:
    for name, each in _adapter(model).items():
        each.copy_(saved[name])
