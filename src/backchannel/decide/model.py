"""The model of the reward that direct and doubly robust estimates use: ridge regression, in closed form.

One regression for each option on the context's dense features; where options have features of their own, one for all
on theirs. The penalty is 1 on features before they are divided by the root of their number, and rewards are centred
first, so that with little data the model says the mean. It is fitted on other rows than it is applied to.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backchannel.decide.features import Block, Encoder
from backchannel.decide.views import first_of, options_of, rows_seen
from backchannel.engine import bind, compiled

MOST_NUMBERS = 20_000_000  # entries of all normal matrices: beyond it the model is each option's mean

_CALL = """
@compiled
def run(block, use, reward, gram, moment, first, total):
    gather(block, use, reward, gram, moment, first, total)
"""

_PREDICT = """
@compiled
def run(model, block, use, out):
    predict_options(model, block, use, out)
"""


class Model(NamedTuple):
    """q(x, a) = mean + x . theta[a], clipped to the range of rewards. One row of theta if options are ragged."""

    theta: np.ndarray  # float64[models, d], or [models, 1] for means
    mean: np.ndarray  # float64[1]
    low: np.ndarray  # float64[1]
    high: np.ndarray  # float64[1]


class Normal:
    """Normal equations of one fold, gathered batch by batch."""

    def __init__(self, encoder: Encoder):
        models = 1 if encoder.ragged else len(encoder.actions)
        width = encoder.dimension if models * encoder.dimension**2 <= MOST_NUMBERS else 1
        self.gram = np.zeros((models, width, width))
        self.moment = np.zeros((models, width))
        self.first = np.zeros((models, width))  # sums of x, to centre the rewards afterwards
        self.total = np.zeros(2)  # rows, sum of rewards

    def add(self, block: Block, use: np.ndarray, reward: np.ndarray) -> None:
        """Rows where `use` is set."""
        run = bind(_CALL, {"gather": _gather}, (block,)).run
        run(block, use, reward, self.gram, self.moment, self.first, self.total)


def solve(parts: list[Normal], low: float, high: float) -> Model:
    """The ridge regression of the union of `parts`."""
    count, total = np.sum([part.total for part in parts], axis=0)
    mean = total / count if count else (low + high) / 2
    gram = np.sum([part.gram for part in parts], axis=0) + np.eye(parts[0].gram.shape[1]) / parts[0].gram.shape[1]
    moment = np.sum([part.moment - mean * part.first for part in parts], axis=0)
    theta = np.linalg.solve(gram, moment[..., None])[..., 0]
    return Model(theta, np.array([mean]), np.array([low]), np.array([high]))


def predict(models: list[Model], half: np.ndarray, block: Block) -> np.ndarray:
    """q(x_i, a) of every option of every row by the model `models[half[i]]`: those of row i from `first_of` on."""
    out = np.empty(block.option.size if block.x.shape[0] == 0 else half.size * block.name.size)
    run = bind(_PREDICT, {"predict_options": _predict_options}, (models[0], block)).run
    for f, model in enumerate(models):
        run(model, block, half == f, out)
    return out


@compiled
def _predict_options(model, block, use, out):
    width = model.theta.shape[1]
    for i in range(use.shape[0]):
        if not use[i]:
            continue
        first, options = first_of(block, i), options_of(block, i)
        rows = block.rows[:options]
        if width > 1 and block.x.shape[0] == 0:
            rows = rows_seen(block, i, -1)
        for a in range(options):
            total = model.mean[0]
            if width == 1:
                total += model.theta[a if model.theta.shape[0] > 1 else 0, 0]
            elif block.x.shape[0] > 0:
                for j in range(width):
                    total += model.theta[a, j] * block.x[i, j]
            else:
                for j in range(width):
                    total += model.theta[0, j] * rows[a, j]
            out[first + a] = min(max(total, model.low[0]), model.high[0])


@compiled
def _gather(block, use, reward, gram, moment, first, total):
    width = moment.shape[1]
    for i in range(use.shape[0]):
        if not use[i]:
            continue
        total[0] += 1.0
        total[1] += reward[i]
        a = block.action[i]
        m = a if gram.shape[0] > 1 else 0
        if width == 1:
            gram[m, 0, 0] += 1.0
            moment[m, 0] += reward[i]
            first[m, 0] += 1.0
            continue
        x = block.x[i] if block.x.shape[0] > 0 else rows_seen(block, i, a)[a]
        for j in range(width):
            if x[j] != 0.0:
                moment[m, j] += x[j] * reward[i]
                first[m, j] += x[j]
                for k in range(width):
                    gram[m, j, k] += x[j] * x[k]
