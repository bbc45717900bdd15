"""Bands for looking at any time: a policy's value against the log's own as rows come in.

A row is weighed under the policy that was learned from the other half of the rows. Given that half, the rows of this
one are new to it and their weights average 1, so that each half has a confidence sequence of its own, for weights of
any size and without a clip (see `ledger.intervals`). The value said is the mean of the halves' values, and its band the
mean of their bands, each at half of the error. The error is further divided by the number of policies that were
estimated: the band then holds for whichever of them is picked afterwards.

The unit in which weights are counted changes a band's width, and never its validity if it is fixed beforehand. It is
half of the largest weight in the first tenth of a half's rows, at least 1; the band leaves those rows out.

The lift w r - r' with r in [0, 1] has two sides that no weight carries below 0: (w - 1) r + 1, of mean 1 + lift, and
w (1 - r) + r, of mean 1 - lift. `lower_sequence` bounds both means from below.

Assumed: propensities are right; rewards lie in the stated range; rows are drawn independently from one world, which
excludes a logging policy that learned while it logged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backchannel.decide.result import Curve, Monitor
from backchannel.ledger.estimators import Evaluated
from backchannel.ledger.intervals import confidence_sequence, lower_sequence

POINTS = 200
ERROR = 0.05
_FIRST = 0.1  # share of a half's rows that only choose the unit of weights


class _Bands(NamedTuple):
    low: np.ndarray
    high: np.ndarray


def monitor(key: str, rows: Evaluated, half: np.ndarray, low: float, high: float, tried: int) -> Monitor | None:
    """The policy `key`, one of `tried`, on the log's rows in order of time; None if a half is too small.

    Args:
        half: bool[rows]: which half a row belongs to.
        low: least possible reward.
        high: largest possible reward.
    """
    if min(half.sum(), (~half).sum()) < 2 / _FIRST:
        return None
    reward = (rows.reward - low) / (high - low)
    error = ERROR / tried
    value = _joined(rows.weight * reward, rows.weight * (1 - reward), rows.weight, half, error)
    gain = _joined((rows.weight - 1) * reward + 1, rows.weight * (1 - reward) + reward, rows.weight, half, error)
    gain = _Bands(gain.low - 1, gain.high)
    own = confidence_sequence(rows.reward, low, high, ERROR)
    apart = np.flatnonzero((gain.low > 0) | (gain.high < 0))
    span = high - low
    at = np.unique(np.linspace(1, reward.size, POINTS).astype(int)) - 1
    low_value, high_value = low + span * value.low.clip(0, 1), low + span * value.high.clip(0, 1)
    mean = np.cumsum(rows.reward) / np.arange(1, reward.size + 1)
    return Monitor(
        policy=key,
        tried=tried,
        value=_curve(key, at, _so_far(rows).clip(low, high), low_value, high_value),
        own=_curve("the log's own policy", at, mean, own.low, own.high),
        told_after=int(apart[0]) + 1 if apart.size else None,
        lift_low=float(span * gain.low[-1]),
        lift_high=float(span * gain.high[-1]),
    )


def _so_far(rows: Evaluated) -> np.ndarray:
    """The self-normalised doubly robust estimate from the first rows, after each; the model alone without weights."""
    weight = np.cumsum(rows.weight)
    residual = np.cumsum(rows.weight * (rows.reward - rows.chosen_q))
    model = np.cumsum(rows.policy_q) / np.arange(1, weight.size + 1)
    return model + np.divide(residual, weight, out=np.zeros(weight.size), where=weight > 0)


def _joined(above: np.ndarray, below: np.ndarray, weight: np.ndarray, half: np.ndarray, error: float) -> _Bands:
    """The mean of the two halves' values after each row: E[above] lies over `low`, and 1 - E[below] under `high`."""
    low, high = np.zeros(half.size), np.zeros(half.size)
    for own in (half, ~half):
        place = np.flatnonzero(own)
        first = int(_FIRST * place.size)
        unit = max(1.0, float(weight[place[:first]].max()) / 2)
        rest = place[first:]
        bounds = [unit * lower_sequence(x[rest] / unit, error / 4) for x in (above, below)]
        seen = np.cumsum(own) - first  # rows of this half so far; before them nothing is known
        for out, bound in zip((low, high), bounds, strict=True):
            out += np.where(seen > 0, bound[np.maximum(seen, 1) - 1], -np.inf) / 2
    return _Bands(low, 1 - high)


def _curve(label: str, at: np.ndarray, value: np.ndarray, low: np.ndarray, high: np.ndarray) -> Curve:
    return Curve(label, (at + 1).tolist(), value[at].tolist(), low[at].tolist(), high[at].tolist())
