"""Banker-OMD: mirror descent whose step sizes are money, so that feedback may come late and in any order.

Every decision is an investment: it takes an amount sigma out of a bank, together with a point of the dual space, and
its feedback, whenever it comes, pays the amount back at an updated point. A decision is an average of what is in the
bank; if the bank cannot pay, fresh money is invested at the starting point. Late feedback only means that more
money is out, and the regret is governed by the total that was ever invested.

Equations (Huang, Dai and Huang 2023; Psi is the regulariser, D its Bregman divergence, x_0 its minimiser, v_s what is
left of the deposit of round s):

    x_t = grad Psi*( sum_s (sigma_ts / sigma_t) grad Psi(z_s) + (b_t / sigma_t) grad Psi(x_0) )                (1)
          with 0 <= sigma_ts <= v_s and sum_s sigma_ts + b_t = sigma_t; then v_s falls by sigma_ts
    z_t = argmin_z <z, l^_t> + sigma_t D(z, x_t), deposited with v_t = sigma_t when l_t has come               (2)
    regret <= D(y, x_0) sum_t b_t + sum_t sigma_t D(x_t, z~_t), z~ being (2) without the simplex              (3)

Here l^ = l / x_t(a) at the drawn arm a, and Psi is the log barrier (the scale-free bandit, Banker-SFINF) or the
Tsallis entropy of 1/2. With d_t answers outstanding at round t, C_t the largest |loss| seen so far, and

    sigma_t = C_t / (d_t + 1) sqrt(S_t / (h_t R)),   S_t = sum_{s<=t} (d_s + 1),   h_t = 1 + log(1 + max_{s<=t} d_s)

both terms of (3) are O(C sqrt(R S_T h_T)) times a constant of Psi: the i-th oldest decision outstanding was taken with
at least i - 1 outstanding, so that the money out, at most 2 C_t sqrt(S_t h_t / R), is a harmonic sum. S_T <= T + D,
with D the total delay. R is K log T for the log barrier (D(y, x_0) <= K log T, sigma D <= l^2 / (2 sigma)) and 1 for
Tsallis (2 sqrt(K) and sqrt(K) l^2 / sigma), which makes it O(C sqrt(K (T + D))) up to logarithms for both.

Steps: withdraw sigma_t and the average point; draw the arm from x_t; keep (point, sigma_t) under the round's number;
on its answer, deposit the point moved by l^ / sigma_t.

Deviations: the paper leaves open which deposits (1) draws on; here each gives the same share, so that the bank is
two numbers' worth: its balance and the weighted sum of its points. sigma_t and the handling of the range are derived
from (3) rather than taken from the paper: all is relative to C_t, so that losses c times larger lead to the same
decisions. A loss above twice the C_s of its decision counts as twice C_s. Decisions taken before any loss was seen
are uniform, cost nothing, and are invested when their answer comes. An answer that is still missing after `memory`
decisions is written off: its money returns to the bank at the point that it left with.

    >>> from backchannel import play
    >>> from backchannel.channels.hide import bandit
    >>> from backchannel.channels.late import delay, uniform
    >>> from backchannel.online.banker_omd import banker_omd
    >>> from backchannel.tasks.bernoulli import bernoulli
    >>> late = delay(bandit(), uniform(100))
    >>> result = play(banker_omd(arms=2, horizon=5000), bernoulli([0.2, 0.8]), 5000, channel=late, replicates=8)
    >>> bool(result.final("regret").mean() < 5000 * 0.6 / 4)
    True

References: huang2023banker, zimmert2021tsallis.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.barrier import inverse_power
from backchannel.parts.sampling import draw

CARD = Card(
    name="Banker-OMD",
    summary="Adversarial bandit with late feedback and losses of unknown size: step sizes kept in a bank.",
    paper="huang2023banker",
    row=182,
    topics=("adversarial", "delayed feedback", "scale-free", "mirror descent"),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="tsallis_inf",
    example={"arms": 3, "horizon": 1000},
    strength="strong",
)

REGULARISERS = {"log_barrier": 1.0, "tsallis": 2.0}  # the exponents of parts/barrier.py


class State(NamedTuple):
    """The bank, what is out of it, and what the scale of the next withdrawal depends on."""

    answered: np.ndarray  # int64[1]: the round of the decision that is answered, as the loop says
    deposits: np.ndarray  # float64[arms]: the sum over deposits of v_s times their dual point (-grad Psi)
    balance: np.ndarray  # float64[1]: the sum of the v_s
    invested: np.ndarray  # float64[1]: the sum of the b_t
    largest: np.ndarray  # float64[1]: C_t
    round: np.ndarray  # int64[1]: t
    outstanding: np.ndarray  # int64[1]: d_t
    most: np.ndarray  # int64[1]: the largest d_s so far
    waited: np.ndarray  # float64[1]: S_t
    exponent: np.ndarray  # float64[1]: 1, log barrier; 2, Tsallis
    ratio: np.ndarray  # float64[1]: R
    points: np.ndarray  # float64[memory, arms]: dual points of the decisions outstanding, at round % memory
    scales: np.ndarray  # float64[memory]: their sigma
    units: np.ndarray  # float64[memory]: their sigma / C
    owners: np.ndarray  # int64[memory]: their rounds; -1, none
    dual: np.ndarray  # float64[arms]: scratch
    weights: np.ndarray  # float64[arms]: scratch


def banker_omd(arms: int, horizon: int, regulariser: str = "log_barrier", memory: int | None = None) -> Learner:
    """Banker-OMD for `arms` arms with losses of any size.

    Args:
        arms: K, at least 1.
        horizon: T, the number of rounds; enters the log barrier's scale as log T.
        regulariser: "log_barrier", or "tsallis": without the factor log T, for losses that are not negative.
        memory: the decisions kept while their answers are awaited; default: as many as `horizon`.
    """
    memory = horizon if memory is None else memory
    if arms < 1 or horizon < 1 or memory < 1:
        raise ValueError(f"arms, horizon and memory must be at least 1, not {arms}, {horizon} and {memory}")
    if regulariser not in REGULARISERS:
        raise ValueError(f"regulariser must be one of {', '.join(REGULARISERS)}, not {regulariser!r}")
    ratio = arms * math.log(max(horizon, 3)) if regulariser == "log_barrier" else 1.0
    state = State(
        answered=np.zeros(1, np.int64),
        deposits=np.zeros(arms),
        balance=np.zeros(1),
        invested=np.zeros(1),
        largest=np.zeros(1),
        round=np.zeros(1, np.int64),
        outstanding=np.zeros(1, np.int64),
        most=np.zeros(1, np.int64),
        waited=np.zeros(1),
        exponent=np.array([REGULARISERS[regulariser]]),
        ratio=np.array([ratio]),
        points=np.zeros((memory, arms)),
        scales=np.zeros(memory),
        units=np.zeros(memory),
        owners=np.full(memory, -1, np.int64),
        dual=np.zeros(arms),
        weights=np.full(arms, 1 / arms),
    )
    return Learner(state, _act, _update, _probabilities)


def regret_bound(arms: int, horizon: int, total_delay: float = 0.0, most: int = 0, largest: float = 1.0) -> float:
    """(3) for the log barrier and losses in [0, largest]: 6 largest sqrt(K log T (T + D) h) + (2 most + 3) largest.

    `total_delay` is D; `most` bounds the answers outstanding at once, h = 1 + log(1 + most).
    """
    waited = (horizon + total_delay) * (1 + math.log(1 + most))
    return largest * (6 * math.sqrt(arms * math.log(max(horizon, 3)) * waited) + 2 * most + 3)


@compiled
def _act(state, context, rng):
    slot = state.round[0] % state.owners.shape[0]
    unit = _unit(state)
    scale = state.largest[0] * unit
    from_bank = _average(state, scale, state.dual)
    inverse_power(state.dual, state.exponent[0], state.weights)
    action = draw(state.weights, rng)
    if from_bank > 0.0:  # (1): every deposit gives the same share
        kept = 1.0 - from_bank / state.balance[0]
        state.deposits[:] *= kept
        state.balance[0] *= kept
    state.invested[0] += scale - from_bank
    state.waited[0] += state.outstanding[0] + 1
    state.most[0] = max(state.most[0], state.outstanding[0])
    if state.owners[slot] >= 0:
        _deposit(state, slot)  # written off
    state.points[slot] = state.dual
    state.scales[slot] = scale
    state.units[slot] = unit
    state.owners[slot] = state.round[0]
    state.outstanding[0] += 1
    state.round[0] += 1
    return action, state.weights[action]


@compiled
def _update(state, context, action, propensity, loss):
    slot = state.answered[0] % state.owners.shape[0]
    if state.owners[slot] != state.answered[0]:
        return  # answered already, or written off
    if not np.isnan(loss):
        bound = 2.0 * state.scales[slot] / state.units[slot]  # 2 C_s
        state.largest[0] = max(state.largest[0], abs(loss))
        if bound == 0.0:  # taken before any loss was seen, at x_0: invested now
            state.scales[slot] = state.largest[0] * state.units[slot]
            state.invested[0] += state.scales[slot]
        else:
            loss = min(max(loss, -bound), bound)
        state.deposits[action] += loss / propensity  # (2): sigma grad Psi moves by -l^
    _deposit(state, slot)


@compiled
def _probabilities(state, context, out):
    dual = np.zeros(out.shape[0])
    _average(state, state.largest[0] * _unit(state), dual)
    inverse_power(dual, state.exponent[0], out)


@compiled
def _unit(state):
    """sigma_t / C_t."""
    waiting = state.outstanding[0] + 1.0
    harmonic = 1.0 + np.log(max(state.most[0] + 1.0, waiting))
    return np.sqrt((state.waited[0] + waiting) / (harmonic * state.ratio[0])) / waiting


@compiled
def _average(state, scale, dual):
    """The dual point of (1) at this scale, x_0 being 0; returns how much of the scale the bank pays."""
    from_bank = min(scale, state.balance[0])
    for i in range(dual.shape[0]):
        dual[i] = state.deposits[i] / state.balance[0] * (from_bank / scale) if from_bank > 0.0 else 0.0
    return from_bank


@compiled
def _deposit(state, slot):
    for i in range(state.deposits.shape[0]):
        state.deposits[i] += state.scales[slot] * state.points[slot, i]
    state.balance[0] += state.scales[slot]
    state.owners[slot] = -1
    state.outstanding[0] -= 1
