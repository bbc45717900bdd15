"""FastCB: SquareCB's sibling for small losses: logistic regression and a reweighted inverse gap.

Where the best policy rarely loses anything, square loss wastes what one knows: a predicted loss of 0.01 against 0.03
is a clear difference. FastCB regresses by cross-entropy and measures gaps in units of the best prediction; its regret
grows with the loss of the best policy, not with the number of rounds.

Equations (Foster and Krishnamurthy 2021, algorithm 1; y_a is the predicted loss of option a of K, b the best):

    p_t(a) = y_b / (K y_b + gamma (y_a - y_b)) for a != b,   p_t(b) = 1 - sum_{a != b} p_t(a)
    gamma = max(sqrt(K L* / (3 Reg_KL(T))), 10 K)                                           (theorem 1)

with L* the expected loss of the best policy and Reg_KL(T) the log-loss regret of the regression; the regret is then
O(sqrt(L* K Reg_KL(T)) + K Reg_KL(T)) when the true expected losses lie in the regression's class. L* is not known; in
its place stands the loss seen so far, which is at least about as large. `oracle_regret` is Reg_KL.

The regression is logistic in hashed sparse features, by implicit, normalised, adaptive gradient steps on the
cross-entropy (`parts/adaptive_gradient.py`); losses are numbers in [0, 1]. As in SquareCB, steps are not weighted by
1 / propensity: where the class holds the truth, they need not be, and logs without propensities will do.

Steps: predict all options; draw; see the loss; one regression step on the chosen option's features.

Deviations: the loss so far for L*, as said. Predictions are kept above 1e-6, so that weights stay finite. K is the
number of options of the round.

    >>> from backchannel import play
    >>> from backchannel.meters.regret import dynamic_regret
    >>> from backchannel.online.fast_cb import fast_cb
    >>> from backchannel.tasks.logistic import sparse_logistic
    >>> task, meters = sparse_logistic(arms=4, bits=12), {"regret": dynamic_regret()}
    >>> result = play(fast_cb(bits=12), task, horizon=1000, meters=meters)
    >>> bool(result.final().mean() < 100)  # uniform play: about 400
    True

References: foster2021efficient, foster2020beyond, ross2013normalized.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.adaptive_gradient import empty_table, learn_logistic, margin_of, sigmoid
from backchannel.parts.inverse_gap import inverse_gap
from backchannel.parts.sampling import draw

CARD = Card(
    name="FastCB",
    summary="Contextual bandit over online logistic regression on hashed sparse features; best where losses are rare.",
    paper="foster2021efficient",
    topics=("contextual", "regression oracle", "first order"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="square_cb",
    example={"bits": 10},
    context="sparse",
    strength="strong",
    first=True,
)

LEAST = 1e-6  # predictions stay above


class State(NamedTuple):
    """The regression and what makes gamma."""

    table: np.ndarray  # float64[2^bits, 4]: see parts/adaptive_gradient.py
    clock: np.ndarray  # float64[2]: t and N of the regression
    step_size: np.ndarray  # float64[1]: eta of the regression
    oracle_regret: np.ndarray  # float64[1]: Reg_KL
    loss: np.ndarray  # float64[1]: the sum of losses learned, in place of L*


def fast_cb(bits: int = 18, step_size: float = 0.5, oracle_regret: float = 0.1) -> Learner:
    """FastCB for losses in [0, 1], options with sparse features, any number of them.

    Args:
        bits: the table of weights has 2^bits entries; the features' indices lie in it.
        step_size: eta of the regression.
        oracle_regret: Reg_KL, the log-loss regret that one expects of the regression; a smaller one explores less.
    """
    if not (step_size > 0 and oracle_regret > 0):
        raise ValueError(f"step_size and oracle_regret must be positive, not {step_size} and {oracle_regret}")
    state = State(empty_table(bits), np.zeros(2), np.array([step_size]), np.array([oracle_regret]), np.zeros(1))
    return Learner(state, _act, _update, _probabilities)


@compiled
def _act(state, context, rng):
    out = np.empty(context.start.shape[0] - 1)
    _probabilities(state, context, out)
    action = draw(out, rng)
    return action, out[action]


@compiled
def _update(state, context, action, propensity, loss):
    if not np.isnan(loss):
        learn_logistic(state.table, state.clock, context, action, loss, state.step_size[0])
        state.loss[0] += loss


@compiled
def _probabilities(state, context, out):
    options = context.start.shape[0] - 1
    least = 1.0
    for a in range(options):
        out[a] = max(sigmoid(margin_of(state.table, context, a)), LEAST)
        least = min(least, out[a])
    gamma = max(math.sqrt(options * state.loss[0] / (3.0 * state.oracle_regret[0])), 10.0 * options)
    inverse_gap(out, gamma / least, out)
