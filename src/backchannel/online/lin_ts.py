"""LinTS: Thompson sampling for losses that are linear in the options' features.

Keep the Gaussian posterior of the weights under ridge regression; in every round draw one weight vector from it and
choose what would be best if the draw were true. Options that may still be best are tried as often as they may be.

Equations (Agrawal and Goyal 2013, in losses; x_a is option a's row of features):

    B_t = lambda I + sum_{s<=t} x_s x_s^T,   f_t = sum_{s<=t} l_s x_s,   mu_t = B_t^-1 f_t
    draw mu ~ N(mu_t, v^2 B_t^-1);   A_{t+1} = argmin_a <mu, x_a>

Their theorem 1 takes v = R sqrt(9 d log(T / delta)) for a worst-case regret of O(d^(3/2) sqrt(T)) up to logarithms.
With v = R, the default, the draw is from the posterior of Gaussian noise with standard deviation R; the Bayesian
regret is then O(d sqrt(T) log T) (Russo and Van Roy 2014), and in practice it is much the better choice.

Steps: draw z ~ N(0, I) and solve L^T y = z for the Cholesky factor L of B_t, so that mu_t + v y has the right
covariance; choose; see the loss; update L by rotations, f and mu_t. L L^T = B_t to rounding for any number of rounds:
the factor is never inverted and never needs a fresh start.

Deviations: losses; the default v, see above. With `disjoint`, a model for each arm, each with a draw of its own: the
arms' drawn losses are then independent Gaussians, and the probability that arm a's is the least,
integral of prod_{b != a} P(loss_b > u) dP(loss_a <= u), is summed over a grid of `CELLS` cells and scaled to 1.
Feedback that never comes (nan) is left out.

    >>> from backchannel import play
    >>> from backchannel.meters.regret import dynamic_regret
    >>> from backchannel.online.lin_ts import lin_ts
    >>> from backchannel.tasks.linear import linear
    >>> task, meters = linear(arms=5, dimension=4), {"regret": dynamic_regret()}
    >>> result = play(lin_ts(arms=5, dimension=4, noise=0.1), task, horizon=2000, meters=meters)
    >>> bool(result.final()[0] < 100)  # uniform play: about 370
    True

References: agrawal2013thompson, russo2014learning.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.least_squares import grow_factor, solve_lower, solve_lower_transposed

CARD = Card(
    name="LinTS",
    summary="Contextual bandit with linear losses: Thompson sampling from the Gaussian posterior of ridge regression.",
    paper="agrawal2013thompson",
    topics=("contextual", "thompson"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="lin_ucb",
    example={"arms": 3, "dimension": 4},
    context="rows",
)


CELLS = 96  # of the grid on which `probabilities` integrates
FAR = 6.0  # erfc of more is below 1e-16: nothing


class State(NamedTuple):
    """One Gaussian posterior for each model."""

    factor: np.ndarray  # float64[models, d, d]: lower L with B_t = L L^T
    moment: np.ndarray  # float64[models, d]: f_t
    center: np.ndarray  # float64[models, d]: mu_t
    scale: np.ndarray  # float64[1]: v
    draw: np.ndarray  # float64[models, d]: the last draw
    scratch: np.ndarray  # float64[d]


def lin_ts(
    arms: int,
    dimension: int,
    disjoint: bool = False,
    noise: float = 0.5,
    regularisation: float = 1.0,
    scale: float | None = None,
) -> Learner:
    """Linear Thompson sampling for `arms` options with rows of `dimension` features.

    Args:
        arms: options, at least 1.
        dimension: d, features of a row.
        disjoint: one model for each arm, instead of one for all.
        noise: R, the standard deviation of the noise; the default fits any losses in [0, 1].
        regularisation: lambda; the prior of the weights is N(0, R^2 / lambda).
        scale: v; default R. `paper_scale` is that of theorem 1.
    """
    if arms < 1 or dimension < 1:
        raise ValueError(f"arms and dimension must be at least 1, not {arms} and {dimension}")
    if not (regularisation > 0 and noise >= 0):
        raise ValueError(f"regularisation must be positive and noise not negative, not {regularisation} and {noise}")
    models = arms if disjoint else 1
    state = State(
        factor=np.tile(math.sqrt(regularisation) * np.eye(dimension), (models, 1, 1)),
        moment=np.zeros((models, dimension)),
        center=np.zeros((models, dimension)),
        scale=np.array([noise if scale is None else scale]),
        draw=np.zeros((models, dimension)),
        scratch=np.zeros(dimension),
    )
    return Learner(state, _act, _update, _probabilities if disjoint else None)


def paper_scale(dimension: int, horizon: int, noise: float = 0.5, delta: float = 0.01) -> float:
    """Theorem 1: v = R sqrt(9 d log(T / delta))."""
    return noise * math.sqrt(9 * dimension * math.log(horizon / delta))


@compiled
def _act(state, context, rng):
    models, d = state.center.shape
    for model in range(models):
        for j in range(d):
            state.scratch[j] = rng.standard_normal()
        solve_lower_transposed(state.factor[model], state.scratch, state.draw[model])
        for j in range(d):
            state.draw[model, j] = state.center[model, j] + state.scale[0] * state.draw[model, j]
    best, least = 0, np.inf
    for arm in range(context.shape[0]):
        value = 0.0
        for j in range(d):
            value += state.draw[arm % models, j] * context[arm, j]
        if value < least:
            best, least = arm, value
    return best, np.nan


@compiled
def _update(state, context, action, propensity, loss):
    if np.isnan(loss):
        return
    x, model = context[action], action % state.center.shape[0]
    grow_factor(state.factor[model], x, state.scratch)
    for j in range(x.shape[0]):
        state.moment[model, j] += loss * x[j]
    solve_lower(state.factor[model], state.moment[model], state.scratch)
    solve_lower_transposed(state.factor[model], state.scratch, state.center[model])


@compiled
def _probabilities(state, context, out):
    arms, d = out.shape[0], state.center.shape[1]
    center, spread = np.empty(arms), np.empty(arms)
    for arm in range(arms):
        center[arm], square = 0.0, 0.0
        solve_lower(state.factor[arm], context[arm], state.scratch)
        for j in range(d):
            center[arm] += state.center[arm, j] * context[arm, j]
            square += state.scratch[j] ** 2
        spread[arm] = max(state.scale[0] * math.sqrt(square), 1e-12)  # so that without spread the least is certain
        if np.isnan(center[arm]):  # as in `_act`, a row of nan is an option that cannot be chosen
            center[arm], spread[arm] = np.inf, 1.0
    start, stop = (center - 6.0 * spread).min(), (center + 6.0 * spread).min()  # the least lies between
    below, above = np.zeros(arms), np.ones(arms)  # P(loss_a <= u), P(loss_a > u) at a cell's lower end
    now_below, now_above = np.empty(arms), np.empty(arms)  # and at its upper end
    out[:] = 0.0
    least = 1.0  # P(all losses > u)
    for cell in range(1, CELLS + 1):
        u = start + (stop - start) * cell / CELLS
        before, least = least, 1.0
        for arm in range(arms):
            z = (u - center[arm]) / (spread[arm] * math.sqrt(2.0))
            tail = 0.5 * math.erfc(abs(z)) if abs(z) < FAR else 0.0
            now_below[arm], now_above[arm] = (tail, 1.0 - tail) if z < 0.0 else (1.0 - tail, tail)
            least *= now_above[arm]
        for arm in range(arms):
            if now_below[arm] == below[arm]:
                continue
            others = before / above[arm] if above[arm] > 1e-300 else 0.0
            others += least / now_above[arm] if now_above[arm] > 1e-300 else 0.0
            grown = now_below[arm] - below[arm]
            out[arm] += (grown if now_below[arm] < 0.5 else above[arm] - now_above[arm]) * others / 2.0
            below[arm], above[arm] = now_below[arm], now_above[arm]
    total = out.sum()
    for arm in range(arms):
        out[arm] /= total
