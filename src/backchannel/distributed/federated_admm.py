"""Federated ADMM: least squares of many clients with a dual variable each, few clients a round.

Each client keeps its model and a dual variable, the price of its disagreement with the global model; the server
averages what it heard last of all clients. Over clean links it converges to the optimum whoever takes part. Over noisy
links a client's model takes in the noise of two rounds, 2 nu - nu', where its own data say nothing.

Equations (Boyd et al. 2011, section 7.1, with scheduled clients; the numbering is ours), f_k(w) = w^T A_k w / 2 -
b_k^T w, S the clients of this round, nu and eta the noise of the links, for k in S:

    z_k' = z_k + rho (w_k - (x + nu_k))                                                           (1)
    w_k' = (A_k + rho I)^{-1} (b_k - z_k' + rho (x + nu_k))                                       (2)
    s_k' = w_k' + z_k' / rho + eta_k                         what the server heard last           (3)
    x'   = (1 / n) sum_k s_k'                                over all clients                     (4)

It begins with z_k = 0, w_k = (A_k + rho I)^{-1} (b_k + rho x^0), and s_k = w_k + eta_k of all clients.

Steps: the server draws S and sends x to it; clients of S do (1) and (2) and answer with (3).

Deviations: the server averages what it heard last of *all* clients. Averaging those of S alone, as is done in
federated averaging, does not converge here even over clean links, because their dual variables do not cancel. The
quadratics are read off the gradients in `init`.

    >>> import torch
    >>> from backchannel.distributed.federated_admm import federated_admm
    >>> from backchannel.parts.comm import Stacked
    >>> comm, exchange = Stacked(2), federated_admm(penalty=1.0, scheduled=1)
    >>> centres = torch.tensor([[0.0, 4.0], [2.0, 2.0]])
    >>> state = exchange.init(comm, lambda x: x - centres, torch.zeros(2))
    >>> for _ in range(90):
    ...     state, info = exchange.step(comm, lambda x: x - centres, state)
    >>> state.x
    tensor([1., 3.])

References: boyd2011distributed, lari2024noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.comm import Comm
from backchannel.parts.exchange import Exchange, Gradient
from backchannel.parts.noisy_links import NoisyLinks, check, nearest, quadratics

CARD = Card(
    name="Federated ADMM",
    summary="Federated least squares, a dual variable for each client, few clients a round: exact over clean links.",
    paper="boyd2011distributed",
    topics=("federated",),
    feedback=("gradient",),
    protocol="exchange",
    engine="torch",
    neighbour="rerce_fed",
    example={"penalty": 1.0, "scheduled": 2},
    extras=("torch",),
)


class State(NamedTuple):
    """The server's model, what the clients that live here have, and what the server heard of all."""

    x: Tensor  # [d]
    models: Tensor  # [local, d]: w_k
    duals: Tensor  # [local, d]: z_k
    heard: Tensor  # [d, n]: s_k, a column for each client
    linear: Tensor  # [local, d]: b_k
    inverse: Tensor  # [local, d, d]: (A_k + rho I)^{-1}
    round: Tensor  # int64[1]


class Info(NamedTuple):
    """How far the clients are from the server's model."""

    distance: Tensor  # [local]: |w_k' - x'|^2


def federated_admm(penalty: float, scheduled: int, deviation: float = 0.0, seed: int = 0) -> Exchange:
    """Federated ADMM, for workers whose functions are quadratic.

    Args:
        penalty: rho.
        scheduled: c, how many clients take part in a round, drawn evenly.
        deviation: standard deviation of the noise that every link adds to every number, to simulate such links.
        seed: of the schedule and the noise.
    """
    check(penalty, scheduled, deviation)
    links = NoisyLinks(scheduled, deviation, seed)

    def init(comm: Comm, gradient: Gradient, start: Tensor) -> State:
        matrices, linear = quadratics(gradient, start, scheduled, comm.size)
        inverse, models = nearest(matrices, linear, penalty, start)
        heard, first = links.begin(comm, models), torch.ones(1, dtype=torch.int64)
        return State(heard.mean(1), models, torch.zeros_like(models), heard, linear, inverse, first)

    def step(comm: Comm, gradient: Gradient, state: State) -> tuple[State, Info]:
        turn = links.down(comm, state.x, state.round)
        duals = torch.where(turn.mine, state.duals + penalty * (state.models - turn.told), state.duals)  # (1)
        solved = torch.einsum("kij,kj->ki", state.inverse, state.linear - duals + penalty * turn.told)
        models = torch.where(turn.mine, solved, state.models)  # (2)
        heard = links.up(comm, turn, models + duals / penalty, state.heard)  # (3)
        x = heard.mean(1)  # (4)
        return (
            State(x, models, duals, heard, state.linear, state.inverse, state.round + 1),
            Info((models - x).square().sum(1)),
        )

    return Exchange(init, step)
