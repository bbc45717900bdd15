"""Can this log answer the question? Checks of weights, propensities and models, and how much more data would do.

Weights w = pi_e / pi_b average 1 if the propensities are right and the logging policy tries all that the evaluated
policy does; then, and only then, importance weighting is unbiased. `diagnose` looks at one evaluated policy:

- effective rows, (sum w)^2 / sum w^2: of how many unweighted rows the estimate has the precision, roughly;
- effective rewards, the same of w |r|: on how many rewarded rows the estimate rests, where rewards are rare;
- the largest weight's share: whether one row decides;
- rows with weight 0: the part of the log that says nothing about the policy;
- the mean weight against 1. *Too large*: the mean of min(w, c) is at most 1 for every c; it is tested for c = 2, 4,
  ..., 1024, which is right for weights of any size. *Too small* needs a largest possible weight, since a rare huge
  weight may just not have occurred: state it, or the largest one seen is taken, and the verdict says so. Both tests
  are empirical Bernstein bounds: if all is right, an alarm sounds with probability at most `false_alarm`.

`option_totals` asks the same of the log alone: for each option, the mean of 1{a_i = a} / p_i is the share of rows that
offered it. `verdict` turns a diagnosis into sentences. They warn; silence is no proof: propensities that are wrong
in a way that averages out are not seen, nor is a context that the logging policy used and the log left out.

    >>> import numpy as np
    >>> from backchannel.ledger.estimators import evaluated
    >>> p = np.full(4000, 0.5)
    >>> wrong = evaluated(reward=np.zeros(4000), propensity=p / 2, probability=p)
    >>> verdict(diagnose(wrong))[0][:55]
    'The mean weight is 2.00, larger than 1 by more than cha'

References: kong1994sequential, maurer2009empirical, li2011unbiased.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backchannel.ledger.estimators import Evaluated, clipped

ENOUGH_ROWS = 100  # fewer effective rows than this: a large-sample interval cannot be trusted
ENOUGH_REWARDS = 30  # the same, with fewer effective rewards than this
LARGE_SHARE = 0.05  # one row with more of the total weight than this decides too much
FALSE_ALARM = 1e-3
_CLIPS = tuple(2.0**k for k in range(1, 11))


class Diagnosis(NamedTuple):
    """One evaluated policy on one log."""

    rows: int
    effective_rows: float
    effective_rewards: float
    largest_weight: float
    largest_share: float  # of the total weight, on one row
    zero_share: float  # of rows, with weight 0
    matched_share: float  # of rows, whose logged choice is the policy's own
    mean_weight: float
    too_large: bool  # the mean weight lies above 1 by more than chance
    too_small: bool  # it lies below 1 by more than chance, if no weight exceeds `reach`
    reach: float
    reach_assumed: bool  # `reach` is the largest weight seen, not a stated one


class Totals(NamedTuple):
    """For each option, the mean of 1{a_i = a} / p_i against the share of rows that offered it."""

    total: np.ndarray  # float64[options]
    expected: np.ndarray  # float64[options]
    alarm: np.ndarray  # bool[options]


class Calibration(NamedTuple):
    """A model's predictions for the logged choices in groups of equal size, from low to high."""

    predicted: np.ndarray  # float64[groups]: mean of q(x_i, a_i)
    observed: np.ndarray  # float64[groups]: mean of r_i
    standard_error: np.ndarray  # float64[groups]: of the mean of r_i - q(x_i, a_i)
    error: float  # mean over rows of |observed - predicted| of their group


