"""Exp3: exponential weights for adversarial bandits, from the chosen arm's loss alone.

Keep an unbiased estimate of every arm's cumulative loss, and draw arms in proportion to the exponential of minus
that estimate. Whoever is rarely drawn is credited with a large loss when it is, so that nothing is forgotten; no
assumption is made on where losses come from.

Equations, in the loss form of Lattimore and Szepesvari (2020, section 11.3), losses in [0, 1]:

    P_t(a) = exp(-eta L_{t-1}(a)) / sum_b exp(-eta L_{t-1}(b))                              (11.6)
    L_t(a) = L_{t-1}(a) + 1{A_t = a} x_t / P_t(a)                                           (11.4)

With eta = sqrt(2 log K / (T K)) the expected regret against any fixed arm is at most sqrt(2 T K log K)
(theorem 11.2).

Steps: draw A_t from P_t; see x_t; add x_t / P_t(A_t) to the drawn arm's estimate. When feedback is late, the
divisor is the probability that *its* decision had, not today's.

Deviations: Auer et al. (2002) write rewards and mix in uniform exploration; with losses the mixing is not needed
for the bound, and is left out. Estimates are kept as sums of losses and normalised in the log domain, so that
no horizon overflows.

    >>> from backchannel import play
    >>> from backchannel.online.exp3 import exp3
    >>> from backchannel.tasks.bernoulli import bernoulli
    >>> result = play(exp3(arms=2, horizon=2000), bernoulli([0.2, 0.8]), horizon=2000, replicates=8)
    >>> bool(result.final("regret").mean() < 2000 * 0.6 / 4)
    True

References: auer2002nonstochastic, lattimore2020bandit.
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
    name="Exp3",
    summary="Adversarial bandit: exponential weights on importance-weighted losses.",
    paper="auer2002nonstochastic",
    topics=("adversarial", "exponential weights", "importance weighting"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="exp3_ix",
    example={"arms": 3, "horizon": 1000},
)


class State(NamedTuple):
    """L_t, P_{t+1} and eta."""

    losses: np.ndarray  # float64[arms]: estimated cumulative losses L_t
    probabilities: np.ndarray  # float64[arms]: P_{t+1}
    step_size: np.ndarray  # float64[1]: eta


def exp3(arms: int, horizon: int, step_size: float | None = None) -> Learner:
    """Exp3 for `arms` arms with losses in [0, 1].

    Args:
        arms: K, at least 1.
        horizon: T, the number of rounds; sets the step size.
        step_size: eta; default sqrt(2 log K / (T K)).
    """
    if arms < 1 or horizon < 1:
        raise ValueError(f"arms and horizon must be at least 1, not {arms} and {horizon}")
    eta = step_size if step_size is not None else math.sqrt(2 * math.log(arms) / (horizon * arms))
    return Learner(State(np.zeros(arms), np.full(arms, 1 / arms), np.array([eta])), _act, _update, _probabilities)


def regret_bound(arms: int, horizon: int) -> float:
    """Theorem 11.2: the expected regret is at most sqrt(2 T K log K)."""
    return math.sqrt(2 * horizon * arms * math.log(arms))


@compiled
def _act(state, context, rng):
    action = draw(state.probabilities, rng)
    return action, state.probabilities[action]


@compiled
def _update(state, context, action, propensity, loss):
    state.losses[action] += loss / propensity  # (11.4)
    exponential_weights(state.losses, state.step_size[0], state.probabilities)  # (11.6)


@compiled
def _probabilities(state, context, out):
    out[:] = state.probabilities
