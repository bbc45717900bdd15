"""The best fixed option in hindsight, from a log that was drawn uniformly.

There every option's rows are a fair sample of all rows, so that the mean reward of option a's rows estimates V(a), what
always taking a would have earned; regret is max_a V(a) less a policy's value. The largest of many means is too large:
whichever option had luck is taken. So the *value* said is that of the option chosen on one half of the rows and judged
on the other, both ways round. The *interval* takes no option as known. With one-sided bounds low_a, at error / (2
options), and high_a, at error / 2,

    max_a low_a <= max_a V(a) <= max_a high_a

but with probability `error`: all the lower bounds hold at once, and the upper one of the option that really is best
holds, whichever it is. Bounds are Chernoff's for rewards in a stated range, n kl(mean, V) = log(1 / error); they
hold for any number of rows, and for options without a single reward.
"""

from __future__ import annotations

import numpy as np

from backchannel.decide.result import Estimate

SHARE = 0.025  # how often the interval of the best may miss; a regret's, of it and a value's at the same: 0.05
_EVEN = 1e-6  # how far a propensity may lie from 1 / options, relatively


def best_fixed(
    action: np.ndarray,
    reward: np.ndarray,
    propensity: np.ndarray,
    half: np.ndarray,
    options: int,
    low: float,
    high: float,
    error: float = SHARE,
) -> Estimate | None:
    """Value of the best fixed option with its interval; None if the log is not uniform over all options, always.

    Args:
        half: bool[rows]: which half a row belongs to.
        low: least possible reward.
        high: largest possible reward.
    """
    if options < 2 or np.abs(propensity * options - 1).max() > _EVEN:
        return None
    a = action.astype(np.int64)
    counts = np.array([np.bincount(a[half == f], minlength=options) for f in (False, True)], np.float64)
    sums = np.array([np.bincount(a[half == f], reward[half == f], options) for f in (False, True)])
    both = counts.min(axis=0) > 0
    if not both.any():
        return None
    means = np.where(both, sums / np.maximum(counts, 1), -np.inf)
    value = float(np.mean([means[1 - f][means[f].argmax()] for f in range(2)]))
    n = counts.sum(axis=0)
    mean = (sums.sum(axis=0) / np.maximum(n, 1) - low) / (high - low)
    least = _bound(mean, np.log(2 * options / error) / np.maximum(n, 1), upper=False)
    most = _bound(mean, np.log(2 / error) / np.maximum(n, 1), upper=True)
    ends = low + (high - low) * np.where(n > 0, (least, most), [[0.0], [1.0]]).max(axis=1)
    return Estimate(float(np.clip(value, *ends)), float(ends[0]), float(ends[1]))


def regret(best: Estimate, value: Estimate) -> Estimate:
    """Best less value; both intervals hold at once, but with the sum of their errors."""
    return Estimate(best.value - value.value, best.low - value.high, best.high - value.low)


def _bound(mean: np.ndarray, doubt: np.ndarray, upper: bool) -> np.ndarray:
    """The V farthest above (or below) the mean with kl(mean, V) <= doubt, by bisection."""
    near, far = mean.copy(), np.full(mean.shape, float(upper))
    for _ in range(60):
        middle = (near + far) / 2
        inside = _kl(mean, middle) <= doubt
        near, far = np.where(inside, middle, near), np.where(inside, far, middle)
    return far


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p log(p / q) + (1 - p) log((1 - p) / (1 - q)), where 0 log 0 is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(p > 0, p * np.log(p / q), 0.0)
        second = np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0.0)
    return first + second