def diagnose(rows: Evaluated, largest_weight: float | None = None, false_alarm: float = FALSE_ALARM) -> Diagnosis:
    """Look at the weights.

    Args:
        largest_weight: the largest weight that could occur, such as 1 / the logging policy's least probability.
        false_alarm: probability of any alarm about the mean weight where nothing is wrong.
    """
    w = rows.weight
    seen, total, n = float(w.max()), float(w.sum()), w.size
    if largest_weight is not None and seen > largest_weight:
        raise ValueError(f"largest_weight is {largest_weight}, but a row has the weight {seen}")
    reach = largest_weight if largest_weight is not None else seen
    slack = _bernstein(w, reach, false_alarm / 2)
    cut = ((clipped(w, c), c) for c in _CLIPS)
    return Diagnosis(
        rows=n,
        effective_rows=_effective(w),
        effective_rewards=_effective(w * np.abs(rows.reward)),
        largest_weight=seen,
        largest_share=seen / total if total else 0.0,
        zero_share=float((w == 0).mean()),
        matched_share=float(rows.matched.mean()),
        mean_weight=total / n,
        too_large=any(x.mean() - _bernstein(x, c, false_alarm / (2 * len(_CLIPS))) > 1 for x, c in cut),
        too_small=total / n + slack < 1,
        reach=reach,
        reach_assumed=largest_weight is None,
    )


def verdict(d: Diagnosis) -> list[str]:
    """Warnings in plain language, the worst first; none if nothing speaks against the estimate."""
    said = []
    if d.effective_rows == 0:
        none = f"None of the {d.rows:,} logged choices is" if d.rows > 1 else "The only logged choice is not"
        return [f"{none} one that the policy would make: the log cannot answer."]
    if d.too_large:
        said.append(
            f"The mean weight is {d.mean_weight:.2f}, larger than 1 by more than chance allows: the logged "
            "propensities are too small, or the policy's probabilities do not sum to 1. Importance-weighted estimates "
            "are wrong."
        )
    if d.too_small:
        bound = f"no weight can exceed {d.reach:.4g}" + (", the largest one seen" if d.reach_assumed else "")
        said.append(
            f"The mean weight is {d.mean_weight:.2f}, smaller than 1 by more than chance allows if {bound}: options "
            "that the policy likes were never tried, or the logged propensities are too large. Estimates cover only "
            "the rest."
        )
    if d.effective_rows < ENOUGH_ROWS:
        said.append(
            f"To this policy the log is worth about {_many_rows(d.effective_rows)} of its own, fewer than "
            f"{ENOUGH_ROWS}: it cannot answer with any precision, and its interval may be too narrow."
        )
    elif d.effective_rewards == 0:
        said.append(
            "Every row whose choice the policy would make has the reward 0: what else it could earn is not known, and "
            "a large-sample interval is too narrow."
        )
    elif d.effective_rewards < ENOUGH_REWARDS:
        few = "one rewarded row decides" if round(d.effective_rewards) == 1 else "a few rewarded rows decide"
        said.append(
            f"For this policy the rewards are worth those of about {_many_rows(d.effective_rewards)}, fewer than "
            f"{ENOUGH_REWARDS}: {few}, and a large-sample interval may be too narrow."
        )
    if d.largest_share > LARGE_SHARE:
        said.append(
            f"One row carries {d.largest_share:.0%} of the total weight (weight {d.largest_weight:.4g}): the estimate "
            "hangs on it. Clip, shrink, or compare with the direct method."
        )
    return said


def option_totals(
    action: ArrayLike,
    propensity: ArrayLike,
    options: int,
    offered: ArrayLike | None = None,
    smallest_propensity: float | None = None,
    false_alarm: float = FALSE_ALARM,
) -> Totals:
    """Check propensities option by option.

    Args:
        offered: in how many rows each option could be chosen; default: in all.
        smallest_propensity: that the logging policy gives to an option which it offers; default: the smallest seen, and
            an alarm then says: either propensities are wrong, or some are smaller than any seen.
        false_alarm: probability of one or more alarms where nothing is wrong.
    """
    a, p = np.asarray(action, np.int64), np.asarray(propensity, np.float64)
    n, floor = a.size, float(p.min())
    if smallest_propensity is not None and floor < smallest_propensity:
        raise ValueError(f"smallest_propensity is {smallest_propensity}, but a row has the propensity {floor}")
    expected = np.ones(options) if offered is None else np.asarray(offered, np.float64) / n
    total = np.bincount(a, 1 / p, options) / n
    variance = (np.bincount(a, 1 / p**2, options) / n - total**2) * n / (n - 1)
    slack = _slack(variance, 1 / (smallest_propensity or floor), n, false_alarm / (2 * options))
    return Totals(total, expected, np.abs(total - expected) > slack)


