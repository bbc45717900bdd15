"""Thompson sampling's regret grows at the least possible rate, and is a fraction of UCB1's.

The papers: the rate is Lai and Robbins' constant times log T, the least of any consistent method (Kaufmann, Korda and
Munos 2012); empirically well below UCB (Chapelle and Li 2011); over the prior at most sqrt(T K log K / 2) (Russo and
Van Roy 2016). Ours: over the last decade of T = 10^5 the mean regret grows per log T by 0.5 to 1.5 of the constant (the
limit is reached slowly), the regret is at most 0.3 of UCB1's, and tasks drawn from the prior stay below that bound.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.base import Task
from backchannel.claim import Evidence, Table, at_most, mean_and_error, within
from backchannel.loop import play
from backchannel.online.thompson import bayes_regret_bound, least_slope, thompson
from backchannel.online.ucb1 import ucb1
from backchannel.online.ucb1_tuned import ucb1_tuned
from backchannel.tasks.bernoulli import bernoulli

LOSSES = [0.1, *[0.2] * 3, *[0.3] * 3, *[0.4] * 3]


def claim(seed: int, full: bool) -> Evidence:
    """100 replicates (400 with `full`) of T = 10^5 on ten arms; 400 tasks drawn from the uniform prior."""
    horizon, replicates = 10**5, 400 if full else 100
    learners = {"Thompson": thompson(10), "UCB1": ucb1(10), "UCB1-tuned": ucb1_tuned(10)}
    results = {n: play(e, bernoulli(LOSSES), horizon, replicates=replicates, seed=seed) for n, e in learners.items()}
    ours = results["Thompson"]
    start = np.searchsorted(ours.rounds, horizon / 10)
    growth = ours.final() - ours.curves["regret"][:, start]
    rate = growth.mean() / np.log(horizon / ours.rounds[start]) / least_slope(LOSSES)
    final = {name: mean_and_error(result.final()) for name, result in results.items()}

    def prior(own: int) -> Task:
        return bernoulli(np.random.default_rng(own).random(10))

    bayes = play(thompson(10), prior, 2000, replicates=400, seed=seed).final().mean() / bayes_regret_bound(10, 2000)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, result in results.items():
            axes.plot(result.rounds, result.curves["regret"].mean(axis=0), label=name)
        axes.plot(ours.rounds, least_slope(LOSSES) * np.log(ours.rounds), "--", label="Lai and Robbins")
        axes.set(xscale="log", yscale="log", ylim=(1, None), xlabel="round", ylabel="mean regret")
        axes.legend()

    rows = [[name, f"{mean:.1f} +- {error:.1f}"] for name, (mean, error) in final.items()]
    return Evidence(
        statement="Thompson sampling's regret grows as Lai and Robbins' least rate, and is a fraction of UCB1's.",
        checks=[
            within("growth per log T / the least rate, last decade", rate, 0.5, 1.5, "below 1e-4"),
            at_most("regret / UCB1's", final["Thompson"][0] / final["UCB1"][0], 0.3, "below 1e-4"),
            at_most("Bayes regret / sqrt(T K log K / 2)", bayes, 1.0, "below 1e-4"),
        ],
        tables=[Table(f"regret at T = {horizon}, ten arms", ["method", "regret"], rows)],
        draw=draw,
    )
