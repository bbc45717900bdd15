"""Uniform play loses exactly its mean gap each round, and its log is unbiased where a learner's is not.

The textbook's facts (Lattimore and Szepesvari 2020, section 4.5 for the decomposition of regret; averages of adaptively
collected data are biased, e.g. Nie et al. 2018). Ours: over 1,000 runs the mean regret is T times the mean gap; the
averages of two equal arms from its log are their means, and from UCB1's log they lie above it (losses look too large).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.base import Learner
from backchannel.claim import Evidence, Table, at_least, mean_and_error, within
from backchannel.loop import Run, play
from backchannel.online.ucb1 import ucb1
from backchannel.online.uniform import uniform
from backchannel.tasks.bernoulli import bernoulli

HORIZON = 1000


def _averages(learner: Learner, seed: int, runs: int) -> np.ndarray:
    """The average loss of arm 0 in the logs of many runs of 30 rounds with two arms that lose half the time."""
    task, means = bernoulli([0.5, 0.5]), []
    for own in np.random.SeedSequence(seed).generate_state(runs, np.uint64):
        run = Run(learner, task, 30, seed=int(own)).advance()
        chosen = np.flatnonzero(run.trace.actions == 0)
        means += [np.mean([task.loss(run.task.state, int(t), 0) for t in chosen])] if chosen.size else []
    return np.array(means)


def claim(seed: int, full: bool) -> Evidence:
    """Regret of 1,000 runs; averages of 4,000 logs (20,000 with `full`)."""
    runs = 20_000 if full else 4000
    gaps = np.array([0.0, 0.3, 0.6])
    result = play(uniform(3), bernoulli(0.2 + gaps), HORIZON, replicates=1000, seed=seed)
    regret, error = mean_and_error(result.final())
    ours = mean_and_error(_averages(uniform(2), seed, runs))
    theirs = mean_and_error(_averages(ucb1(2, exploration=0.2), seed, runs))

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.plot(result.rounds, result.curves["regret"].mean(axis=0), label="mean regret")
        axes.plot(result.rounds, result.rounds * gaps.mean(), "--", label="T times the mean gap")
        axes.set(xlabel="round", ylabel="regret")
        axes.legend()

    rows = [
        ["uniform", f"{ours[0] - 0.5:+.4f} +- {ours[1]:.4f}"],
        ["UCB1 with exploration 0.2", f"{theirs[0] - 0.5:+.4f} +- {theirs[1]:.4f}"],
    ]
    return Evidence(
        statement="Uniform play's regret is T times the mean gap, and averages of its log are unbiased.",
        checks=[
            within(
                "(regret - T mean gap) / standard error", (regret - HORIZON * gaps.mean()) / error, -4.5, 4.5, "7e-6"
            ),
            within("bias of its averages / standard error", (ours[0] - 0.5) / ours[1], -4.5, 4.5, "7e-6"),
            at_least("bias of UCB1's averages / standard error", (theirs[0] - 0.5) / theirs[1], 4.5, "below 1e-4"),
        ],
        tables=[Table("bias of an arm's average loss in a log of 30 rounds", ["logged by", "bias and s.e."], rows)],
        draw=draw,
    )
