"""SquareCB's regret grows as the square root of the horizon where the expected losses lie in its regression's class.

The paper (Foster and Rakhlin 2020, theorem 1): O(sqrt(K T Reg_Sq(T))) for any regression and any contexts, if the
expected losses are realisable. Ours: five options with four dense features and linear losses, over T = 2^10 to 2^17:
the log-log slope of the mean regret lies in 0.5 +- 0.1; it is a small part of uniform play's and of that of Exp3, which
sees no features.

Context: LinUCB, whose ridge regression inverts a matrix and is made for this very class, is better by a factor of 40
and more; and where the losses are logistic, so that a linear regression is misspecified, the slope is larger.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.base import Task
from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error, slope, within
from backchannel.engine import compiled
from backchannel.loop import Result, play
from backchannel.meters.regret import dynamic_regret
from backchannel.online.exp3 import exp3
from backchannel.online.lin_ucb import lin_ucb
from backchannel.online.square_cb import square_cb
from backchannel.parts.sparse import Sparse
from backchannel.tasks.linear import linear, rows_of
from backchannel.tasks.logistic import sparse_logistic

ARMS, DIMENSION, NOISE, BITS = 5, 4, 0.1, 12
METERS = {"regret": dynamic_regret()}


def claim(seed: int, full: bool) -> Evidence:
    """One long run in 8 replicates, read at each horizon (gamma needs none); `full` goes two octaves further."""
    horizon = 2 ** (19 if full else 17)
    dense = linear(ARMS, DIMENSION, seed, NOISE)
    results = {
        "SquareCB": _play(square_cb(2), as_sparse(dense), horizon, seed),
        "uniform": _play(square_cb(2, oracle_regret=1e15), as_sparse(dense), horizon, seed),
        "Exp3": _play(exp3(ARMS, horizon), dense, horizon, seed),
        "LinUCB": _play(lin_ucb(ARMS, DIMENSION, noise=NOISE), dense, horizon, seed),
        "SquareCB, logistic losses": _play(square_cb(BITS), sparse_logistic(ARMS, BITS, seed), horizon, seed),
    }
    finals = {name: result.final().mean() for name, result in results.items()}
    slopes = {name: _slope(result) for name, result in results.items()}

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, result in results.items():
            axes.plot(result.rounds, result.curves["regret"].mean(0), label=name)
        axes.set(xscale="log", yscale="log", xlabel="round", ylabel="regret")
        axes.legend()

    rows = [
        [name, "{:.1f} +- {:.1f}".format(*mean_and_error(result.final())), f"{slopes[name]:.2f}"]
        for name, result in results.items()
    ]
    return Evidence(
        statement="SquareCB's regret on linear losses grows as sqrt(T), a small part of uniform play's.",
        checks=[
            within("log-log slope of regret in T", slopes["SquareCB"], 0.4, 0.6, "below 1e-4"),
            at_most("regret / uniform play's", finals["SquareCB"] / finals["uniform"], 0.05, "below 1e-4"),
            at_most("regret / Exp3's", finals["SquareCB"] / finals["Exp3"], 0.05, "below 1e-4"),
            at_most("regret / LinUCB's", finals["SquareCB"] / finals["LinUCB"], 1.0, "measured", headline=False),
            at_least("slope, logistic losses", slopes["SquareCB, logistic losses"], 0.5, "measured", headline=False),
        ],
        tables=[Table(f"T = {horizon}", ["method", "regret", "slope"], rows)],
        draw=draw,
    )


def as_sparse(task: Task) -> Task:
    """A task with rows, shown as options with dense features."""
    return task._replace(context=_sparse_rows)


@compiled
def _sparse_rows(state, t):
    rows = rows_of(state, t)
    arms, d = rows.shape
    return Sparse(np.arange(arms + 1) * d, np.arange(arms * d) % d, rows.ravel())


def _play(learner: Any, task: Task, horizon: int, seed: int) -> Result:
    return play(learner, task, horizon, replicates=8, seed=seed, meters=METERS)


def _slope(result: Result) -> float:
    late = result.rounds >= 2**10
    return slope(result.rounds[late], result.curves["regret"].mean(0)[late])
