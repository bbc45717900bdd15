"""Exp3-EX: feedback graphs for any horizon, with exploration solved anew in every round.

Choosing an arm reveals the losses of its neighbours. The rate sqrt(alpha T), alpha the independence number, is right
only for T above alpha^3; in shorter games it can be better to pay for a bad arm that sees much. A hub that reveals 100
leaves makes the regret T^(2/3), which for T = 10,000 is half of sqrt(alpha T). Exp3-EX adds to exponential weights just
as much exploration as pays for itself: what it costs now against what it saves in the variance of the estimates.

Losses in [0, 1]; N(a) are the arms that a reveals:

    q_t(a) = exp(-eta L_{t-1}(a)) / sum_b exp(-eta L_{t-1}(b))                                               (1)
    u_t = argmin over u >= 0 of  sum_j u(j) + (eta/2) sum_i q_t(i) / (Q_t(i) + U(i))                         (2)
          with Q_t(i) and U(i) the sums of q_t and of u over the arms that reveal i
    p_t = (1 - g_t) q_t + u_t,   g_t = sum_j u_t(j), at most 1/2                                             (3)
    L_t(i) = L_{t-1}(i) + 1{i in N(A_t)} x_t(i) / P_t(i),  P_t(i) the sum of p_t over who reveals i         (4)

(2) is what the analysis of exponential weights charges to one round: exploring costs at most g_t, and the estimates'
second moment costs (eta/2) sum q/P. Hence the regret is at most log(K)/eta + 2 sum_t (the minimum of (2)), which
`regret_bound` spells out. The objective is convex; sweeps of one Newton step for each arm, from the last round's
solution, keep up with q_t.

The *problem complexity* R*(G, T) says what no learner can beat, up to a constant. Let all arms of an independent set I
look alike but one, which is e better; every other arm is useless. To find it each arm of I must be seen 1/e^2 times; a
choice outside I costs 1, inside it e. By duality the cheapest way costs c_I(e) / e^2, with c_I(e) a packing:

    c_I(e) = max sum_{i in I} z(i)  over z >= 0 with, for every arm j, sum of z over I and N(j) <= (e if j in I else 1)
    R*(G, T) = max over I of e T,  where e^3 T = c_I(e): the gap that costs as much to find as to ignore           (5)

Bandit: sqrt(K T). Full information: sqrt(T). Hub with alpha leaves: min(T^(2/3), sqrt(alpha T)). The step size solves
the same equation with log K times the observations: eta = sqrt(2) log(K) / R.

Steps: draw A_t from p_t; see the losses of its neighbours; (4); (1); (2); (3).

Deviations: (2) and (5) are derived here, from the two bounds whose rates the paper's abstract states; its own
definitions of R* and of the exploration may differ in form and in constants. The maximum over I is a local search from
a greedy set: a lower estimate where that fails. Every arm must reveal itself. Feedback that comes late is divided by
the present P.

    >>> import numpy as np
    >>> from backchannel import play
    >>> from backchannel.channels.hide import graph
    >>> from backchannel.online.exp3_ex import exp3_ex, problem_complexity
    >>> from backchannel.tasks.bernoulli import bernoulli
    >>> star = np.eye(50, dtype=bool)
    >>> star[0, :] = star[:, 0] = True
    >>> round(problem_complexity(star, 2000)), round(problem_complexity(np.eye(50, dtype=bool), 2000))
    (159, 316)
    >>> arms = np.r_[1.0, np.full(48, 0.6), 0.3]
    >>> result = play(exp3_ex(star, horizon=2000), bernoulli(arms), 2000, channel=graph(star))
    >>> bool(result.final("regret").mean() < 320)
    True

References: kocak2023online.
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
    name="Exp3-EX",
    summary="Feedback graphs at any horizon: exponential weights with exploration solved in every round.",
    paper="kocak2023online",
    row=227,
    topics=("adversarial", "exponential weights", "feedback graphs"),
    feedback=("graph",),
    protocol="learner",
    engine="numba",
    neighbour="exp3_g",
    example={"edges": [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]], "horizon": 1000},
    strength="strong",
)


class State(NamedTuple):
    """L_t, and q, u, p and P for the next round."""

    losses: np.ndarray  # float64[arms]: L_t
    weights: np.ndarray  # float64[arms]: q_{t+1}
    exploration: np.ndarray  # float64[arms]: u_{t+1}
    probabilities: np.ndarray  # float64[arms]: p_{t+1}
    seen: np.ndarray  # float64[arms]: P_{t+1}
    step_size: np.ndarray  # float64[1]: eta
    start: np.ndarray  # int64[arms + 1]: a reveals revealed[start[a] : start[a + 1]]
    revealed: np.ndarray  # int64[edges]


def exp3_ex(edges: Edges, horizon: int, step_size: float | None = None) -> Learner:
    """Exp3-EX on the graph `edges`, where choosing a reveals the loss of b if `edges[a][b]`.

    Args:
        edges: arms x arms; every arm reveals itself.
        horizon: T, the number of rounds; sets the step size.
        step_size: eta; default sqrt(2) log(K) / R with R the complexity for log K times the observations.
    """
    matrix = checked_edges(edges)
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, not {horizon}")
    arms = len(matrix)
    eta = step_size if step_size is not None else _default_step(matrix, horizon)
    start, revealed = neighbour_lists(matrix)
    uniform = np.full(arms, 1 / arms)
    state = State(
        np.zeros(arms), uniform, np.zeros(arms), uniform.copy(), np.zeros(arms), np.array([eta]), start, revealed
    )
    for once in (_explore, _mix):
        getattr(once, "py_func", once)(state)
    return Learner(state, _act, _update, _probabilities)


def problem_complexity(edges: Edges, horizon: int, information: float = 1.0) -> float:
    """R*(G, T) of (5), for arms that must be seen `information` / e^2 times; at most T.

    Args:
        edges: arms x arms; every arm reveals itself.
        horizon: T.
        information: a factor on the observations needed: 1, or log K for an algorithm that identifies one among K.
    """
    matrix = checked_edges(edges)
    linked = matrix | matrix.T
    chosen = independent_set(matrix)
    gap = _balanced_gap(matrix, chosen, horizon, information)
    improved = True
    while improved:
        improved = False
        for arm in np.flatnonzero(~chosen):
            other = chosen & ~linked[arm]
            other[arm] = True
            if _price(matrix, other, gap) > _price(matrix, chosen, gap) * (1 + 1e-9):
                chosen, improved = other, True
                gap = _balanced_gap(matrix, chosen, horizon, information)
    return gap * horizon


def regret_bound(edges: Edges, horizon: int, step_size: float | None = None) -> float:
    """log(K)/eta + 2 T min(eta K / 2, sqrt(2 eta d)): with u = 0, or along a fractional dominating set of weight d.

    It bounds the expected regret against any losses in [0, 1] fixed in advance.
    """
    matrix = checked_edges(edges)
    eta = step_size if step_size is not None else _default_step(matrix, horizon)
    arms = len(matrix)
    dominating = _packing(matrix, np.ones(arms))
    return math.log(arms) / eta + 2 * horizon * min(eta * arms / 2, math.sqrt(2 * eta * dominating))


def _default_step(matrix: np.ndarray, horizon: int) -> float:
    log = math.log(max(len(matrix), 2))
    return math.sqrt(2) * log / problem_complexity(matrix, horizon, log)


def _balanced_gap(matrix: np.ndarray, chosen: np.ndarray, horizon: int, information: float) -> float:
    """The e in (0, 1] with e^3 T = information c_I(e), by bisection; 1 if the left side stays below."""
    low, high = 0.0, 1.0
    if horizon <= information * _price(matrix, chosen, 1.0):
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        enough = middle**3 * horizon >= information * _price(matrix, chosen, middle)
        low, high = (low, middle) if enough else (middle, high)
    return high


def _price(matrix: np.ndarray, chosen: np.ndarray, gap: float) -> float:
    """c_I(e): what it costs to see every arm of I once."""
    return _packing(matrix[:, chosen], np.where(chosen, gap, 1.0))


def _packing(matrix: np.ndarray, limits: np.ndarray) -> float:
    """max sum z over z >= 0 with matrix z <= limits > 0, by the simplex method with Bland's rule."""
    rows, columns = matrix.shape
    table = np.zeros((rows + 1, columns + rows + 1))
    table[:rows, :columns] = matrix
    table[:rows, columns:-1] = np.eye(rows)
    table[:rows, -1] = limits
    table[-1, :columns] = -1.0
    basis = np.arange(columns, columns + rows)
    while (entering := np.flatnonzero(table[-1, :-1] < -1e-12)).size:
        column = entering[0]
        positive = table[:rows, column] > 1e-12
        ratios = np.full(rows, np.inf)
        ratios[positive] = table[:rows, -1][positive] / table[:rows, column][positive]
        tied = np.flatnonzero(ratios <= ratios.min() * (1 + 1e-12))
        row = tied[basis[tied].argmin()]
        table[row] /= table[row, column]
        others = np.arange(rows + 1) != row
        table[others] -= np.outer(table[others, column], table[row])
        basis[row] = column
    return float(table[-1, -1])


