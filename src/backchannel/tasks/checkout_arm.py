"""A checkout arm and its user: proposed trajectories are corrected, never scored.

In each round a planar arm with two links is to carry an item from the scanner to a bag, past objects on the counter.
`options` trajectories are sampled; the context is their features, float64[options, dimension]. The user has hidden
weights w* of length 1 and answers the proposed option with another that is better: **`loss` is the index of the
user's correction**, a float, and not a loss. What a meter compares is `mean`, minus the utility w*.phi, so that
`meters.regret.dynamic_regret` sums the utility that the proposals fell short of the best sampled trajectory.

The user is alpha-informative, and no better: of the options that close at least the fraction alpha of the gap to the
best, the worst is returned (Shivaswamy and Joachims 2012, definition 1, without slack); a best option is its own
correction.

Features, each in [0, 1] and divided by sqrt(dimension), so that no phi is longer than 1:

- phi_O, the item: (1, fragile, liquid) times (mean height, tilt, haste): 9 numbers;
- phi_E, the surroundings: how near hand or elbow come to each of dimension - 9 objects, mean over the trajectory.

The hand follows a quadratic Bezier curve through a random control point; the elbow follows from the links.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Task
from backchannel.engine import compiled
from backchannel.parts.counter_random import uniform_at
from backchannel.tasks.bernoulli import reseed

ITEM = 9  # features of the item: attributes x properties
POINTS = 8  # where a trajectory is looked at
UPPER, LOWER = 0.7, 0.6  # the links
NEAR = 0.25  # the distance at which an object is felt
OBJECTS, ATTRIBUTES = 1 << 40, 1 << 41  # offsets that keep the random numbers of a round apart


class State(NamedTuple):
    """The user and the luck."""

    weights: np.ndarray  # float64[dimension]: w*
    alpha: np.ndarray  # float64[1]
    options: np.ndarray  # int64[1]
    seed: np.ndarray  # uint64[1]


def checkout_arm(options: int, dimension: int, seed: int = 0, alpha: float = 0.3) -> Task:
    """A user (`seed`), and rounds of `options` sampled trajectories with `dimension` features (10 or more).

    Another run's luck changes items, objects and trajectories; the user stays.
    """
    if options < 2:
        raise ValueError(f"options must be at least 2, not {options}")
    if dimension <= ITEM:
        raise ValueError(f"dimension must be at least {ITEM + 1} ({ITEM} for the item), not {dimension}")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must lie in (0, 1], not {alpha}")
    weights = np.random.default_rng(seed).standard_normal(dimension)
    weights /= np.linalg.norm(weights)
    state = State(weights, np.array([alpha]), np.array([options]), np.zeros(1, np.uint64))
    return Task(state, options, trajectories, _correction, _shortfall, reseed)


@compiled
def trajectories(state: State, t: int) -> np.ndarray:
    """float64[options, dimension]: the features of the trajectories sampled in round t."""
    rows = np.empty((state.options[0], state.weights.shape[0]))
    for option in range(rows.shape[0]):
        _features(state, t, option, rows[option])
    return rows


@compiled
def path_length(state: State, t: int, option: int) -> float:
    """The length of the hand's path: what a planner without a user would minimise."""
    total = 0.0
    x, y = _hand(state, t, option, 0.0)
    for k in range(1, 33):
        u, v = _hand(state, t, option, k / 32)
        total += math.hypot(u - x, v - y)
        x, y = u, v
    return total


@compiled
def _correction(state, t, action):
    utilities = np.empty(state.options[0])
    for option in range(utilities.shape[0]):
        utilities[option] = -_shortfall(state, t, option)
    own, best = utilities[action], utilities.max()
    enough = min(own + state.alpha[0] * (best - own), best)  # not above the best by rounding
    answer = action
    for option in range(utilities.shape[0]):
        better = utilities[option] >= enough and utilities[option] > own
        if better and (answer == action or utilities[option] < utilities[answer]):
            answer = option
    return float(answer)


@compiled
def _shortfall(state, t, action):
    row = np.empty(state.weights.shape[0])
    _features(state, t, action, row)
    utility = 0.0
    for i in range(row.shape[0]):
        utility += row[i] * state.weights[i]
    return -utility


@compiled
def _features(state, t, option, row):
    height, near = 0.0, row[ITEM:]
    near[:] = 0.0
    for k in range(POINTS):
        x, y = _hand(state, t, option, (k + 0.5) / POINTS)
        ex, ey = _elbow(x, y, _luck(state, t, option, 2))
        height += y / (UPPER + LOWER) / POINTS
        for j in range(near.shape[0]):
            ox = 1.6 * uniform_at(state.seed[0], t, OBJECTS + 2 * j) - 0.8
            oy = 1.0 * uniform_at(state.seed[0], t, OBJECTS + 2 * j + 1)
            square = min((x - ox) ** 2 + (y - oy) ** 2, (ex - ox) ** 2 + (ey - oy) ** 2)
            near[j] += math.exp(-square / (2 * NEAR**2)) / POINTS
    tilt, haste = _luck(state, t, option, 3), _luck(state, t, option, 4)
    for attribute in range(3):
        present = attribute == 0 or uniform_at(state.seed[0], t, ATTRIBUTES + attribute) < 0.5
        row[3 * attribute] = height if present else 0.0
        row[3 * attribute + 1] = tilt if present else 0.0
        row[3 * attribute + 2] = haste if present else 0.0
    row /= math.sqrt(row.shape[0])


@compiled
def _hand(state, t, option, s):
    """The hand at time s in [0, 1]: from the scanner (-0.9, 0.1) to the bag (0.9, 0.1), within reach."""
    x = 2 * s * (1 - s) * (1.6 * _luck(state, t, option, 0) - 0.8) + 0.9 * (s * s - (1 - s) ** 2)
    y = 2 * s * (1 - s) * (2.2 * _luck(state, t, option, 1)) + 0.1 * (s * s + (1 - s) ** 2)
    reach = max(1.0, math.hypot(x, y) / (UPPER + LOWER))
    return x / reach, y / reach


@compiled
def _elbow(x, y, side):
    """Where the links meet when the hand is at (x, y): on one side of the line to it or on the other."""
    distance = max(math.hypot(x, y), UPPER - LOWER)
    along = (distance**2 + UPPER**2 - LOWER**2) / (2 * distance)
    off = math.sqrt(max(UPPER**2 - along**2, 0.0))
    off = off if side < 0.5 else -off
    return (along * x - off * y) / distance, (along * y + off * x) / distance


@compiled
def _luck(state, t, option, which):
    return uniform_at(state.seed[0], t, 8 * option + which)
