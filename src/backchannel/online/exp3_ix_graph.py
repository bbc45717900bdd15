"""Exp3-IX on graphs: side observations with implicit exploration, no share of rounds set apart.

Whoever plays an arm sees the losses of its neighbours. Dividing each by the probability that it was seen plus gamma
makes all estimates a little optimistic, the rarely seen ones most. That explores by itself.

Equations (Kocak, Neu, Valko, Munos 2014, algorithm 1), losses in [0, 1]:

    p_t(a) = exp(-eta L_{t-1}(a)) / sum_b exp(-eta L_{t-1}(b))
    L_t(i) = L_{t-1}(i) + 1{A_t reveals i} x_t(i) / (P_t(i) + gamma),   P_t(i) = sum of p_t over the arms that reveal i

The regret is of order sqrt(alpha T), alpha the independence number, up to logarithms (theorem 1 there).

Steps: draw A_t from p_t; see the losses of its neighbours; add the estimates.

Deviations: eta and gamma are fixed, eta = 2 gamma = sqrt(2 log K / (alpha T)), as in Exp3-IX for bandits, where the
paper lets them fall with the observations so far; alpha is that of a greedy independent set. Feedback that comes late
is divided by the present P.

    >>> import numpy as np
    >>> from backchannel import play
    >>> from backchannel.channels.hide import graph
    >>> from backchannel.online.exp3_ix_graph import exp3_ix_graph
    >>> from backchannel.tasks.bernoulli import bernoulli
    >>> edges = np.eye(3, dtype=bool) | (np.arange(3) == 0)[:, None]
    >>> learner = exp3_ix_graph(edges, horizon=2000)
    >>> result = play(learner, bernoulli([0.9, 0.7, 0.3]), 2000, replicates=8, channel=graph(edges))
    >>> bool(result.final("regret").mean() < 200)
    True

References: kocak2014efficient, neu2015explore.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.feedback_graph import Edges, checked_edges, independent_set, neighbour_lists
from backchannel.parts.sampling import draw, exponential_weights

CARD = Card(
    name="Exp3-IX on graphs",
    summary="Feedback graphs: exponential weights with implicit exploration.",
    paper="kocak2014efficient",
    topics=("adversarial", "exponential weights", "feedback graphs"),
    feedback=("graph",),
    protocol="learner",
    engine="numba",
    neighbour="exp3_ix",
    example={"edges": [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]], "horizon": 1000},
)


class State(NamedTuple):
    """L_t, the next p and P, eta and gamma, and who reveals whom."""

    losses: np.ndarray  # float64[arms]: L_t
    probabilities: np.ndarray  # float64[arms]: p_{t+1}
    seen: np.ndarray  # float64[arms]: P_{t+1}
    step_size: np.ndarray  # float64[1]: eta
    optimism: np.ndarray  # float64[1]: gamma
    start: np.ndarray  # int64[arms + 1]: a reveals revealed[start[a] : start[a + 1]]
    revealed: np.ndarray  # int64[edges]


def exp3_ix_graph(edges: Edges, horizon: int, step_size: float | None = None, optimism: float | None = None) -> Learner:
    """Exp3-IX on the graph `edges`, where choosing a reveals the loss of b if `edges[a][b]`.

    Args:
        edges: arms x arms; every arm reveals itself.
        horizon: T, the number of rounds; sets the step size.
        step_size: eta; default sqrt(2 log K / (alpha T)).
        optimism: gamma; default eta / 2.
    """
    matrix = checked_edges(edges)
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, not {horizon}")
    arms = len(matrix)
    alpha = independent_set(matrix).sum()
    eta = step_size if step_size is not None else math.sqrt(2 * math.log(max(arms, 2)) / (alpha * horizon))
    gamma = optimism if optimism is not None else eta / 2
    start, revealed = neighbour_lists(matrix)
    first = np.full(arms, 1 / arms)
    state = State(np.zeros(arms), first, first @ matrix, np.array([eta]), np.array([gamma]), start, revealed)
    return Learner(state, _act, _update, _probabilities)


@compiled
def _act(state, context, rng):
    action = draw(state.probabilities, rng)
    return action, state.probabilities[action]


@compiled
def _update(state, context, action, propensity, losses):
    for arm in range(losses.shape[0]):
        if not np.isnan(losses[arm]):
            state.losses[arm] += losses[arm] / (state.seen[arm] + state.optimism[0])
    exponential_weights(state.losses, state.step_size[0], state.probabilities)
    state.seen[:] = 0.0
    for j in range(losses.shape[0]):
        for e in range(state.start[j], state.start[j + 1]):
            state.seen[state.revealed[e]] += state.probabilities[j]


@compiled
def _probabilities(state, context, out):
    out[:] = state.probabilities
