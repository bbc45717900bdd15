"""UCB1's regret grows as log T on fixed gaps, below the paper's bound, and as sqrt(T log T) at most on any.

The paper (Auer, Cesa-Bianchi and Fischer 2002, theorem 1): at most sum 8 log T / D + (1 + pi^2 / 3) D, for every T.
Ours: on three Bernoulli tasks the mean regret lies below that bound at every checkpoint up to T = 10^5, its exponent in
T over the last decade is small, and with the gap shrinking as sqrt(K log T / T) it stays below the bound free of gaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_most, mean_and_error, slope
from backchannel.loop import play
from backchannel.online.epsilon_greedy import epsilon_greedy
from backchannel.online.ucb1 import gap_bound, regret_bound, ucb1
from backchannel.tasks.bernoulli import bernoulli

TASKS = {"0.1, 0.4": [0.1, 0.4], "0.1, 0.2": [0.1, 0.2], "0.1, 0.2 x3, 0.4 x6": [0.1, *[0.2] * 3, *[0.4] * 6]}


def claim(seed: int, full: bool) -> Evidence:
    """100 replicates on each task; `full` plays ten times as long."""
    horizon = 10**6 if full else 10**5
    means, ratios, exponents, rows = {}, [], [], []
    for name, losses in TASKS.items():
        result = play(ucb1(len(losses)), bernoulli(losses), horizon, replicates=100, seed=seed)
        curve, rounds = result.curves["regret"].mean(axis=0), result.rounds
        bound = np.array([gap_bound(np.array(losses) - min(losses), int(t)) for t in rounds])
        ratios.append((curve / bound).max())
        exponents.append(slope(rounds[rounds >= horizon / 10], curve[rounds >= horizon / 10]))
        means[name] = (rounds, curve, bound)
        value, error = mean_and_error(result.final())
        rows.append([name, f"{value:.1f} +- {error:.1f}", f"{bound[-1]:.1f}", f"{exponents[-1]:.2f}"])
    hard = []
    for t in (1000, 10_000, 100_000):
        arms = np.full(5, 0.5)
        arms[seed % 5] -= np.sqrt(5 * np.log(t) / t)
        hard.append(play(ucb1(5), bernoulli(arms), t, replicates=100, seed=seed).final().mean() / regret_bound(5, t))
    ours = play(ucb1(2), bernoulli([0.2, 0.8]), 10_000, replicates=100, seed=seed).final().mean()
    greedy = play(epsilon_greedy(2, 0.1), bernoulli([0.2, 0.8]), 10_000, replicates=100, seed=seed).final().mean()

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for i, (name, (rounds, curve, bound)) in enumerate(means.items()):
            axes.plot(rounds, curve, color=f"C{i}", label=name)
            axes.plot(rounds, bound, "--", color=f"C{i}")
        axes.set(xscale="log", yscale="log", xlabel="round", ylabel="mean regret", title="dashed: theorem 1")
        axes.legend()

    return Evidence(
        statement="UCB1's regret lies below theorem 1 at all times and grows as a logarithm.",
        checks=[
            at_most("largest regret / theorem 1, all tasks and times", max(ratios), 1.0, "below 1e-4"),
            at_most("largest exponent of regret in T, last decade", max(exponents), 0.4, "below 1e-4"),
            at_most("largest regret / bound free of gaps", max(hard), 1.0, "below 1e-4"),
            at_most("regret / epsilon-greedy's (0.1), gap 0.6", ours / greedy, 0.5, "below 1e-4"),
        ],
        tables=[Table(f"regret at T = {horizon}", ["expected losses", "regret", "theorem 1", "exponent"], rows)],
        draw=draw,
    )
