"""Trajectory Preference Perceptron: learn what a user likes from small corrections, without a demonstration or a score.

Propose the best of the sampled trajectories by the current weights. The user returns one that is a little better, not
the best. Move the weights by the difference of the two: every correction of fraction alpha is progress towards the
user's hidden weights, however far it is from the optimum.

Equations (Jain, Wojcik, Joachims and Saxena 2013, section 4 and algorithm 1), with y_t proposed and yb_t returned:

    s(x, y; w) = w_O . phi_O(x, y) + w_E . phi_E(x, y)                  the item's features and the surroundings'
    y_t = argmax_y s(x_t, y; w_t)                                       over the trajectories sampled
    w_{t+1} = w_t + phi(x_t, yb_t) - phi(x_t, y_t)                      both parts alike

Feedback is alpha-informative if s*(yb_t) >= s*(y_t) + alpha (max_y s*(y) - s*(y_t)) - xi_t. Then, for |phi| <= R, the
average regret in the user's own score obeys (Shivaswamy and Joachims 2012, theorem 1)

    (1/T) sum_t (max_y s*(x_t, y) - s*(x_t, y_t)) <= 2 R |w*| / (alpha sqrt(T)) + (1 / (alpha T)) sum_t xi_t.

Steps: score the context's rows; propose the highest (the first of equals); read the feedback as the index of the
user's correction; add the difference of the two rows.

Deviations: w_O and w_E are one vector, since their updates are the same; the trajectories are the rows of the context
(`tasks/checkout_arm.py` samples them) in place of a motion planner's; feedback is always an index, as in the paper's
re-ranking, so that a corrected waypoint must be a row of its own.

    >>> from backchannel import play
    >>> from backchannel.meters.regret import dynamic_regret
    >>> from backchannel.online.trajectory_preference_perceptron import trajectory_preference_perceptron
    >>> from backchannel.tasks.checkout_arm import checkout_arm
    >>> learner, user = trajectory_preference_perceptron(dimension=10), checkout_arm(options=10, dimension=10, seed=1)
    >>> curve = play(learner, user, 100, meters={"regret": dynamic_regret()}).curves["regret"][0]
    >>> bool(curve[-1] < 100 * curve[0] / 4)
    True

References: jain2013trajectory, shivaswamy2012coactive.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled

CARD = Card(
    name="Trajectory Preference Perceptron",
    summary="Learns a user's preferences over options from small corrections of what it proposes.",
    paper="jain2013trajectory",
    row=173,
    topics=("preference learning", "coactive", "contextual"),
    feedback=("correction",),
    protocol="learner",
    engine="numba",
    neighbour="exp3",
    example={"dimension": 12},
    context="rows",
)


class State(NamedTuple):
    """w_t."""

    weights: np.ndarray  # float64[dimension]: w_O, then w_E


def trajectory_preference_perceptron(dimension: int) -> Learner:
    """The perceptron over options with `dimension` features; feedback is the index of the user's correction."""
    if dimension < 1:
        raise ValueError(f"dimension must be at least 1, not {dimension}")
    return Learner(State(np.zeros(dimension)), _act, _update, _probabilities)


def regret_bound(horizon: int = 1000, radius: float = 1.0, norm: float = 1.0, alpha: float = 0.3) -> float:
    """The theorem without slack: the regret is at most 2 R |w*| sqrt(T) / alpha."""
    return 2 * radius * norm * math.sqrt(horizon) / alpha


@compiled
def _act(state, context, rng):
    return _best(state, context), 1.0


@compiled
def _update(state, context, action, propensity, correction):
    if np.isnan(correction):
        return  # the user said nothing
    if correction < 0 or correction >= context.shape[0] or correction != math.floor(correction):
        raise ValueError("a correction must be the index of one of the context's rows")
    better = int(correction)
    for i in range(state.weights.shape[0]):
        state.weights[i] += context[better, i] - context[action, i]


@compiled
def _probabilities(state, context, out):
    out[:] = 0.0
    out[_best(state, context)] = 1.0


@compiled
def _best(state, context):
    best, highest = 0, -np.inf
    for option in range(context.shape[0]):
        score = 0.0
        for i in range(state.weights.shape[0]):
            score += state.weights[i] * context[option, i]
        if score > highest:
            best, highest = option, score
    return best
