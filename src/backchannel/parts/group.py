"""Group: processes that exchange tensors, one collective after the other, and say who is missing.

All collectives are issued by one thread of the group's own, in the order in which they are asked for, which must be the
same in every process. What is asked for goes on while the process computes; who wants the answer waits for it.

Before each collective a process says in the group's store that it has come. Where a collective fails, or a process is
late by more than `limit` seconds, the others raise RuntimeError and name who has not come. A store lives in one
process: if that one is gone, they say that the store is gone.

A group is made from the default one of `torch.distributed` (`current`), or on its own by `connect`, which needs no
default group: then any trainer may run on one process each, as if it were alone, and still exchange with the others.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import (  # type: ignore[attr-defined]
    AllgatherOptions,
    BroadcastOptions,
)

from backchannel.parts.patience import within

GRACE = 1.0  # seconds that the others may be later than us, where a collective broke at once
_numbers = itertools.count()


class Group:
    """`size` processes, of which this is number `rank`; all make their groups in the same order.

    Args:
        processes: a process group of torch's, made by gloo, or one with the same methods.
        store: the store through which it met; without one nobody can be named.
    """

    def __init__(self, processes: Any, store: Any = None):
        self.rank, self.size = processes.rank(), processes.size()
        name = f"backchannel/{next(_numbers)}"
        self._processes, self._store = processes, None if store is None else PrefixStore(name, store)
        self.asked = 0  # how many calls of `submit` there were
        self._calls = 0  # how many collectives the thread has come to
        self._thread = ThreadPoolExecutor(1, "backchannel-exchange")

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """`call` in the group's thread, after all that was asked for before; it may use `all` and `broadcast`."""
        self.asked += 1
        return self._thread.submit(call, *arguments)

    def all(self, x: Tensor) -> Tensor:
        """What every process has in the place of `x`: [size, ...]. In the group's thread only."""
        out = [torch.empty_like(x) for _ in range(self.size)]
        self._collective(lambda: self._processes.allgather([out], [x], AllgatherOptions()))
        return torch.stack(out)

    def broadcast(self, x: Tensor) -> Tensor:
        """What process 0 has in the place of `x`. In the group's thread only."""
        out = x.clone()
        self._collective(lambda: self._processes.broadcast([out], BroadcastOptions()))
        return out

    def same(self, what: str, digest: int) -> None:
        """ValueError in every process unless all have the same number, below 2^63, for `what`."""
        found = self.submit(self.all, torch.tensor([digest])).result().flatten().tolist()
        if others := [str(rank) for rank, other in enumerate(found) if other != found[0]]:
            raise ValueError(f"{what}: process {', '.join(others)} differs from process 0")

    def calls(self) -> list[int]:
        """How many collectives each process has come to so far, by what it said in the store.

        Raises:
            ValueError: if there is no store.
            RuntimeError: if it is gone.
        """
        if self._store is None:
            raise ValueError("a group without a store cannot say who has come")
        said = [str(rank) for rank in range(self.size)]
        return [int(self._store.get(key)) if self._store.check([key]) else 0 for key in said]

    def close(self) -> None:
        """Wait for what was asked for, and end the thread."""
        self._thread.shutdown(wait=True)

    def _collective(self, call: Callable[[], Any]) -> None:
        self._calls += 1
        self._come()
        try:
            call().wait()
        except RuntimeError as error:
            raise RuntimeError(
                f"exchange {self._calls} failed: {self._who()} ({str(error).splitlines()[0][:160]})"
            ) from error

    def _come(self) -> None:
        if self._store is None:
            return
        try:
            self._store.set(str(self.rank), str(self._calls))
        except RuntimeError as error:
            raise RuntimeError(f"exchange {self._calls} failed: the process that keeps the store is gone") from error

    def _who(self) -> str:
        """Who has not come, in words."""
        if self._store is None:
            return "a process is gone"
        try:
            return str(within(2 * GRACE, self._missing))
        except (RuntimeError, TimeoutError):
            return "the process that keeps the store is gone or does not answer"

    def _missing(self) -> str:
        end = time.monotonic() + GRACE
        while missing := [str(rank) for rank, calls in enumerate(self.calls()) if calls < self._calls]:
            if time.monotonic() > end:
                return f"process {', '.join(missing)} did not come"
            time.sleep(0.05)
        return "a connection broke, or a process was late"


def current(group: dist.ProcessGroup | None = None) -> Group:
    """The processes of the default group of `torch.distributed`, or of another; all of them call this.

    It is a new group of theirs, over gloo, with the time limit of the other: collectives of the program, which go on at
    the same time, are on another.

    Raises:
        RuntimeError: if there is no default group.
    """
    if not dist.is_initialized():
        raise RuntimeError("there is no process group: call init_process_group, as under torchrun, or connect()")
    ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
    limit = _limit(group or dist.group.WORLD)
    own = dist.new_group(ranks, limit, backend="gloo", use_local_synchronization=True)
    among = "-".join(map(str, ranks))  # other processes make groups of their own in the same store
    return Group(own, PrefixStore(among, dist.distributed_c10d._get_default_store()))


def connect(address: str, rank: int, size: int, limit: float = 300.0) -> Group:
    """Meet `size` processes at "host:port"; process 0 keeps the store there.

    Args:
        address: where process 0 listens; an IPv6 address is in brackets: "[::1]:29500".
        rank: of this process, 0 to size - 1.
        size: how many processes.
        limit: seconds that any wait may take.

    Raises:
        ValueError: for a wrong address or rank.
        RuntimeError: if the port is in use, or if not all come within `limit`.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"an address is host:port, not {address!r}")
    if bracketed := host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if bracketed != (":" in host):
        raise ValueError(f"of an address the host is in brackets if it is IPv6, as in [::1]:29500, not {address!r}")
    if not 0 <= rank < size:
        raise ValueError(f"rank must lie in 0 to {size - 1}, not {rank}")
    if not limit > 0:
        raise ValueError(f"limit must be positive, not {limit}")
    span, waiting = timedelta(seconds=limit), [0]

    def meet() -> Any:
        store = TCPStore(host, int(port), size, rank == 0, span, wait_for_workers=False)
        store.set(f"here/{rank}", "")
        for waiting[0] in range(size):
            store.wait([f"here/{waiting[0]}"], span)
        return store

    try:
        store = within(2 * limit, meet)
    except (RuntimeError, TimeoutError) as error:
        if rank == 0 and "EADDRINUSE" in str(error):
            raise RuntimeError(f"the port of {address} is in use") from error
        raise RuntimeError(f"process {waiting[0]} did not come to {address} within {limit:g} seconds") from error
    processes = dist.ProcessGroupGloo(PrefixStore("gloo", store), rank, size, span)
    return Group(processes, store)


def _limit(group: Any) -> timedelta | None:
    """The time limit of a process group that has one for the CPU."""
    try:
        found: timedelta = group._get_backend(torch.device("cpu")).options._timeout
    except (RuntimeError, AttributeError):
        return None
    return found
