"""Tsallis-INF has logarithmic regret on stochastic losses and sqrt(T) regret on adversarial ones, untold which.

The paper (Zimmert and Seldin 2021): with alpha = 1/2 the regret is at most 4 sqrt(K T) + 1 against any losses (theorem
1), and of order sum_i log T / gap_i when they are drawn independently, or by an adversary that keeps the gaps while it
moves the means; there UCB1 and Thompson sampling, which trust the means, nearly fail (section 6). Ours, with K = 8:

1. Independent losses, gap 1/4, T = 2^12 to 2^17: the regret grows with a log-log slope of at most 0.25, where Exp3,
   told each horizon, has about 1/2, and at 2^17 it is at most half of Exp3's.
2. Gap sqrt(K / T), T = 2^10 to 2^16: slope 0.5 +- 0.1. Every mean regret here, and in 3, is below the bound.
3. The paper's adversary: means (0 for the best arm, 1/4 for the others) and (3/4, 1) take turns, each turn 1.6 times
   as long as the last. At T = 2^15 the mean regret is at most half of UCB1's and of Thompson sampling's.

For context: against that adversary UCB1's median run is about as good as Tsallis-INF's; its mean is not, because some
runs are lost altogether. On independent losses Thompson sampling has a third of Tsallis-INF's regret: that is the price
of trusting nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backchannel.base import Learner, Task
from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error, slope, within
from backchannel.loop import play
from backchannel.online.exp3 import exp3
from backchannel.online.thompson import thompson
from backchannel.online.tsallis_inf import regret_bound, tsallis_inf
from backchannel.online.ucb1 import ucb1
from backchannel.tasks.adversarial import sequence
from backchannel.tasks.bernoulli import bernoulli

ARMS, GAP = 8, 0.25
METHODS: dict[str, Callable[[int], Learner]] = {
    "Tsallis-INF": lambda horizon: tsallis_inf(ARMS),
    "Exp3": lambda horizon: exp3(ARMS, horizon),
    "UCB1": lambda horizon: ucb1(ARMS),
    "Thompson sampling": lambda horizon: thompson(ARMS),
}


def claim(seed: int, full: bool) -> Evidence:
    """The stochastic, the hardest and the adversarial world; `full` has four times the runs."""
    runs, best = 200 if full else 50, seed % ARMS
    long, hard = 2 ** np.arange(12, 18), 2 ** np.arange(10, 17)
    steady = {
        name: [_regret(make(int(t)), bernoulli(_means(best, GAP)), int(t), runs, seed) for t in long]
        for name, make in METHODS.items()
    }
    hardest = [
        _regret(tsallis_inf(ARMS), bernoulli(_means(best, np.sqrt(ARMS / t))), int(t), 2 * runs, seed) for t in hard
    ]
    horizon = 2**15
    spread = {
        name: _regrets(make(horizon), lambda own: _taking_turns(best, horizon, own), horizon, 8 * runs, seed)
        for name, make in METHODS.items()
    }
    turning = {name: mean_and_error(regrets) for name, regrets in spread.items()}
    slopes = {name: slope(long, np.array([mean for mean, _ in points])) for name, points in steady.items()}
    ours = "Tsallis-INF"
    used = max(
        *(mean / regret_bound(ARMS, int(t)) for t, (mean, _) in zip(long, steady[ours], strict=True)),
        *(mean / regret_bound(ARMS, int(t)) for t, (mean, _) in zip(hard, hardest, strict=True)),
        turning[ours][0] / regret_bound(ARMS, horizon),
    )

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name, points in steady.items():
            left.errorbar(long, [p[0] for p in points], [3 * p[1] for p in points], fmt="o-", markersize=3, label=name)
        left.set(xscale="log", yscale="log", xlabel="horizon T", ylabel="regret", title="independent losses, gap 1/4")
        left.legend(fontsize="small")
        right.bar(range(len(turning)), [p[0] for p in turning.values()], yerr=[3 * p[1] for p in turning.values()])
        right.axhline(regret_bound(ARMS, horizon), color="0.5", linestyle="--", label=r"$4 \sqrt{K T} + 1$")
        right.set_xticks(range(len(turning)), list(turning), rotation=20, ha="right", fontsize="small")
        right.set(ylabel=f"regret, T = {horizon:,}", title="means that take turns, gap 1/4")
        right.legend(fontsize="small")

    medians = {name: float(np.median(regrets)) for name, regrets in spread.items()}
    hard_slope = slope(hard, np.array([mean for mean, _ in hardest]))
    trusting = min(turning["UCB1"][0], turning["Thompson sampling"][0])
    return Evidence(
        statement="One learner, untold: regret like log T on independent losses, like sqrt(T) against an adversary.",
        checks=[
            at_most("independent: log-log slope in T", slopes[ours], 0.25, "below 1e-4"),
            at_most("independent: regret / Exp3's, T = 2^17", steady[ours][-1][0] / steady["Exp3"][-1][0], 0.5, "1e-4"),
            within("gap sqrt(K / T): log-log slope in T", hard_slope, 0.4, 0.6, "below 1e-4"),
            at_most("largest regret / (4 sqrt(K T) + 1)", used, 1.0, "below 1e-4"),
            at_most(
                "taking turns: regret / the lesser of UCB1's, Thompson's", turning[ours][0] / trusting, 0.5, "1e-4"
            ),
            within("independent: Exp3's slope", slopes["Exp3"], 0.4, 0.6, "below 1e-4", headline=False),
            at_most("independent: regret / UCB1's", steady[ours][-1][0] / steady["UCB1"][-1][0], 1.0, "1e-4", False),
            at_least(
                "taking turns: median run / UCB1's median", medians[ours] / medians["UCB1"], 0.8, "unknown", False
            ),
        ],
        tables=[
            Table(
                "independent losses, gap 1/4",
                ["T", *METHODS],
                [[int(t), *(_cell(points[i]) for points in steady.values())] for i, t in enumerate(long)],
            ),
            Table("gap sqrt(K / T)", ["T", ours], [[int(t), _cell(p)] for t, p in zip(hard, hardest, strict=True)]),
            Table(
                f"means that take turns, T = {horizon:,}",
                ["method", "regret", "median run", "19 of 20 runs below"],
                [
                    [name, _cell(turning[name]), f"{medians[name]:.0f}", f"{np.quantile(regrets, 0.95):.0f}"]
                    for name, regrets in spread.items()
                ],
            ),
        ],
        draw=draw,
    )


def _means(best: int, gap: float) -> np.ndarray:
    means = np.full(ARMS, 0.5)
    means[best] -= gap
    return means


def _taking_turns(best: int, horizon: int, seed: int) -> Task:
    """Bernoulli losses written down in advance: means (0, gap) and (1 - gap, 1) for (best, others), by turns."""
    low, start, length = np.zeros(horizon, bool), 0, 1.0
    while start < horizon:
        stop = start + max(1, round(length))
        low[start:stop] = True
        start, length = stop + max(1, round(1.6 * length)), 1.6**2 * length
    means = np.where(low[:, None], GAP, 1.0) - GAP * (np.arange(ARMS) == best)
    return sequence((np.random.default_rng(seed).random((horizon, ARMS)) < means).astype(float))


def _regret(learner: Learner, task: Task, horizon: int, runs: int, seed: int) -> tuple[float, float]:
    return mean_and_error(_regrets(learner, task, horizon, runs, seed))


def _regrets(learner: Learner, task: Task | Callable[[int], Task], horizon: int, runs: int, seed: int) -> np.ndarray:
    return play(learner, task, horizon, replicates=runs, seed=seed, points=2).final()


def _cell(point: tuple[float, float]) -> str:
    return f"{point[0]:.0f} +- {point[1]:.0f}"
