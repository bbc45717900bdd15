"""VarTS's Bayes regret is below that of methods that do not know the prior, and falls with the variance of the losses.

The paper (Saha and Kveton 2024): lower regret than UCB1, UCB1-tuned, UCB-V, Thompson sampling with a bound on the
variance and with a flat prior; less with less variance; robust to misspecification. Ours, K = 10, T = 2,000, tasks
drawn from a Normal-Gamma prior (mean 0.5, strength 4, shape 2, rate 0.04: deviations about 0.2, means about 0.1 apart):

- VarTS's 95 % interval lies below each of the five baselines' (the better of Honda and Takemura's two flat priors);
- with the spread of the means fixed and the variance of the losses divided by 4 and by 16, its regret falls;
- with Bernoulli and beta losses, means uniform in [0, 1] and a prior with their moments, it is at most 1.3 of UCB-V's;
- the regret lies below the bound of the file.

Context, not part of the verdict: VarTS knows the prior. Baselines whose constants are tuned on tasks from that prior
(four settings each, the best on 300 other tasks) do about as well as VarTS. With wrong models, both tuned so,
VarTS is again about as good as UCB-V. The tables and two checks without verdict give the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backchannel.base import Learner, Task
from backchannel.claim import Evidence, Table, at_most, mean_and_error
from backchannel.loop import play
from backchannel.online.gaussian_thompson import gaussian_thompson
from backchannel.online.ucb1 import ucb1
from backchannel.online.ucb1_tuned import ucb1_tuned
from backchannel.online.ucb_v import ucb_v
from backchannel.online.var_ts import bayes_regret_bound, var_ts
from backchannel.tasks.bernoulli import bernoulli
from backchannel.tasks.beta import beta
from backchannel.tasks.gaussian import normal_gamma

ARMS, HORIZON = 10, 2000
PRIOR = {"strength": 4.0, "shape": 2.0, "rate": 0.04}
UCB1 = {f"UCB1 ({x})": ucb1(ARMS, x) for x in (0.02, 0.05, 0.1, 0.2)}
UCB_V = {f"UCB-V ({z}, {c})": ucb_v(ARMS, z, c) for z, c in ((0.2, 0.1), (0.4, 0.03), (0.4, 0.1), (0.8, 0.1))}


def _thompson(prior: dict[str, float], variance: float) -> Learner:
    """Thompson sampling with one variance for all arms, and the prior of the means that goes with it."""
    return gaussian_thompson(ARMS, variance**0.5, 0.5, (variance / prior["strength"]) ** 0.5)


def _uniform_means(concentration: float | None) -> Callable[[int], Task]:
    def prior(own: int) -> Task:
        means = np.random.default_rng(own).random(ARMS)
        return bernoulli(means) if concentration is None else beta(means, concentration)

    return prior


def _fitted(variance: float, spread: float, shape: float = 2.0, factor: float = 1.0) -> Learner:
    """VarTS with `factor` times the losses' `variance` expected, and means with the variance `spread`."""
    return var_ts(ARMS, 0.5, factor * variance / spread, shape, (shape - 1) * factor * variance)


def _settings(variance: float, spread: float) -> dict[str, Learner]:
    pairs = ((2.0, 1.0), (2.0, 0.5), (4.0, 0.5), (10.0, 0.5))
    return {f"VarTS ({shape}, {factor})": _fitted(variance, spread, shape, factor) for shape, factor in pairs}


