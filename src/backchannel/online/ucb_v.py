"""UCB-V: optimism by Bernstein's inequality, with the variance that was seen. The provable one.

Where an arm's loss varies little, Bernstein's inequality gives a width much below Hoeffding's (UCB1's): a first part
that scales with the empirical deviation and a second that falls as 1 / n_a, which pays for not knowing the variance.

Equations (Audibert, Munos and Szepesvari 2009), losses in an interval of length b:

    B_a = mean_a - sqrt(2 V_a E_t / n_a) - c 3 b E_t / n_a,      A_t = argmin_a B_a
    V_a = (1 / n_a) sum (x - mean_a)^2,     E_t = zeta log t

With zeta = 1.2 and c = 1 they prove that the expected regret is at most 10 sum_a (v_a / D_a + 2 b) log T over
the arms with gap D_a > 0 and variance v_a: an arm that hardly varies costs log T, however small its gap.

Steps: play each arm once; then the least index, ties to the lowest arm; add the answer to its sums.

Deviations: losses for rewards. n = sum_a n_a is used for t - 1, so that late answers count when they come. The bound
free of gaps below is theirs with v <= b^2 / 4 and arms closer than d charged T d at most, at the best d.

    >>> from backchannel import play
    >>> from backchannel.online.ucb_v import ucb_v
    >>> from backchannel.tasks.gaussian import gaussian
    >>> result = play(ucb_v(arms=2, span=0.1), gaussian([0.45, 0.5], 0.01), horizon=2000, replicates=8)
    >>> bool(result.final("regret").mean() < 10)
    True

References: audibert2009exploration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.tries import untried

CARD = Card(
    name="UCB-V",
    summary="Optimism with empirical Bernstein widths: provably cheap where losses hardly vary.",
    paper="audibert2009exploration",
    topics=("stochastic", "optimism", "variance"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="ucb1",
    example={"arms": 3},
)


class State(NamedTuple):
    """Means, squared distances, counts and the three constants."""

    means: np.ndarray  # float64[arms]
    squares: np.ndarray  # float64[arms]: sum of (x - mean)^2
    counts: np.ndarray  # int64[arms]: answers, n_a
    tries: np.ndarray  # int64[arms]: choices
    zeta: np.ndarray  # float64[1]: exploration, E_t = zeta log t
    range_cost: np.ndarray  # float64[1]: 3 c b


def ucb_v(arms: int, zeta: float = 1.2, c: float = 1.0, span: float = 1.0) -> Learner:
    """UCB-V for `arms` arms.

    Args:
        arms: K, at least 1.
        zeta: the factor of log t; more than 1 for the theorem.
        c: the weight of the 1 / n_a term; 1 in the theorem.
        span: b, the length of the interval that losses lie in.
    """
    if arms < 1:
        raise ValueError(f"arms must be at least 1, not {arms}")
    if zeta < 0 or c < 0 or span <= 0:
        raise ValueError(f"zeta and c must be at least 0 and span positive, not {zeta}, {c} and {span}")
    none = np.zeros(arms, np.int64)
    state = State(
        np.zeros(arms), np.zeros(arms), none, none.copy(), np.array([float(zeta)]), np.array([3.0 * c * span])
    )
    return Learner(state, _act, _update, _probabilities)


def gap_bound(
    gaps: Sequence[float] | np.ndarray, variances: Sequence[float] | np.ndarray, horizon: int, span: float = 1.0
) -> float:
    """The paper's bound for zeta = 1.2, c = 1: 10 sum over positive gaps of (v / D + 2 b) log T."""
    pairs = zip(gaps, variances, strict=True)
    return 10 * math.log(horizon) * sum(variance / gap + 2 * span for gap, variance in pairs if gap > 0)


def regret_bound(arms: int, horizon: int) -> float:
    """The paper's bound at the worst gaps and variances, b = 1: sqrt(10 T (K - 1) log T) + 20 (K - 1) log T."""
    return math.sqrt(10 * horizon * (arms - 1) * math.log(horizon)) + 20 * (arms - 1) * math.log(horizon)


@compiled
def _choice(state):
    first = untried(state.counts, state.tries)
    if first >= 0:
        return first
    exploration = state.zeta[0] * math.log(state.counts.sum() + 1.0)
    best, least = 0, np.inf
    for arm in range(state.means.shape[0]):
        each = exploration / state.counts[arm]
        variance = state.squares[arm] / state.counts[arm]
        index = state.means[arm] - math.sqrt(2.0 * variance * each) - state.range_cost[0] * each
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
