"""VarTS: Thompson sampling for normal losses whose variances are unknown and differ between arms.

Most methods take a bound on the variance, the same for all arms, and explore as if every arm were that noisy. VarTS
keeps a Normal-Gamma posterior of every arm's mean *and* precision: draw the precision, then the mean given it, and play
the least. Where the prior or the answers say that an arm is quiet, little is paid for it.

Equations (Saha and Kveton 2024). Prior and posterior of arm a: l ~ Gamma(shape, rate), m | l ~
N(mean, 1 / (strength l)); losses x ~ N(m, 1 / l).

    l_a ~ Gamma(shape_a, rate_a),   theta_a ~ N(mean_a, 1 / (strength_a l_a)),   A_t = argmin_a theta_a
    rate += strength (x - mean)^2 / (2 (strength + 1)),   mean += (x - mean) / (strength + 1),
    shape += 1/2,   strength += 1                                                 for a = A_t

Bayes regret. The paper proves a prior-dependent bound; the one here was derived anew, with explicit constants. Given
the past, theta and m have the same law, so a round's regret is E[Z_A (strength_A l_A)^-1/2] with Z normal and l the
drawn precision (the sign turned for losses). parts/gaussian_tail.py splits it. By Cauchy-Schwarz the main part is at
most sqrt(sum_t E[1 / l_A] sum_t E[1 / strength_A]). The drawn l_A has the law of the best arm's precision, so that
E[1 / l_A] <= V; and the second sum is at most K (1/k + log(1 + T / (K k))), k the least prior strength. In all

    regret <= min_{c >= 0}  c sqrt(T V K (1/k + log(1 + T / (K k))))  +  T sum_a E[l_a^-1/2] k_a^-1/2 E(Z - c)^+
    V = min_{1 <= p < least shape} (sum_a E[l_a^-p])^(1/p),     E[l^-p] = rate^p Gamma(shape - p) / Gamma(shape)

V bounds the expected largest variance of the arms; p = 1 gives sum_a rate_a / (shape_a - 1). It needs shapes above 1.

Steps: draw all precisions and means; play the least; update the chosen arm's four numbers.

Deviations: an arm whose posterior is improper (strength or shape not positive yet) is played first. So strength = 0,
rate = 0 and shape = alpha - 1/2 give exactly Honda and Takemura's (2014) sampling with the flat prior density
(sigma^2)^(-1 - alpha), alpha <= 0, and its max(2, 2 - floor(2 alpha)) first plays of each arm; they prove it optimal
for alpha < 0. Where the variances are known, the paper's algorithm is `gaussian_thompson`.

    >>> from backchannel import play
    >>> from backchannel.online.var_ts import var_ts
    >>> from backchannel.tasks.gaussian import gaussian
    >>> result = play(var_ts(arms=2), gaussian([0.2, 0.8], [0.1, 0.4]), 2000, replicates=8)
    >>> bool(result.final("regret").mean() < 15)
    True

References: saha2024only, honda2014optimality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.gaussian_tail import tail_split

CARD = Card(
    name="VarTS",
    summary="Thompson sampling for real-valued losses: learns every arm's variance beside its mean.",
    paper="saha2024only",
    row=328,
    topics=("stochastic", "thompson", "bayes", "variance"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="gaussian_thompson",
    example={"arms": 3},
    strength="strong",
)

Numbers = float | Sequence[float] | np.ndarray


class State(NamedTuple):
    """The Normal-Gamma posterior of every arm."""

    means: np.ndarray  # float64[arms]
    strengths: np.ndarray  # float64[arms]: how many answers the mean is worth
    shapes: np.ndarray  # float64[arms]
    rates: np.ndarray  # float64[arms]


def var_ts(
    arms: int, mean: Numbers = 0.5, strength: Numbers = 1.0, shape: Numbers = 2.0, rate: Numbers = 0.1
) -> Learner:
    """VarTS for `arms` arms with normal losses; each number of the prior may be one for all arms or one for each.

    Args:
        arms: K, at least 1.
        mean: what an arm is expected to lose.
        strength: how many answers that is worth; 0 for a flat prior.
        shape: of the precision's gamma prior; the prior variance of a loss is expected to be rate / (shape - 1).
        rate: of the same; at least 0.
    """
    if arms < 1:
        raise ValueError(f"arms must be at least 1, not {arms}")
    for name, value in (("strength", strength), ("rate", rate)):
        if not (np.asarray(value, float) >= 0).all():
            raise ValueError(f"{name} must be at least 0, not {value!r}")
    state = State(*(_each(value, arms) for value in (mean, strength, shape, rate)))
    if ((state.rates == 0) & ((state.strengths > 0) | (state.shapes > -0.5))).any():
        raise ValueError(
            f"a flat prior (rate 0) needs strength 0 and a shape of at most -1/2, not {strength!r}, {shape!r}"
        )
    return Learner(state, _act, _update)


def bayes_regret_bound(arms: int, horizon: int, strength: Numbers, shape: Numbers, rate: Numbers) -> float:
    """The bound above on the expected regret over tasks drawn from the prior; every shape above 1."""
    k, shapes, rates = (_each(value, arms) for value in (strength, shape, rate))
    if not (shapes > 1).all() or not (k > 0).all() or not (rates > 0).all():
        raise ValueError("the bound needs positive strengths and rates, and shapes above 1")
    powers = np.linspace(1, shapes.min(), 200, endpoint=False)
    variance = math.exp(
        min(_log_sum([_log_moment(a, b, p) for a, b in zip(shapes, rates, strict=True)]) / p for p in powers)
    )
    pulls = arms * (1 / k.min() + math.log1p(horizon / (arms * k.min())))
    tail = sum(math.exp(_log_moment(a, b, 0.5)) / math.sqrt(s) for a, b, s in zip(shapes, rates, k, strict=True))
    return tail_split(math.sqrt(horizon * variance * pulls), horizon * tail)


def _log_moment(shape: float, rate: float, power: float) -> float:
    """log E[l^-power] of l ~ Gamma(shape, rate)."""
    return power * math.log(rate) + math.lgamma(shape - power) - math.lgamma(shape)


def _log_sum(logs: list[float]) -> float:
    return max(logs) + math.log(sum(math.exp(x - max(logs)) for x in logs))


def _each(value: Numbers, arms: int) -> np.ndarray:
    return np.array(np.broadcast_to(np.asarray(value, float), arms))


@compiled
def _act(state, context, rng):
    best, least = 0, np.inf
    for arm in range(state.means.shape[0]):
        if state.strengths[arm] <= 0.0 or state.shapes[arm] <= 0.0:
            return arm, np.nan
        gamma = rng.standard_gamma(state.shapes[arm])  # the precision is gamma / rate
        deviation = np.sqrt(state.rates[arm] / (gamma * state.strengths[arm]))
        theta = state.means[arm] + deviation * rng.standard_normal()
        if theta < least:
            best, least = arm, theta
    return best, np.nan


@compiled
def _update(state, context, action, propensity, loss):
    strength = state.strengths[action]
    error = loss - state.means[action]
    state.rates[action] += strength * error * error / (2.0 * (strength + 1.0))
    state.means[action] += error / (strength + 1.0)
    state.shapes[action] += 0.5
    state.strengths[action] += 1.0
