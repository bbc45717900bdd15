"""Comm: how workers and a server exchange vectors, and what it costs.

A method is written once, per worker: it holds one row for each worker that lives in this process, and asks the Comm
for what all of them sent. `Stacked(n)` keeps n workers in one process, as n rows of every tensor; `TorchComm` has a few
in each process of a `torch.distributed` group, and sends packed bytes. Both hand back messages in the order of
the workers, so that a method adds the same numbers in the same order, and has the same result.

The server is a copy in every process: what it computes from the messages is computed everywhere. `up` counts what
workers sent to it and `down` what it sent to them, in bits, summed over the workers; nothing else is on the wire.

Where only some take part in a round, `who` names them, in ascending order, the same in every process. The others send
nothing, receive nothing and cost nothing; a message then has rows for those of them only that live here.

What is posted goes on while the workers compute, and is fetched later, by its slot. What is on its way belongs to the
Comm; `pending` waits for it and hands it out for a checkpoint.

Numbers that are not finite are not sent, and a worker that has nothing to send says why (`refuse`): every process then
raises, in the same exchange, and names the worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import Protocol

import torch
from torch import Tensor

from backchannel.parts.compressors import Compressor, Message, identity
from backchannel.parts.group import Group, current

NOT_FINITE = "has numbers that are not finite"
NO_GRADIENT = "trained on nothing: its gradients are all zero or absent"
REASONS = (NOT_FINITE, NO_GRADIENT)


class Comm(Protocol):
    """What an exchange may ask of its network."""

    size: int  # how many workers there are
    workers: Tensor  # int64[local]: which of them live here
    up: int  # bits sent by all workers so far
    down: int  # bits received by all workers so far

    def gather(self, message: Message, compressor: Compressor, who: Tensor | None = None) -> Tensor:
        """The message of every worker (of `who`, int64[m]), decompressed: [size, d] ([m, d])."""

    def mean(self, rows: Tensor, who: Tensor | None = None) -> Tensor:
        """The mean over workers (of `who`) of a vector that each sends uncompressed: [local, d] -> [d]."""

    def broadcast(self, x: Tensor, who: Tensor | None = None) -> Tensor:
        """The server's vector, uncompressed, to every worker (of `who`): [d]."""

    def send(self, message: Message, compressor: Compressor, who: Tensor | None = None) -> Tensor:
        """The server's message, of one row, to every worker (of `who`), decompressed: [d]."""

    def average(self, message: Message, compressor: Compressor) -> Tensor:
        """The mean of all workers' messages, added one at a time in their order: [d]."""

    def post(self, slot: int, message: Message, compressor: Compressor) -> None:
        """Begin an `average`, and go on. ValueError if the slot is taken."""

    def fetch(self, slot: int) -> Tensor:
        """What was posted in this slot, once it is there: [d]."""

    def pending(self) -> dict[int, Tensor]:
        """What was posted and not fetched, once it is there."""

    def restore(self, pending: dict[int, Tensor]) -> None:
        """`pending` undone."""

    def drop(self) -> None:
        """Wait for what was posted, whatever comes of it, and forget it."""

    def refuse(self, reason: str) -> None:
        """A worker of this process sends one of `REASONS` in place of its next message."""


class _Slots:
    """What was posted, and what is refused."""

    def __init__(self) -> None:
        self._slots: dict[int, Tensor | Future[Tensor]] = {}
        self._refusal: str | None = None

    def fetch(self, slot: int) -> Tensor:
        """What was posted in this slot, once it is there: [d]."""
        if slot not in self._slots:
            raise ValueError(f"nothing was posted in slot {slot}")
        return _there(self._slots.pop(slot))

    def pending(self) -> dict[int, Tensor]:
        """What was posted and not fetched, once it is there."""
        return {slot: _there(each) for slot, each in self._slots.items()}

    def restore(self, pending: dict[int, Tensor]) -> None:
        """`pending` undone."""
        self._slots = dict(pending)

    def drop(self) -> None:
        """Wait for what was posted, whatever comes of it, and forget it."""
        wait([each for each in self._slots.values() if isinstance(each, Future)])
        self._slots = {}

    def refuse(self, reason: str) -> None:
        """A worker of this process sends one of `REASONS` in place of its next message."""
        if reason not in REASONS:
            raise ValueError(f"reason must be one of {REASONS}, not {reason!r}")
        self._refusal = reason

    def _free(self, slot: int) -> None:
        if slot in self._slots:
            raise ValueError(f"slot {slot} holds what was not fetched")

    def _trouble(self, message: Message) -> int:
        """0, or which of `REASONS`, counted from 1, keeps this message from being sent."""
        reason, self._refusal = self._refusal, None
        finite = all(bool(torch.isfinite(part).all()) for part in (message.values, message.scales))
        return 1 + REASONS.index(reason) if reason else 1 - finite


