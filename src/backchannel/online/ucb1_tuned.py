"""UCB1-tuned: UCB1 with the width cut to the variance that was seen.

UCB1's width is right for the largest variance that losses in [0, 1] can have, 1/4. An arm that hardly varies is
settled much sooner: estimate its variance, add a confidence width to the estimate, and use that where it is below 1/4.

Equations (Auer, Cesa-Bianchi and Fischer 2002, section 4), with n = sum_a n_a:

    V_a = (sum of x^2 over a's answers) / n_a - mean_a^2 + sqrt(2 log n / n_a)
    A_t = argmin_a mean_a - sqrt(log n / n_a * min(1/4, V_a))

Steps: play each arm once; then the least index, ties to the lowest arm; add the answer to its sums.

Deviations: losses for rewards; the variance is kept as a running sum of squared distances from the mean (Welford's),
which equals the paper's difference and does not lose digits. There is no regret bound: the paper could not prove one,
and finds it "substantially better than UCB1 in essentially all of our experiments".

    >>> from backchannel import play
    >>> from backchannel.online.ucb1_tuned import ucb1_tuned
    >>> from backchannel.tasks.bernoulli import bernoulli
    >>> result = play(ucb1_tuned(arms=2), bernoulli([0.2, 0.8]), horizon=2000, replicates=8)
    >>> bool(result.final("regret").mean() < 40)
    True

References: auer2002finite.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.tries import untried

CARD = Card(
    name="UCB1-tuned",
    summary="UCB1 with its width cut to the variance that was seen; no proof, and hard to beat in practice.",
    paper="auer2002finite",
    topics=("stochastic", "optimism", "variance"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="ucb1",
    example={"arms": 3},
    strength="strong",
)


class State(NamedTuple):
    """Means, squared distances and counts."""

    means: np.ndarray  # float64[arms]
    squares: np.ndarray  # float64[arms]: sum of (x - mean)^2
    counts: np.ndarray  # int64[arms]: answers, n_a
    tries: np.ndarray  # int64[arms]: choices


def ucb1_tuned(arms: int) -> Learner:
    """UCB1-tuned for `arms` arms (at least 1) with losses in [0, 1]."""
    if arms < 1:
        raise ValueError(f"arms must be at least 1, not {arms}")
    none = np.zeros(arms, np.int64)
    return Learner(State(np.zeros(arms), np.zeros(arms), none, none.copy()), _act, _update, _probabilities)


@compiled
def _choice(state):
    first = untried(state.counts, state.tries)
    if first >= 0:
        return first
    log_n = math.log(state.counts.sum())
    best, least = 0, np.inf
    for arm in range(state.means.shape[0]):
        count = state.counts[arm]
        variance = state.squares[arm] / count + math.sqrt(2.0 * log_n / count)
        index = state.means[arm] - math.sqrt(log_n / count * min(0.25, variance))
        if index < least:
            best, least = arm, index
    return best


@compiled
def _act(state, context, rng):
    action = _choice(state)
    state.tries[action] += 1
    return action, 1.0


@compiled
def _update(state, context, action, propensity, loss):
    state.counts[action] += 1
    before = loss - state.means[action]
    state.means[action] += before / state.counts[action]
    state.squares[action] += before * (loss - state.means[action])


@compiled
def _probabilities(state, context, out):
    out[:] = 0.0
    out[_choice(state)] = 1.0
