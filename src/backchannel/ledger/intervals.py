"""Intervals around an off-policy estimate: for one look at the end, and for looking all the time.

All take contributions (see `estimators`): x_1..x_n whose mean is the estimate. `error` is the probability with which
the interval may miss the value, 0.05 by default.

| interval | misses at most `error` of the time if | looks |
|---|---|---|
| `student` | n is large and no row dominates | one |
| `bootstrap` | the same; keeps the skew of the data | one |
| `empirical_bernstein` | rows are independent, all x in a *stated* range | one |
| `confidence_sequence` | E[x_t given the past] is constant, all x in a stated range | any number |
| `off_policy_sequence` | the same, rewards in a stated range, propensities right, weights of any size | any number |

The range is what a contribution *could* have been, not what was seen: an importance-weighted one reaches as far as the
largest possible weight, and a log in which that weight did not occur says nothing of it. `contribution_range` gives it.
The last three hold for any n. Neither the first three nor `estimators`' self-normalised contributions go together with
looking again and again: an interval that is right for one look misses almost surely at some look.

*Empirical Bernstein* (Maurer and Pontil 2009, theorem 4, both sides), s^2 the sample variance, R the range:

    |mean(x) - V| <= sqrt(2 s^2 log(4 / error) / n) + 7 R log(4 / error) / (3 (n - 1)).

*Confidence sequence*: predictable plug-in empirical Bernstein (Waudby-Smith and Ramdas 2024, theorem 2), built of one
lower bound for x_i >= 0 of mean V, at level a, simultaneously for all t:

    L_t = (sum l_i x_i - sum (-log(1 - l_i) - l_i) (x_i - m_{i-1})^2 - log(1 / a)) / sum l_i,                  i <= t
    m_t = min(1, (1/2 + sum x_i) / (t + 1)),       v_t = (1/4 + sum (x_i - m_i)^2) / (t + 1)
    l_t = min(1/2, sqrt(2 log(1 / a) / (v_{t-1} t log(1 + t))))

since x - m >= -1 makes exp(l (x - V) - (-log(1 - l) - l) (x - m)^2) a supermartingale's factor, however large x gets.
With x in [0, 1], the bound on x and the bound on 1 - x, each at error / 2, are theorem 2. With weights of unknown size
and rewards in [0, 1], w r and w (1 - r) are bounded from below by 0, and their means are V and 1 - V because E[w] = 1
(Waudby-Smith et al. 2024): bounds from both sides without a largest weight. The upper one is as wide as the weights
vary; where rewards are rare and a largest weight can be stated, `confidence_sequence` of ips is much narrower.

*Bootstrap*: percentiles of the mean under Poisson(1) resampling of the rows; memory does not grow with the resamples,
and rows that equal the median contribution (often most of them) are resampled all at once.

References: maurer2009empirical, waudbysmith2024estimating, waudbysmith2024anytime, hanley2006poisson.
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from backchannel.engine import bind, compiled


class Interval(NamedTuple):
    """From low to high."""

    low: float
    high: float


class Sequence(NamedTuple):
    """The interval after each row; its intersection with all before it."""

    low: np.ndarray  # float64[n]
    high: np.ndarray  # float64[n]


class Watch(NamedTuple):
    """What a confidence sequence remembers between two parts of a stream, for its lower and its upper bound."""

    low: np.ndarray  # float64[7]: t, sum l, sum l x, sum psi (x - m)^2, sum x, sum (x - m)^2, best bound
    high: np.ndarray


def student(x: np.ndarray, error: float = 0.05) -> Interval:
    """mean +- t s / sqrt(n)."""
    n = _check(x, error)
    half = t_quantile(1 - error / 2, n - 1) * float(x.std(ddof=1)) / math.sqrt(n)
    return Interval(float(x.mean()) - half, float(x.mean()) + half)


def empirical_bernstein(x: np.ndarray, low: float, high: float, error: float = 0.05) -> Interval:
    """Maurer and Pontil's interval for independent contributions in [low, high], cut to that range."""
    n = _check(x, error)
    _in_range(x, low, high)
    doubt = math.log(4 / error)
    half = math.sqrt(2 * float(x.var(ddof=1)) * doubt / n) + 7 * (high - low) * doubt / (3 * (n - 1))
    return Interval(max(low, float(x.mean()) - half), min(high, float(x.mean()) + half))