class Stacked(_Slots):
    """`size` workers in one process, as rows."""

    def __init__(self, size: int):
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        super().__init__()
        self.size, self.workers, self.up, self.down = size, torch.arange(size), 0, 0

    def gather(self, message: Message, compressor: Compressor, who: Tensor | None = None) -> Tensor:
        """The message of every worker (of `who`, int64[m]), decompressed: [size, d] ([m, d])."""
        _check_rows(self, message, who)
        if trouble := self._trouble(message):
            finite = torch.isfinite(message.values).all(1)
            first = 0 if bool(finite.all()) else int(finite.to(torch.int8).argmin())
            raise ValueError(f"worker {int((self.workers if who is None else who)[first])} {REASONS[trouble - 1]}")
        self.up += compressor.bits(message)
        return compressor.decompress(message)

    def mean(self, rows: Tensor, who: Tensor | None = None) -> Tensor:
        """The mean over workers (of `who`) of a vector that each sends uncompressed: [size, d] -> [d]."""
        return _mean(self, rows, who)

    def broadcast(self, x: Tensor, who: Tensor | None = None) -> Tensor:
        """The server's vector, uncompressed, to every worker (of `who`): [d]."""
        self.down += _float_bits(x) * _count(self, who)
        return x

    def send(self, message: Message, compressor: Compressor, who: Tensor | None = None) -> Tensor:
        """The server's message, of one row, to every worker (of `who`), decompressed: [d]."""
        self.down += compressor.bits(_one_row(message)) * _count(self, who)
        return compressor.decompress(message)[0]

    def average(self, message: Message, compressor: Compressor) -> Tensor:
        """The mean of all workers' messages, added one at a time in their order: [d]."""
        return _mean_of(self.gather(message, compressor))

    def post(self, slot: int, message: Message, compressor: Compressor) -> None:
        """An `average`, which is there at once."""
        self._free(slot)
        self._slots[slot] = self.average(message, compressor)


