"""Knowing each arm's own variance pays: Thompson sampling with it beats one bound for all, and obeys its Bayes bound.

The papers: Bayes regret of Gaussian Thompson sampling grows as sqrt(T) up to logarithms (Russo et al. 2018) and, with
unequal variances, with the arms' own variances instead of the largest (Saha and Kveton 2024, first part). Ours, on ten
arms with means from N(0.5, 0.2^2) and deviations from 0.05 to 1: regret lies below the bound of the file at every T,
grows slower than T^0.6, and is at most 0.6 of the regret with the largest deviation assumed for all arms.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.base import Task
from backchannel.claim import Evidence, Table, at_most, mean_and_error, slope
from backchannel.loop import play
from backchannel.online.gaussian_thompson import bayes_regret_bound, gaussian_thompson
from backchannel.tasks.gaussian import gaussian

DEVIATIONS = np.geomspace(0.05, 1, 10)


def claim(seed: int, full: bool) -> Evidence:
    """500 tasks drawn from the prior (2,000 with `full`), T = 5,000."""
    horizon = 5000

    def prior(own: int) -> Task:
        rng = np.random.default_rng(own)
        return gaussian(rng.normal(0.5, 0.2, 10), rng.permutation(DEVIATIONS))

    # The arms' deviations are known but differ from task to task: a learner for each task, so plays one by one.
    curves: dict[str, list[np.ndarray]] = {"own variances": [], "the largest for all": []}
    rounds = np.empty(0)
    for own in np.random.SeedSequence(seed).generate_state(2000 if full else 500, np.uint64):
        task = prior(int(own))
        for name, known in (("own variances", task.state.deviations), ("the largest for all", DEVIATIONS[-1])):
            result = play(gaussian_thompson(10, known, 0.5, 0.2), task, horizon, seed=int(own), workers=1)
            curves[name].append(result.curves["regret"][0])
            rounds = result.rounds
    mean = {name: np.mean(values, axis=0) for name, values in curves.items()}
    bound = np.array([bayes_regret_bound(10, int(t), DEVIATIONS, 0.2) for t in rounds])
    late = rounds >= 500

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, curve in mean.items():
            axes.plot(rounds, curve, label=name)
        axes.plot(rounds, bound, "--", label="Bayes regret bound")
        axes.set(xscale="log", yscale="log", xlabel="round", ylabel="mean regret")
        axes.legend()

    rows = []
    for name, values in curves.items():
        value, error = mean_and_error(np.array(values)[:, -1])
        rows.append([name, f"{value:.1f} +- {error:.1f}"])
    rows.append(["bound", f"{bound[-1]:.1f}"])
    ours, theirs = mean["own variances"], mean["the largest for all"]
    return Evidence(
        statement="Thompson sampling with each arm's variance beats one bound for all and obeys its Bayes bound.",
        checks=[
            at_most("largest Bayes regret / bound", (ours / bound).max(), 1.0, "below 1e-4"),
            at_most("exponent of Bayes regret in T, last decade", slope(rounds[late], ours[late]), 0.6, "below 1e-4"),
            at_most("regret / with the largest variance for all", ours[-1] / theirs[-1], 0.6, "below 1e-4"),
        ],
        tables=[Table("Bayes regret at T = 5,000", ["variances assumed", "regret"], rows)],
        draw=draw,
    )
