"""Private-FedLinUCB: a linear bandit of many silos that share noisy sums, on a schedule that no data can change.

Silos (hospitals, shops) with the same linear losses learn from one another without showing their users. Each keeps
sums of its users' rows and losses, and at fixed times sends them through the tree mechanism of `parts/privacy.py`,
noise and all. What is added to the sums is the protocol, and data here: nothing, normal noise of each silo, less of it
where shuffled messages allow, or coins whose sum over silos alone is known after shuffling.

Equations (Zhou and Chowdhury 2024, algorithm 1, in losses; x is the row that a user was given, l its loss):

    W_i = sum x x^T,   U_i = sum l x          over the users of silo i in the open batch
    W, U = the tree's noisy sums over all silos and closed batches; N and n are the noise in them
    V = (lambda + 2 Lambda) I + W,   theta = V^-1 U                                                       (1)
    A = argmin_a <theta, x_a> - beta sqrt(x_a^T V^-1 x_a)                                                 (2)

Lambda bounds the operator norm of N and Lambda_n the length of n, so that V >= sum x x^T + (lambda + Lambda) I. If the
noise in a number has variance s^2 (of all silos and levels together), both hold at all K releases but with probability
delta (the norm of the normal matrix has a mean of at most 2 s sqrt(d), and is sqrt(2) s-Lipschitz in its entries):

    Lambda = s (2 sqrt(d) + 2 sqrt(log(2 K / delta))),   Lambda_n = s (sqrt(d) + sqrt(2 log(2 K / delta)))
    beta = R sqrt(2 log(1/delta) + d log(1 + m / (d lambda)))                             with m users in V
           + ((lambda + 3 Lambda) |theta| + Lambda_n) / sqrt(lambda + Lambda)                             (3)

Steps: round t belongs to silo t mod M. It decides by (2); its row and loss join the silo's sums. With the last round of
every B x M the silos release, and (1) is made anew: T / B times for T rounds of each silo, and never again.

What is private. Adversary: all but silo i, that is the server, the other silos and all their users, who see what silo i
sends and everything decided from it. Protected: the row and loss of each single user of silo i, one of whom may be
replaced; rows longer than 1 are shortened and losses cut to [0, 1], so that a batch moves by at most sqrt(9/2) (its
square is 4 - 2 c - 2 c^2 for unit rows with inner product c). Accounting: (epsilon, delta) is for the whole run, by the
exact curve of the Gaussian mechanism for all levels of the tree together (`silo_level`). With `vector_sum` the
adversary sees shuffled bits of all silos, each of which adds its coins honestly, and the accounting is by moments.
Users trust their own silo with their data. A State of this simulation holds all silos' raw sums, and the noise comes
from a generator that is not cryptographic: this is for experiments, and protects nobody as it stands.

The paper finds of FedUCB (Dubey and Pentland 2020) that it synchronises when a determinant has grown: when messages are
sent depends on raw data, which no noise in them hides; and that its regret counted the noise of one silo for that of
all M, whose variance is M times as large: hence `silo_level` pays sqrt(M) more noise than `vector_sum`.

Deviations: silos decide from what was released alone. With their open batch added to V and U, as is usual, one user
would move what later users of the batch are given, and the sums by more than one row. A release comes with the batch's
last decision, whose own loss falls into the next batch, as late losses do. Should V not be positive definite, its
multiple of I is doubled until it is. The constants and the coins' accounting are derived here, since the paper's text
was not at hand. For `amplified`, see there: with 100 silos it saves no noise.

    >>> from backchannel import play
    >>> from backchannel.meters.regret import dynamic_regret
    >>> from backchannel.online.private_fed_linucb import private_fed_linucb
    >>> from backchannel.parts.privacy import silo_level, vector_sum
    >>> from backchannel.tasks.linear import linear
    >>> task, meters = linear(arms=3, dimension=3), {"regret": dynamic_regret()}
    >>> make = lambda protocol: private_fed_linucb(3, 3, silos=20, batch=10, horizon=2000, protocol=protocol, width=3)
    >>> at = [play(make(p(1.0, 1e-4)), task, 2000, meters=meters).final()[0] for p in (vector_sum, silo_level)]
    >>> bool(at[0] < at[1] / 2)
    True

References: zhou2024federated, dubey2020differentially, balle2018improving, cheu2021shuffle, feldman2021hiding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.least_squares import invert, quadratic
from backchannel.parts.privacy import (
    Protocol,
    Release,
    no_noise,
    randomise,
    tree_add,
    tree_levels,
    tree_sum,
    vector_sum,
)

CARD = Card(
    name="Private-FedLinUCB",
    summary="Linear bandit of many silos that share noisy sums on a fixed schedule, under differential privacy.",
    paper="zhou2024federated",
    row=91,
    topics=("contextual", "optimism", "batched", "privacy"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="lin_ucb",
    example={"arms": 3, "dimension": 4, "silos": 5, "batch": 4, "horizon": 1000, "protocol": vector_sum(5.0, 1e-3)},
    context="rows",
)

SENSITIVITY = math.sqrt(4.5)  # of a batch's sums, the upper triangle of x x^T and l x, to the replacement of one user


class State(NamedTuple):
    """Every silo's secrets, what was released, and what is decided from it."""

    batch: np.ndarray  # float64[silos, n]: W_i and U_i of the open batch; n = d (d + 1) / 2 + d
    nodes: np.ndarray  # float64[silos, levels, n]: each silo's tree, without noise
    released: np.ndarray  # float64[levels, n]: the nodes as sent, summed over silos
    covariance: np.ndarray  # float64[d, d]: V
    inverse: np.ndarray  # float64[d, d]: V^-1
    theta: np.ndarray  # float64[d]
    beta: np.ndarray  # float64[1]
    round: np.ndarray  # int64[1]: decisions so far
    releases: np.ndarray  # int64[2]: made so far, and K
    users: np.ndarray  # int64[1]: B x M
    answered: np.ndarray  # int64[1]: whose loss is told
    deviation: np.ndarray  # float64[1]: the protocol's normal noise
    bits: np.ndarray  # int64[1]: its coins
    resolution: np.ndarray  # float64[1]: its rounding
    ridge: np.ndarray  # float64[2]: lambda, and lambda + 2 Lambda
    confidence: np.ndarray  # float64[3]: R, 2 log(1/delta), and what of (3) does not grow
    packed: np.ndarray  # float64[2, n]: scratch


