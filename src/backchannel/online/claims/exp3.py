"""Exp3's regret grows as the square root of the horizon on the hardest stochastic instances.

The paper (Auer et al. 2002, theorem 3.1 and its lower bound 5.1): O(sqrt(T K log K)) against any sequence of losses,
and no algorithm does better than sqrt(T K) when the gap shrinks as sqrt(K / T). Ours: with K = 5 and that gap, over
T = 2^10 to 2^16, the log-log slope of the mean regret lies in 0.5 +- 0.1, every mean lies below sqrt(2 T K log K), and
uniform play, the baseline that a faulty Exp3 degenerates to, is worse at a fixed gap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_most, mean_and_error, slope, within
from backchannel.loop import play
from backchannel.online.exp3 import exp3, regret_bound
from backchannel.tasks.bernoulli import bernoulli

ARMS = 5


def claim(seed: int, full: bool) -> Evidence:
    """Regret against horizon at the hardest gap; `full` goes two octaves further."""
    horizons = 2 ** np.arange(10, 19 if full else 17)
    means, errors = [], []
    for horizon in horizons:
        gap = np.sqrt(ARMS / horizon)
        arms = np.full(ARMS, 0.5)
        arms[seed % ARMS] -= gap
        result = play(exp3(ARMS, int(horizon)), bernoulli(arms), int(horizon), replicates=400, seed=seed)
        mean, error = mean_and_error(result.final())
        means.append(mean)
        errors.append(error)
    bounds = [regret_bound(ARMS, int(horizon)) for horizon in horizons]
    clear = bernoulli([0.2, *[0.8] * (ARMS - 1)])
    learned = play(exp3(ARMS, 10_000), clear, 10_000, replicates=100, seed=seed).final()
    uniform = play(exp3(ARMS, 10_000, step_size=0.0), clear, 10_000, replicates=100, seed=seed).final()

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.errorbar(horizons, means, 3 * np.array(errors), fmt="o-", label="Exp3, mean regret and 3 s.e.")
        axes.plot(horizons, bounds, "--", label=r"bound $\sqrt{2 T K \log K}$")
        axes.set(xscale="log", yscale="log", xlabel="horizon T", ylabel="regret", title="gap = sqrt(K / T), K = 5")
        axes.legend()

    rows = [
        [int(h), f"{m:.1f} +- {e:.1f}", f"{b:.1f}"] for h, m, e, b in zip(horizons, means, errors, bounds, strict=True)
    ]
    return Evidence(
        statement="Exp3's regret on gaps shrinking as sqrt(K/T) grows as sqrt(T) and stays below sqrt(2 T K log K).",
        checks=[
            within("log-log slope of regret in T", slope(horizons, np.array(means)), 0.4, 0.6, "below 1e-4"),
            at_most("largest regret / bound", max(np.array(means) / np.array(bounds)), 1.0, "below 1e-4"),
            at_most("regret / uniform play's, fixed gap", learned.mean() / uniform.mean(), 0.25, "below 1e-4"),
        ],
        tables=[Table("regret by horizon", ["T", "regret", "bound"], rows)],
        draw=draw,
    )