@compiled
def _act(state, context, rng):
    action = draw(state.probabilities, rng)
    return action, state.probabilities[action]


@compiled
def _update(state, context, action, propensity, losses):
    for arm in range(losses.shape[0]):
        if not np.isnan(losses[arm]):
            state.losses[arm] += losses[arm] / state.seen[arm]  # (4)
    exponential_weights(state.losses, state.step_size[0], state.weights)  # (1)
    _explore(state)
    _mix(state)


@compiled
def _explore(state):
    """(2): Newton's method in each u(j) in turn. The derivative is concave: a step from below never overshoots."""
    q, u, half = state.weights, state.exploration, state.step_size[0] / 2
    arms = q.shape[0]
    total = np.zeros(arms)  # Q + U
    for j in range(arms):
        for e in range(state.start[j], state.start[j + 1]):
            total[state.revealed[e]] += q[j] + u[j]
    for _ in range(100):
        moved, size = 0.0, 0.0
        for j in range(arms):
            slope, curvature = 1.0, 0.0
            for e in range(state.start[j], state.start[j + 1]):
                i = state.revealed[e]
                if q[i] > 0.0:
                    slope -= half * q[i] / total[i] ** 2
                    curvature += 2.0 * half * q[i] / total[i] ** 3
            step = max(-u[j], -slope / curvature)
            u[j] += step
            for e in range(state.start[j], state.start[j + 1]):
                total[state.revealed[e]] += step
            moved += abs(step)
            size += u[j]
        if moved <= 1e-3 * size:
            break


@compiled
def _mix(state):
    """(3), and P."""
    explored = state.exploration.sum()
    if explored > 0.5:
        state.exploration[:] *= 0.5 / explored
        explored = 0.5
    state.probabilities[:] = (1.0 - explored) * state.weights + state.exploration
    state.seen[:] = 0.0
    for j in range(state.seen.shape[0]):
        for e in range(state.start[j], state.start[j + 1]):
            state.seen[state.revealed[e]] += state.probabilities[j]


@compiled
def _probabilities(state, context, out):
    out[:] = state.probabilities
