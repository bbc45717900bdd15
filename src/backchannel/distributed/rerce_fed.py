"""RERCE-Fed: federated least squares by ADMM over noisy links, with few clients a round and no dual variables.

In ADMM a client uses the noisy global model twice, for its dual variable and for its own model, so that the noise of
two rounds enters its model, once doubled. Without the dual variable the server's extrapolation moves to the clients,
and one received vector enters once. Clients that are not scheduled go on with the global model that they heard last.

Equations (Lari, Arablouei, Gogineni and Werner 2024; the numbering is ours), for f_k(w) = w^T A_k w / 2 - b_k^T w,
P_k = rho (A_k + rho I)^{-1}, S the clients scheduled in this round, nu and eta the noise of the links:

    m_k' = x + nu_k for k in S, else m_k                     what client k heard last               (1)
    w_k' = w_k + P_k (m_k' - w_k)                            for all k                              (2)
    s_k' = 2 w_k' - w_k + eta_k for k in S, else s_k         what the server heard last             (3)
    x'   = (1 / n) sum_k s_k'                                                                       (4)

It begins with w_k = (A_k + rho I)^{-1} (b_k + rho x^0), m_k = x^0 and s_k = 2 w_k - x^0 + eta_k of all clients. With
everybody scheduled and clean links this is ADMM, whose dual variable is A_k w_k - b_k up to its sign.

What the recursion says. It has no other term: (1) to (4) keep every consensus w_k = m_k = s_k = x where it is, and the
data enter by the first models alone. If all are scheduled,

    sum_k A_k w_k + n rho (mean_k w_k' - mean_k w_k)   over clean links                             (5)

stays as it is, which makes the consensus the right one; so noise, which (5) adds up, is a slow random walk of the
consensus, and partial scheduling leaves an error even over clean links. Both are of the order of rho (sum A_k)^{-1}:
small where rho is small against the data. `mean_square_deviation` is exact for all of it: with a_k = 1 for scheduled
clients, every client's next (w, m, s) is linear in a_k, so that the mean of products needs only E a_k = c / n and
E a_k a_l = c (c - 1) / (n (n - 1)).

Steps: the server draws S and sends x to it; all clients do (2); those of S answer with (3).

Deviations: the quadratics are read off the gradients in `init`, at d + 2 points, of which nothing is sent. The paper
assumes convergence in the mean square; above says what of it holds. Any start, not only 0.

    >>> import torch
    >>> from backchannel.distributed.rerce_fed import rerce_fed
    >>> from backchannel.parts.comm import Stacked
    >>> comm, exchange = Stacked(2), rerce_fed(penalty=1.0, scheduled=2)
    >>> centres = torch.tensor([[0.0, 4.0], [2.0, 2.0]])
    >>> state = exchange.init(comm, lambda x: x - centres, torch.zeros(2))
    >>> for _ in range(60):
    ...     state, info = exchange.step(comm, lambda x: x - centres, state)
    >>> state.x
    tensor([1., 3.])

References: lari2024noise.
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
    name="RERCE-Fed",
    summary="Federated least squares over noisy links: ADMM without dual variables, and with few clients a round.",
    paper="lari2024noise",
    row=24,
    topics=("federated", "noisy links"),
    feedback=("gradient",),
    protocol="exchange",
    engine="torch",
    neighbour="federated_admm",
    example={"penalty": 1.0, "scheduled": 2, "deviation": 0.125},
    extras=("torch",),
)


class State(NamedTuple):
    """The server's model, what the clients that live here have, and what the server heard of all."""

    x: Tensor  # [d]
    models: Tensor  # [local, d]: w_k
    told: Tensor  # [local, d]: m_k
    heard: Tensor  # [d, n]: s_k, a column for each client
    mixing: Tensor  # [local, d, d]: P_k
    round: Tensor  # int64[1]


class Info(NamedTuple):
    """How far the clients are from the server's model."""

    distance: Tensor  # [local]: |w_k' - x'|^2