def contribution_range(
    largest_weight: float, reward_low: float = 0.0, reward_high: float = 1.0, model: bool = False
) -> Interval:
    """What a contribution can be: of ips, or (`model`) of a doubly robust estimate with q in the rewards' range.

    Args:
        largest_weight: that *could* occur: 1 / the logging policy's smallest probability, or the clip.
    """
    if model:
        reach = largest_weight * (reward_high - reward_low)
        return Interval(reward_low - reach, reward_high + reach)
    return Interval(min(0.0, largest_weight * reward_low), max(0.0, largest_weight * reward_high))


def bootstrap(x: np.ndarray, error: float = 0.05, resamples: int = 1000, seed: int = 0) -> Interval:
    """Percentiles error / 2 and 1 - error / 2 of the resampled mean."""
    if _check(x, error) < 20:
        raise ValueError(f"the bootstrap needs at least 20 rows, not {x.size}: it would mostly repeat them")
    if resamples * error < 2:
        raise ValueError(f"resamples must be at least {math.ceil(2 / error)} for error {error}, not {resamples}")
    common = float(np.median(x))
    others = x[x != common] - common
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 2**63, resamples).astype(np.uint64)
    count = rng.poisson(x.size - others.size, resamples).astype(np.float64)
    means = np.empty(resamples)
    bind(_CALL, {"kernel": _resample}, ()).run(others, _POISSON, _TABLE, start, count, means)
    low, high = np.quantile(common + means, [error / 2, 1 - error / 2])
    return Interval(float(low), float(high))


def confidence_sequence(
    x: np.ndarray, low: float, high: float, error: float = 0.05, watch: Watch | None = None
) -> Sequence:
    """After every row, an interval for the mean of contributions in [low, high]; all hold at once.

    Args:
        watch: pass one `new_watch()` with every part of a stream, in order: it is changed in place, and the parts give
            what the whole would.
    """
    _in_range(x, low, high)
    watch = watch if watch is not None else new_watch()
    scaled = (np.asarray(x, np.float64) - low) / (high - low)
    lower, upper = lower_sequence(scaled, error / 2, watch.low), 1 - lower_sequence(1 - scaled, error / 2, watch.high)
    return Sequence(low + (high - low) * np.maximum(lower, 0), low + (high - low) * np.minimum(upper, 1))


def off_policy_sequence(
    weight: np.ndarray,
    reward: np.ndarray,
    reward_low: float = 0.0,
    reward_high: float = 1.0,
    error: float = 0.05,
    watch: Watch | None = None,
) -> Sequence:
    """After every row, an interval for the value of the policy with these weights, of any size; all hold at once.

    Assumes E[w_t given the past] = 1, so that the logging policy gave every option that the evaluated policy takes a
    positive probability, and logged it rightly; the logging policy itself may learn from the past.
    """
    _in_range(reward, reward_low, reward_high)
    if weight.size and weight.min() < 0:
        raise ValueError(f"weights must not be negative, but the smallest is {weight.min()}")
    watch = watch if watch is not None else new_watch()
    scaled = (np.asarray(reward, np.float64) - reward_low) / (reward_high - reward_low)
    lower = lower_sequence(weight * scaled, error / 2, watch.low)
    upper = 1 - lower_sequence(weight * (1 - scaled), error / 2, watch.high)
    span = reward_high - reward_low
    return Sequence(reward_low + span * np.maximum(lower, 0), reward_low + span * np.minimum(upper, 1))


def lower_sequence(x: np.ndarray, error: float, notes: np.ndarray | None = None) -> np.ndarray:
    """L_t, the largest so far, after every row: the mean of x >= 0, however large x gets, is above all at once."""
    if not 0.0 < error < 1.0:
        raise ValueError(f"error must lie between 0 and 1, not be {error}")
    out = np.empty(x.size)
    notes = notes if notes is not None else new_watch().low
    bind(_CALL, {"kernel": _lower}, ()).run(np.asarray(x, np.float64), math.log(1 / error), notes, out)
    return out