class TorchComm(_Slots):
    """`local` consecutive workers in each process of a group; default that of `torch.distributed`."""

    def __init__(self, local: int = 1, group: Group | None = None):
        super().__init__()
        self.group = group or current()
        self.size = local * self.group.size
        self.workers, self.up, self.down = torch.arange(local) + local * self.group.rank, 0, 0

    def gather(self, message: Message, compressor: Compressor, who: Tensor | None = None) -> Tensor:
        """The message of every worker (of `who`, int64[m]), decompressed: [size, d] ([m, d])."""
        _check_rows(self, message, who)
        if who is not None and not len(who):
            return compressor.decompress(message)  # nobody sends, and everybody knows
        packed = self.group.submit(self._packed, message, compressor, self._trouble(message), who).result()
        return _read(compressor, packed, message)

    def mean(self, rows: Tensor, who: Tensor | None = None) -> Tensor:
        """The mean over workers (of `who`) of a vector that each sends uncompressed: [local, d] -> [d]."""
        return _mean(self, rows, who)

    def broadcast(self, x: Tensor, who: Tensor | None = None) -> Tensor:
        """The server's vector, uncompressed, to every worker (of `who`): [d]. Worker 0 speaks for the server."""
        self.down += _float_bits(x) * _count(self, who)
        return self.group.submit(self.group.broadcast, x.cpu()).result().to(x.device)

    def send(self, message: Message, compressor: Compressor, who: Tensor | None = None) -> Tensor:
        """The server's message, of one row, to every worker (of `who`), decompressed: [d]. Worker 0 sends its bytes."""
        own = torch.frombuffer(bytearray(compressor.pack(_one_row(message))[0]), dtype=torch.uint8)
        packed = [self.group.submit(self.group.broadcast, own).result().numpy().tobytes()]
        self.down += 8 * len(packed[0]) * _count(self, who)
        return _read(compressor, packed, message)[0]

    def average(self, message: Message, compressor: Compressor) -> Tensor:
        """The mean of all workers' messages, added one at a time in their order: [d]."""
        return self.group.submit(self._average, message, compressor, self._trouble(message)).result()

    def post(self, slot: int, message: Message, compressor: Compressor) -> None:
        """Begin an `average`, and go on: it is packed, sent and added up in the thread of the group."""
        self._free(slot)
        self._slots[slot] = self.group.submit(self._average, message, compressor, self._trouble(message))

    def _average(self, message: Message, compressor: Compressor, trouble: int) -> Tensor:
        packed = self._packed(message, compressor, trouble, None)
        return _mean_of(_read(compressor, [one], message)[0] for one in packed)

    def _packed(self, message: Message, compressor: Compressor, trouble: int, who: Tensor | None) -> list[bytes]:
        """The packed messages of all workers (of `who`). Each process sends as many bytes as the longest."""
        local = len(self.workers)
        own = [] if trouble else compressor.pack(message)
        lengths = torch.tensor([len(one) for one in own] + [-trouble] * (local - len(own)))
        lengths = self.group.all(lengths)
        if (least := int(lengths.min())) < 0:
            worker = lengths.flatten().tolist().index(least)
            raise ValueError(f"worker {worker} {REASONS[-1 - least]}")
        everyone = torch.arange(self.size) if who is None else who
        counts = (everyone // local).bincount(minlength=self.group.size).tolist()
        longest = int(lengths.sum(1).max())
        padded = torch.frombuffer(bytearray(b"".join(own).ljust(longest, b"\0")), dtype=torch.uint8)
        packed = []
        for stream, cuts, count in zip(self.group.all(padded), lengths.cumsum(1).tolist(), counts, strict=True):
            whole = stream.numpy().tobytes()
            packed += [whole[a:b] for a, b in zip([0, *cuts[:-1]], cuts, strict=True)][:count]
        self.up += sum(8 * len(one) for one in packed)
        return packed


def _there(mean: Tensor | Future[Tensor]) -> Tensor:
    return mean.result() if isinstance(mean, Future) else mean


def _read(compressor: Compressor, packed: list[bytes], like: Message) -> Tensor:
    rows = compressor.decompress(compressor.unpack(packed, like.dimension, like.values.dtype))
    return rows.to(like.values.device)


def _mean_of(rows: Iterable[Tensor]) -> Tensor:
    total, count = None, 0
    for row in rows:
        total, count = row.clone() if total is None else total.add_(row), count + 1
    assert total is not None
    return total / count


def _mean(comm: Comm, rows: Tensor, who: Tensor | None) -> Tensor:
    if who is not None and not len(who):
        raise ValueError("a mean needs at least one worker that takes part")
    whole = identity()
    return comm.gather(whole.compress(rows, comm.workers), whole, who).mean(0)


def _count(comm: Comm, who: Tensor | None) -> int:
    return comm.size if who is None else len(who)


def _check_rows(comm: Comm, message: Message, who: Tensor | None) -> None:
    expected = len(comm.workers)
    if who is not None:
        among = torch.isin(torch.arange(comm.size), who)
        if not torch.equal(among.nonzero()[:, 0], who):
            raise ValueError(f"who must be workers below {comm.size} in ascending order, not {who.tolist()}")
        expected = int(among[comm.workers].sum())
    if len(message.values) != expected:
        raise ValueError(f"a message has {len(message.values)} rows for {expected} workers that take part here")


def _one_row(message: Message) -> Message:
    if len(message.values) != 1:
        raise ValueError(f"the server sends one row, not {len(message.values)}")
    return message


def _float_bits(x: Tensor) -> int:
    return 8 * x.element_size() * x.numel()
