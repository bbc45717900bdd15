"""Gaussian Thompson sampling: normal losses whose variances are known, one for all arms or one for each.

Keep a normal posterior of every arm's mean loss, draw one number from each, and play the least. Knowing each arm's own
variance pays: a quiet arm is settled after a few answers, a noisy one is given the time that it needs.

Equations, prior m_a ~ N(mu_a, s_a^2), losses x ~ N(m_a, v_a) with v_a known; q is the posterior's precision (Russo et
al. 2018; with unequal variances Saha and Kveton 2024):

    theta_a ~ N(mean_a, 1 / q_a),    A_t = argmin_a theta_a
    q_a += 1 / v_a,   mean_a += (x_t - mean_a) / (v_a q_a)     for a = A_t (q already the new one)

Bayes regret, derived here from the step that those papers share. theta and m have the same law given the past, so the
regret of a round is E[theta_A - mean_A] = E[Z_A q_A^-1/2] with Z normal (A the played arm; the sign is turned for
losses). parts/gaussian_tail.py splits it; Cauchy-Schwarz and sum_{n < N} 1 / (r + n) <= 1/r + log(1 + N / r) with
r_a = v_a / s_a^2 give

    regret <= min_{c >= 0}  c sqrt(T sum_a (s_a^2 + v_a log(1 + T / r_a)))  +  T sum_a s_a E(Z - c)^+

which is O(sqrt(T log T sum_a v_a log T)): the price is the sum of the arms' own variances.

Steps: draw theta; play the least; move the mean towards the answer.

Deviations: none from the model; the bound is ours, with explicit constants.

    >>> from backchannel import play
    >>> from backchannel.online.gaussian_thompson import gaussian_thompson
    >>> from backchannel.tasks.gaussian import gaussian
    >>> result = play(gaussian_thompson(arms=2, deviation=0.3), gaussian([0.2, 0.8], 0.3), 2000, replicates=8)
    >>> bool(result.final("regret").mean() < 15)
    True

References: russo2018tutorial, saha2024only.
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
    name="Gaussian Thompson sampling",
    summary="Thompson sampling for real-valued losses of known variance, one for all arms or one for each.",
    paper="russo2018tutorial",
    topics=("stochastic", "thompson", "bayes", "variance"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="thompson",
    example={"arms": 3, "deviation": 0.5},
)

Numbers = float | Sequence[float] | np.ndarray


class State(NamedTuple):
    """The normal posterior of every arm's mean loss, and the known variances."""

    means: np.ndarray  # float64[arms]
    precisions: np.ndarray  # float64[arms]: q
    variances: np.ndarray  # float64[arms]: v


def gaussian_thompson(
    arms: int, deviation: Numbers = 0.5, prior_mean: Numbers = 0.5, prior_deviation: Numbers = 1.0
) -> Learner:
    """Thompson sampling for `arms` arms with normal losses; each number may be one for all arms or one for each.

    Args:
        arms: K, at least 1.
        deviation: the known standard deviation of losses; 1/2 covers any losses in [0, 1].
        prior_mean: what an arm is expected to lose.
        prior_deviation: how far arms are expected to lie from that.
    """
    if arms < 1:
        raise ValueError(f"arms must be at least 1, not {arms}")
    for name, value in (("deviation", deviation), ("prior_deviation", prior_deviation)):
        if not (np.asarray(value, float) > 0).all():
            raise ValueError(f"{name} must be positive, not {value!r}")
    means, widths, noise = (_each(value, arms) for value in (prior_mean, prior_deviation, deviation))
    return Learner(State(means, widths**-2, noise**2), _act, _update)


def bayes_regret_bound(arms: int, horizon: int, deviation: Numbers, prior_deviation: Numbers) -> float:
    """The bound above on the expected regret over tasks drawn from the prior."""
    v, s2 = _each(deviation, arms) ** 2, _each(prior_deviation, arms) ** 2
    main = math.sqrt(horizon * float(np.sum(s2 + v * np.log1p(horizon * s2 / v))))
    return tail_split(main, horizon * float(np.sqrt(s2).sum()))


def _each(value: Numbers, arms: int) -> np.ndarray:
    return np.array(np.broadcast_to(np.asarray(value, float), arms))


@compiled
def _act(state, context, rng):
    best, least = 0, np.inf
    for arm in range(state.means.shape[0]):
        theta = state.means[arm] + rng.standard_normal() / np.sqrt(state.precisions[arm])
        if theta < least:
            best, least = arm, theta
    return best, np.nan


@compiled
def _update(state, context, action, propensity, loss):
    state.precisions[action] += 1.0 / state.variances[action]
    step = 1.0 / (state.variances[action] * state.precisions[action])
    state.means[action] += step * (loss - state.means[action])