def rerce_fed(
    penalty: float, scheduled: int, deviation: float = 0.0, continual: bool = True, seed: int = 0
) -> Exchange:
    """RERCE-Fed, for workers whose functions are quadratic.

    Args:
        penalty: rho.
        scheduled: c, how many clients take part in a round, drawn evenly.
        deviation: standard deviation of the noise that every link adds to every number, to simulate such links; 0 if
            the network has its own, or none.
        continual: whether clients that are not scheduled go on.
        seed: of the schedule and the noise.
    """
    check(penalty, scheduled, deviation)
    links = NoisyLinks(scheduled, deviation, seed)

    def init(comm: Comm, gradient: Gradient, start: Tensor) -> State:
        matrices, linear = quadratics(gradient, start, scheduled, comm.size)
        inverse, models = nearest(matrices, linear, penalty, start)
        heard, first = links.begin(comm, 2 * models - start), torch.ones(1, dtype=torch.int64)
        return State(heard.mean(1), models, start.expand_as(models), heard, penalty * inverse, first)

    def step(comm: Comm, gradient: Gradient, state: State) -> tuple[State, Info]:
        turn = links.down(comm, state.x, state.round)
        told = torch.where(turn.mine, turn.told, state.told)  # (1)
        models = state.models + torch.einsum("kij,kj->ki", state.mixing, told - state.models)  # (2)
        if not continual:
            models = torch.where(turn.mine, models, state.models)
        heard = links.up(comm, turn, 2 * models - state.models, state.heard)  # (3)
        x = heard.mean(1)  # (4)
        return State(x, models, told, heard, state.mixing, state.round + 1), Info((models - x).square().sum(1))

    return Exchange(init, step)


def mean_square_deviation(
    matrices: Tensor, linear: Tensor, penalty: float, scheduled: int, deviation: float, rounds: int
) -> Tensor:
    """E of the mean over clients of |w_k - w*|^2, after 0 to `rounds` rounds from the start 0: exact.

    Args:
        matrices: A_k, [n, d, d].
        linear: b_k, [n, d].
        penalty, scheduled, deviation: as in `rerce_fed`.
        rounds: how many; each costs about 4 (3 d)^3 n^2 multiplications.
    """
    check(penalty, scheduled, deviation)
    n, d = linear.shape
    if not 1 <= scheduled <= n:
        raise ValueError(f"scheduled must lie in [1, {n}], not {scheduled}")
    one, none = torch.eye(d).to(linear).expand(n, d, d), torch.zeros(n, d, d).to(linear)
    mixing = penalty * torch.linalg.inv(matrices + penalty * one)

    def blocks(rows: list[list[Tensor]]) -> Tensor:
        return torch.cat([torch.cat(row, 2) for row in rows], 1)

    # The next (w, m, s) of client k is Y + a_k (U + noise), of its own state v and g = x:
    stay = blocks([[one - mixing, mixing, none], [none, one, none], [none, none, one]])  # Y = stay v
    own = blocks([[none, -mixing, none], [none, -one, none], [one - 2 * mixing, none, -one]])  # U = own v + heard g
    heard = blocks([[mixing], [one], [2 * mixing]])
    up = blocks([[none], [none], [one]])
    noise = deviation**2 * (heard @ heard.mT + up @ up.mT)
    optimum = torch.linalg.solve(matrices.sum(0), linear.sum(0))
    models = torch.einsum("kij,kj->ki", mixing / penalty, linear)
    first = torch.cat([models - optimum, (-optimum).expand(n, d), 2 * models - optimum], 1).flatten()
    moments = (first[:, None] * first).reshape(n, 3 * d, n, 3 * d)
    moments[range(n), :, range(n), :] += deviation**2 * (up @ up.mT)
    share = scheduled / n
    both = share * (scheduled - 1) / (n - 1) if n > 1 else share

    def changed(of: Tensor) -> Tensor:
        """U's part of the left side: [n, 3d, rest]."""
        return own @ of + heard @ of[:, 2 * d :].mean(0)

    found = []
    for t in range(rounds + 1):
        found.append(float(moments[range(n), :d, range(n), :d].diagonal(dim1=1, dim2=2).sum()) / n)
        if t == rounds:
            break
        left = moments.reshape(n, 3 * d, -1)
        moved = changed(left)
        mean = (stay @ left + share * moved).reshape(3 * d * n, -1).T.reshape(n, 3 * d, -1)
        twice = changed(moved.reshape(3 * d * n, -1).T.reshape(n, 3 * d, -1)).reshape(n, 3 * d, n, 3 * d)
        moments = (stay @ mean + share * changed(mean)).reshape(n, 3 * d, n, 3 * d) + (both - share**2) * twice
        own_pair = twice[range(n), :, range(n), :]
        moments[range(n), :, range(n), :] += (share - both) * own_pair + share * noise
    return torch.tensor(found, dtype=torch.float64).to(linear)
