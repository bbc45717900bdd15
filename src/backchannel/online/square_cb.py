"""SquareCB: a contextual bandit out of any online regression, by inverse gap weighting.

Predict every option's loss; draw options that look worse with a probability inverse to how much worse they look. A
regression that is good on what was drawn then makes a policy that is good: nothing is optimistic, nothing is sampled
from a posterior, and the regression may be any.

Equations (Foster and Rakhlin 2020, algorithm 1; y_a is the predicted loss of option a of K, b the best):

    p_t(a) = 1 / (mu + gamma (y_a - y_b)) for a != b,   p_t(b) = 1 - sum_{a != b} p_t(a),   mu = K
    gamma = sqrt(K T / Reg_Sq(T))                                          (theorem 1, up to log(1/delta))

with Reg_Sq(T) the cumulative square-loss regret of the regression; the regret is then O(sqrt(K T Reg_Sq(T))) when the
true expected losses lie in the regression's class. Here T is the number of losses learned so far, so that no horizon
is needed: gamma_t = sqrt(K t / Reg), where `oracle_regret` is Reg.

The regression is linear in hashed sparse features and learned by implicit, normalised, adaptive gradient steps on
(y - loss)^2 / 2 (`parts/adaptive_gradient.py`); act and update are a few loops over an option's non-zero features.

Steps: predict all options, clipped to [0, 1]; draw; see the loss; one regression step on the chosen option's features.
The step is *not* weighted by 1 / propensity: where the expected loss lies in the regression's class, the
regression is right whatever the distribution of choices, and so it may learn from logs of any policy, without their
propensities. Where it does not lie there, the fit is best where the logging policy went, and so is the promise.

Deviations: the anytime gamma above. K is the number of options of the round, which may change from round to round.

    >>> from backchannel import play
    >>> from backchannel.meters.regret import dynamic_regret
    >>> from backchannel.online.square_cb import square_cb
    >>> from backchannel.tasks.logistic import sparse_logistic
    >>> task, meters = sparse_logistic(arms=4, bits=12), {"regret": dynamic_regret()}
    >>> result = play(square_cb(bits=12), task, horizon=1000, meters=meters)
    >>> bool(result.final().mean() < 100)  # uniform play: about 400
    True

References: foster2020beyond, ross2013normalized, abe1999associative.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.adaptive_gradient import empty_table, learn_squared, margin_of
from backchannel.parts.inverse_gap import inverse_gap
from backchannel.parts.sampling import draw

CARD = Card(
    name="SquareCB",
    summary="Contextual bandit over online linear regression on hashed sparse features, by inverse gap weighting.",
    paper="foster2020beyond",
    topics=("contextual", "regression oracle"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="fast_cb",
    example={"bits": 10},
    context="sparse",
)


class State(NamedTuple):
    """The regression and what makes gamma."""

    table: np.ndarray  # float64[2^bits, 4]: see parts/adaptive_gradient.py
    clock: np.ndarray  # float64[2]: t and N of the regression
    step_size: np.ndarray  # float64[1]: eta of the regression
    oracle_regret: np.ndarray  # float64[1]: Reg


def square_cb(bits: int = 18, step_size: float = 0.5, oracle_regret: float = 0.01) -> Learner:
    """SquareCB for losses in [0, 1], options with sparse features, any number of them.

    Args:
        bits: the table of weights has 2^bits entries; the features' indices lie in it.
        step_size: eta of the regression.
        oracle_regret: Reg, the square-loss regret that one expects of the regression; gamma_t = sqrt(K t / Reg), so
            that a smaller one explores less.
    """
    if not (step_size > 0 and oracle_regret > 0):
        raise ValueError(f"step_size and oracle_regret must be positive, not {step_size} and {oracle_regret}")
    state = State(empty_table(bits), np.zeros(2), np.array([step_size]), np.array([oracle_regret]))
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
        learn_squared(state.table, state.clock, context, action, loss, state.step_size[0])


@compiled
def _probabilities(state, context, out):
    options = context.start.shape[0] - 1
    for a in range(options):
        out[a] = min(max(margin_of(state.table, context, a), 0.0), 1.0)
    gamma = math.sqrt(options * state.clock[0] / state.oracle_regret[0])
    inverse_gap(out, gamma, out)
