"""Federated least squares over noisy links: what the methods for them share.

A link adds normal noise to every number that it carries. The noise, and who is scheduled in a round, are pure functions
of (seed, round, worker), wherever a worker lives (`parts/torch_random.py`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.parts.comm import Comm
from backchannel.parts.compressors import identity
from backchannel.parts.exchange import Gradient
from backchannel.parts.torch_random import keys, normal, uniform

_SCHEDULE = -1  # who draws the schedule, beside the workers


class Turn(NamedTuple):
    """A round in which the server has spoken and the clients have not yet answered."""

    number: Tensor  # int64[1]: of the round
    who: Tensor  # int64[c]: the clients that take part
    mine: Tensor  # bool[local, 1]: which of those that live here do
    told: Tensor  # [local, d]: what they receive; the rows of the others did not come


class NoisyLinks(NamedTuple):
    """Links between a server and its clients: noise of `deviation`, and `scheduled` clients in a round."""

    scheduled: int
    deviation: float
    seed: int

    def begin(self, comm: Comm, answers: Tensor) -> Tensor:
        """What the server hears before round 1, of all clients: [d, n], a column for each."""
        whole, first = identity(), torch.zeros(1, dtype=torch.int64)
        arrived = comm.gather(whole.compress(answers, comm.workers), whole)
        return received(arrived, self.deviation, self.seed, first, torch.arange(comm.size)).T

    def down(self, comm: Comm, x: Tensor, number: Tensor) -> Turn:
        """The server draws who takes part in round `number` and sends them x."""
        number = number.cpu()
        who = schedule(self.seed, number, comm.size, self.scheduled)
        mine = torch.isin(comm.workers, who).to(x.device)[:, None]
        sent = comm.broadcast(x, who).expand(len(comm.workers), -1)
        return Turn(number, who, mine, received(sent, self.deviation, self.seed, 2 * number + 1, comm.workers))

    def up(self, comm: Comm, turn: Turn, answers: Tensor, heard: Tensor) -> Tensor:
        """Those who take part answer, of [local, d]; what the server has then heard last of each client: [d, n]."""
        whole = identity()
        arrived = comm.gather(whole.compress(answers[turn.mine[:, 0]], comm.workers), whole, turn.who)
        heard = heard.clone()
        answer = received(arrived, self.deviation, self.seed, 2 * turn.number, turn.who)
        heard[:, turn.who.to(heard.device)] = answer.T
        return heard


def check(penalty: float, scheduled: int, deviation: float) -> None:
    """ValueError unless penalty > 0, scheduled >= 1 and deviation >= 0, all finite."""
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty must be positive and finite, not {penalty}")
    if scheduled < 1:
        raise ValueError(f"scheduled must be at least 1, not {scheduled}")
    if not 0 <= deviation < math.inf:
        raise ValueError(f"deviation must be at least 0 and finite, not {deviation}")


def schedule(seed: int, t: Tensor, size: int, scheduled: int) -> Tensor:
    """`scheduled` of `size` workers, drawn evenly, in ascending order: int64[scheduled]."""
    drawn = uniform(keys(seed, t, torch.tensor([_SCHEDULE])), size)[0]
    return drawn.topk(scheduled).indices.sort().values


def received(sent: Tensor, deviation: float, seed: int, use: Tensor, workers: Tensor) -> Tensor:
    """What arrives of `sent`, [len(workers), d], over the links of these workers, in use number `use` (int64[1])."""
    if deviation == 0:
        return sent
    return sent + deviation * normal(keys(seed, use, workers), sent.shape[1]).to(sent)


def nearest(matrices: Tensor, linear: Tensor, penalty: float, start: Tensor) -> tuple[Tensor, Tensor]:
    """(A_k + rho I)^{-1} [local, d, d], and the minima of f_k(w) + rho |w - start|^2 / 2: [local, d]."""
    inverse = torch.linalg.inv(matrices + penalty * torch.eye(len(start)).to(start))
    return inverse, torch.einsum("kij,kj->ki", inverse, linear + penalty * start)


def quadratics(gradient: Gradient, start: Tensor, scheduled: int, size: int) -> tuple[Tensor, Tensor]:
    """A_k [local, d, d] and b_k [local, d] of the workers' functions w^T A_k w / 2 - b_k^T w, from their gradients.

    ValueError where a gradient is not affine or not finite, or more workers are to be scheduled than there are.
    """
    if scheduled > size:
        raise ValueError(f"scheduled must be at most {size}, the number of workers, not {scheduled}")
    if not bool(torch.isfinite(start).all()):
        raise ValueError("start must be finite, and it is not")
    at_zero = gradient(torch.zeros_like(start))
    matrices = torch.stack([gradient(each) - at_zero for each in torch.eye(len(start)).to(start)], 2)
    probe = torch.linspace(-1, 2, len(start)).to(start) + start
    told, expected = gradient(probe), torch.einsum("kij,j->ki", matrices, probe) + at_zero
    size_of = matrices.abs().sum((1, 2)) * (1 + probe.abs().max()) + at_zero.abs().sum(1)
    tolerance = 1e3 * torch.finfo(start.dtype).eps * size_of[:, None]
    if not bool(((told - expected).abs() <= tolerance).all()):
        raise ValueError("the workers' functions must be quadratic, with finite gradients, and they are not")
    return matrices, -at_zero