def new_watch() -> Watch:
    """The memory of a confidence sequence before its first row."""
    notes = np.zeros(7)
    notes[6] = -np.inf
    return Watch(notes, notes.copy())


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """Student's t: its cdf is an integral of cos^(freedom - 1) over the angle atan(t / sqrt(freedom)); bisection."""
    if freedom > 10**7:
        return NormalDist().inv_cdf(probability)
    full = min(math.pi / 2, 40 / math.sqrt(freedom))
    nodes, weights = _gauss()

    def mass(angle: float) -> float:
        return float(weights @ np.cos(angle * (nodes + 1) / 2) ** (freedom - 1)) * angle / 2

    sign = 1.0 if probability >= 0.5 else -1.0
    target = abs(probability - 0.5) * 2 * mass(full)
    low, high = 0.0, full
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mass(middle) < target else (low, middle)
    return sign * math.sqrt(freedom) * math.tan((low + high) / 2)


@cache
def _gauss() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(200)


_CALL = """
@compiled
def run(a, b, c, *rest):
    kernel(a, b, c, *rest)
"""

# A 32-bit number u stands for the Poisson(1) count of these thresholds that it reaches: P(count >= k) is u's share.
_POISSON = np.array(
    [round(2**32 * sum(math.exp(-1) / math.factorial(j) for j in range(k))) for k in range(1, 13)], np.uint32
)
_UNSURE = 255  # the 12 leading bits of u decide the count, but for a dozen of their 4096 values
_TABLE = np.array(
    [
        low if (low := int((first >= _POISSON).sum())) == int((first + 0xFFFFF >= _POISSON).sum()) else _UNSURE
        for first in range(0, 2**32, 2**20)
    ],
    np.uint8,
)


@compiled
def _lower(x: Any, doubt: Any, notes: Any, out: Any) -> None:
    t, bets, won, paid, total, spread, best = notes
    for i in range(x.shape[0]):
        t += 1.0
        mean = min(1.0, (0.5 + total) / t)
        variance = (0.25 + spread) / t
        bet = min(0.5, np.sqrt(2.0 * doubt / (variance * t * np.log(1.0 + t))))
        bets += bet
        won += bet * x[i]
        paid += (-np.log(1.0 - bet) - bet) * (x[i] - mean) ** 2
        total += x[i]
        spread += (x[i] - min(1.0, (0.5 + total) / (t + 1.0))) ** 2
        best = max(best, (won - paid - doubt) / bets)
        out[i] = best
    notes[:] = t, bets, won, paid, total, spread, best


@compiled
def _count(u: Any, thresholds: Any, table: Any) -> Any:
    count = table[u >> np.uint64(20)]
    if count == _UNSURE:
        count = 0
        while count < thresholds.shape[0] and u >= thresholds[count]:
            count += 1
    return float(count)


@compiled
def _resample(x: Any, thresholds: Any, table: Any, start: Any, count: Any, means: Any) -> None:
    rows = x.shape[0]
    for b in range(means.shape[0]):
        many, total, other = count[b], 0.0, 0.0
        bits = start[b]
        for i in range(0, rows, 2):  # SplitMix64; each half of a number draws for one row
            bits += np.uint64(0x9E3779B97F4A7C15)
            z = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
            k = _count(z >> np.uint64(32), thresholds, table)
            many += k
            total += k * x[i]
            if i + 1 < rows:
                k = _count(z & np.uint64(0xFFFFFFFF), thresholds, table)
                many += k
                other += k * x[i + 1]
        means[b] = (total + other) / many


def _check(x: np.ndarray, error: float) -> int:
    if not 0.0 < error < 1.0:
        raise ValueError(f"error must lie between 0 and 1, not be {error}")
    if x.size < 2:
        raise ValueError(f"an interval needs at least 2 rows, not {x.size}")
    return int(x.size)


def _in_range(x: np.ndarray, low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"the range must not be empty, but it is [{low}, {high}]")
    if x.size and not (low <= x.min() and x.max() <= high):
        raise ValueError(
            f"values must lie in the stated range [{low}, {high}], but they reach from {x.min()} to {x.max()}"
        )