def claim(seed: int, full: bool) -> Evidence:
    """500 tasks for each comparison; 2,000 with `full`."""
    replicates = 2000 if full else 500

    def regret(learner: Learner, task: Callable[[int], Task]) -> np.ndarray:
        return play(learner, task, HORIZON, replicates=replicates, seed=seed).final()

    def tuned(candidates: dict[str, Learner], task: Callable[[int], Task]) -> str:
        """The candidate that does best on 300 other tasks from the same prior."""

        def score(name: str) -> float:
            return float(play(candidates[name], task, HORIZON, replicates=300, seed=seed + 10**6).final().mean())

        return min(candidates, key=score)

    prior = normal_gamma(ARMS, 0.5, **PRIOR)
    largest = float(np.mean([prior(own).state.deviations.max() for own in range(500)]))
    ours = regret(var_ts(ARMS, 0.5, **PRIOR), prior)
    baselines = {
        "UCB1": ucb1(ARMS),
        "UCB1-tuned": ucb1_tuned(ARMS),
        "UCB-V": ucb_v(ARMS),
        "TS, largest variance": _thompson(PRIOR, largest**2),
        "TS, flat prior -1": var_ts(ARMS, strength=0.0, shape=-1.5, rate=0.0),
        "TS, flat prior -1/2": var_ts(ARMS, strength=0.0, shape=-1.0, rate=0.0),
    }
    expected = PRIOR["rate"] / (PRIOR["shape"] - 1)
    one_variance = {f"TS, {f} expected variance": _thompson(PRIOR, f * expected) for f in (0.25, 0.5, 1.0, 2.0)}
    settings = _settings(expected, expected / PRIOR["strength"])
    groups = [(group, tuned(group, prior)) for group in (UCB1, UCB_V, one_variance, settings)]
    adjusted = {name: group[name] for group, name in groups}
    results = {name: regret(learner, prior) for name, learner in (baselines | adjusted).items()}

    mean, error = mean_and_error(ours)
    rows = [["VarTS", f"{mean:.1f} +- {1.96 * error:.1f}", "knows the prior"]]
    overlaps, others = [], []
    for name, values in results.items():
        other, spread = mean_and_error(values)
        rows.append([name, f"{other:.1f} +- {1.96 * spread:.1f}", "published" if name in baselines else "tuned here"])
        if name in baselines:
            overlaps.append((mean + 1.96 * error) - (other - 1.96 * spread))
        elif name not in settings:
            others.append(other)

    falls, quieter = [ours.mean()], []
    for shrink in (4.0, 16.0):
        less = {"strength": PRIOR["strength"] / shrink, "shape": PRIOR["shape"], "rate": PRIOR["rate"] / shrink}
        falls.append(regret(var_ts(ARMS, 0.5, **less), normal_gamma(ARMS, 0.5, **less)).mean())
        quieter.append(
            [f"variance / {shrink:.0f}", f"{falls[-1]:.1f}", f"{bayes_regret_bound(ARMS, HORIZON, **less):.0f}"]
        )
    bound = bayes_regret_bound(ARMS, HORIZON, **PRIOR)
    quieter.insert(0, ["as above", f"{mean:.1f}", f"{bound:.0f}"])

    wrong, against, against_tuned = [], [], []
    for name, concentration in (("Bernoulli", None), ("beta, concentration 1", 1.0), ("beta, concentration 10", 10.0)):
        task = _uniform_means(concentration)
        variance = 1 / 6 / (1 + (concentration or 0.0))  # of losses, on average; that of uniform means is 1/12
        ours_tuned = _settings(variance, 1 / 12)
        each = [_fitted(variance, 1 / 12), ucb_v(ARMS), ours_tuned[tuned(ours_tuned, task)], UCB_V[tuned(UCB_V, task)]]
        four = [mean_and_error(regret(learner, task)) for learner in each]
        against.append(four[0][0] / four[1][0])
        against_tuned.append(four[2][0] / four[3][0])
        wrong.append([name, *(f"{m:.1f} +- {1.96 * e:.1f}" for m, e in four)])

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        names = ["VarTS", *results]
        bars = [mean_and_error(x) for x in (ours, *results.values())]
        axes.barh(names, [m for m, _ in bars], xerr=[1.96 * e for _, e in bars])
        axes.set(xscale="log", xlabel="Bayes regret, 95 % intervals", title="K = 10, T = 2,000")
        axes.invert_yaxis()
        figure.tight_layout()

    return Evidence(
        statement="VarTS's Bayes regret is below five published baselines' and falls with the variance of the losses.",
        checks=[
            at_most("largest overlap of 95 % intervals with a published baseline's", max(overlaps), 0, "below 1e-4"),
            at_most("regret at a quarter of the variance / at the whole", falls[1] / falls[0], 0.85, "below 1e-4"),
            at_most("regret at a sixteenth / at a quarter", falls[2] / falls[1], 0.85, "below 1e-4"),
            at_most("largest regret / UCB-V's, misspecified", max(against), 1.3, "below 1e-4"),
            at_most("the same, both tuned", max(against_tuned), 1.3, "about 1e-3", headline=False),
            at_most("Bayes regret / bound", mean / bound, 1.0, "below 1e-4"),
            at_most("regret / best tuned baseline's", mean / min(others), 1.0, "context", headline=False),
        ],
        tables=[
            Table("Bayes regret, mean and 95 % interval", ["method", "regret", "constants"], rows),
            Table("VarTS with quieter losses, means as far apart", ["losses", "Bayes regret", "bound"], quieter),
            Table("misspecified", ["losses", "VarTS", "UCB-V", "VarTS, tuned", "UCB-V, tuned"], wrong),
        ],
        draw=draw,
    )