def estimated_propensities(action: ArrayLike, options: int, group: ArrayLike | None = None) -> tuple[np.ndarray, str]:
    """Propensities for a log that has none: how often each row's option was chosen (in its group of rows), and a note.

    Args:
        group: what the logging policy may have looked at, as a label for each row; default: nothing.
    """
    a = np.asarray(action, np.int64)
    labels = np.zeros(a.size, np.int64) if group is None else np.unique(np.asarray(group), return_inverse=True)[1]
    cell = labels * options + a
    size = np.bincount(labels)
    propensity = np.bincount(cell)[cell] / size[labels]
    where = "" if group is None else f" within {size.size} groups of {size.min()} rows or more"
    return propensity, (
        f"Propensities were missing and are estimated as the options' shares{where}: estimates are right only if the "
        "logging policy looked at nothing else that bears on the reward."
    )


def calibration(rows: Evaluated, groups: int = 10) -> Calibration:
    """Does the model predict the logged choices' rewards, on rows it was not fitted on?"""
    if not 1 <= groups <= rows.reward.size // 2:
        raise ValueError(f"groups must lie between 1 and half of the {rows.reward.size} rows, not be {groups}")
    parts = np.array_split(np.argsort(rows.chosen_q, kind="stable"), groups)
    residual = rows.reward - rows.chosen_q
    predicted = np.array([rows.chosen_q[part].mean() for part in parts])
    observed = np.array([rows.reward[part].mean() for part in parts])
    standard_error = np.array([residual[part].std(ddof=1) / math.sqrt(part.size) for part in parts])
    size = np.array([part.size for part in parts])
    return Calibration(
        predicted, observed, standard_error, float(np.average(np.abs(observed - predicted), weights=size))
    )


def rows_to_settle(difference: float, deviation: float, error: float = 0.05, power: float = 0.8) -> int:
    """How many rows of such a log tell two policies apart, in a two-sided test of a mean: ((z + z') s / d)^2.

    Args:
        difference: between the two policies' values: the one that matters, or the one estimated so far.
        deviation: standard deviation of the rows' differences of contributions, (a - b).std().
        error: chance to see a difference where there is none.
        power: chance to see it where it is there.
    """
    if difference == 0:
        raise ValueError("no number of rows tells two policies of equal value apart: state the difference that matters")
    if not (0 < error < 1 and error / 2 < power < 1):
        raise ValueError(
            f"error must lie between 0 and 1, and power between error / 2 and 1, not be {error} and {power}"
        )
    z = NormalDist().inv_cdf(1 - error / 2) + NormalDist().inv_cdf(power)
    return max(2, math.ceil((z * deviation / difference) ** 2))


def _many_rows(count: float) -> str:
    return "1 row" if round(count) == 1 else f"{count:,.0f} rows"


def _effective(w: np.ndarray) -> float:
    square = float((w**2).sum())
    return float(w.sum()) ** 2 / square if square else 0.0


def _bernstein(x: np.ndarray, reach: float, error: float) -> float:
    return float(_slack(x.var(ddof=1), reach, x.size, error)) if x.size > 1 else math.inf


def _slack(variance: np.ndarray | float, reach: float, n: int, error: float) -> np.ndarray:
    """How far the mean of n numbers in [0, reach] strays to one side, but with probability `error`."""
    doubt = math.log(2 / error)
    return np.asarray(np.sqrt(2 * np.asarray(variance) * doubt / n) + 7 * reach * doubt / (3 * (n - 1)))
