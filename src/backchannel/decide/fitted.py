"""A task fitted to a log: its contexts are the log's, its rewards are drawn from a model of the log's rewards.

It lets any learner be played, with fresh decisions, on something like one's own product: to choose a method, its
parameters or the length of an experiment. It knows only what the model knows, so that no value on it is evidence
about the product; for that there are the estimates of `learn`.

    >>> from backchannel import play
    >>> from backchannel.decide.fitted import fitted
    >>> from backchannel.decide.replay import DIGITS, ReplayedTable
    >>> from backchannel.online.lin_ucb import lin_ucb
    >>> task, encoder = fitted(ReplayedTable(DIGITS, "digit", "uniform"))
    >>> learner = lin_ucb(task.arms, encoder.dimension, disjoint=True, width=0.1)
    >>> play(learner, task, horizon=200).final("regret").shape
    (1,)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backchannel.base import Task
from backchannel.decide.features import Encoder, encode
from backchannel.decide.model import Normal, solve
from backchannel.decide.scan import Scan
from backchannel.engine import compiled
from backchannel.ledger.log import Log
from backchannel.parts.counter_random import uniform_at
from backchannel.tasks.bernoulli import reseed

MOST_ROWS = 100_000  # contexts are drawn from so many rows of the log, from its start


class State(NamedTuple):
    """The log's contexts, the model of its rewards scaled to [0, 1], and the luck."""

    x: np.ndarray  # float64[rows, d]
    theta: np.ndarray  # float64[arms, d], or [arms, 1] for means
    mean: np.ndarray  # float64[1]
    seed: np.ndarray  # uint64[1]
    rows: np.ndarray  # float64[arms, d]: the context, refilled in place


def fitted(log: Log) -> tuple[Task, Encoder]:
    """A task with contexts "rows" (float64[arms, dimension]) and losses of 0 or 1, and how its features were made.

    Raises:
        ValueError: if the log's options have features of their own, row by row: the model is one for each option.
    """
    scan = Scan(log)
    if scan.encoder.ragged:
        raise ValueError(f"{log.name} offers options with features of their own: a fitted task needs fixed options")
    if scan.high <= scan.low:
        raise ValueError(f"every reward of {log.name} is {scan.low:g}: there is nothing to fit")
    normal, kept, many = Normal(scan.encoder), [], 0
    for batch in log.batches():
        block, told = encode(scan.encoder, batch), np.isfinite(batch.reward)
        normal.add(block, told, np.where(told, (batch.reward - scan.low) / (scan.high - scan.low), 0.0))
        if many < MOST_ROWS:
            kept.append(block.x[: MOST_ROWS - many])
            many += kept[-1].shape[0]
    model = solve([normal], 0.0, 1.0)
    x, arms = np.concatenate(kept), len(log.actions)
    state = State(x, model.theta, model.mean, np.zeros(1, np.uint64), np.zeros((arms, x.shape[1])))
    return Task(state, arms, _context, _loss, _mean, reseed), scan.encoder


@compiled
def _row(state, t):
    return np.int64(uniform_at(state.seed[0], t, -1) * state.x.shape[0])


@compiled
def _context(state, t):
    state.rows[:, :] = state.x[_row(state, t)]
    return state.rows


@compiled
def _mean(state, t, action):
    reward = state.mean[0]
    x = state.x[_row(state, t)]
    for j in range(state.theta.shape[1]):
        reward += state.theta[action, j] * (x[j] if state.theta.shape[1] > 1 else 1.0)
    return 1.0 - min(max(reward, 0.0), 1.0)


@compiled
def _loss(state, t, action):
    return 1.0 if uniform_at(state.seed[0], t, action) < _mean(state, t, action) else 0.0
