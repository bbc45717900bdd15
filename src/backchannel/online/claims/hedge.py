"""Told every loss, the price of not knowing is sqrt(T log K / 2), on the hardest losses and with nothing to spare.

The theorem (Cesa-Bianchi and Lugosi 2006, theorems 2.2 and 3.7): regret at most sqrt(T log K / 2) against any
sequence, and no method does asymptotically better. Ours: fair coins as losses, the sequences of the lower bound, on
which every method expects T / 2 and the regret is the luck of the best action in hindsight. It grows with exponent 1/2
in T, lies below the bound everywhere, and comes to more than half of it: the bound has nothing to spare.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.channels.hide import full as everything
from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error, slope, within
from backchannel.loop import play
from backchannel.online.hedge import hedge, regret_bound
from backchannel.tasks.adversarial import sequence


def claim(seed: int, full: bool) -> Evidence:
    """Regret on fair coins, by horizon and by number of actions; `full` takes four times the runs."""
    runs = 800 if full else 200
    rng = np.random.default_rng([seed, 1])

    def regret(arms: int, horizon: int) -> np.ndarray:
        tables = rng.integers(0, 2, (runs, horizon, arms)).astype(float)
        return np.array(
            [
                play(
                    hedge(arms, horizon), sequence(table), horizon, seed=i, channel=everything(arms), points=2
                ).final()[0]
                for i, table in enumerate(tables)
            ]
        )

    horizons = 2 ** np.arange(8, 14)
    by_horizon = [mean_and_error(regret(8, int(t))) for t in horizons]
    actions = np.array([2, 8, 32, 64])
    by_actions = [mean_and_error(regret(int(k), 1024)) for k in actions]
    ratio = [m / regret_bound(8, int(t)) for t, (m, _) in zip(horizons, by_horizon, strict=True)]
    ratio_k = [m / regret_bound(int(k), 1024) for k, (m, _) in zip(actions, by_actions, strict=True)]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.errorbar(horizons, *np.array(by_horizon).T, fmt="o-", label="Hedge, K = 8")
        left.plot(horizons, [regret_bound(8, int(t)) for t in horizons], "--", label=r"$\sqrt{T \log K / 2}$")
        left.set(xscale="log", yscale="log", xlabel="horizon T", ylabel="regret", title="fair coins")
        left.legend()
        right.errorbar(actions, *np.array(by_actions).T, fmt="o-", label="Hedge, T = 1024")
        right.plot(actions, [regret_bound(int(k), 1024) for k in actions], "--", label=r"$\sqrt{T \log K / 2}$")
        right.set(xscale="log", xlabel="actions K", ylabel="regret", title="more actions cost little")
        right.legend()

    rows = [["T", int(t), f"{m:.1f} +- {e:.1f}", r] for t, (m, e), r in zip(horizons, by_horizon, ratio, strict=True)]
    rows += [["K", int(k), f"{m:.1f} +- {e:.1f}", r] for k, (m, e), r in zip(actions, by_actions, ratio_k, strict=True)]
    return Evidence(
        statement="Hedge's regret on fair coins grows as sqrt(T), between half of sqrt(T log K / 2) and all of it.",
        checks=[
            within("exponent of regret in T", slope(horizons, np.array([m for m, _ in by_horizon])), 0.4, 0.6, "1e-4"),
            at_most("largest regret / bound", max(ratio + ratio_k), 1.0, "1e-4"),
            at_least("regret / bound with 64 actions", ratio_k[-1], 0.5, "1e-4"),
        ],
        tables=[
            Table("regret by horizon (K = 8) and by actions (T = 1024)", ["axis", "value", "regret", "/ bound"], rows)
        ],
        draw=draw,
    )
