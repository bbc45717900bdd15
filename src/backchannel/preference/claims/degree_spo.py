"""A classifier of deleted key words beside DPO gives answers that are a little better at the same divergence.

The paper (Li et al. 2024): with the classifier of degrees, DPO, IPO, SLiC and KTO give better summaries and dialogues.
Ours: a tiny transformer, whose answers are compared by an annotator of the gold reward; key words are the key phrases,
those of asked topics first, and there are four degrees. Two pairs of models a seed, with and without the classifier,
learn from the same comparisons in as many steps.

1. The gold reward is higher than DPO's at the same divergence (each path is looked at three times; DPO's is taken to be
   straight between). The gain was 0.04 to 0.07 on six seeds; on one seed it is of the size of its sampling error, but
   for prompts and luck that both share.
2. On fresh answers the degree that is named is right in at least 35 percent of cases (chance: 25).

For context: the 70 percent that we hoped for are out of reach here. Who counts key words and the rest is right in 67
percent of cases, for an answer from which one word is gone looks like an answer; the whole and the empty are named
rightly in most cases, what lies between seldom. A linear probe that is fitted to states of both models reads the degree
from either about as well.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least
from backchannel.parts.torch_fit import fit
from backchannel.preference.degree_spo import DegreeSPO, degree_spo, versions
from backchannel.tasks.tiny_answers import (
    ASKED,
    END,
    FILL,
    LENGTH,
    TOPIC,
    WORD,
    WORDS,
    AnswerLM,
    Answers,
    Standing,
    reference,
    standing,
)
from backchannel.tasks.tiny_tuning import Labelled, drawn_twice, label, measured, rows

PAIRS, FRESH, LOOKS, STEPS, RATE, BATCH, JUDGED = 1000, 400, 3, 40, 1e-3, 64, 800
BETA, GAMMA, DEGREES, WIDTH = 0.1, 0.3, 4, 32


def claim(seed: int, full: bool) -> Evidence:
    """Two pairs of models; `full` has eight."""
    torch.set_num_threads(1)
    seeds = [int(each) for each in np.random.SeedSequence(seed).generate_state(8 if full else 2)]
    found = [_compared(each) for each in seeds]
    named, plain, ours, gain = (float(np.mean([each[name] for each in found])) for name in
                                ("named", "DPO", "Degree SPO", "gain"))  # fmt: skip
    told = np.mean([each["of each"] for each in found], 0)
    table = [
        [i, name, *(f"{look.gold:.2f} at {look.divergence:.1f}" for look in each["paths"][name])]
        for i, each in enumerate(found)
        for name in ("DPO", "Degree SPO")
    ]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.bar(["named", "probe\nDPO", "probe\nDegree SPO"], [named, plain, ours], color="#0072B2")
        left.axhline(1 / DEGREES, color="0.5", linestyle=":", label="chance")
        left.set(ylabel="degrees told apart, share", title="degrees")
        left.legend()
        for i, each in enumerate(found):
            for name, color in (("DPO", "#D55E00"), ("Degree SPO", "#0072B2")):
                path = each["paths"][name]
                shape, said = ("-", ":")[i % 2], name if i == 0 else None
                x, y = [look.divergence for look in path], [look.gold for look in path]
                right.plot(x, y, shape, color=color, marker=".", label=said)
        right.set(xlabel="divergence", ylabel="gold reward", title="answers")
        right.legend()

    return Evidence(
        statement="A classifier of deleted key words beside DPO: better answers at the same divergence, by a little.",
        checks=[
            at_least("gain in gold reward over DPO at the same divergence", gain, 0.0, "unknown: about 2 errors"),
            at_least("share of degrees named rightly on fresh answers, four degrees", named, 0.35, "below 1e-4"),
            at_least("share of degrees named rightly, as hoped for", named, 0.7, "unknown", headline=False),
            at_least("linear probe: share on Degree SPO's states less DPO's", ours - plain, 0.0, "unknown",
                     headline=False),
        ],
        tables=[
            Table("named rightly, by degree", ["share"] + [str(d) for d in range(DEGREES)], [
                ["Degree SPO", *(f"{each:.2f}" for each in told)]
            ]),
            Table("gold reward at divergence", ["models", "method", *map(str, range(0, (LOOKS + 1) * STEPS, STEPS))],
                  table),
        ],
        draw=draw,
    )  # fmt: skip


def _compared(seed: int) -> dict[str, Any]:
    """Both methods from one start on the same pairs."""
    start = reference(seed, width=WIDTH, layers=1, steps=200)
    rng = torch.Generator().manual_seed(seed)
    data = label(*drawn_twice(start, PAIRS, rng), rng)
    fresh = label(*drawn_twice(start, FRESH, rng), rng).chosen
    graded, others = _versions(data.chosen), _versions(fresh)
    plain, _, path = _tuned(start, data, graded, 0.0, seed)
    model, spo, ours = _tuned(start, data, graded, GAMMA, seed)
    with torch.no_grad():
        right = spo.named(_states(model, fresh.prompts, others)) == torch.arange(DEGREES)
        states = {
            name: [_states(each, some.prompts, cut) for some, cut in ((data.chosen, graded), (fresh, others))]
            for name, each in (("DPO", plain), ("Degree SPO", model))
        }
    x, y = [look.divergence for look in path], [look.gold for look in path]
    gains = [look.gold - float(np.interp(look.divergence, x, y)) for look in ours[1:]]
    found = {name: _probed(some, test, seed) for name, (some, test) in states.items()}
    return found | {
        "named": float(right.float().mean()),
        "of each": right.float().mean(0).numpy(),
        "gain": float(np.mean(gains)),
        "paths": {"DPO": path, "Degree SPO": ours},
    }


def _tuned(
    start: AnswerLM, data: Labelled, graded: Tensor, gamma: float, seed: int
) -> tuple[AnswerLM, DegreeSPO, list[Standing]]:
    """A model, its classifier, and how it stood after each part of training; two versions of each answer in a step."""
    model, rng = copy.deepcopy(start).requires_grad_(True), torch.Generator().manual_seed(seed)
    spo, path = degree_spo(WIDTH, DEGREES, gamma, BETA), [standing(start, start, JUDGED, seed + 1)]

    def loss(step: int) -> Tensor:
        i, degree = torch.randint(PAIRS, (BATCH,), generator=rng), torch.randint(DEGREES, (BATCH, 2), generator=rng)
        some = rows(data, i)
        states = (
            _states(model, some.chosen.prompts, graded[i[:, None], degree]) if gamma else torch.zeros(BATCH, 2, WIDTH)
        )
        return spo(measured(model, start, some), states, degree)[0].mean()

    for _ in range(LOOKS):
        fit([*model.parameters(), *spo.parameters()], loss, STEPS, torch.optim.Adam, RATE)
        path.append(standing(model, start, JUDGED, seed + 1))
    return model.requires_grad_(False), spo, path


def _probed(states: Tensor, fresh: Tensor, seed: int) -> float:
    """How often a linear classifier that was fitted to states [n, DEGREES, width] names the degree of fresh ones."""
    probe, rng = degree_spo(WIDTH, DEGREES), torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        i = torch.randint(len(states), (256,), generator=rng)
        return probe.surprise(states[i], torch.arange(DEGREES).expand(256, -1)).mean()

    fit(probe.parameters(), loss, 150, torch.optim.Adam, 0.03)
    return float((probe.named(fresh) == torch.arange(DEGREES)).float().mean())


def _phrases(prompt: list[int], tokens: list[int]) -> list[tuple[int, int]]:
    """Key words, each a phrase: those of asked topics first."""
    asked = [TOPIC + (token - WORD) // WORDS in prompt for token in tokens]
    places = [i for i, token in enumerate(tokens) if WORD <= token < FILL]
    return [(i, i + 1) for i in sorted(places, key=lambda i: not asked[i])]


def _versions(answers: Answers) -> Tensor:
    """int64[n, DEGREES, LENGTH]: END after the end."""
    out = torch.full((len(answers.tokens), DEGREES, LENGTH), END)
    for i, (prompt, tokens) in enumerate(zip(answers.prompts.tolist(), answers.tokens.tolist(), strict=True)):
        said = tokens[: tokens.index(END)] if END in tokens else tokens
        for d, each in enumerate(versions(said, _phrases(prompt, said), DEGREES)):
            out[i, d, : len(each)] = torch.tensor(each, dtype=torch.int64)
    return out


def _states(model: AnswerLM, prompts: Tensor, tokens: Tensor) -> Tensor:
    """[n, v, width]: the mean state over the tokens of each version, [n, v, LENGTH], its end included."""
    n, v = tokens.shape[:2]
    answers = Answers(prompts.repeat_interleave(v, 0), tokens.flatten(0, 1))
    hidden = model.hidden(torch.cat([answers.prompts, answers.tokens], 1))[:, 1 + ASKED :]
    mask = answers.mask[:, :, None]
    return torch.as_tensor((hidden * mask).sum(1) / mask.sum(1)).view(n, v, -1)
