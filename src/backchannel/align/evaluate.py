"""Evaluation: held-out records and answers drawn from the model before and after, judged."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from backchannel.align.examples import Example, batch, weights
from backchannel.align.judges import Judge, plain
from backchannel.align.result import Drawn, Entangled, HeldOut, Sample
from backchannel.lm.answers import Text
from backchannel.parts.objectives import Objective
from backchannel.preference.gradient_entanglement import alone, gradient_entanglement, pulls
from backchannel.preference.ratings_vs_rankings import wilson


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(to train on, to judge by): by a hash of prompt and seed, so that a prompt's records stay together.

    The prompt is the record's: in tokens the same one may be cut in more than one way.
    """
    places = [_place(example.record.prompt, seed) for example in examples]
    ranks = sorted(set(places))
    held = set(ranks[: int(len(ranks) * share)])
    if share > 0 and not held and len(ranks) > 1:
        held = set(ranks[:1])
    train = [each for each, place in zip(examples, places, strict=True) if place not in held]
    return train, [each for each, place in zip(examples, places, strict=True) if place in held]


def held_out(
    objective: Objective[Any],
    examples: Sequence[Example],
    sums: Callable[[Sequence[Example]], Tensor],
    most: int,
    baseline: float | None = None,
) -> HeldOut:
    """The loss and the margins of records that were not trained on, `most` at a time; `sums` as of the model now."""
    total = weight = 0.0
    margins: list[float] = []
    right: list[float] = []
    for start in range(0, len(examples), most):
        some = examples[start : start + most]
        with torch.no_grad():
            each, info = objective(batch(objective, some, sums(some), baseline=baseline))
        counted = weights(objective, some).to(each.device)
        total, weight = total + float((each * counted).sum()), weight + float(counted.sum())
        if hasattr(info, "margin"):
            margins += info.margin.double().tolist()
            right += agreement(some, info.margin).tolist()
    found = HeldOut(len(examples), total / weight if weight else float("nan"), margins=margins)
    told = [each for each in right if not math.isnan(each)]
    found.accuracy = float(np.mean(told)) if told else None
    return found


def entangled(
    objective: Objective[Any],
    examples: Sequence[Example],
    sums: Callable[[Sequence[Example]], Tensor],
    parameters: Sequence[Tensor],
) -> Entangled:
    """How the two answers of a few pairs pull at the weights, one pair at a time; `sums` with gradients."""
    cosines, rises, falls = [], [], []
    for each in examples:
        logs = sums([each])
        found = gradient_entanglement(logs[:1], logs[1:2], parameters)
        ways = alone(found, pulls(objective, batch(objective, [each], logs.detach())))
        cosines.append(float(found.cosine.double()))
        rises.append(bool(ways.rises))
        falls.append(bool(ways.falls))
    return Entangled(len(cosines), *(float(np.mean(each)) for each in (cosines, rises, falls)))


def agreement(some: Sequence[Example], margin: Tensor) -> Tensor:
    """1 where a margin, [n], has the sign of what was said of the pair, 1/2 where it is 0, nan where a tie was said."""
    strength = [0.5 if each.facts.get("tie") else each.facts.get("strength", 1.0) for each in some]
    said = torch.sign(torch.tensor(strength, dtype=margin.dtype, device=margin.device) - 0.5)
    return torch.where(said == 0, torch.nan, 0.5 + 0.5 * torch.sign(margin.detach()) * said)


def drawn(
    prompts: Sequence[Text],
    before: Sequence[tuple[str, int, bool]],
    after: Sequence[tuple[str, int, bool]],
    judge: Judge | None,
    name: str,
) -> Drawn:
    """What answers show.

    Args:
        prompts: that were answered.
        before: text, number of tokens and whether it came to an end, of each answer.
        after: of each answer from after.
        judge: says which is better.
        name: of the judge.
    """
    samples = [
        Sample(plain(prompt), one[0], other[0]) for prompt, one, other in zip(prompts, before, after, strict=True)
    ]
    found = Drawn(
        samples,
        lengths=tuple(float(np.mean([each[1] for each in side])) for side in (before, after)),  # type: ignore[arg-type]
        endless=tuple(float(np.mean([not each[2] for each in side])) for side in (before, after)),  # type: ignore[arg-type]
    )
    if judge is None:
        return found
    verdict = judge(prompts, [each[0] for each in after], [each[0] for each in before])
    for sample, win in zip(samples, verdict.wins, strict=True):
        sample.win = win
    for sample, pair in zip(samples, verdict.scores or [None] * len(samples), strict=True):
        sample.scores = None if pair is None else (pair[1], pair[0])
    if known := [each.scores for each in samples if each.scores is not None]:
        early, late = np.mean(known, axis=0)
        found.scores = float(early), float(late)
    heard = np.array([win for win in verdict.wins if win is not None])
    found.judge, found.silent = name, len(samples) - len(heard)
    if len(heard):
        found.wins = float(heard.mean())
        found.interval = wilson(found.wins, len(heard))
    return found


def _place(prompt: Text, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} ".encode() + msgspec.json.encode(prompt)).digest()
