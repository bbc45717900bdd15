"""With reasons half of the pairs are enough, and length is not taken for one, if the same weights answer and explain.

The paper (Just et al. 2024): DPO with rationales reaches DPO's win rate with a fraction of the pairs, writes less at
length, and gains nothing from rationales of other pairs. Ours, with a known utility and annotators who like length:

A log-linear policy chooses from menus of answers with ten attributes and a length; its weights are also what it
explains with: it names an attribute with the softmax of what each contributes to the margin. With half of DPO's pairs
it wins at least as often against the reference, its answers are shorter than DPO's, general rationales (which half of
the attributes it was) gain less, and rationales of other pairs gain nothing over DPO with as many pairs (twenty worlds
a seed; gamma is one of four that were tried on another seed).

For context: a tiny transformer that reads prompt and both answers and then names the key words that only the chosen one
has, and the faults that only the other one has. Its answers are shorter than DPO's, too, and rationales of other pairs
cost more than its own, but the win rate does not rise: what it learns behind two answers need not serve it before one.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error
from backchannel.parts.objectives import Pairs
from backchannel.parts.torch_fit import fit
from backchannel.preference.rationale_dpo import rationale_dpo
from backchannel.tasks.tiny_answers import (
    ASKED,
    END,
    FILL,
    LENGTH,
    PLAIN,
    TOPIC,
    WORD,
    WORDS,
    AnswerLM,
    counts,
    reference,
    standing,
    win_rate,
)
from backchannel.tasks.tiny_tuning import Annotator, Labelled, drawn_twice, label, measured, rows

ATTRIBUTES, MENU, MENUS, CONFOUND, BETA, SHARED = 10, 16, 400, 0.7, 0.1, 1.0
ALL, HALF = 120, 60
KINDS = ("specific", "general", "irrelevant")
EXAMPLES, STEPS, RATE, GAMMA, SAID, JUDGED = 500, 150, 1e-3, 0.1, 8, 600


def claim(seed: int, full: bool) -> Evidence:
    """Twenty log-linear worlds and one transformer; `full` has a hundred worlds and four transformers."""
    torch.set_num_threads(1)
    worlds = np.random.SeedSequence(seed).generate_state(100 if full else 20)
    found: dict[str, list[tuple[float, float]]] = {}
    for each in worlds:
        for name, value in _world(int(each)).items():
            found.setdefault(name, []).append(value)
    wins = {name: np.array(values)[:, 0] for name, values in found.items()}
    length = {name: np.array(values)[:, 1] for name, values in found.items()}
    half, whole = f"DPO, {HALF} pairs", f"DPO, {ALL} pairs"
    gain, shorter = wins["specific"] - wins[whole], length[whole] - length["specific"]
    detail, nothing = wins["specific"] - wins["general"], wins["irrelevant"] - wins[half]
    tiny = [_transformer(int(each)) for each in np.random.SeedSequence([seed, 1]).generate_state(4 if full else 1)]
    mean = {name: np.mean([each[name] for each in tiny], 0) for name in tiny[0]}
    over, reason = (mean["specific"][0] - mean[name][0] for name in ("DPO", "irrelevant"))
    tokens = mean["DPO"][1] - mean["specific"][1]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for axes, values, title in ((left, wins, "wins against the reference"), (right, length, "length")):
            shown = [mean_and_error(each) for each in values.values()]
            axes.barh(list(values), [m for m, _ in shown], xerr=[3 * e for _, e in shown], color="#0072B2")
            axes.set(title=f"log-linear: {title}")
            axes.invert_yaxis()
        left.set(xlim=(0.5, 1.0))
        right.set_yticks([])

    def cell(values: np.ndarray) -> str:
        return "{:.3f} +- {:.3f}".format(*mean_and_error(values))

    return Evidence(
        statement="With reasons that share weights with answers half of the pairs are enough; length is no reason.",
        checks=[
            at_least("half the pairs, specific: gain in win rate over DPO with all", gain.mean(), 0.0, _errors(gain)),
            at_least("length of DPO with all over specific", shorter.mean(), 0.0, _errors(shorter)),
            at_least("specific: gain in win rate over general", detail.mean(), 0.0, _errors(detail)),
            at_most("irrelevant: gain over DPO with as many pairs, standard errors", _ratio(nothing), 3.0, "1e-3"),
            at_least("transformer: tokens by which specific is shorter than DPO", tokens, 0.0, "unknown",
                     headline=False),
            at_least("transformer: win rate, specific less DPO", over, 0.0, "unknown", headline=False),
            at_least("transformer: win rate, specific less irrelevant", reason, 0.0, "unknown", headline=False),
        ],
        tables=[
            Table("log-linear", ["method", "win rate", "length"], [[n, cell(wins[n]), cell(length[n])] for n in wins]),
            Table("transformer", ["method", "win rate", "length", "gold reward", "divergence"],
                  [[name, f"{v[0]:.3f}", f"{v[1]:.1f}", f"{v[2]:.2f}", f"{v[3]:.1f}"] for name, v in mean.items()]),
        ],
        draw=draw,
    )  # fmt: skip


def _ratio(values: np.ndarray) -> float:
    mean, error = mean_and_error(values)
    return mean / error


def _errors(values: np.ndarray) -> str:
    return f"measured at {_ratio(values):.1f} standard errors"


def _world(seed: int, gamma: float = SHARED) -> dict[str, tuple[float, float]]:
    """Win rate and mean length of each method; the last feature of an answer is its length, which is worth nothing."""
    rng = torch.Generator().manual_seed(seed)
    truth = torch.randn(ATTRIBUTES, generator=rng, dtype=torch.float64)
    truth = torch.cat([truth, torch.zeros(1, dtype=torch.float64)])
    apart = torch.randn(2, ALL, ATTRIBUTES + 1, generator=rng, dtype=torch.float64)
    apart = apart[0] - apart[1]
    likes = apart @ truth + CONFOUND * apart[:, -1]
    apart = apart * torch.where(torch.rand(ALL, generator=rng) < torch.sigmoid(likes), 1.0, -1.0)[:, None]
    why = torch.softmax((truth * apart)[:, :-1], 1).multinomial(1, generator=rng)[:, 0]
    menus = torch.randn(MENUS, MENU, ATTRIBUTES + 1, generator=rng, dtype=torch.float64)
    said = {"specific": why, "general": why, "irrelevant": why[torch.randperm(ALL, generator=rng)]}
    found = {
        f"DPO, {ALL} pairs": _learned(apart, why, "specific", 0.0),
        f"DPO, {HALF} pairs": _learned(apart[:HALF], why[:HALF], "specific", 0.0),
    }
    found |= {kind: _learned(apart[:HALF], said[kind][:HALF], kind, gamma) for kind in KINDS}
    return {name: _judged(theta, truth, menus) for name, theta in found.items()}


def _learned(apart: Tensor, why: Tensor, kind: str, gamma: float) -> Tensor:
    """The weights theta of log pi(y) = theta . y + constant, after steps from the uniform reference."""
    theta = torch.zeros(apart.shape[1], dtype=torch.float64, requires_grad=True)
    zero, objective = torch.zeros(len(apart), dtype=torch.float64), rationale_dpo(gamma, BETA)
    groups = torch.tensor([k * 2 // ATTRIBUTES for k in range(ATTRIBUTES)] + [2])  # of attributes, and the length

    def loss(step: int) -> Tensor:
        reasons = torch.log_softmax(BETA * theta * apart, 1)
        if kind == "general":
            of_group = groups == groups[why][:, None]
            said = torch.where(of_group, reasons, -torch.inf).logsumexp(1)
        else:
            said = reasons.gather(1, why[:, None])[:, 0]
        return objective(Pairs(apart @ theta, zero, zero, zero, rationale=said))[0].mean()

    fit([theta], loss, 150, torch.optim.Adam, 0.1 / BETA)
    return theta.detach()


def _judged(theta: Tensor, truth: Tensor, menus: Tensor) -> tuple[float, float]:
    """How often an answer of the policy is better than one of the reference, and how long it is: exactly."""
    policy, worth = torch.softmax(menus @ theta, 1), menus @ truth
    beats = (worth[:, :, None] > worth[:, None]).double() + 0.5 * (worth[:, :, None] == worth[:, None])
    return float((policy * beats.mean(2)).sum(1).mean()), float((policy * menus[:, :, -1]).sum(1).mean())


class Explained(NamedTuple):
    """Pairs of answers with their rationales."""

    data: Labelled
    why: Tensor  # int64[n, SAID]: END after the end


def _transformer(seed: int) -> dict[str, list[float]]:
    """Win rate, length, gold reward and divergence of each method."""
    start = _reader(seed)
    rng = torch.Generator().manual_seed(seed)
    data = label(*drawn_twice(start, EXAMPLES, rng), rng, Annotator(length=0.2))
    why = _reasons(data)
    others = why[torch.randperm(EXAMPLES, generator=rng)]
    found = {}
    for name, said, gamma in (("DPO", why, 0.0), ("specific", why, GAMMA), ("irrelevant", others, GAMMA)):
        model = _tuned(start, Explained(data, said), gamma, seed)
        now = standing(model, start, JUDGED, seed + 1)
        found[name] = [win_rate(model, start, JUDGED, seed + 2)[0], now.length, now.gold, now.divergence]
    return found


def _reader(seed: int) -> AnswerLM:
    """The reference, with places for a second answer and a rationale."""
    model = reference(seed, width=32, layers=1, steps=300)
    rng = torch.Generator().manual_seed(seed)
    more = torch.randn(LENGTH + SAID, 32, generator=rng)
    model.places = nn.Embedding.from_pretrained(torch.cat([model.places.weight.detach(), more]))
    return model


def _reasons(data: Labelled) -> Tensor:
    """The key words of asked topics that only the chosen answer covers; marks for faults that only the other has."""
    better, worse = counts(data.chosen), counts(data.rejected)
    out = torch.full((len(data.chosen.tokens), SAID), END)
    for i, prompt in enumerate(data.chosen.prompts.tolist()):
        own, others = (_words(each.tokens[i].tolist(), prompt) for each in (data.chosen, data.rejected))
        said = [own[topic] for topic in sorted(own) if topic not in others]
        faults = zip(
            (better.astray, better.repeated, better.rude), (worse.astray, worse.repeated, worse.rude), strict=True
        )
        said += [PLAIN + 1 + k for k, (a, b) in enumerate(faults) if a[i] < b[i]]
        out[i, : len(said)] = torch.tensor(said, dtype=torch.int64)
    return out


def _words(tokens: list[int], prompt: list[int]) -> dict[int, int]:
    """Of each asked topic that is covered the last word."""
    found = {TOPIC + (token - WORD) // WORDS: token for token in tokens if WORD <= token < FILL}
    return {topic: token for topic, token in found.items() if topic in prompt}


def _say(model: AnswerLM, some: Explained) -> Tensor:
    """log pi of the rationales, behind the prompt, the chosen and the rejected answer: [n]."""
    chosen, rejected = some.data.chosen, some.data.rejected
    seen = torch.cat([chosen.prompts, chosen.tokens, rejected.tokens, some.why[:, :-1]], 1)
    logs = torch.log_softmax(model.head(model.hidden(seen)[:, ASKED + 2 * LENGTH :]), -1)
    ended = (some.why == END).cumsum(1) > 1  # the first end is said
    return logs.gather(2, some.why[:, :, None])[:, :, 0].masked_fill(ended, 0.0).sum(1)


def _tuned(start: AnswerLM, given: Explained, gamma: float, seed: int) -> AnswerLM:
    model, rng = copy.deepcopy(start).requires_grad_(True), torch.Generator().manual_seed(seed)
    objective = rationale_dpo(gamma, BETA)

    def loss(step: int) -> Tensor:
        i = torch.randint(EXAMPLES, (64,), generator=rng)
        some = Explained(rows(given.data, i), given.why[i])
        said = _say(model, some) if gamma else torch.zeros(64)
        return objective(measured(model, start, some.data)._replace(rationale=said))[0].mean()

    fit(model.parameters(), loss, STEPS, torch.optim.Adam, RATE)
    return model.requires_grad_(False)
