"""Choosing how far to trade variance for bias: the clip, the switch, the shrinkage of an off-policy estimate.

Both rules look at the same estimator with several values of its parameter, on the same rows. `shape` is one of
`clipped`, `switched`, `shrunk`, `sub_gaussian`; estimates are doubly robust (pass `without_model(rows)` for ips).

*Estimated error* (Su et al. 2020, section 5): the least of variance / n + bias^2, where the bias of weights w' in place
of w is estimated by |mean (w_i - w'_i) (r_i - q_i)|, and, to be pessimistic, raised by what it may be off with
probability 1 - delta:

    sqrt(2 mean(w^2) log(2 / delta) / n) + 2 max(w) log(2 / delta) / (3 n).

*Slope* (Su et al. 2020b; the constants of Tucker and Lee 2021): order the candidates by the half-width c of a Student
interval at level delta, widest, so least biased, first. Go on while the new estimate theta agrees with every
earlier one, |theta - theta_j| <= c + (sqrt(6) - 1) c_j; choose the last that does. Nothing about the bias
need be known but that it grows as the width shrinks.

Which to take: slope. Where a few rows carry large weights, the estimated bias is as uncertain as the plain estimate: on
logs with one weight of 180 in 200 rows, slope makes the mean squared error 4 to 10 times smaller, the estimated
error without the bound by a fifth to a half, and with it nothing (see the tests).

Deviations: none. Both give the Open Bandit Pipeline's choices; a tie in error goes to the candidate listed first, so
list them from the least bias to the most.

    >>> import numpy as np
    >>> from backchannel.ledger.estimators import clipped, evaluated
    >>> p = np.array([0.001] + [0.999] * 999)  # one row of a thousand has a weight of 500
    >>> rows = evaluated(reward=np.ones(1000), propensity=p, probability=np.full(1000, 0.5))
    >>> tune_by_error(rows, clipped, [np.inf, 100.0, 1.0], delta=None).value
    100.0

References: su2020doubly, su2020adaptive, tucker2021improved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from backchannel.ledger.estimators import Evaluated, doubly_robust
from backchannel.ledger.intervals import t_quantile

Shape = Callable[[np.ndarray, float], np.ndarray]


class Tuned(NamedTuple):
    """The chosen value, and for each candidate what it was chosen by: its estimated error, or its half-width."""

    value: float
    scores: list[float]


def tune_by_error(rows: Evaluated, shape: Shape, candidates: Sequence[float], delta: float | None = 0.1) -> Tuned:
    """The candidate with the least estimated mean squared error.

    Args:
        rows: the log, with its model.
        shape: how the parameter changes weights.
        candidates: values to try, from the least bias to the most.
        delta: raise the bias to an upper bound that holds with probability 1 - delta; None takes it as estimated.
    """
    _check(candidates, delta)
    scores = [estimated_error(rows, shape(rows.weight, value), delta) for value in candidates]
    return Tuned(candidates[int(np.argmin(scores))], scores)


def estimated_error(rows: Evaluated, weight: np.ndarray, delta: float | None = 0.1) -> float:
    """Estimated mean squared error of the doubly robust estimate with `weight` in place of the rows' own."""
    n = rows.reward.size
    bias = abs(float(((rows.weight - weight) * (rows.reward - rows.chosen_q)).mean()))
    if delta is not None:
        doubt = math.log(2 / delta)
        bias += math.sqrt(2 * float((rows.weight**2).mean()) * doubt / n) + 2 * float(rows.weight.max()) * doubt / (
            3 * n
        )
    return float(doubly_robust(rows._replace(weight=weight)).var()) / n + bias**2


def tune_by_slope(rows: Evaluated, shape: Shape, candidates: Sequence[float], delta: float = 0.1) -> Tuned:
    """The narrowest candidate that still agrees with all wider ones; arguments as in `tune_by_error`."""
    _check(candidates, delta)
    n = rows.reward.size
    estimates, widths = [], []
    for value in candidates:
        contributions = doubly_robust(rows._replace(weight=shape(rows.weight, value)))
        estimates.append(float(contributions.mean()))
        widths.append(math.sqrt(float(contributions.var()) / (n - 1)) * t_quantile(1 - delta, n - 1))
    order = np.argsort(widths)[::-1]
    theta, width = np.array(estimates)[order], np.array(widths)[order]
    for i in range(1, order.size):
        if (np.abs(theta[:i] - theta[i]) > width[i] + (math.sqrt(6) - 1) * width[:i]).any():
            return Tuned(candidates[order[i - 1]], widths)
    return Tuned(candidates[order[-1]], widths)


def _check(candidates: Sequence[float], delta: float | None) -> None:
    if len(candidates) == 0:
        raise ValueError("candidates must name at least one value")
    if delta is not None and not 0.0 < delta < 1.0:
        raise ValueError(f"delta must lie between 0 and 1, not be {delta}")
