"""The best fixed option in hindsight, from a log that was drawn uniformly.

There every option's rows are a fair sample of all rows, so that the mean reward m_a of option a's n_a rows estimates
V(a), what always taking a would have earned; regret is max_a V(a) less a policy's value. The largest of many means is
too large: whichever option had luck is taken. So the *value* said is the largest of the means after each is drawn to
the log's own mean m, the more the less it tells:

    m + b_a (m_a - m),    b_a = n_a t / (n_a t + s)

where s is the variance of rewards within an option, and t that of the options' true values, by the method of moments:
sum_a n_a (m_a - m)^2 = (options - 1) s + (n - sum_a n_a^2 / n) t on average. Where noise alone would spread the means
as far as they are, t is 0: no option stands out, and the value is m. It is never less, as no best option can earn
less than the mean of all. The *interval* takes no option as known. Of one-sided bounds, low_a and, for the mean of
all options, low_m at error / (2 (options + 1)) each, and high_a at error / 2,

    max(low_m, max_a low_a) <= max_a V(a) <= max_a high_a

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
    options: int,
    low: float,
    high: float,
    error: float = SHARE,
) -> Estimate | None:
    """Value of the best fixed option with its interval; None if the log is not uniform over all options, always.

    Args:
        low: least possible reward.
        high: largest possible reward.
    """
    if options < 2 or np.abs(propensity * options - 1).max() > _EVEN:
        return None
    a = action.astype(np.int64)
    n = np.bincount(a, minlength=options).astype(np.float64)
    mean = np.bincount(a, reward, options) / np.maximum(n, 1)
    middle = float(reward.mean())
    value = _largest(n, mean, middle, float(((reward - middle) ** 2).sum()))
    unit = (np.append(mean, middle) - low) / (high - low)
    rows = np.maximum(np.append(n, reward.size), 1)
    least = _bound(unit, np.log(2 * (options + 1) / error) / rows, upper=False)
    most = _bound(unit[:-1], np.log(2 / error) / rows[:-1], upper=True)
    least_best = low + (high - low) * float(np.where(np.append(n, 1) > 0, least, 0.0).max())
    most_best = low + (high - low) * float(np.where(n > 0, most, 1.0).max())
    return Estimate(float(np.clip(value, least_best, most_best)), least_best, most_best)


def regret(best: Estimate, value: Estimate) -> Estimate:
    """Best less value; both intervals hold at once, but with the sum of their errors."""
    return Estimate(best.value - value.value, best.low - value.high, best.high - value.low)


def _largest(n: np.ndarray, mean: np.ndarray, middle: float, total: float) -> float:
    """The largest mean, each drawn to the middle as far as noise explains it; `total`: squared distances of rewards."""
    seen = int((n > 0).sum())
    rows, apart = float(n.sum()), float((n * (mean - middle) ** 2)[n > 0].sum())
    if seen < 2 or rows <= seen:
        return middle
    within = max(total - apart, 0.0) / (rows - seen)
    between = max(apart - (seen - 1) * within, 0.0) / (rows - float((n**2).sum()) / rows)
    if between == 0:
        return middle
    return max(middle, float((middle + n * between / (n * between + within) * (mean - middle))[n > 0].max()))


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
