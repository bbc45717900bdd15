"""Batched SquareCB: inverse gap weighting over a model that is retrained, generation by generation, on recent logs.

In production a contextual bandit rarely learns from every answer at once. Decisions and their answers are logged, and
at the end of a generation (a day, say) a new model is fitted to the logs of the last few generations; older ones
are gone. The model is an ordinary supervised regression; exploration comes from how its predictions are used.

Equations. With y_a the predicted loss of option a among the K that this round offers, b the best and n the number of
decisions that the model was fitted to (Foster and Rakhlin 2020, algorithm 1, with the horizon and the regression's
regret of SquareCB replaced by those of the memory):

    p(a) = 1 / (K + gamma (y_a - y_b)) for a != b,   p(b) takes the rest,   gamma = sqrt(K n / Reg)

and, in the same harness, the alternatives that Vangara and Egg (2025) and their trade compare with:

    uniform exploration:  p(a) = epsilon / K + (1 - epsilon) 1{a = b}          `batched_epsilon_greedy`; 0 is greedy
    Boltzmann:            p(a) proportional to exp(-y_a / temperature)         `batched_boltzmann`

Steps: draw; log the chosen option's features and loss; when `generation` answers have been logged, forget the model and
fit a new one to the last `memory` generations: logistic regression by `epochs` passes of implicit adaptive gradient
steps over the log (`parts/adaptive_gradient.py`). Until the first fit all predictions are equal and play is uniform
(greedy play takes the first option).

Deviations: the paper trains boosted trees on production data; here the regression is logistic in hashed features. A
loss is not weighted by its propensity: right where the model's class holds the truth; where it does not, what was
logged decides where the model is good, and so a policy shapes its successor. That is the paper's concern.

    >>> from backchannel import play
    >>> from backchannel.channels.hide import bandit
    >>> from backchannel.channels.late import delay
    >>> from backchannel.meters.regret import dynamic_regret
    >>> from backchannel.online.batched_square_cb import batched_square_cb
    >>> from backchannel.tasks.payments import in_batches, payments
    >>> learner, channel = batched_square_cb(bits=12, generation=100), delay(bandit(), in_batches(100))
    >>> result = play(learner, payments(12), 1000, channel=channel, meters={"regret": dynamic_regret()})
    >>> bool(result.final()[0] < 300)  # uniform play: about 500
    True

References: vangara2025contextual, foster2020beyond.
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
from backchannel.parts.sampling import draw, exponential_weights
from backchannel.parts.sparse import Sparse

CARD = Card(
    name="Batched SquareCB",
    summary="Contextual bandit retrained in batches on recent logs: inverse gap weighting over supervised learning.",
    paper="vangara2025contextual",
    row=320,
    topics=("contextual", "regression oracle", "delayed feedback", "batched"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="square_cb",
    example={"bits": 10, "generation": 100},
    context="sparse",
)


class State(NamedTuple):
    """The model, the log that it is fitted to, and the settings."""

    table: np.ndarray  # float64[2^bits, 4]: see parts/adaptive_gradient.py
    clock: np.ndarray  # float64[2]: t and N of the regression
    start: np.ndarray  # int64[rows + 1]: the log as a Sparse: row i is one chosen option; a ring
    indices: np.ndarray  # int64[rows * width]
    value: np.ndarray  # float64[rows * width]; 0 where an option has fewer features
    loss: np.ndarray  # float64[rows]
    logged: np.ndarray  # int64[2]: rows ever written, and answers in this generation
    fitted: np.ndarray  # int64[1]: rows that the model was fitted to
    generation: np.ndarray  # int64[1]
    epochs: np.ndarray  # int64[1]
    step_size: np.ndarray  # float64[1]
    exploration: np.ndarray  # float64[1]: Reg, epsilon or temperature


def batched_square_cb(
    bits: int = 18,
    generation: int = 1000,
    memory: int = 1,
    oracle_regret: float = 1.0,
    features: int = 32,
    epochs: int = 5,
    step_size: float = 0.5,
) -> Learner:
    """Inverse gap weighting over a model that is fitted anew after each generation.

    Args:
        bits: the table of weights has 2^bits entries.
        generation: answers between two fits.
        memory: generations that the log keeps.
        oracle_regret: Reg; a smaller one explores less.
        features: the most features that an option has.
        epochs: passes over the log in a fit.
        step_size: of the gradient steps.
    """
    if not oracle_regret > 0:
        raise ValueError(f"oracle_regret must be positive, not {oracle_regret}")
    state = _first_state(bits, generation, memory, oracle_regret, features, epochs, step_size)
    return Learner(state, _act_by_gap, _update, _by_gap)


def batched_epsilon_greedy(
    bits: int = 18,
    generation: int = 1000,
    memory: int = 1,
    epsilon: float = 0.1,
    features: int = 32,
    epochs: int = 5,
    step_size: float = 0.5,
) -> Learner:
    """Uniform exploration with probability `epsilon`, else the best prediction; all else as above."""
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon must lie in [0, 1], not {epsilon}")
    state = _first_state(bits, generation, memory, epsilon, features, epochs, step_size)
    return Learner(state, _act_uniformly, _update, _uniformly)


def batched_boltzmann(
    bits: int = 18,
    generation: int = 1000,
    memory: int = 1,
    temperature: float = 0.05,
    features: int = 32,
    epochs: int = 5,
    step_size: float = 0.5,
) -> Learner:
    """Exponential weights on predicted losses; all else as above."""
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    state = _first_state(bits, generation, memory, temperature, features, epochs, step_size)
    return Learner(state, _act_by_exponent, _update, _by_exponent)


def _first_state(bits, generation, memory, exploration, features, epochs, step_size) -> State:
    for name, size in {"generation": generation, "memory": memory, "features": features, "epochs": epochs}.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, not {step_size}")
    rows = generation * memory
    return State(
        table=empty_table(bits),
        clock=np.zeros(2),
        start=np.arange(rows + 1) * features,
        indices=np.zeros(rows * features, np.int64),
        value=np.zeros(rows * features),
        loss=np.zeros(rows),
        logged=np.zeros(2, np.int64),
        fitted=np.zeros(1, np.int64),
        generation=np.array([generation]),
        epochs=np.array([epochs]),
        step_size=np.array([step_size]),
        exploration=np.array([exploration], float),
    )


@compiled
def _update(state, context, action, propensity, loss):
    if not np.isnan(loss):
        row = state.logged[0] % state.loss.shape[0]
        _log(state, context, action, row)
        state.loss[row] = loss
        state.logged[0] += 1
    state.logged[1] += 1
    if state.logged[1] == state.generation[0]:
        state.logged[1] = 0
        _fit(state)


@compiled
def _log(state, context, action, row):
    at, first = state.start[row], context.start[action]
    count = context.start[action + 1] - first
    if count > state.start[1]:
        raise ValueError("an option has more features than the learner was told")
    for j in range(state.start[1]):
        state.indices[at + j] = context.index[first + j] if j < count else 0
        state.value[at + j] = context.value[first + j] if j < count else 0.0


@compiled
def _fit(state):
    """A new model of the log, oldest row first."""
    rows = state.loss.shape[0]
    known = min(state.logged[0], rows)
    oldest = state.logged[0] - known
    log = Sparse(state.start, state.indices, state.value)
    state.table[:] = 0.0
    state.clock[:] = 0.0
    for _ in range(state.epochs[0]):
        for i in range(oldest, oldest + known):
            learn_logistic(state.table, state.clock, log, i % rows, state.loss[i % rows], state.step_size[0])
    state.fitted[0] = known


@compiled
def _predict(state, context, out):
    for a in range(context.start.shape[0] - 1):
        out[a] = sigmoid(margin_of(state.table, context, a))


@compiled
def _by_gap(state, context, out):
    offered = out[: context.start.shape[0] - 1]
    _predict(state, context, offered)
    inverse_gap(offered, math.sqrt(offered.shape[0] * state.fitted[0] / state.exploration[0]), offered)


@compiled
def _uniformly(state, context, out):
    offered = out[: context.start.shape[0] - 1]
    _predict(state, context, offered)
    best = np.argmin(offered)
    offered[:] = state.exploration[0] / offered.shape[0]
    offered[best] += 1.0 - state.exploration[0]


@compiled
def _by_exponent(state, context, out):
    offered = out[: context.start.shape[0] - 1]
    _predict(state, context, offered)
    exponential_weights(offered, 1.0 / state.exploration[0], offered)


@compiled
def _act_by_gap(state, context, rng):
    out = np.empty(context.start.shape[0] - 1)
    _by_gap(state, context, out)
    action = draw(out, rng)
    return action, out[action]


@compiled
def _act_uniformly(state, context, rng):
    out = np.empty(context.start.shape[0] - 1)
    _uniformly(state, context, out)
    action = draw(out, rng)
    return action, out[action]


@compiled
def _act_by_exponent(state, context, rng):
    out = np.empty(context.start.shape[0] - 1)
    _by_exponent(state, context, out)
    action = draw(out, rng)
    return action, out[action]
