"""Constant best reads the right action off a log whose own averages mislead; played live it may be wrong for good.

The paper (Swaminathan and Joachims 2015): self-normalised importance weighting estimates what another policy would have
lost from a log with known propensities. Ours: in 200 logs of 4,000 decisions in which easy cases mostly got the worse
action, the weighted means name the better action in at least 99 of 100 logs, the plain means in at most 1 of 100. And
the price of never exploring: follow-the-leader's regret is linear in T, UCB1's is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.base import NOTHING
from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error, slope
from backchannel.loop import copy_state, play
from backchannel.online.constant_best import constant_best
from backchannel.online.ucb1 import ucb1
from backchannel.tasks.bernoulli import bernoulli


def _chosen(rng: np.random.Generator, decisions: int) -> tuple[bool, bool]:
    """Whether the weighted and the plain means of one confounded log name action 1, which is better by 0.1."""
    learner = constant_best(2)
    weighted, plain = copy_state(learner.state), copy_state(learner.state)
    for hard in rng.random(decisions) < 0.5:
        first = 0.1 if hard else 0.9  # the log's probability of action 0
        action = int(rng.random() >= first)
        loss = float(rng.random() < 0.1 + 0.6 * hard + 0.1 * (action == 0))
        learner.update(weighted, NOTHING, action, first if action == 0 else 1 - first, loss)
        learner.update(plain, NOTHING, action, np.nan, loss)
    return learner.act(weighted, NOTHING, rng)[0] == 1, learner.act(plain, NOTHING, rng)[0] == 1


def claim(seed: int, full: bool) -> Evidence:
    """200 logs (1,000 with `full`), and live play over T = 2^9 to 2^15."""
    rng = np.random.default_rng(seed)
    right = np.array([_chosen(rng, 4000) for _ in range(1000 if full else 200)])
    horizons = 2 ** np.arange(9, 16)
    task, curves = bernoulli([0.4, 0.6]), {}
    for name, learner in (("constant best", constant_best(2)), ("UCB1", ucb1(2))):
        curves[name] = [
            mean_and_error(play(learner, task, int(h), replicates=200, seed=seed).final()) for h in horizons
        ]
    exponents = {name: slope(horizons, np.array([mean for mean, _ in values])) for name, values in curves.items()}

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, values in curves.items():
            axes.errorbar(horizons, *np.array(values).T * [[1], [3]], fmt="o-", label=f"{name}, mean and 3 s.e.")
        axes.set(xscale="log", yscale="log", xlabel="horizon T", ylabel="regret", title="two arms, 0.4 and 0.6")
        axes.legend()

    rows = [
        [int(h), *(f"{curves[name][i][0]:.1f} +- {curves[name][i][1]:.1f}" for name in curves)]
        for i, h in enumerate(horizons)
    ]
    return Evidence(
        statement="Weighted means of a confounded log name the best single action, plain means the worse one.",
        checks=[
            at_least("logs in which weighted means are right", right[:, 0].mean(), 0.99, "below 1e-4"),
            at_most("logs in which plain means are right", right[:, 1].mean(), 0.01, "below 1e-4"),
            at_least("exponent of its own regret in T", exponents["constant best"], 0.9, "below 1e-4"),
            at_most("exponent of UCB1's regret in T", exponents["UCB1"], 0.5, "below 1e-4"),
        ],
        tables=[Table("regret played live", ["T", *curves], rows)],
        draw=draw,
    )
