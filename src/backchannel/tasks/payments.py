"""Retrying declined payments: a simulator with option sets that change, rare information and answers in batches.

A round is a declined payment with an issuing bank, a reason of decline and an amount. What may be tried differs from
payment to payment: option 0 always, each other of `OPTIONS` with probability 0.6. The learner sees the offered
options, in order, as sparse rows of hashed features (constant, option, issuer, option x issuer, option x reason,
option x amount), and `action` is a position among them. The loss is 1 if the retry is declined again; its
log-odds are a sum of hidden normal weights of these features, and, with `misfit`, of one for each (option, issuer,
reason) that the features cannot express: the regression is then misspecified. A position past the last offered
option has a loss of 1.

    >>> from backchannel.channels.hide import bandit
    >>> from backchannel.channels.late import delay
    >>> from backchannel.tasks.payments import in_batches, payments
    >>> task, channel = payments(bits=12), delay(bandit(), in_batches(1000))

Source of the setting: vangara2025contextual, whose production system this stands in for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backchannel.base import Task
from backchannel.channels.late import Delays
from backchannel.engine import compiled
from backchannel.parts.adaptive_gradient import sigmoid
from backchannel.parts.counter_random import normal_at, uniform_at
from backchannel.parts.sparse import Sparse
from backchannel.tasks.logistic import table_index

OPTIONS, ISSUERS, REASONS, FEATURES = 10, 12, 5, 6
OFFERED = 0.6  # the probability with which an option other than the first may be tried


class State(NamedTuple):
    """The world, the luck and the buffers of the payment last shown."""

    world: np.ndarray  # uint64[1]: draws the hidden weights
    misfit: np.ndarray  # float64[1]: size of the weights that the features cannot express
    size: np.ndarray  # int64[1]: 2^bits
    seed: np.ndarray  # uint64[1]
    start: np.ndarray  # int64[OPTIONS + 1]
    indices: np.ndarray  # int64[OPTIONS * FEATURES]
    value: np.ndarray  # float64[OPTIONS * FEATURES]


def payments(bits: int = 14, misfit: float = 0.0, seed: int = 0) -> Task:
    """The simulator, its features hashed into a table of 2^bits entries; `seed` draws the hidden weights."""
    if not 1 <= bits <= 30 or misfit < 0:
        raise ValueError(f"bits must lie in 1..30 and misfit must not be negative, not {bits} and {misfit}")
    state = State(
        world=np.array([np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]]),
        misfit=np.array([misfit]),
        size=np.array([2**bits]),
        seed=np.zeros(1, np.uint64),
        start=np.arange(0, OPTIONS * FEATURES + 1, FEATURES),
        indices=np.zeros(OPTIONS * FEATURES, np.int64),
        value=np.ones(OPTIONS * FEATURES),
    )
    return Task(state, OPTIONS, _context, _loss, _mean, _own_buffers)


def in_batches(length: int) -> Delays:
    """Delays with which the answers of every `length` rounds all come at the end of the last of them."""
    if length < 1:
        raise ValueError(f"a batch must hold at least 1 round, not {length}")
    return lambda horizon, rng: length - 1 - np.arange(horizon) % length


@compiled
def is_offered(state: Any, t: int, option: int) -> bool:
    """Whether payment t may be retried in this way."""
    return option == 0 or uniform_at(state.seed[0], t, 10 + option) < OFFERED


def _own_buffers(state: Any, seed: int) -> Any:
    own = {"indices": np.zeros_like(state.indices), "value": np.ones_like(state.value)}
    return state._replace(seed=np.array([seed], np.uint64), **own)


@compiled
def _payment(state, t):
    """Issuer, reason and amount (in [-1, 1]) of payment t."""
    issuer = int(ISSUERS * uniform_at(state.seed[0], t, 0))
    reason = int(REASONS * uniform_at(state.seed[0], t, 1))
    return issuer, reason, 2.0 * uniform_at(state.seed[0], t, 2) - 1.0


@compiled
def _key(kind, option, other):
    """The number of a feature: its kind, the option, and the issuer or reason that it is crossed with."""
    return (kind * OPTIONS + option) * ISSUERS + other


@compiled
def _context(state, t):
    issuer, reason, amount = _payment(state, t)
    count = 0
    for option in range(OPTIONS):
        if is_offered(state, t, option):
            at = count * FEATURES
            state.indices[at] = table_index(_key(0, 0, 0), state.size[0])
            state.indices[at + 1] = table_index(_key(1, option, 0), state.size[0])
            state.indices[at + 2] = table_index(_key(2, 0, issuer), state.size[0])
            state.indices[at + 3] = table_index(_key(3, option, issuer), state.size[0])
            state.indices[at + 4] = table_index(_key(4, option, reason), state.size[0])
            state.indices[at + 5] = table_index(_key(5, option, 0), state.size[0])
            state.value[at + 5] = amount
            count += 1
    return Sparse(state.start[: count + 1], state.indices, state.value)


@compiled
def _mean(state, t, action):
    position = -1
    for option in range(OPTIONS):
        if is_offered(state, t, option):
            position += 1
            if position == action:
                return sigmoid(_log_odds(state, t, option))
    return 1.0


@compiled
def _log_odds(state, t, option):
    issuer, reason, amount = _payment(state, t)
    world = state.world[0]
    score = 0.5 + 0.5 * normal_at(world, 2, issuer)
    score += 0.7 * normal_at(world, 1, option)
    score += 0.7 * normal_at(world, 3, option * ISSUERS + issuer)
    score += 0.7 * normal_at(world, 4, option * REASONS + reason)
    score += 0.5 * amount * normal_at(world, 5, option)
    return score + state.misfit[0] * normal_at(world, 6, (option * ISSUERS + issuer) * REASONS + reason)


@compiled
def _loss(state, t, action):
    return 1.0 if uniform_at(state.seed[0], t, 30 + action) < _mean(state, t, action) else 0.0
