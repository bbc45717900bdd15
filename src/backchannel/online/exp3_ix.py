"""Exp3-IX: Exp3 whose loss estimates are shrunk a little, so that a single run can be trusted.

Exp3's estimate x / P is unbiased, but when a rare arm is drawn it jumps by 1 / P: the regret is small on average and
now and then enormous. Dividing by P + gamma instead is a little optimistic about every arm, the more so the rarer it
is; this *implicit exploration* bounds the regret with high probability, and no uniform mixing is needed.

Equations (Neu 2015, section 3 and algorithm 1), losses in [0, 1]:

    P_t(a) = exp(-eta L_{t-1}(a)) / sum_b exp(-eta L_{t-1}(b))
    L_t(a) = L_{t-1}(a) + 1{A_t = a} x_t / (P_t(a) + gamma)                                           (3)

With eta = 2 gamma = sqrt(2 log K / (K T)), with probability at least 1 - delta the regret in realised losses, against
every arm at once, is at most 2 sqrt(2 K T log K) + (sqrt(2 K T / log K) + 1) log(2 / delta) (theorem 1).

Steps: draw A_t from P_t; see x_t; add x_t / (P_t(A_t) + gamma) to the drawn arm's estimate.

Deviations: none. The bound in expectation below is theorem 1 integrated over delta: log(2 / delta) becomes 1 + log 2.
When feedback is late, P is the probability that *its* decision had.

    >>> from backchannel import play
    >>> from backchannel.online.exp3_ix import exp3_ix
    >>> from backchannel.tasks.bernoulli import bernoulli
    >>> result = play(exp3_ix(arms=2, horizon=2000), bernoulli([0.2, 0.8]), horizon=2000, replicates=8)
    >>> bool(result.final("regret").mean() < 2000 * 0.6 / 4)
    True

References: neu2015explore.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.sampling import draw, exponential_weights

CARD = Card(
    name="Exp3-IX",
    summary="Adversarial bandit with a guarantee for every single run: Exp3 with implicit exploration.",
    paper="neu2015explore",
    topics=("adversarial", "exponential weights", "importance weighting"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="exp3",
    example={"arms": 3, "horizon": 1000},
    strength="strong",
)


class State(NamedTuple):
    """L_t, P_{t+1}, eta and gamma."""

    losses: np.ndarray  # float64[arms]: estimated cumulative losses L_t
    probabilities: np.ndarray  # float64[arms]: P_{t+1}
    step_size: np.ndarray  # float64[1]: eta
    implicit: np.ndarray  # float64[1]: gamma


def exp3_ix(arms: int, horizon: int, step_size: float | None = None, implicit: float | None = None) -> Learner:
    """Exp3-IX for `arms` arms with losses in [0, 1].

    Args:
        arms: K, at least 1.
        horizon: T, the number of rounds; sets the step size.
        step_size: eta; default sqrt(2 log K / (K T)).
        implicit: gamma; default eta / 2. With 0 it is Exp3.
    """
    if arms < 1 or horizon < 1:
        raise ValueError(f"arms and horizon must be at least 1, not {arms} and {horizon}")
    eta = step_size if step_size is not None else math.sqrt(2 * math.log(arms) / (horizon * arms))
    gamma = implicit if implicit is not None else eta / 2
    state = State(np.zeros(arms), np.full(arms, 1 / arms), np.array([float(eta)]), np.array([float(gamma)]))
    return Learner(state, _act, _update, _probabilities)


def quantile_bound(arms: int, horizon: int, delta: float) -> float:
    """Theorem 1: the realised regret is at most this with probability at least 1 - delta (at least 2 arms)."""
    log = math.log(arms)
    return 2 * math.sqrt(2 * arms * horizon * log) + (math.sqrt(2 * arms * horizon / log) + 1) * math.log(2 / delta)


def regret_bound(arms: int, horizon: int) -> float:
    """The expected regret: theorem 1 integrated over delta (at least 2 arms)."""
    return quantile_bound(arms, horizon, delta=math.exp(-1))


@compiled
def _act(state, context, rng):
    action = draw(state.probabilities, rng)
    return action, state.probabilities[action]


@compiled
def _update(state, context, action, propensity, loss):
    state.losses[action] += loss / (propensity + state.implicit[0])  # (3)
    exponential_weights(state.losses, state.step_size[0], state.probabilities)


@compiled
def _probabilities(state, context, out):
    out[:] = state.probabilities
