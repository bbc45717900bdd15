"""Recipes on a language model: it answers prompts, a judge scores its answers, and it learns from a selection.

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
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from backchannel.align.asked import Asked, away
from backchannel.align.examples import Example
from backchannel.align.guards import Guards
from backchannel.align.judges import Judge, told
from backchannel.align.loop import Interrupt, Loop, Progress
from backchannel.align.model import Answers, evaluating
from backchannel.align.reference import reference_logs
from backchannel.align.result import Settings, Tuned
from backchannel.align.rollouts import Critic, PolicyGradient, rolled, token_logs
from backchannel.align.sampler import Sampler, Transformers
from backchannel.align.start import begin, described, outfit, ready, training_arguments, written
from backchannel.align.tokens import Encoder
from backchannel.align.tune import Tell, longest, saved, sums
from backchannel.lm.answers import Rated, Record, Text
from backchannel.parts.recipes import Compared, Recipe, Selection


def improve(
    model: Any,
    tokenizer: Any,
    records: Iterable[Record],
    recipe: Recipe | PolicyGradient,
    judge: Judge,
    out: Path,
    settings: Settings | None = None,
    *,
    rounds: int = 3,
    prompts: int = 64,
    method: str = "",
    arguments: dict[str, Any] | None = None,
    judge_name: str = "",
    sampler: Sampler | None = None,
    tell: Tell = lambda what, share: None,
) -> Tuned:
    """Improve a model by its own answers, judge it on prompts that it was not trained on, and save it.

    Args:
        model: a causal model of transformers.
        tokenizer: its tokenizer.
        records: whose prompts are answered; what else they say is not read.
        recipe: the method, or a policy gradient.
        judge: says how good answers are, and compares those from after with those from before.
        out: the folder.
        settings: how; `steps`, where it is above 0, and else `epochs` are those of each round.
        rounds: of answering and learning.
        prompts: in a round.
        method: the recipe's key, and its `arguments`, for the record.
        judge_name: for the record.
        sampler: draws answers of the model; None: by transformers.
        tell: hears what is done, and how far it is.

    Raises:
        ValueError: if there are no prompts, or the recipe asks for what is not there.
    """
    settings = settings or Settings()
    if rounds < 1 or prompts < 1:
        raise ValueError(f"rounds and prompts must be 1 or more, not {rounds} and {prompts}")
    if not settings.lora and not hasattr(model, "peft_config"):
        raise ValueError("a recipe needs an adapter (lora above 0): without it the reference is gone after a round")
    mixed = any(each != (1.0, 0.0) for _, mixtures in recipe.sources() for each in mixtures)
    if sampler is not None and mixed and not hasattr(sampler, "mixing"):
        raise ValueError("this recipe draws from mixtures with the reference, and the sampler that was given cannot")
    limit = longest(model, settings.limit)
    encoder = Encoder(tokenizer, limit, prompt_limit=settings.prompt_limit or limit // 2, chat=settings.chat)
    train, held = _prompts(records, encoder, settings)
    read = [tokens for _, tokens in [*train, *held]]
    begin(out, described(model, settings, method, arguments, read), resume=None)
    torch.manual_seed(settings.seed)
    # A round is not gone on with; of its few steps the first would be one of 0 if the learning rate had to rise.
    args = training_arguments(out, msgspec.structs.replace(settings, save=0, warmup=0.0))
    model = ready(model, settings, rewards=False).to(args.device)
    critic = Critic(model) if isinstance(recipe, PolicyGradient) and recipe.objective.critic else None
    answers = Answers(model, critic)
    warm = 1.0 if isinstance(recipe, PolicyGradient) else settings.temperature
    draw = sampler or Transformers(model, encoder.ends, encoder.pad, settings.most, warm)
    asked = Asked(held[: settings.answers], draw, tokenizer, encoder.ends, settings.seed)
    early = asked.answers()
    asked.tried(early, judge, judge_name)
    first = copy.deepcopy(_adapter(model))
    order, rng = itertools.cycle(train), torch.Generator().manual_seed(settings.seed)
    logs = token_logs(answers) if isinstance(recipe, PolicyGradient) else sums(answers)
    interrupt, guards, left, history = Interrupt(save=False), Guards(), Counter[str](), []
    path: list[tuple[float, float]] = []
    unit: tuple[float, float] | None = None
    begun, steps = time.monotonic(), 0
    interrupt.at_once = True  # but for steps of training: drawing and judging take long
    failed = ""
    try:
        with interrupt.listening():
            for each in range(rounds):
                tell(f"round {each + 1}: answering", each / rounds)
                some = list(itertools.islice(order, min(prompts, len(train))))
                drawn = _drawn(recipe, draw, [tokens for _, tokens in some], settings.seed + 1 + each)
                texts = [[tokenizer.decode(answer, skip_special_tokens=True) for answer in row] for row in drawn]
                kept, scores = _scores(judge, [text for text, _ in some], texts, left)
                if not kept:
                    _silent(judge, judge_name, steps)
                    guards.notes.append(f"no answers of round {each + 1} were judged in full: the run ends before it")
                    break
                some, drawn = [some[i] for i in kept], [drawn[i] for i in kept]
                if not mixed:
                    firsts = [(prompt, row[0]) for (_, prompt), row in zip(some, drawn, strict=True)]
                    path.append((float(scores.mean()), away(answers, firsts)))
                if isinstance(recipe, PolicyGradient):
                    unit = unit or (float(scores.mean()), float(scores.std()) or 1.0)
                    chosen = rolled(answers, recipe, some, drawn, scores, unit)
                else:
                    lengths = torch.tensor([[len(answer) for answer in row] for row in drawn]).reshape(scores.shape)
                    selection = recipe.select(scores - recipe.token_price * lengths, rng)
                    chosen = _measured(answers, _examples(selection, some, drawn, left), recipe)
                if not chosen:
                    left["rounds without anything to learn from"] += 1
                    continue
                if recipe.begin == "start":
                    _restore(model, first)
                loop = Loop(model, args, chosen, recipe.objective, logs, [Progress(tell), interrupt, guards])
                interrupt.at_once = False
                loop.train()
                interrupt.at_once = True
                seen = [log for log in loop.state.log_history if "loss" in log]
                history += [{name: float(v) for name, v in log.items()} | {"step": steps + log["step"]} for log in seen]
                steps += loop.state.global_step
                if interrupt.asked:
                    break
    except KeyboardInterrupt:
        if not interrupt.asked:
            raise
    except FloatingPointError as error:
        failed = f"{error}; the judge's scores were {float(scores.min()):.3g} to {float(scores.max()):.3g}"
        if not steps:
            raise FloatingPointError(failed) from None
    seconds = time.monotonic() - begun
    with written("the model", out):
        model.save_pretrained(str(out / "model"))
        saved(out / "model", tokenizer)
    if failed:
        raise FloatingPointError(f"{failed}; what was learned before lies in {out / 'model'}")
    tell("answers after", 1.0)
    return Tuned(
        method=method,
        arguments=arguments or {},
        settings=settings,
        records=len(train) + len(held),
        trained_on=min(rounds * min(prompts, len(train)), len(train)),
        before=None,
        after=None,
        drawn=asked.shown(early, asked.answers(), judge, judge_name, answers),
        history=history,
        steps=steps,
        finished=not interrupt.asked,
        seconds=seconds,
        rounds=path,
        played={"rounds": rounds, "prompts": prompts, "group": recipe.answers, "price": getattr(recipe, "price", 0.0)},
        notes=[*encoder.report.sentences(), *answers.notes, *guards.notes, *told(judge)]
        + [f"{count:,} {why} were left out" for why, count in left.items()],
        **outfit(model),
    )


Prompt = tuple[Text, list[int]]


def _prompts(records: Iterable[Record], encoder: Encoder, settings: Settings) -> tuple[list[Prompt], list[Prompt]]:
    """Different prompts: to learn from, in an order by the seed, and to judge by."""
    found = {
        tuple(tokens): (each.prompt, tokens)
        for each in records
        if (tokens := encoder.asked(each.prompt, each.continues))
    }
    every = list(found.values())
    if len(every) < 2:
        raise ValueError(f"at least two different prompts are needed, to learn from and to judge by, not {len(every)}")
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    cut = min(len(every) - 1, max(1, int(settings.held_out * len(every))))
    return [every[i] for i in order[cut:]], [every[i] for i in order[:cut]]


def _drawn(recipe: Recipe | PolicyGradient, draw: Any, prompts: list[list[int]], seed: int) -> list[list[list[int]]]:
    """k answers to each prompt, from the mixtures that the recipe has for it; a seed for each of a round's mixtures."""
    rows: list[list[list[int]]] = [[] for _ in prompts]
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
) -> tuple[list[int], Tensor]:
    """Which prompts the judge spoke of, and the scores of their answers: [kept, k]."""
    kept, rows = [], []
    for i, (prompt, answers) in enumerate(zip(prompts, texts, strict=True)):
        pairs = list(itertools.combinations(range(len(answers)), 2)) or [(0, 0)]
        verdict = judge([prompt] * len(pairs), [answers[a] for a, _ in pairs], [answers[b] for _, b in pairs])
        row = [0.0] * len(answers)
        if any(win is None for win in verdict.wins):
            left["prompts of which the judge said nothing"] += 1
            continue
        if verdict.scores is not None:
            for (a, b), known in zip(pairs, verdict.scores, strict=True):
                assert known is not None
                row[a], row[b] = known
        else:
            for (a, b), win in zip(pairs, verdict.wins, strict=True):
                assert win is not None
                row[a] += win / (len(answers) - 1)
                row[b] += (1 - win) / (len(answers) - 1)
        kept.append(i)
        rows.append(row)
    return kept, torch.tensor(rows).reshape(len(rows), len(texts[0]))


def _silent(judge: Judge, name: str, steps: int) -> None:
    """ValueError where a judge said nothing before anything was learned; what was learned is kept."""
    if not steps:
        said = f"of no prompt in a round did the judge {name} score all answers, so that nothing can be learned"
        raise ValueError("; ".join([said, *told(judge)]))


def _examples(
    selection: Selection, prompts: list[Prompt], drawn: list[list[list[int]]], left: Counter[str]
) -> list[Example]:
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
