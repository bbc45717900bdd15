"""Direct alignment on a fixed set of comparisons gains true reward, and loses it again as it leaves the reference.

The paper (Rafailov et al. 2024): with DPO, IPO and SLiC and small prices of divergence win rates peak at an interior
divergence, often before the first epoch ends; R(d) = d (alpha - beta log d) fits them better than a quadratic in KL;
larger models lose less. Ours, on a tiny transformer (width 32, one layer), 1,024 comparisons of its own answers by an
annotator who errs, and seven prices of divergence for each loss, looked at after 1/8 to 4 epochs:

1. After 4 epochs the gain of true reward is highest at an interior divergence, with every loss: some larger price ends
   at least 0.3 higher than the smallest one, which went further. With at least two losses the best look at the smallest
   price is at 1 epoch or before.
2. Along the runs of the two smallest prices a law in d, d (alpha - beta d), has at most 0.8 of the error of the
   quadratic in KL, with every loss.
3. On a tree with one feature shared by its nodes (means over 20 draws) DPO leaves less to the chosen path than a table
   does: less than half.

For context, not asserted: the law with log d explains less than the 0.8 of the variance that was hoped for on most
seeds, and the linear law mostly fits better. At the smallest price the last look is 0.2 to 0.9 below the best one on
most seeds, and next to nothing below it on another. What sizes do: widths 16 and 32, and 64 in `full`. Best of n
against a reward that is learned from the same comparisons gains more at the same divergence. Pythia and win rates by a
large model are out of reach.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from backchannel.claim import Check, Evidence, Table, at_least, at_most
from backchannel.parts.best_of_n import divergence_bound
from backchannel.parts.objectives import Objective, Pairs
from backchannel.preference.bradley_terry import bradley_terry
from backchannel.preference.daa_overoptimisation_laws import (
    Form,
    Law,
    daa_overoptimisation_laws,
    nodes,
    tree_run,
)
from backchannel.preference.dpo import dpo
from backchannel.preference.hinge_norm import hinge_norm
from backchannel.preference.ipo import ipo
from backchannel.tasks.tiny_answers import AnswerLM, gold, random_prompts, reference, standing
from backchannel.tasks.tiny_tuning import Labelled, drawn_twice, given, label, learn_reward, tune

LOSSES: dict[str, tuple[Callable[[float], Objective[Pairs]], tuple[float, ...]]] = {
    "DPO": (dpo, (0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
    "IPO": (ipo, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
    "SLiC": (hinge_norm, (0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)),
}
LOOKS = (4, 8, 16, 32, 64, 128)  # steps
COMPARISONS, BATCH, RATE, JUDGED = 1024, 32, 1e-3, 300
FORMS: tuple[Form, ...] = ("log", "linear", "quadratic")
WIDTHS = {16: 1, 32: 1, 64: 2}  # and layers


def claim(seed: int, full: bool) -> Evidence:
    """21 runs of the middle size and one of a smaller; `full` has all sizes with every loss, judged by more answers."""
    torch.set_num_threads(1)
    judged = 4 * JUDGED if full else JUDGED
    start = reference(seed, 32, WIDTHS[32], 250)
    data = _compared(start, seed)
    runs = {
        name: np.array([_run(start, data, make(price), seed, judged) for price in prices])
        for name, (make, prices) in LOSSES.items()
    }
    checks: list[Check] = []
    fits, peaks = [], []
    for name, run in runs.items():
        small, ends = run[0, :, 1], run[:, -1, 1]
        best = int(small.argmax())
        peaks.append(LOOKS[best] * BATCH / COMPARISONS)
        lost, better = float(small[best] - small[-1]), float(ends.max() - ends[0])
        checks.append(
            at_least(f"{name}, smallest price: best gain less the last", lost, 0.3, "unknown", headline=False)
        )
        checks.append(at_least(f"{name}: last gain at the best price less the smallest's", better, 0.3, "unknown"))
        laws = {form: _law(run, form) for form in FORMS}
        linear, log = (laws[form].rmse / laws["quadratic"].rmse for form in ("linear", "log"))
        checks.append(at_most(f"{name}: error of the linear law / the quadratic's", linear, 0.8, "unknown"))
        checks.append(
            at_most(f"{name}: error of the law with log d / the quadratic's", log, 1.0, "unknown", headline=False)
        )
        r2 = laws["linear"].r2
        checks.append(at_least(f"{name}: variance explained by the linear law", r2, 0.6, "unknown", headline=False))
        checks.append(
            at_least(
                f"{name}: variance explained by the law with log d", laws["log"].r2, 0.8, "unknown", headline=False
            )
        )
        fits += [
            [
                name,
                form,
                f"{law.alpha:.2f}",
                f"{law.beta:.2f}",
                f"{law.r2:.2f}",
                f"{law.rmse:.3f}",
                f"{law.peak[0]:.2f}",
            ]
            for form, law in laws.items()
        ]
    early = float(np.sort(peaks)[1])
    checks.append(at_most("epochs at the best look, smallest price, second of the three losses", early, 1.0, "unknown"))
    tree, tree_rows = _tree(seed)
    checks.append(at_most("tree: the chosen path's share with a shared feature, of a table's", tree, 0.5, "1e-4"))
    every = [
        [name, price, *(f"{kl:.2f}: {gain:+.2f}" for kl, gain in run[i])]
        for name, run in runs.items()
        for i, price in enumerate(LOSSES[name][1])
    ]
    sizes = _sizes(seed, judged, runs, full)
    best_of = _best_of_n(start, data, seed)

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 3, sharex=True, sharey=True)
        for axes, (name, run) in zip(panels, runs.items(), strict=True):
            for i, price in enumerate(LOSSES[name][1]):
                axes.plot(np.sqrt(run[i, :, 0].clip(0)), run[i, :, 1], ".-", color=f"C{i}", label=f"{price:g}")
            grid = np.linspace(0.01, 2.2, 100)
            for form, style in zip(FORMS[:2], ("k-", "k:"), strict=True):
                axes.plot(grid, _law(run, form).at(grid**2), style, linewidth=1)
            axes.set(title=name, xlabel="d, the root of the divergence")
            axes.legend(title="price", fontsize=7)
        panels[0].set(ylabel="gain of true reward", ylim=(-0.6, 1.1))

    return Evidence(
        statement="direct alignment overoptimises: past an interior divergence true reward falls, as a law in its root",
        checks=checks,
        tables=[
            Table("KL: gain, by steps", ["loss", "price", *(str(each) for each in LOOKS)], every),
            Table("laws of the two smallest prices", ["loss", "form", "alpha", "beta", "R2", "rmse", "peak d"], fits),
            Table("sizes, smallest price", ["loss", "width", "best gain", "last gain", "last KL"], sizes),
            Table("best of n by a learned reward", ["n", "KL at most", "gain"], best_of),
            Table("tree, 200 steps of DPO", ["features", "chosen", "rejected", "others"], tree_rows),
        ],
        draw=draw,
    )


def _compared(start: AnswerLM, seed: int) -> Labelled:
    rng = torch.Generator().manual_seed(seed)
    return label(*drawn_twice(start, COMPARISONS, rng), rng)


def _run(start: AnswerLM, data: Labelled, loss: Objective[Pairs], seed: int, judged: int) -> list[tuple[float, float]]:
    """(KL, gain) at each look; Adam begins anew after it. All runs see the same batches and judges."""
    model, done, seen, before = start, 0, [], _before(start, seed, judged)
    for i, steps in enumerate(LOOKS):
        model = tune(model, given(data, BATCH), loss, steps - done, RATE, seed * 10 + i, anchor=start)
        now = standing(model, start, judged, seed + 1 + i)
        seen.append((now.divergence, now.gold - before[i]))
        done = steps
    return seen


@lru_cache(maxsize=4)
def _before(start: AnswerLM, seed: int, judged: int) -> list[float]:
    """The start's own reward, by the judge of each look."""
    return [standing(start, start, judged, seed + 1 + i).gold for i in range(len(LOOKS))]


