"""Just One Byte: fine-tuning on machines that come and go, for one byte a gradient.

Each worker measures the slope of its own loss along a random direction, by two forward passes. Worker, round and sample
are the direction's seed, so that everybody can draw it again: only the slope is sent, in one byte. All workers make the
same step from the same bytes and stay equal to the last bit, whatever joins, leaves or dies; and the bytes so far are a
log from which a late worker computes the weights of all others.

Equations, for sample k of worker w in round t, with a direction z of random signs drawn from (seed, t, w, k):

    g = (L(x + epsilon z; B) - L(x - epsilon z; B)) / (2 epsilon)                                 (1)
    b = g / clip * 127, rounded up or down at random so that the mean stays, kept in [-127, 127]   (2)
    x <- x - eta (clip / 127) (1/N) sum b z, over all N bytes of the round                        (3)

Equal to the last bit, without a second copy of the weights, because

- the sum of (3) is one of whole numbers, which floats hold exactly in any order;
- x + epsilon z - epsilon z is x: epsilon is a power of two, and each weight is kept where this is exact,

    x <- sign(x) ((|x| + epsilon) - epsilon), in floats                                           (4)

  which rounds a weight no more than walking to x + epsilon and back would. So a worker that measured and one that did
  not have the same weights;
- signs come from a hash, the same on every machine and device. Forward passes need not be: only bytes are shared.

Steps: measure (1) and (2) for each closure; agree with the others on the round's bytes; (3) and (4); write the log.
A round is applied whole or not at all. A worker that is missing costs the others one wait (`parts/rounds.py`). A loss
that is not finite is refused before anything is sent: the caller may try another batch, or sit the round out with
`step([])`.

Deviations: signs in place of normal numbers, as in Spall's SPSA: steps (4) and the whole sums need them. A fixed public
scale, and the two roundings, (2) and (4), are ours: the paper says one byte, and its code keeps a copy of the weights.

    >>> import torch
    >>> from backchannel.distributed.one_byte import one_byte
    >>> weights = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    >>> optimizer = one_byte([weights], lr=0.05, clip=20)
    >>> for _ in range(200):
    ...     loss = optimizer.step(lambda: weights.square().sum())
    >>> bool(weights.abs().max() < 0.1), optimizer.sent
    (True, 200)

With others, in any process that reaches the store (which a process of its own holds):

    rounds = Rounds(TCPStore(host, port, is_master=False), workers=4)
    optimizer = one_byte(model.parameters(), lr=1e-6, clip=100, rounds=rounds, log="run.log")
    optimizer.join()                                # catches up, late or again; optimizer.round says where it is

If the store's process dies, `step` raises a ConnectionError and the weights are those of the last round. With a log, a
new optimizer on the starting weights goes on from there with another store, and tells it the rounds so far.

References: zelikman2023just, malladi2023mezo, spall1992multivariate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts import sign_walk
from backchannel.parts.optimizers import CheckedOptimizer, check_rate
from backchannel.parts.rounds import Round, RoundLog, Rounds, check_terms
from backchannel.parts.torch_random import keys, uniform, words
from backchannel.parts.two_sided import Closure, as_closures, losses

CARD = Card(
    name="Just One Byte",
    summary="Fine-tuning by forward passes, one byte a gradient: workers join, leave or die, and stay bit-identical.",
    paper="zelikman2023just",
    row=19,
    topics=("zeroth order", "compression", "faults"),
    feedback=("gradient",),
    protocol="optimizer",
    engine="torch",
    neighbour="mezo",
    example={"lr": 0.01, "clip": 60.0, "perturbation": 2**-6},
    extras=("torch",),
)

_VERSION = 1  # of all that replicas must agree on


class OneByte(CheckedOptimizer):
    """See `one_byte`. `sent` counts bytes of gradients, `clipped` those of them that (2) had to keep in range."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        clip: float,
        perturbation: float = 1e-3,
        seed: int = 0,
        rounds: Rounds | None = None,
        log: str | Path | None = None,
    ):
        for name, value in (("clip", clip), ("perturbation", perturbation)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, not {value}")
        if not 0 <= seed < 2**63:
            raise ValueError(f"seed must lie in [0, 2^63), not {seed}")
        self.clip, self.perturbation, self.seed = float(clip), 2.0 ** round(math.log2(perturbation)), seed
        self.rounds, self.sent, self.clipped, self._ready, self._start = rounds, 0, 0, False, b""
        self._log = None if log is None else RoundLog(log)
        super().__init__(params, {"lr": lr})

    @property
    def round(self) -> int:
        """The number of rounds that these weights have seen."""
        return int(self._state().get("round", 0))

    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError if a setting of this parameter group is wrong."""
        check_rate(group["lr"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; the rounds since then are caught up with in `join`."""
        super().load_state_dict(state_dict)
        self._ready = False

    def step(self, closure: Closure | Sequence[Closure]) -> float:  # type: ignore[override]
        """One round; returns the mean of all losses that were computed here.

        Args:
            closure: returns the loss of a batch, the same each time; it takes no gradient. Or a list of closures: one
                for each sample, of which the empty list takes part without a gradient.
        """
        self.join()
        rates = self._rates()
        message, loss = self.measure(as_closures(closure))
        if self.rounds is None:
            agreed = Round(self.round, rates, ((0, message),))
        else:
            agreed = self.rounds.exchange(self.round, rates, message)
        if agreed.rates != rates:
            raise ValueError(f"lr is {rates} here, and round {agreed.step} was closed with {agreed.rates}")
        self.sent += len(message)
        self.apply(agreed)
        return loss

    def join(self) -> int:
        """Agree with the others on the terms, and catch up; returns the number of rounds caught up with.

        `step` does it where it has not been done. Learning rates of past rounds are in the log.
        """
        if self._ready:
            return 0
        start = self.round
        with torch.no_grad():
            sign_walk.settle(self._pieces(), self.perturbation)  # (4)
        known = self._state().get("start")
        self._start = sign_walk.digest(self._pieces()) if known is None else bytes(known.tolist())
        if self._log is not None:
            self._log.begin(self.terms())
            for each in self._log.rounds[:]:
                if each.step >= self.round:
                    self.apply(each, write=False)
        if self.rounds is not None:
            self.rounds.join(self.terms())
            self.rounds.offer(self._log.rounds if self._log else [])
            while True:
                for each in self.rounds.closed(self.round):
                    self.apply(each)
                if self.rounds.announce(self.round):
                    break
        self._ready = True
        return self.round - start

    def leave(self) -> None:
        """Say goodbye: nobody waits for a worker that has left."""
        if self.rounds is not None and self._ready:
            self.rounds.leave(self.round, self._rates())
        self._ready = False

    def terms(self) -> dict[str, Any]:
        """What all replicas must agree on; after `join`."""
        own = {"version": _VERSION, "seed": self.seed, "clip": self.clip, "perturbation": self.perturbation}
        shapes = [[list(p.shape) for p in group["params"] if p.requires_grad] for group in self.param_groups]
        return own | {"shapes": shapes, "weights at the start": self._start.hex()}

    def measure(self, closures: Sequence[Closure]) -> tuple[bytes, float]:
        """My bytes of this round, and the mean loss; the weights are as they were. After `join`."""
        worker = 0 if self.rounds is None else self.rounds.worker
        whole = self._pieces()
        devices = [whole[0].view.device] if whole[0].view.device.type == "cuda" else []
        message, total = bytearray(), 0.0
        if not self._start:
            raise ValueError("the weights are not ready to be measured: join() comes first")
        for closure, (key, luck) in zip(closures, self._keys(self.round, {worker: len(closures)}), strict=True):
            up, down = losses(partial(self._walk, whole, key), closure, devices)
            slope = (up - down) / (2 * self.perturbation)  # (1)
            level = math.floor(slope / self.clip * 127 + float(uniform(luck, 1)))  # (2)
            self.clipped += abs(level) > 127
            message.append(max(-127, min(127, level)) & 0xFF)
            total += up + down
        return bytes(message), total / (2 * len(closures)) if closures else math.nan

    @torch.no_grad()
    def apply(self, agreed: Round, write: bool = True) -> None:
        """Make the step of a round, (3), from what all workers sent; after `join`."""
        if not self._start:
            raise ValueError("the weights are not ready for a round: join() comes first")
        if agreed.step != self.round:
            raise ValueError(f"round {agreed.step} cannot follow on {self.round} rounds")
        if len(agreed.rates) != len(self.param_groups):
            here = len(self.param_groups)
            raise ValueError(f"round {agreed.step} has {len(agreed.rates)} learning rates, and here are {here} groups")
        counts = {worker: len(message) for worker, message in agreed.messages}
        if any(counts.values()):
            levels = [byte - 256 if byte > 127 else byte for _, message in agreed.messages for byte in message]
            factors = [rate * (self.clip / 127) / len(levels) for rate in agreed.rates]
            directions = [key for key, _ in self._keys(agreed.step, counts)]
            whole = self._pieces()
            sign_walk.step(whole, directions, levels, factors)  # (3)
            sign_walk.settle(whole, self.perturbation)  # (4)
        start = torch.tensor(list(self._start), dtype=torch.uint8)
        self._state().update(round=torch.tensor(agreed.step + 1), start=start)
        if self._log is not None and write:
            self._log.append(agreed)

    # ---- private

    def _pieces(self) -> list[sign_walk.Piece]:
        return sign_walk.pieces(self.param_groups)

    def _state(self) -> dict[str, Any]:
        """Of all weights together: kept with the first."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    found: dict[str, Any] = self.state[parameter]
                    return found
        raise ValueError("there is no parameter that requires a gradient: all are frozen")

    def _rates(self) -> tuple[float, ...]:
        return tuple(float(group["lr"]) for group in self.param_groups)

    def _keys(self, step: int, counts: dict[int, int]) -> list[tuple[Tensor, Tensor]]:
        """Of the signs and of the rounding of each sample, so many for each worker: int64[1] each."""
        most = max(counts.values())
        own = words(keys(self.seed, torch.tensor([step]), torch.tensor(list(counts))), 0, 2 * most)
        pairs = own.view(len(counts), most, 2, 1)
        found = [row[:count] for row, count in zip(pairs, counts.values(), strict=True)]
        return [(key, luck) for row in found for key, luck in row]

    @torch.no_grad()
    def _walk(self, whole: list[sign_walk.Piece], key: Tensor, times: int) -> None:
        sign_walk.walk(whole, key, times * self.perturbation)


def one_byte(
    params: Iterable[Any],
    lr: float,
    clip: float,
    perturbation: float = 1e-3,
    seed: int = 0,
    rounds: Rounds | None = None,
    log: str | Path | None = None,
) -> OneByte:
    """Just One Byte, a `torch.optim.Optimizer` whose `step` takes a closure.

    Args:
        params: as for any optimizer, on one device; those that require no gradient are left alone.
        lr: eta; the same for all workers in each round.
        clip: the largest slope that a byte can say, 127; larger ones are cut (`clipped` counts them).
        perturbation: epsilon; the nearest power of two is taken. In bfloat16 it must be large: 2^-8 times the weights.
        seed: of all directions.
        rounds: how to reach the other workers; None for one that is alone.
        log: a file to which each round is written, and from which a worker that begins again replays.
    """
    return OneByte(params, lr, clip, perturbation, seed, rounds, log)


def replay(params: Iterable[Any], log: str | Path) -> OneByte:
    """Starting weights and a log, to the weights after its last whole round; the optimizer can go on from there.

    ValueError where the weights are not those that the log began with, or its format is of another version.
    """
    terms = RoundLog(log).terms
    if terms is None:
        raise ValueError(f"{log} is not a log of rounds: it has no terms")
    check_terms({"version": _VERSION}, {"version": terms.get("version")}, "this library's", f"that of {log}")
    found = OneByte(params, 0.0, terms["clip"], terms["perturbation"], terms["seed"], log=log)
    found.join()
    return found
