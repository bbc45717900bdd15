"""UCB1-tuned beats UCB1 on the paper's own distributions, by a factor.

The paper (Auer, Cesa-Bianchi and Fischer 2002, section 4, distributions 1 to 3 and 11 to 14): UCB1-tuned "performs
substantially better than UCB1 in essentially all of our experiments". Ours: on those seven tasks, up to T = 10^5, its
mean regret is at most half of UCB1's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_most, mean_and_error
from backchannel.loop import play
from backchannel.online.ucb1 import ucb1
from backchannel.online.ucb1_tuned import ucb1_tuned
from backchannel.tasks.bernoulli import bernoulli

REWARDS = {
    1: [0.9, 0.6],
    2: [0.9, 0.8],
    3: [0.55, 0.45],
    11: [0.9, *[0.6] * 9],
    12: [0.9, *[0.8] * 3, *[0.7] * 3, *[0.6] * 3],
    13: [0.9, *[0.8] * 9],
    14: [0.55, *[0.45] * 9],
}


def claim(seed: int, full: bool) -> Evidence:
    """50 replicates to T = 30,000 (100 to 10^5 with `full`) on each distribution."""
    horizon, replicates = (10**5, 100) if full else (30_000, 50)
    rows, ratios, bars = [], [], []
    for number, rewards in REWARDS.items():
        task, arms = bernoulli(1 - np.array(rewards)), len(rewards)
        ours = mean_and_error(play(ucb1_tuned(arms), task, horizon, replicates=replicates, seed=seed).final())
        theirs = mean_and_error(play(ucb1(arms), task, horizon, replicates=replicates, seed=seed).final())
        ratios.append(ours[0] / theirs[0])
        bars.append((ours[0], theirs[0]))
        rows.append([number, *(f"{mean:.1f} +- {error:.1f}" for mean, error in (ours, theirs)), f"{ratios[-1]:.2f}"])

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(REWARDS))
        axes.bar(places - 0.2, [a for a, _ in bars], 0.4, label="UCB1-tuned")
        axes.bar(places + 0.2, [b for _, b in bars], 0.4, label="UCB1")
        axes.set(xticks=places, xticklabels=list(REWARDS), yscale="log", xlabel="distribution", ylabel="mean regret")
        axes.legend()

    return Evidence(
        statement="UCB1-tuned's regret is at most half of UCB1's on each of the paper's distributions.",
        checks=[at_most("largest regret / UCB1's, seven distributions", max(ratios), 0.5, "below 1e-4")],
        tables=[Table(f"regret at T = {horizon}", ["distribution", "UCB1-tuned", "UCB1", "ratio"], rows)],
        draw=draw,
    )
