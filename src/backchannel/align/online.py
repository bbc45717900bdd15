"""Recipes on a language model: it answers prompts, a judge scores its answers, and it learns from a selection.

`rounds.py` has the rounds; here is what stands around them: the prompts, the model, its answers from before and after,
and what is kept.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import torch

from backchannel.align.asked import Asked
from backchannel.align.checks import check_judge, check_model, check_objective, checked
from backchannel.align.ending import noted, saved, written
from backchannel.align.judges import Judge, told
from backchannel.align.load import check_tokenizer
from backchannel.align.result import Settings, Tuned
from backchannel.align.rollouts import PolicyGradient
from backchannel.align.rounds import Prompt, Rounds, mixed
from backchannel.align.sampler import Sampler, Transformers
from backchannel.align.start import begin, described, outfit, ready, room, training_arguments
from backchannel.align.template import RecordError
from backchannel.align.tokens import Encoder
from backchannel.align.tune import Tell
from backchannel.lm.answers import Record
from backchannel.parts.recipes import Recipe


def improve(
    model: Any,
    tokenizer: Any,
    records: Iterable[Record],
    recipe: Recipe | PolicyGradient,
    judge: Judge,
    out: str | Path,
    settings: Settings | None = None,
    *,
    rounds: int = 3,
    prompts: int = 64,
    method: str = "",
    arguments: dict[str, Any] | None = None,
    judge_name: str = "",
    sampler: Sampler | None = None,
    skip_bad_rows: int = 0,
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
        skip_bad_rows: prompts that may be refused.
        tell: hears what is done, and how far it is.

    Raises:
        ValueError: if there are no prompts, or the recipe asks for what is not there.
        FloatingPointError: if a loss is not finite. Rounds before an error, whatever it was, are kept; it says where.
            A signal before the first step ends the call as if nobody had listened.
    """
    settings, out = settings or Settings(), Path(out)
    if not isinstance(recipe, (Recipe, PolicyGradient)):
        raise ValueError(f"expected a recipe, such as oaif(), not {type(recipe).__name__}; objectives are for tune")
    check_objective(recipe.objective)
    check_judge(judge)
    check_model(model, rewards=False)
    if rounds < 1 or prompts < 1:
        raise ValueError(f"rounds and prompts must be 1 or more, not {rounds} and {prompts}")
    if not settings.lora and not hasattr(model, "peft_config"):
        raise ValueError("a recipe needs an adapter (lora above 0): without it the reference is gone after a round")
    if sampler is not None and mixed(recipe) and not hasattr(sampler, "mixing"):
        raise ValueError("this recipe draws from mixtures with the reference, and the sampler that was given cannot")
    check_tokenizer(model, tokenizer)
    limit = room(model, settings.limit)
    encoder = Encoder(tokenizer, limit, prompt_limit=settings.prompt_limit or limit // 2, chat=settings.chat)
    train, held = _prompts(records, encoder, settings, skip_bad_rows)
    read = [tokens for _, tokens in [*train, *held]]
    begin(out, described(model, settings, method, arguments, read), resume=None)
    torch.manual_seed(settings.seed)
    # A round is not gone on with, and its few steps come at the full rate.
    settings = msgspec.structs.replace(settings, save=0, warmup=0.0)
    args = training_arguments(out, settings)
    model = ready(model, settings, rewards=False).to(args.device)
    played = Rounds(model, recipe, judge, args, settings.seed, tell)
    # What is learned from is drawn at temperature 1, as equations have it.
    draw = sampler or Transformers(model, encoder.ends, encoder.pad, settings.most, 1.0, limit)
    shown = sampler or Transformers(model, encoder.ends, encoder.pad, settings.most, settings.temperature, limit)
    asked = Asked(held[: settings.answers], shown, tokenizer, encoder.ends, settings.seed)
    early = asked.answers()
    asked.tried(early, judge, judge_name)
    begun = time.monotonic()
    played.play(train, rounds, prompts, draw, tokenizer, judge_name)
    seconds = time.monotonic() - begun
    if not played.steps:  # nothing was learned, so that there is nothing to keep
        if played.failed is not None:
            raise played.failed
        if played.interrupt.asked:
            signal.raise_signal(played.interrupt.asked)  # for who hears it now
            raise KeyboardInterrupt
    with written("the model", out):
        model.save_pretrained(str(out / "model"))
        saved(out / "model", tokenizer)
    if played.failed is not None:
        raise noted(played.failed, f"what was learned before lies in {out / 'model'}")
    tell("answers after", 1.0)
    notes: list[str] = []
    drawn = asked.shown(early, judge, judge_name, played.answers, notes)
    return Tuned(
        method=method,
        arguments=arguments or {},
        settings=settings,
        records=len(train) + len(held),
        trained_on=len(played.learned),
        before=None,
        after=None,
        drawn=drawn,
        history=played.history,
        steps=played.steps,
        finished=not played.interrupt.asked,
        signal=played.interrupt.asked,
        seconds=seconds,
        rounds=played.path,
        played={
            "rounds": rounds,
            "prompts": prompts,
            "group": recipe.answers,
            "price": getattr(recipe, "price", 0.0),
            "share": getattr(recipe, "share", 1.0),
        },
        notes=notes + encoder.report.sentences() + played.notes() + told(judge),
        **outfit(model),
    )


def _prompts(
    records: Iterable[Record], encoder: Encoder, settings: Settings, skip_bad_rows: int
) -> tuple[list[Prompt], list[Prompt]]:
    """Different prompts: to learn from, in an order by the seed, and to judge by."""

    def asked(record: Record, name: str) -> Prompt:
        tokens = encoder.asked(record.prompt, record.continues, name)
        if not tokens:
            raise RecordError(f"{name}: the prompt has no token")
        return record.prompt, tokens

    found = {tuple(tokens): (text, tokens) for text, tokens in encoder.each(checked(records), asked, skip_bad_rows)}
    every = list(found.values())
    if len(every) < 2:
        raise ValueError(f"at least two different prompts are needed, to learn from and to judge by, not {len(every)}")
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(settings.seed)).tolist()
    cut = min(len(every) - 1, max(1, int(settings.held_out * len(every))))
    return [every[i] for i in order[cut:]], [every[i] for i in order[:cut]]