def private_fed_linucb(
    arms: int,
    dimension: int,
    silos: int,
    batch: int,
    horizon: int,
    protocol: Protocol = no_noise,
    noise: float = 0.5,
    size: float = 1.0,
    regularisation: float = 1.0,
    delta: float = 0.01,
    width: float | None = None,
) -> Learner:
    """Private-FedLinUCB for `silos` silos, which decide in turn.

    Args:
        arms: options, at least 1.
        dimension: d, features of a row.
        silos: M.
        batch: B, users of each silo between two releases.
        horizon: rounds of all silos together, T x M; after it nothing is released.
        protocol: of `parts/privacy.py`: no_noise, silo_level(...), amplified(...) or vector_sum(...).
        noise: R; losses in [0, 1] are 1/2-sub-Gaussian whatever their distribution.
        size: a bound on |theta|.
        regularisation: lambda.
        delta: how often, at most, each of the three parts of (3) may fail; not the delta of privacy.
        width: a constant in place of beta.
    """
    for name, value in (("arms", arms), ("dimension", dimension), ("silos", silos), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    if horizon < silos * batch:
        raise ValueError(f"horizon must hold a batch of all silos, {silos * batch} rounds, not {horizon}")
    if not (regularisation > 0 and 0 < delta < 1 and noise >= 0 and size >= 0):
        raise ValueError(
            "regularisation must be positive, delta in (0, 1), noise and size not negative; "
            f"not {regularisation}, {delta}, {noise} and {size}"
        )
    count = horizon // (silos * batch)
    levels, n = tree_levels(count), dimension * (dimension + 1) // 2 + dimension
    added = protocol(Release(silos, batch << (levels - 1), levels, n, SENSITIVITY))
    s, log = math.sqrt(silos * levels * added.variance), math.log(2 * count / delta)
    norm, length = s * (2 * math.sqrt(dimension) + 2 * math.sqrt(log)), s * (math.sqrt(dimension) + math.sqrt(2 * log))
    fixed = ((regularisation + 3 * norm) * size + length) / math.sqrt(regularisation + norm)
    ridge = regularisation + 2 * norm
    start = noise * math.sqrt(2 * math.log(1 / delta)) + fixed
    state = State(
        batch=np.zeros((silos, n)),
        nodes=np.zeros((silos, levels, n)),
        released=np.zeros((levels, n)),
        covariance=ridge * np.eye(dimension),
        inverse=np.eye(dimension) / ridge,
        theta=np.zeros(dimension),
        beta=np.array([start if width is None else width]),
        round=np.zeros(1, np.int64),
        releases=np.array([0, count]),
        users=np.array([silos * batch]),
        answered=np.zeros(1, np.int64),
        deviation=np.array([added.deviation]),
        bits=np.array([added.bits]),
        resolution=np.array([added.resolution]),
        ridge=np.array([regularisation, ridge]),
        confidence=np.array([noise, 2 * math.log(1 / delta), fixed] if width is None else [0.0, 0.0, width]),
        packed=np.zeros((2, n)),
    )
    return Learner(state, _act, _update, _probabilities)


@compiled
def _act(state, context, rng):
    choice = _choose(state, context)
    state.round[0] += 1
    if state.round[0] % state.users[0] == 0 and state.releases[0] < state.releases[1]:
        _release(state, rng)
    return choice, 1.0


@compiled
def _choose(state, context):
    best, least = 0, np.inf
    for arm in range(context.shape[0]):
        x, estimate = context[arm], 0.0
        for j in range(x.shape[0]):
            estimate += state.theta[j] * x[j]
        bound = estimate - state.beta[0] * math.sqrt(max(quadratic(state.inverse, x), 0.0))  # (2)
        if bound < least:
            best, least = arm, bound
    return best


@compiled
def _update(state, context, action, propensity, loss):
    if np.isnan(loss):
        return
    x, own = context[action], state.batch[state.answered[0] % state.batch.shape[0]]
    square = 0.0
    for i in range(x.shape[0]):
        square += x[i] * x[i]
    if not np.isfinite(square):  # a row that is not known
        return
    scale, told, k = 1.0 / math.sqrt(max(square, 1.0)), min(max(loss, 0.0), 1.0), 0
    for i in range(x.shape[0]):
        for j in range(i, x.shape[0]):
            own[k] += scale * x[i] * scale * x[j]
            k += 1
    for i in range(x.shape[0]):
        own[k + i] += told * scale * x[i]


@compiled
def _release(state, rng):
    """All silos close their batch, and send the node that it completes."""
    state.releases[0] += 1
    k, message, total = state.releases[0], state.packed[0], state.packed[1]
    total[:] = 0.0
    level = 0
    for silo in range(state.batch.shape[0]):
        level = tree_add(state.nodes[silo], state.batch[silo], k)
        state.batch[silo] = 0.0
        message[:] = state.nodes[silo, level]
        randomise(message, state.deviation[0], state.bits[0], state.resolution[0], rng)
        total += message
    state.released[level] = total
    tree_sum(state.released, k, total)
    _solve(state, total)
    noise, confidence, fixed = state.confidence[0], state.confidence[1], state.confidence[2]
    d = state.theta.shape[0]
    log_det = d * math.log(1.0 + k * state.users[0] / (d * state.ridge[0]))
    state.beta[0] = noise * math.sqrt(confidence + log_det) + fixed  # (3)


@compiled
def _solve(state, sums):
    """(1), with a larger multiple of I if V is not positive definite."""
    d, ridge = state.theta.shape[0], state.ridge[1]
    while True:
        k = 0
        for i in range(d):
            for j in range(i, d):
                state.covariance[i, j] = sums[k]
                state.covariance[j, i] = sums[k]
                k += 1
            state.covariance[i, i] += ridge
        if _positive(state.covariance, state.inverse):
            break
        ridge *= 2.0
    invert(state.covariance, state.inverse)
    for i in range(d):
        state.theta[i] = 0.0
        for j in range(d):
            state.theta[i] += state.inverse[i, j] * sums[k + j]


@compiled
def _positive(matrix, scratch):
    """Whether a symmetric matrix is positive definite: all pivots of elimination are positive."""
    d = matrix.shape[0]
    scratch[:] = matrix
    for p in range(d):
        if not scratch[p, p] > 0.0:
            return False
        for i in range(p + 1, d):
            factor = scratch[i, p] / scratch[p, p]
            for j in range(p + 1, d):
                scratch[i, j] -= factor * scratch[p, j]
    return True


@compiled
def _probabilities(state, context, out):
    out[:] = 0.0
    out[_choose(state, context)] = 1.0
