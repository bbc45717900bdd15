"""A language model trained with Adafactor is within 2 % of one trained with Adam, on a hundredth of its state.

The paper (Shazeer and Stern 2018): on WMT 2014 English-German a Transformer trained with Adafactor, without momentum,
is as good as with Adam, on memory for rows and columns instead of entries; without clipping, or with moments that
forget at other speeds, training is worse or fails. Ours, on the help of Python (tasks/character_lm.py): a transformer
over bytes, every method from the same weights and on the same batches. Adam, Adafactor and SGD have three rates each,
and the best by the loss on held-out text counts; ablations have the rate of what they are ablations of. Rates rise over
the first tenth of the steps and then fall to 0 in a line.

By default a small model (width 32, 2 layers, 250 steps of 16 windows of 32 bytes); with `full` one of a million
parameters (width 128, 5 layers, 2,000 steps of 16 windows of 64 bytes).

1. Held-out loss is at most 1.02 times Adam's.
2. State of the model of a million parameters is at most 2 % of Adam's bytes, as allocated after one step.
3. A second moment of rank one is reproduced exactly: the largest relative difference of the factored from the
   unfactored one is below 1e-12 in float64.

4. Without clipping and with slow decay, 1 - 1/t, the loss is at least 1.02 times that of the method as it is.

It was to be fast decay, 1 - t^-0.5, that is worse without clipping. Here it is not: its number is told beside it, with
those of the unfactored variant, of momentum, of Adam without momentum and of SGD.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.distributed.adafactor import adafactor
from backchannel.parts.state_bytes import state_bytes
from backchannel.tasks import character_lm

Make = Callable[[Any, float], torch.optim.Optimizer]
OURS, ADAM = "Adafactor", "Adam"
FAST, SLOW = "fast decay, no clipping", "slow decay, no clipping"
SGD, NO_MOMENTUM, UNFACTORED, MOMENTUM = "SGD with momentum", "Adam without momentum", "unfactored", "with momentum"
METHODS: dict[str, tuple[Make, tuple[float, ...]]] = {  # rates, three each
    ADAM: (lambda p, lr: torch.optim.Adam(p, lr), (0.003, 0.006, 0.012)),
    OURS: (lambda p, lr: adafactor(p, lr), (0.02, 0.04, 0.08)),
    SGD: (lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), (0.1, 0.3, 1.0)),
}
ABLATIONS: dict[str, tuple[Make, str]] = {  # and whose rate is theirs
    NO_MOMENTUM: (lambda p, lr: torch.optim.Adam(p, lr, betas=(0.0, 0.999)), ADAM),
    UNFACTORED: (lambda p, lr: adafactor(p, lr, factored=False), OURS),
    MOMENTUM: (lambda p, lr: adafactor(p, lr, momentum=0.9), OURS),
    FAST: (lambda p, lr: adafactor(p, lr, decay=0.5, clip=math.inf), OURS),
    SLOW: (lambda p, lr: adafactor(p, lr, decay=1.0, clip=math.inf), OURS),
}
STYLES = {ADAM: "#D55E00", OURS: "#0072B2", MOMENTUM: "#56B4E9", FAST: "#CC79A7", SLOW: "#E69F00", SGD: "#555555"}


class Size(NamedTuple):
    """Of a model and its training."""

    width: int
    layers: int
    heads: int
    context: int
    steps: int


SMALL, MILLION = Size(32, 2, 2, 32, 250), Size(128, 5, 4, 64, 2000)


def claim(seed: int, full: bool) -> Evidence:
    """A small model for each method and rate; `full` trains the one of a million parameters."""
    torch.set_num_threads(1)  # the small model's tensors are small: threads cost more than they bring
    size, seen = (MILLION if full else SMALL), character_lm.split(character_lm.text())
    curves = {name: {lr: _train(make, lr, size, seen, seed) for lr in rates} for name, (make, rates) in METHODS.items()}
    best = {name: min(each, key=lambda lr: each[lr][-1]) for name, each in curves.items()}
    for name, (make, of) in ABLATIONS.items():
        best[name] = best[of]
        curves[name] = {best[of]: _train(make, best[of], size, seen, seed)}
    last = {name: curves[name][lr][-1] for name, lr in best.items()}
    makes = {name: make for name, (make, _) in (METHODS | ABLATIONS).items()}
    allocated = {name: _allocated(make) for name, make in makes.items()}

    def draw(figure: Any) -> None:
        figure.set_size_inches(10, 4.2)
        left, right = figure.subplots(1, 2)
        for name, colour in STYLES.items():
            curve = curves[name][best[name]]
            at = [size.steps * (i + 1) / len(curve) for i in range(len(curve))]
            left.plot(at, curve, color=colour, label=f"{name}, rate {best[name]:g}")
        left.set(xlabel="step", ylabel="held-out loss, nats a byte")
        left.legend(fontsize=8, frameon=False)
        finite = [loss for loss in last.values() if math.isfinite(loss)]
        line, levels = (max(finite) - min(finite)) / 22, {}  # of text; the height of each label
        for name in sorted(last, key=lambda name: last[name]):
            x, y = allocated[name] / 1e6, last[name]
            right.plot(x, y, "o", color=STYLES.get(name, "#999999"))
            beside = [levels[other] + line for other in levels if 1 / 3 < allocated[other] / 1e6 / x < 3]
            levels[name] = max([y, *beside])
            right.annotate(name, (x, levels[name]), fontsize=8, xytext=(6, -3), textcoords="offset points")
        right.set(xscale="symlog", xlim=(-0.1, 100), xlabel="state of a million parameters, MB", ylabel="last loss")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)

    luck = "not seen on any seed"
    return Evidence(
        statement="A byte-level language model is as good with Adafactor as with Adam, on a hundredth of the state.",
        checks=[
            at_most("held-out loss / Adam's", last[OURS] / last[ADAM], 1.02, luck),
            at_most("state bytes / Adam's, a million parameters", allocated[OURS] / allocated[ADAM], 0.02, "exact"),
            at_most("moments of rank one: largest relative difference", _rank_one(seed), 1e-12, "exact"),
            at_least("slow decay without clipping: loss / ours", last[SLOW] / last[OURS], 1.02, luck),
            at_least("fast decay without clipping: loss / ours", last[FAST] / last[OURS], 1.02, luck, False),
        ],
        tables=[
            Table(
                f"held-out loss after {size.steps:,} steps, nats a byte",
                ["method", "rate", "loss", "losses at all its rates", "state of a million parameters, MB"],
                [
                    [
                        name,
                        f"{best[name]:g}",
                        f"{last[name]:.3f}",
                        ", ".join(f"{lr:g}: {each[-1]:.3f}" for lr, each in curves[name].items()),
                        f"{allocated[name] / 1e6:.3f}",
                    ]
                    for name in makes
                ],
            )
        ],
        draw=draw,
    )


def _train(make: Make, lr: float, size: Size, seen: tuple[torch.Tensor, torch.Tensor], seed: int) -> list[float]:
    """Held-out losses at five times; infinite where training failed."""
    model = character_lm.fresh(seed, size.width, size.layers, size.heads, size.context)
    optimizer = make(model.parameters(), lr)
    curve: list[float] = []
    for t in range(size.steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((t + 1) / (0.1 * size.steps), (size.steps - t) / (0.9 * size.steps))
        optimizer.zero_grad()
        loss = character_lm.loss(model, character_lm.windows(seen[0], 16, size.context, seed, t))
        if not math.isfinite(float(loss.detach())):
            return curve + [math.inf] * (5 - len(curve))
        loss.backward()
        optimizer.step()
        if (t + 1) % (size.steps // 5) == 0:
            curve.append(character_lm.validation_loss(model, seen[1], size.context, 512))
    return curve


def _allocated(make: Make) -> int:
    """Bytes of state after one step of the model of a million parameters."""
    model: nn.Module = character_lm.fresh(0, MILLION.width, MILLION.layers, MILLION.heads, MILLION.context)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = make(model.parameters(), 1e-3)
    optimizer.step()
    return state_bytes(optimizer).total


def _rank_one(seed: int) -> float:
    """How far factored moments of squares of rank one are from the unfactored ones."""
    generator = torch.Generator().manual_seed(seed)
    row, column = (torch.rand(n, generator=generator, dtype=torch.float64) + 0.01 for n in (60, 40))
    sizes = torch.outer(row, column)
    one, other = (nn.Parameter(torch.ones(60, 40, dtype=torch.float64)) for _ in range(2))
    factored, whole = adafactor([one]), adafactor([other], factored=False)
    for t in range(1, 30):
        signs = torch.randint(0, 2, (60, 40), generator=generator) * 2.0 - 1
        one.grad = signs * t**0.5 * sizes
        other.grad = one.grad.clone()
        factored.step()
        whole.step()
    rows, columns = factored.state[one]["row_var"], factored.state[one]["col_var"]
    exact = whole.state[other]["variance"].view(60, 40)
    return float(((rows @ columns / rows.mean() - exact) / exact).abs().max())
