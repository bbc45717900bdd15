"""The price of a quantile: the step that turns posterior widths into a bound on Thompson sampling's Bayes regret.

Let Z_1, Z_2, ... be standard normal, s_1, s_2, ... be nonnegative and independent of them, and J any index that may
depend on all. For every c >= 0, Z_J s_J <= c s_J + sum_i (Z_i - c)^+ s_i. With `main` a bound on the expected sum of
s_J and `tail` one on the expected sum of all s_i, the left side's expected sum is at most

    c main + tail E(Z - c)^+,      E(Z - c)^+ = phi(c) - c (1 - Phi(c)),

which is convex in c and least where 1 - Phi(c) = main / tail.
"""

from __future__ import annotations

import math
from statistics import NormalDist

_STANDARD = NormalDist()


def tail_split(main: float, tail: float) -> float:
    """The least of c main + tail E(Z - c)^+ over c >= 0."""
    if main <= 0 or tail <= 0:
        raise ValueError(f"main and tail must be positive, not {main} and {tail}")
    ratio = min(main / tail, 0.5)
    c = -_STANDARD.inv_cdf(ratio)
    return c * main + tail * (math.exp(-c * c / 2) / math.sqrt(2 * math.pi) - c * ratio)
