"""Comm: how workers and a server exchange vectors, and what it costs.

A method is written once, per worker: it holds one row for each worker that lives in this process, and asks the Comm
for what all of them sent. `Stacked(n)` keeps n workers in one process, as n rows of every tensor; `TorchComm` has a few
in each process of a `torch.distributed` group, and sends packed bytes. Both hand back messages in the order of
the workers, so that a method adds the same numbers in the same order, and has the same result.

The server is a copy in every process: what it computes from the messages is computed everywhere. `up` counts what
workers sent to it and `down` what it sent to them, in bits, summed over the workers; nothing else is on the wire.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from backchannel.parts.compressors import Compressor, Message, identity


class Comm(Protocol):
    """What an exchange may ask of its network."""

    size: int  # how many workers there are
    workers: Tensor  # int64[local]: which of them live here
    up: int  # bits sent by all workers so far
    down: int  # bits received by all workers so far

    def gather(self, message: Message, compressor: Compressor) -> Tensor:
        """Every worker's message, decompressed: [size, d]."""

    def mean(self, rows: Tensor) -> Tensor:
        """The mean over workers of a vector that each sends uncompressed: [local, d] -> [d]."""

    def broadcast(self, x: Tensor) -> Tensor:
        """The server's vector, uncompressed, to every worker: [d]."""


class Stacked:
    """`size` workers in one process, as rows."""

    def __init__(self, size: int):
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self.size, self.workers, self.up, self.down = size, torch.arange(size), 0, 0

    def gather(self, message: Message, compressor: Compressor) -> Tensor:
        """Every worker's message, decompressed: [size, d]."""
        self.up += compressor.bits(message)
        return compressor.decompress(message)

    def mean(self, rows: Tensor) -> Tensor:
        """The mean over workers of a vector that each sends uncompressed: [size, d] -> [d]."""
        return _mean(self, rows)

    def broadcast(self, x: Tensor) -> Tensor:
        """The server's vector, uncompressed, to every worker: [d]."""
        self.down += _float_bits(x) * self.size
        return x


class TorchComm:
    """`local` consecutive workers in each process of a `torch.distributed` group, which the caller has initialised."""

    def __init__(self, local: int = 1, group: dist.ProcessGroup | None = None):
        self.group, self.processes = group, dist.get_world_size(group)
        self.size = local * self.processes
        self.workers, self.up, self.down = torch.arange(local) + local * dist.get_rank(group), 0, 0

    def gather(self, message: Message, compressor: Compressor) -> Tensor:
        """Every worker's message, decompressed: [size, d]. Sends packed bytes, each process as many as the longest."""
        own = compressor.pack(message)
        lengths = self._all(torch.tensor([len(one) for one in own]))
        longest = int(lengths.sum(1).max())
        padded = torch.frombuffer(bytearray(b"".join(own).ljust(longest, b"\0")), dtype=torch.uint8)
        packed = []
        for stream, cuts in zip(self._all(padded), lengths.cumsum(1).tolist(), strict=True):
            whole = stream.numpy().tobytes()
            packed += [whole[a:b] for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]
        self.up += sum(8 * len(one) for one in packed)
        return compressor.decompress(compressor.unpack(packed, message.dimension, message.values.dtype))

    def mean(self, rows: Tensor) -> Tensor:
        """The mean over workers of a vector that each sends uncompressed: [local, d] -> [d]."""
        return _mean(self, rows)

    def broadcast(self, x: Tensor) -> Tensor:
        """The server's vector, uncompressed, to every worker: [d]. Worker 0 speaks for the server."""
        self.down += _float_bits(x) * self.size
        out = x.clone()
        dist.broadcast(out, group=self.group, group_src=0)
        return out

    def _all(self, x: Tensor) -> Tensor:
        """What every process has in the place of `x`: [processes, ...]."""
        out = [torch.empty_like(x) for _ in range(self.processes)]
        dist.all_gather(out, x, self.group)
        return torch.stack(out)


def _mean(comm: Comm, rows: Tensor) -> Tensor:
    whole = identity()
    return comm.gather(whole.compress(rows, comm.workers), whole).mean(0)


def _float_bits(x: Tensor) -> int:
    return 8 * x.element_size() * x.numel()
