"""UCB-V's regret falls with the variance of the worse arms, as its bound says; UCB1's does not.

The paper (Audibert, Munos and Szepesvari 2009): with zeta = 1.2 and c = 1 at most 10 sum (v / D + 2 b) log T, a major
advantage where the worse arms vary little. Ours: two arms with a gap of 0.05 and beta losses whose variance falls from
0.17 to 0.001, T = 30,000: regret lies below the bound, halves from the largest variance to the least, and is at most
0.4 of UCB1's at the least and below it at the largest. (Where gaps are wide and rounds few the 3 b E / n_a term costs
more than UCB1's width: see the first table of var_ts's claim.)
"""

from __future__ import annotations

from typing import Any

from backchannel.claim import Evidence, Table, at_most, mean_and_error
from backchannel.loop import play
from backchannel.online.ucb1 import ucb1
from backchannel.online.ucb_v import gap_bound, ucb_v
from backchannel.tasks.beta import beta

MEANS, GAP = [0.45, 0.5], 0.05
CONCENTRATIONS = (0.5, 4.0, 30.0, 250.0)


def claim(seed: int, full: bool) -> Evidence:
    """40 replicates of T = 30,000 (10^5 with `full`) for each of four variances, 0.17 to 0.001."""
    horizon = 100_000 if full else 30_000
    ours, theirs, ratios, rows = [], [], [], []
    for concentration in CONCENTRATIONS:
        task = beta(MEANS, concentration)
        variance = MEANS[1] * (1 - MEANS[1]) / (1 + concentration)
        mean, error = mean_and_error(play(ucb_v(2), task, horizon, replicates=40, seed=seed).final())
        other, spread = mean_and_error(play(ucb1(2), task, horizon, replicates=40, seed=seed).final())
        bound = gap_bound([0, GAP], [0, variance], horizon)
        ours.append(mean)
        theirs.append(other)
        ratios.append(mean / bound)
        cells = [f"{mean:.1f} +- {error:.1f}", f"{other:.1f} +- {spread:.1f}", f"{bound:.1f}"]
        rows.append([f"{variance:.4f}", *cells])

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        variances = [MEANS[1] * (1 - MEANS[1]) / (1 + c) for c in CONCENTRATIONS]
        axes.plot(variances, ours, "o-", label="UCB-V")
        axes.plot(variances, theirs, "o-", label="UCB1")
        axes.set(xscale="log", xlabel="variance of the worse arm", ylabel="mean regret", title="gap 0.05")
        axes.legend()

    return Evidence(
        statement="UCB-V's regret falls with the variance of the worse arm, below its bound; UCB1's does not fall.",
        checks=[
            at_most("largest regret / the paper's bound", max(ratios), 1.0, "below 1e-4"),
            at_most("regret at the least variance / at the largest", ours[-1] / ours[0], 0.5, "below 1e-4"),
            at_most("regret / UCB1's at the least variance", ours[-1] / theirs[-1], 0.4, "below 1e-4"),
            at_most("regret / UCB1's at the largest variance", ours[0] / theirs[0], 0.85, "below 1e-4"),
        ],
        tables=[Table(f"regret at T = {horizon}", ["variance", "UCB-V", "UCB1", "UCB-V's bound"], rows)],
        draw=draw,
    )