def _law(run: np.ndarray, form: Form) -> Law:
    """Along the runs of the two smallest prices."""
    points = run[:2].reshape(-1, 2)
    return daa_overoptimisation_laws(points[:, 0], points[:, 1], form)


def _sizes(seed: int, judged: int, runs: dict[str, np.ndarray], full: bool) -> list[list[Any]]:
    """The smallest price with two sizes and DPO, or in full with all three and every loss."""
    rows = []
    for name in LOSSES if full else ("DPO",):
        make, prices = LOSSES[name]
        for width, layers in WIDTHS.items():
            if width == 64 and not full:
                continue
            if width == 32:
                run = runs[name][0]
            else:
                start = reference(seed, width, layers, 250)
                run = np.array(_run(start, _compared(start, seed), make(prices[0]), seed, judged))
            rows.append([name, width, f"{run[:, 1].max():+.2f}", f"{run[-1, 1]:+.2f}", f"{run[-1, 0]:.2f}"])
    return rows


def _best_of_n(start: AnswerLM, data: Labelled, seed: int) -> list[list[Any]]:
    """Classical: a reward from the same comparisons picks among n answers."""
    reward = learn_reward(data, bradley_terry(), 100, 3e-3, seed)
    rng, rows = torch.Generator().manual_seed(seed + 9), []
    prompts = random_prompts(100, rng)
    drawn = [start.sample(prompts, rng) for _ in range(16)]
    with torch.no_grad():
        scores, true = torch.stack([reward(each) for each in drawn], 1), torch.stack([gold(each) for each in drawn], 1)
    for n in (2, 4, 16):
        picked = true.gather(1, scores[:, :n].argmax(1, keepdim=True))
        rows.append([n, f"{divergence_bound(n):.2f}", f"{float(picked.mean() - true.mean()):+.2f}"])
    return rows


def _tree(seed: int) -> tuple[float, list[list[Any]]]:
    """Where DPO's probability goes on 81 paths of which two were compared: a table, and one shared feature."""
    size, rng = nodes(4, 3), torch.Generator().manual_seed(seed)
    table = tree_run(dpo(0.1), [5], [70], torch.eye(size, dtype=torch.float64), 3, 4, 200, 10.0)
    shared = [
        tree_run(dpo(0.1), [5], [70], torch.randn(size, 1, generator=rng, dtype=torch.float64), 3, 4, 200, 4.0)
        for _ in range(20)
    ]
    mean = [float(np.mean([float(run[k][-1]) for run in shared])) for k in range(3)]
    rows = [
        ["a table", *(f"{float(each[-1]):.3f}" for each in table)],
        ["one, shared", *(f"{each:.3f}" for each in mean)],
    ]
    return mean[0] / float(table.chosen[-1]), rows
