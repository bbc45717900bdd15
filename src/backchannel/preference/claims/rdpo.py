"""rDPO recovers a policy from flipped preferences, where DPO and cDPO do not.

The paper (Ray Chowdhury, Kini and Natarajan 2024): the loss is unbiased under flips, and with log-linear policies the
reward that is lost to the optimum is O(sqrt(d / n) / (1 - 2 eps)). Ours, on log-linear policies with d = 10, everything
in closed form, every fit from the same start with the same steps in the same ball:

- the mean of the loss over flips is the clean loss (by enumeration);
- the root mean square over data sets of the lost reward falls as n^(-1/2), and grows at least as 1 / (1 - 2 eps): by an
  exponent a little above 1, since flips also make labels more even, to at most 1/4 of variance. The *mean* of the lost
  reward falls faster, because an estimate that is off is as often too bold, which this reward does not punish, as too
  timid; and the reward less its divergence, for which the optimum is an optimum, falls as n^(-1);
- at eps = 0.4 rDPO loses less than DPO, cDPO, IPO and SLiC, at every n from 500 to 8,000.

For context: with few pairs and many flips (eps = 0.4, n = 500) rDPO varies so much that by the reward less its
divergence DPO's timid policy is no worse. DPO with beta shrunk by 1 - 2 eps, which uses the flip rate too, comes close
to rDPO (to first order in the margins they agree), has less variance and keeps a bias. Cross-validation finds a small
eps and is unsure of a large one. A tiny transformer, trained at 40% flips, gets a higher true reward with rDPO than
with DPO and cDPO, each at the best of the same learning rates, in nearly every model; how much varies, and its policy
lies much further from the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Check, Evidence, Table, at_least, at_most, mean_and_error, slope, within
from backchannel.parts.objectives import Objective, Pairs, margin, swapped
from backchannel.parts.torch_fit import fit
from backchannel.preference.cdpo import cdpo
from backchannel.preference.dpo import dpo
from backchannel.preference.hinge_norm import hinge_norm
from backchannel.preference.ipo import ipo
from backchannel.preference.rdpo import estimate_flip_rate, rdpo
from backchannel.tasks import tiny_transformer
from backchannel.tasks.preferences_loglinear import (
    LogLinear,
    cells,
    draw_counts,
    preferences_loglinear,
    regularised,
    reward,
)

RATES, RADIUS = (0.1, 0.2, 0.3, 0.4), 6.0
SIZES, LARGE = (500, 1000, 2000, 4000, 8000), (8000, 32_000, 128_000)
LEARNING_RATES = (3e-3, 1e-2, 3e-2)


def claim(seed: int, full: bool) -> Evidence:
    """Log-linear theory check, flip rate estimation, a tiny transformer; `full` takes more data sets of each."""
    torch.set_num_threads(1)
    replicates = 400 if full else 150
    task = preferences_loglinear(dimension=10, seed=seed)
    best = reward(task, task.truth)
    rms, regular, rows = {}, {}, []
    for rate in RATES:
        for n in sorted({*SIZES, *LARGE}):
            counts = draw_counts(task, n, rate, replicates, seed)
            theta = _solve(task, counts, rdpo(rate, task.beta))
            rms[rate, n] = float((best - reward(task, theta)).square().mean().sqrt())
            regular[rate, n] = float((regularised(task, task.truth) - regularised(task, theta)).mean())
            rows.append([rate, n, f"{rms[rate, n]:.4f}", f"{regular[rate, n]:.5f}"])
    lost, gaps, comparison = {}, {}, []
    methods = _methods(0.4, task.beta)
    for n in SIZES:
        counts = draw_counts(task, n, 0.4, replicates, seed + 1)
        for name, (objective, curvature) in methods.items():
            theta = _solve(task, counts, objective, curvature)
            lost[name, n] = mean_and_error((best - reward(task, theta)).numpy())
            gaps[name, n] = float((regularised(task, task.truth) - regularised(task, theta)).mean())
            comparison.append([n, name, f"{lost[name, n][0]:.3f} +- {lost[name, n][1]:.3f}", f"{gaps[name, n]:.3f}"])
    small = [slope(np.array(SIZES), np.array([rms[rate, n] for n in SIZES])) for rate in RATES]
    large = [slope(np.array(LARGE), np.array([rms[rate, n] for n in LARGE])) for rate in RATES]
    slopes_regular = slope(np.array(SIZES), np.array([regular[0.1, n] for n in SIZES]))
    growth = slope(1 / (1 - 2 * np.array(RATES)), np.array([rms[rate, LARGE[-1]] for rate in RATES]))
    margins = [_margin(lost, n, other) for n in SIZES for other in ("DPO", "cDPO", "IPO", "SLiC")]
    rescaled = [lost["DPO, beta (1 - 2 eps)", n][0] - lost["rDPO", n][0] for n in SIZES]
    early, late = (gaps["rDPO", n] / gaps["DPO", n] for n in (SIZES[0], SIZES[-1]))
    found, found_rows = _flip_rates(task, seed, 10 if full else 3)
    trained, trained_checks = _transformer(seed, 4 if full else 2)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for rate in RATES:
            axes.plot(SIZES, [rms[rate, n] for n in SIZES], "o-", label=f"eps = {rate}")
        axes.set(xscale="log", yscale="log", xlabel="pairs n", ylabel="lost reward (root mean square)", title="rDPO")
        axes.legend()

    return Evidence(
        statement="rDPO is unbiased under flips, loses reward as n^(-1/2), and at 40% flips beats DPO and cDPO.",
        checks=[
            at_most("mean loss over flips less the clean loss", _bias(task), 1e-12, "exact"),
            within("slope in n, 500 to 8,000, eps = 0.1", small[0], -0.7, -0.35, "below 1e-4"),
            within("slope in n, 8,000 to 128,000, steepest of four rates", min(large), -0.7, -0.35, "below 1e-4"),
            within("slope in n, 8,000 to 128,000, flattest of four rates", max(large), -0.7, -0.35, "below 1e-4"),
            within("exponent in 1 / (1 - 2 eps), n = 128,000", growth, 0.85, 1.4, "below 1e-4"),
            at_least("least advantage at eps = 0.4, in standard errors", min(margins), 4.0, "below 1e-4"),
            *trained_checks,
            within("slope in n, 500 to 8,000, eps = 0.4", small[-1], -0.7, -0.35, "unknown", headline=False),
            within("slope of the regularised gap, eps = 0.1", slopes_regular, -1.2, -0.8, "below 1e-4", headline=False),
            at_least("regularised gap / DPO's at eps = 0.4, n = 500", early, 0.9, "unknown", headline=False),
            at_most("regularised gap / DPO's at eps = 0.4, n = 8,000", late, 0.5, "below 1e-4", headline=False),
            at_least("least advantage over DPO with beta (1 - 2 eps)", min(rescaled), 0.0, "unknown", headline=False),
            at_most("mean error of the flip rate's estimate, n = 8,000", found, 0.1, "unknown", headline=False),
        ],
        tables=[
            Table("rDPO, log-linear", ["eps", "n", "lost reward, rms", "regularised gap"], rows),
            Table("at 40% flips", ["n", "method", "lost reward", "regularised gap"], comparison),
            Table("flip rates by cross-validation, n = 8,000", ["true", "found"], found_rows),
            Table("tiny transformer, 40% flips", ["seed", "method", "true reward", "divergence", "rate"], trained),
        ],
        draw=draw,
    )


def _methods(rate: float, beta: float) -> dict[str, tuple[Objective[Pairs], float]]:
    """Objectives with a bound on their curvature in h, which sets the step."""
    logistic = 1 / 4
    return {
        "rDPO": (rdpo(rate, beta), logistic),
        "DPO": (dpo(beta), logistic),
        "cDPO": (cdpo(rate, beta), logistic),
        "IPO": (ipo(beta), 2 / beta**2),
        "SLiC": (hinge_norm(beta), logistic),
        "DPO, beta (1 - 2 eps)": (dpo(beta * (1 - 2 * rate)), logistic),
    }


def _solve(
    task: LogLinear, counts: Tensor, objective: Objective[Pairs], curvature: float = 1 / 4, steps: int = 150
) -> Tensor:
    """theta of each data set: projected gradient descent from the reference, in the ball of radius RADIUS."""
    theta = torch.zeros(len(counts), task.truth.numel(), dtype=torch.float64, requires_grad=True)
    weights = counts / counts.sum(1, keepdim=True)

    def loss(step: int) -> Tensor:
        return (objective(cells(task, theta))[0] * weights).sum()

    def project() -> None:
        theta.mul_((RADIUS / theta.norm(dim=1, keepdim=True)).clamp(max=1))

    fit([theta], loss, steps, torch.optim.SGD, 0.75 / (curvature * task.beta**2), project)
    return theta.detach()


def _bias(task: LogLinear) -> float:
    pairs, worst = cells(task, task.truth.flip(0)), 0.0
    for rate in RATES:
        mean = (1 - rate) * rdpo(rate, task.beta)(pairs)[0] + rate * rdpo(rate, task.beta)(swapped(pairs))[0]
        worst = max(worst, float((mean - dpo(task.beta)(pairs)[0]).abs().max()))
    return worst


def _margin(lost: dict[tuple[str, int], tuple[float, float]], n: int, other: str) -> float:
    (ours, error), (theirs, their_error) = lost["rDPO", n], lost[other, n]
    return (theirs - ours) / float(np.hypot(error, their_error))


def _flip_rates(task: LogLinear, seed: int, sets: int) -> tuple[float, list[list[Any]]]:
    errors, rows = [], []
    for true in (0.1, 0.4):
        found = []
        for i, counts in enumerate(draw_counts(task, 8000, true, sets, seed + 2)):
            examples = torch.repeat_interleave(torch.arange(len(counts)), counts.long())
            found.append(estimate_flip_rate(_fit_on(task, examples), 8000, task.beta, folds=3, seed=i).rate)
        errors += [abs(rate - true) for rate in found]
        rows.append([true, " ".join(map(str, found))])
    return float(np.mean(errors)), rows


def _fit_on(task: LogLinear, examples: Tensor) -> Callable[[Objective[Pairs], Tensor, Tensor], Tensor]:
    size = 2 * len(task.prompt)

    def fit_and_score(objective: Objective[Pairs], train: Tensor, held: Tensor) -> Tensor:
        counts = torch.bincount(examples[train], minlength=size).double()[None]
        h = margin(cells(task, _solve(task, counts, objective)[0]), task.beta)
        return h[examples[held]]

    return fit_and_score


def _transformer(seed: int, models: int) -> tuple[list[list[Any]], list[Check]]:
    """Each method at the best of the learning rates, judged by the reward itself."""
    beta, rows = 0.1, []
    gains: dict[str, list[float]] = {"DPO": [], "cDPO": []}
    for i in range(models):
        own = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        reference = tiny_transformer.reference_model(own)
        pairs = tiny_transformer.draw_pairs(reference, 4000, 0.4, own)
        rewards = {}
        for name, objective in (("rDPO", rdpo(0.4, beta)), ("DPO", dpo(beta)), ("cDPO", cdpo(0.4, beta))):
            tried = []
            for rate in LEARNING_RATES:
                model = tiny_transformer.train(reference, pairs, objective, 60, rate, own)
                tried.append((*tiny_transformer.reward_and_divergence(model, reference, 3000, own), rate))
            rewards[name] = max(tried)[0]
            rows.append([i, name, f"{max(tried)[0]:.2f}", f"{max(tried)[1]:.1f}", max(tried)[2]])
        for name, gain in gains.items():
            gain.append(rewards["rDPO"] - rewards[name])
    name = "transformer: least gain in true reward over"
    return rows, [
        at_least(f"{name} {other}", min(gain), 0.0, "unknown", headline=False) for other, gain in gains.items()
    ]
