"""A vote of reward models finds wrong labels, and training without them is worth more than 3 points of accuracy.

The paper (Wang et al. 2024): of the preferences that ten reward models rate lowest, most are wrong; flipping them and
training with soft labels and adaptive margins gives better reward models than the data as they are. Ours: 1,000 pairs
of answers with 30 Gaussian features, rewards linear in them, 25 % of the labels flipped; reward models of one hidden
layer, trained for ten rounds, long enough to fit some of the wrong labels. All are trained alike; five worlds a seed.

1. Of the lowest 20 % by the strength of ten models, at least 60 % are wrong (of all labels, 25 %).
2. Flipping these, and flipping these with adaptive margins, is each at least 3 points more accurate on new pairs than
   training on the labels as they are.

For context: label smoothing is no better than nothing. Leaving the lowest 20 % out, a baseline, gains a point more than
flipping them, which turns a third of them from right to wrong; soft labels after the flip, which aim at the
undecided margins of the models that voted, gain less than either. A contrast term, on two views of the hidden layer's
differences with dropout, changes little on features as plain as these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import dropout, logsigmoid

from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error
from backchannel.parts.objectives import Scores
from backchannel.preference.bradley_terry import bradley_terry
from backchannel.preference.preference_strength import (
    adaptive_margin,
    contrast,
    flip,
    preference_strength,
    soft_labels,
)

PAIRS, FEATURES, HIDDEN, FLIPPED, LOWEST, MODELS = 1000, 30, 64, 0.25, 0.2, 10
ROUNDS, BATCH, RATE, SMOOTHING, CONTRAST = 10, 64, 0.005, 0.1, 0.1
PLAIN, FLIP, MARGIN, LEFT_OUT = "as they are", "lowest flipped", "flipped, adaptive margins", "lowest left out"
Loss = Callable[[Scores], Tensor]


def claim(seed: int, full: bool) -> Evidence:
    """Five worlds; `full` takes twenty."""
    torch.set_num_threads(1)
    precision: list[float] = []
    accuracy: dict[str, list[float]] = {}
    for i in range(20 if full else 5):
        own = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        share, found = _world(own)
        precision.append(share)
        for name, value in found.items():
            accuracy.setdefault(name, []).append(value)
    means = {name: mean_and_error(values) for name, values in accuracy.items()}
    gains = {name: means[name][0] - means[PLAIN][0] for name in means}
    rows = [[name, f"{mean:.3f} +- {error:.3f}", f"{100 * gains[name]:+.1f}"] for name, (mean, error) in means.items()]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        names = list(means)[::-1]
        axes.barh(names, [means[n][0] for n in names], xerr=[3 * means[n][1] for n in names], color="#0072B2")
        axes.axvline(means[PLAIN][0], color="0.4", linestyle=":")
        axes.set(xlim=(0.6, 1.0), xlabel="accuracy on new pairs", title=f"{MODELS} models vote on labels, 25 % wrong")

    return Evidence(
        statement="Labels that ten reward models rate lowest are mostly wrong; flipped, accuracy grows by 3 points.",
        checks=[
            at_least("share of wrong labels among the lowest 20 %", float(np.mean(precision)), 0.6, "1e-4"),
            at_least("gain in accuracy, flipped", gains[FLIP], 0.03, "1e-4"),
            at_least("gain in accuracy, flipped with adaptive margins", gains[MARGIN], 0.03, "1e-4"),
            at_most(
                "lowest left out, gain over flipped", gains[LEFT_OUT] - gains[FLIP], 0.0, "unknown", headline=False
            ),
        ],
        tables=[Table("reward models on labels of which 25 % are wrong", ["labels", "accuracy", "points"], rows)],
        draw=draw,
    )


def _world(seed: int) -> tuple[float, dict[str, float]]:
    """The share of wrong labels among the lowest, and the accuracy of each way of training."""
    rng = torch.Generator().manual_seed(seed)
    truth = torch.randn(FEATURES, generator=rng)

    def drawn(n: int) -> tuple[Tensor, Tensor]:
        a, b = torch.randn(2, n, FEATURES, generator=rng)
        return flip(a, b, a @ truth < b @ truth)

    chosen, rejected = drawn(PAIRS)
    wrong = torch.rand(PAIRS, generator=rng) < FLIPPED
    chosen, rejected = flip(chosen, rejected, wrong)
    better, worse = drawn(5000)
    none = torch.zeros(PAIRS)

    def plain(scores: Scores) -> Tensor:
        return bradley_terry()(scores)[0]

    def smooth(scores: Scores) -> Tensor:
        d = scores.chosen - scores.rejected
        return -(1 - SMOOTHING) * logsigmoid(d) - SMOOTHING * logsigmoid(-d)

    def accuracy(c: Tensor, r: Tensor, loss: Loss, u: Tensor, weight: float = 0.0) -> float:
        model = _trained(c, r, loss, u, seed, weight)
        return float((_reward(model, better) > _reward(model, worse)).float().mean())

    models = [_trained(chosen, rejected, plain, none, seed + 1 + m) for m in range(MODELS)]
    margins = torch.stack([(_reward(m, chosen) - _reward(m, rejected)).detach() for m in models])
    strength = preference_strength(margins)
    low = strength.weakest(LOWEST)
    c, r = flip(chosen, rejected, low)
    u = torch.where(low, -strength.mean, strength.mean)
    return float(wrong[low].float().mean()), {
        PLAIN: accuracy(chosen, rejected, plain, none),
        "label smoothing": accuracy(chosen, rejected, smooth, none),
        "contrast": accuracy(chosen, rejected, plain, none, CONTRAST),
        LEFT_OUT: accuracy(chosen[~low], rejected[~low], plain, none),
        FLIP: accuracy(c, r, plain, none),
        "flipped, soft labels": accuracy(c, r, lambda scores: soft_labels()(scores)[0], u),
        MARGIN: accuracy(c, r, lambda scores: adaptive_margin()(scores)[0], u),
    }


def _hidden(model: list[Tensor], x: Tensor) -> Tensor:
    return torch.relu(x @ model[0])


def _reward(model: list[Tensor], x: Tensor) -> Tensor:
    return _hidden(model, x) @ model[1]


def _trained(chosen: Tensor, rejected: Tensor, loss: Loss, u: Tensor, seed: int, weight: float = 0.0) -> list[Tensor]:
    """A reward model, its start and the order of its data by `seed`; `weight` of the contrast term."""
    rng = torch.Generator().manual_seed(seed)
    model = [
        (torch.randn(FEATURES, HIDDEN, generator=rng) / FEATURES**0.5).requires_grad_(),
        (torch.randn(HIDDEN, generator=rng) / HIDDEN**0.5).requires_grad_(),
    ]
    optimizer = torch.optim.Adam(model, lr=RATE)
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
        torch.manual_seed(seed)
        for _ in range(ROUNDS):
            for k in torch.randperm(len(chosen), generator=rng).split(BATCH):
                scores = Scores(_reward(model, chosen[k]), _reward(model, rejected[k]), torch.sigmoid(u[k]), u[k])
                value = loss(scores).mean()
                if weight:
                    apart = _hidden(model, chosen[k]) - _hidden(model, rejected[k])
                    value = value + weight * contrast(dropout(apart, 0.1), dropout(apart, 0.1)).mean()
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
    return model
