"""Gradients say beforehand whether chosen and rejected answers rise or fall; a normalised step keeps the chosen up.

The paper (Yuan et al. 2024): losses of the margin raise or lower chosen and rejected answers together where the inner
product of their gradients is large; answers that differ in one token have cosines near 1, and both decline; answers of
other words do not; a step that is normalised pair by pair raises the chosen one. Ours, on a tiny transformer:

1. Along training by DPO, IPO, SimPO, SLiC, CPO and DPO with SFT, on pairs that the model drew and on pairs that differ
   in one token, a small step of gradient descent on 8 pairs (of length 0.003 in the weights) moves the batch's mean
   log-probabilities of both sides as the inner products predict: the sign is right in at least 95 % of steps, for each
   side. For context: how often "chosen up" and "rejected down" are right.
2. Pairs that differ in one token (a key word or a rude one) have a median cosine of at least 0.8, and 60 steps of Adam
   on DPO lower both sides. Pairs without a common token have a median cosine below 0.2, and their chosen answers fall
   by less than a quarter of that. That they do not fall at all, as was hoped for, holds only nearly.
3. With the same steps the normalised gradient raises the chosen answers of the first kind, and lowers the rejected.

Llama and Mistral on summaries, and a small pretrained model, are out of reach. A mask that leaves only the token that
differs takes away a part of the fall: most of it is drift that Adam's steps share over pairs, not a pair's own suffix.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.parts.objectives import Objective, Pairs
from backchannel.preference.cpo import cpo
from backchannel.preference.dpo import dpo
from backchannel.preference.gradient_entanglement import (
    Entanglement,
    gradient_entanglement,
    moves,
    part,
    pulls,
    surrogate,
    unshared,
)
from backchannel.preference.ipo import ipo
from backchannel.preference.sft_regularized_dpo import sft_regularized_dpo
from backchannel.preference.simpo import simpo
from backchannel.preference.slic import slic
from backchannel.tasks.tiny_answers import (
    ASKED,
    BAD,
    END,
    RUDE,
    TOPIC,
    VOCABULARY,
    WORD,
    WORDS,
    AnswerLM,
    Answers,
    gold,
    random_prompts,
    reference,
)
from backchannel.tasks.tiny_tuning import Labelled, drawn_twice, given, label, measured, ordered, rows, tune

LOSSES: dict[str, Objective[Pairs]] = {
    "DPO": dpo(0.1),
    "IPO": ipo(0.1),
    "SimPO": simpo(2.0, 0.5),
    "SLiC": slic(1.0, 0.1),
    "CPO": cpo(0.1),
    "DPO + SFT": sft_regularized_dpo(0.2, 0.1),
}
PAIRS, STEP = 8, 0.003  # of a probe
STEPS, RATE, BATCH = 60, 3e-4, 32  # of training on one kind of pairs


class Probe(NamedTuple):
    """Mean changes of log-probabilities by a small step: chosen and rejected."""

    predicted: tuple[float, float]
    actual: tuple[float, float]


def claim(seed: int, full: bool) -> Evidence:
    """8 probes with each loss on each kind of pairs, and training on two kinds; `full` has 40."""
    torch.set_num_threads(1)
    start, rng = reference(seed), torch.Generator().manual_seed(seed)
    drawn = label(*drawn_twice(start, 512, rng), rng)
    kinds = {"one token": _one_token(start, rng), "nothing in common": _nothing_in_common(start, rng)}
    table, right, naive, points = [], [], [], []
    for name, loss in LOSSES.items():
        for kind, data in (("drawn", drawn), ("one token", kinds["one token"])):
            seen = _probes(start, data, loss, 40 if full else 8, seed)
            same = np.array([np.sign(each.predicted) == np.sign(each.actual) for each in seen])
            hoped = np.array([np.sign(each.actual) == [1, -1] for each in seen])
            right.append(same)
            naive.append(hoped)
            points += seen
            table.append([name, kind, len(seen), *(f"{x:.1%}" for x in (*same.mean(0), *hoped.mean(0)))])
    cosines = {name: _entangled(start, some).cosine for name, some in kinds.items()}
    rows_of, change = [], {}
    for name, some in kinds.items():
        for way in ("DPO", "normalised", "masked"):
            change[name, way] = _trained(start, some, way, seed)
            up, down = change[name, way]
            rows_of.append([name, f"{float(cosines[name].median()):.2f}", way, f"{up:+.2f}", f"{down:+.2f}"])

    def draw(figure: Any) -> None:
        left, right_ = figure.subplots(1, 2)
        for side, (word, colour) in enumerate((("chosen", "C0"), ("rejected", "C3"))):
            left.plot(
                [x.predicted[side] for x in points], [x.actual[side] for x in points], ".", color=colour, label=word
            )
        left.axline((0, 0), slope=1, color="0.7", zorder=0)
        left.set(xlabel="predicted change of log-probability", ylabel="change", title="small steps of six losses")
        left.legend()
        for name, values in cosines.items():
            right_.hist(values.numpy(), bins=np.linspace(-1, 1, 41), alpha=0.7, label=name)
        right_.set(xlabel="cosine of the two gradients", ylabel="pairs", title="answers that differ in")
        right_.legend()

    share, hopes = np.concatenate(right).mean(0), np.concatenate(naive).mean(0)
    near, far = (float(cosines[name].median()) for name in kinds)
    (both_up, both_down), (far_up, _) = change["one token", "DPO"], change["nothing in common", "DPO"]
    normal_up, normal_down = change["one token", "normalised"]
    return Evidence(
        statement="inner products of gradients foretell which answers rise and which fall, and normalising parts them",
        checks=[
            at_least("small steps: predicted sign of the chosen answers is right", share[0], 0.95, "1e-4"),
            at_least("small steps: predicted sign of the rejected answers is right", share[1], 0.95, "1e-4"),
            at_least("one token differs: median cosine", near, 0.8, "below 1e-4"),
            at_most("nothing in common: median cosine", far, 0.2, "below 1e-4"),
            at_most("one token differs, DPO: change of the chosen answers", both_up, -0.5, "unknown"),
            at_most("one token differs, DPO: change of the rejected answers", both_down, -0.5, "below 1e-4"),
            at_most(
                "nothing in common, DPO: fall of the chosen, of that with one token", far_up / both_up, 0.25, "unknown"
            ),
            at_least("one token differs, normalised: change of the chosen answers", normal_up, 0.0, "unknown"),
            at_most("one token differs, normalised: change of the rejected answers", normal_down, -0.5, "below 1e-4"),
            at_least("nothing in common, DPO: change of the chosen answers", far_up, 0.0, "unknown", headline=False),
            at_most("small steps: 'chosen up' is right", hopes[0], share[0], "unknown", headline=False),
            at_most("small steps: 'rejected down' is right", hopes[1], share[1], "unknown", headline=False),
        ],
        tables=[
            Table(
                "small steps along training: share with the right sign",
                ["loss", "pairs", "steps", "chosen, predicted", "rejected, predicted", "chosen up", "rejected down"],
                table,
            ),
            Table(
                f"{STEPS} steps of Adam: change of log-probability",
                ["answers differ in", "median cosine", "gradient", "chosen", "rejected"],
                rows_of,
            ),
        ],
        draw=draw,
    )


def _probes(start: AnswerLM, data: Labelled, loss: Objective[Pairs], many: int, seed: int) -> list[Probe]:
    """Along a training run, what the gradients predict of a small step on a fresh batch, and what it does."""
    model, seen, rng = start, [], torch.Generator().manual_seed(seed)
    for each in range(many):
        some = rows(data, torch.randint(len(data.chosen.tokens), (PAIRS,), generator=rng))
        seen.append(_probe(model, start, some, loss))
        model = tune(model, given(data, BATCH), loss, 4, 1e-3, seed + each, anchor=start)
    return seen


def _probe(model: AnswerLM, start: AnswerLM, some: Labelled, loss: Objective[Pairs]) -> Probe:
    other = copy.deepcopy(model).requires_grad_(True)
    pairs, theta = measured(other, start, some), list(other.parameters())
    logs = pairs.policy_chosen, pairs.policy_rejected
    found, pull = gradient_entanglement(*logs, theta), pulls(loss, pairs)
    down = torch.autograd.grad(surrogate(*logs, pull), theta, materialize_grads=True)
    rate = STEP / float(torch.stack([each.square().sum() for each in down]).sum().sqrt())
    with torch.no_grad():
        for each, slope in zip(theta, down, strict=True):
            each.sub_(rate * slope)
        after = measured(other, start, some)
    expected = moves(found, pull, rate)
    up, down_by = after.policy_chosen - logs[0].detach(), after.policy_rejected - logs[1].detach()
    return Probe(
        (float(expected.chosen.mean()), float(expected.rejected.mean())), (float(up.mean()), float(down_by.mean()))
    )


def _one_token(start: AnswerLM, rng: torch.Generator) -> Labelled:
    """Answers of the model in which one early token is a key word that was asked for, or a rude one."""
    answers = start.sample(random_prompts(600, rng), rng)
    answers = answers.rows(answers.length >= 9)
    n = len(answers.tokens)
    at, place = torch.arange(n), torch.randint(1, 4, (n,), generator=rng)
    topic = answers.prompts[at, 1 + torch.randint(ASKED, (n,), generator=rng)] - TOPIC
    good, bad = answers.tokens.clone(), answers.tokens.clone()
    good[at, place] = WORD + topic * WORDS + torch.randint(WORDS, (n,), generator=rng)
    bad[at, place] = BAD + torch.randint(RUDE, (n,), generator=rng)
    return Labelled(Answers(answers.prompts, good), Answers(answers.prompts, bad))


def _nothing_in_common(start: AnswerLM, rng: torch.Generator) -> Labelled:
    """Answers without a common token, the better one chosen."""
    prompts = random_prompts(3000, rng)
    one, other = start.sample(prompts, rng), start.sample(prompts, rng)
    words = [torch.nn.functional.one_hot(each.tokens, VOCABULARY).sum(1) > 0 for each in (one, other)]
    words = [torch.cat([each[:, :END], each[:, END + 1 :]], 1) for each in words]
    apart = ~(words[0] & words[1]).any(1) & (one.length >= 4) & (other.length >= 4) & (gold(one) != gold(other))
    one, other = one.rows(apart), other.rows(apart)
    return ordered(one, other, gold(one) > gold(other))


def _entangled(start: AnswerLM, some: Labelled) -> Entanglement:
    model = copy.deepcopy(start).requires_grad_(True)
    pairs = measured(model, start, rows(some, torch.arange(48)))
    return gradient_entanglement(pairs.policy_chosen, pairs.policy_rejected, model.parameters())


def _trained(start: AnswerLM, data: Labelled, way: str, seed: int) -> tuple[float, float]:
    """The mean changes of chosen and rejected log-probabilities after steps of Adam on DPO's pulls."""
    model, rng = copy.deepcopy(start).requires_grad_(True), torch.Generator().manual_seed(seed)
    stepper = torch.optim.Adam(model.parameters(), lr=RATE)
    for _ in range(STEPS):
        some = rows(data, torch.randint(len(data.chosen.tokens), (BATCH,), generator=rng))
        pairs = measured(model, start, some)
        logs, pull = (pairs.policy_chosen, pairs.policy_rejected), pulls(LOSSES["DPO"], pairs)
        stepper.zero_grad()
        if way == "normalised":
            part(*logs, pull, model.parameters())
        else:
            chosen, rejected = _masked(model, some) if way == "masked" else logs
            surrogate(chosen, rejected, pull).backward()
        stepper.step()
    with torch.no_grad():
        after = measured(model, start, data)
    up, down = after.policy_chosen - after.reference_chosen, after.policy_rejected - after.reference_rejected
    return float(up.mean()), float(down.mean())


def _masked(model: AnswerLM, some: Labelled) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens that the answers of a pair do not share."""
    masks = [unshared(a.tolist(), b.tolist()) for a, b in zip(some.chosen.tokens, some.rejected.tokens, strict=True)]
    one, other = (torch.tensor([each[side] for each in masks]) for side in (0, 1))
    chosen, rejected = model.log_probabilities(some.chosen) * one, model.log_probabilities(some.rejected) * other
    return chosen.sum(1), rejected.sum(1)
