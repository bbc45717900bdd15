"""With exploration falling as c K / (d^2 t) epsilon-greedy's regret is logarithmic; with a fixed share it is linear.

The paper (Auer, Cesa-Bianchi and Fischer 2002, theorem 3 and section 4): epsilon_n-greedy has regret O(log T) if d is a
lower bound on the gap, and "performs well when tuned". Ours, on their distribution 2 (0.9 against 0.8 rewards), d the
gap, and c = 0.15 of their experiments besides the theorem's c = 5: regret per log T is bounded over T = 10^3 to 10^5
(its log-log slope is small), while a fixed share's regret is linear.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error, slope
from backchannel.loop import play
from backchannel.online.epsilon_greedy import epsilon_greedy
from backchannel.tasks.bernoulli import bernoulli

GAP = 0.1


def claim(seed: int, full: bool) -> Evidence:
    """One run of 100 replicates to T = 10^5 (10^6 with `full`) for each schedule."""
    horizon = 10**6 if full else 10**5
    learners = {
        "falling, c = 5": epsilon_greedy(2, 0.0, decay=5 * 2 / GAP**2),
        "falling, c = 0.15": epsilon_greedy(2, 0.0, decay=0.15 * 2 / GAP**2),
        "fixed, 0.1": epsilon_greedy(2, 0.1),
        "fixed, 0.02": epsilon_greedy(2, 0.02),
    }
    task = bernoulli([0.1, 0.2])
    results = {name: play(each, task, horizon, replicates=100, seed=seed) for name, each in learners.items()}
    rounds = next(iter(results.values())).rounds
    late = rounds >= horizon / 10
    mean = {name: result.curves["regret"].mean(axis=0) for name, result in results.items()}
    exponent = {name: slope(rounds[late], curve[late]) for name, curve in mean.items()}

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, curve in mean.items():
            axes.plot(rounds, curve, label=name)
        axes.set(xscale="log", xlabel="round", ylabel="mean regret", title="two arms, 0.1 and 0.2")
        axes.legend()

    rows = []
    for name, result in results.items():
        value, error = mean_and_error(result.final())
        rows.append([name, f"{value:.1f} +- {error:.1f}", f"{exponent[name]:.2f}"])
    # With c = 5 exploration is uniform for the first 1,000 rounds; after that it costs C log(t / C) d / 2.
    c5 = 5 * 2 / GAP**2
    expected = c5 * GAP / 2 * (1 + np.log(horizon / c5))
    return Evidence(
        statement="Exploration falling as c K / (d^2 t) has logarithmic regret; a fixed share has linear regret.",
        checks=[
            at_most("exponent in T, falling with c = 5, last decade", exponent["falling, c = 5"], 0.35, "below 1e-4"),
            at_most("its regret / the cost of exploring", mean["falling, c = 5"][-1] / expected, 1.1, "below 1e-4"),
            at_least("exponent in T, fixed 0.1, last decade", exponent["fixed, 0.1"], 0.9, "below 1e-4"),
        ],
        tables=[Table(f"regret at T = {horizon}", ["schedule", "regret", "exponent in the last decade"], rows)],
        draw=draw,
    )
