"""One worker of a contest of methods that train apart: `python -m backchannel.compare.apart_worker RANK < given.json`.

Every worker trains the same small language model on its own windows of the text, and exchanges by one method. Worker 0
writes a line of JSON after every look, the first before training: the step, the seconds of training so far (looks do
not count), the loss on what was held out, and the bits that were sent for a worker.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from backchannel.card import find
from backchannel.compare.apart import TORCHFT, Training, read
from backchannel.parts.apart import flat, put, wrap
from backchannel.tasks import character_lm as lm

WARM_UP = 2  # steps before PowerSGD compresses: the fewest that it takes


class Worker:
    """A model, what steps it, and the method that brings it together with the others'."""

    def __init__(self, about: Training, method: str, rank: int, address: str):
        self.about, self.rank = about, rank
        self.model = lm.fresh(about.seed, about.width, about.layers, about.heads, about.context)
        self.trained: nn.Module = self.model
        self.sent: Callable[[], int] = lambda: 0
        self.common: Callable[[int], Tensor] | None = None
        self.rounds = not method.startswith(("ddp", "none"))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=about.step_size)
        size = sum(each.numel() for each in self.model.parameters())
        if method.startswith("ddp"):
            self._data_parallel(method, size)
        elif method == TORCHFT:
            from backchannel.compare.apart_torchft import begin

            self.peer = begin(self.model, optimizer, about.every, rank, about.workers, address, about.limit)
            self.last, self.common = flat(self.model.parameters()), self._of_round
        elif method != "none":
            outer = find(method, "distributed").factory(**about.given(method))
            apart = wrap(self.model, optimizer, outer)
            self.sent = lambda: apart.comm.up // apart.comm.size
            self.common = lambda t: apart.state.x
        self.optimizer = optimizer

    def _data_parallel(self, method: str, size: int) -> None:
        """Gradients in every step: whole, in 16 bits, or by PowerSGD of rank 4. One bucket: gloo hangs on several."""
        self.trained = parallel = DistributedDataParallel(self.model, bucket_cap_mb=4096)
        if method == "ddp_fp16":
            parallel.register_comm_hook(None, default_hooks.fp16_compress_hook)
        elif method == "ddp_powersgd":
            state = powerSGD_hook.PowerSGDState(None, 4, start_powerSGD_iter=WARM_UP)
            parallel.register_comm_hook(state, powerSGD_hook.powerSGD_hook)

    def step(self, t: int, train: Tensor) -> None:
        """A step on this worker's windows, and what the method does after it."""
        batch = lm.windows(train, self.about.batch, self.about.context, self.about.seed, t, self.rank)
        self.optimizer.zero_grad()
        lm.loss(self.trained, batch).backward()
        self.optimizer.step()

    def look(self, held_out: Tensor, t: int) -> float:
        """The loss after step t of the model that all have in common; without a method, of this worker's own."""
        if self.common is None:
            return lm.validation_loss(self.model, held_out, self.about.context, most=64)
        parameters = list(self.model.parameters())
        kept, common = flat(parameters), self.common(t)
        put(parameters, common)
        loss = lm.validation_loss(self.model, held_out, self.about.context, most=64)
        put(parameters, kept)
        return loss

    def _of_round(self, t: int) -> Tensor:
        """What all have in common after a round is what this worker has; in the midst of one, what it had then."""
        if t % self.about.every == 0:
            self.last = flat(self.model.parameters())
        return self.last


def run(about: Training, method: str, rank: int, address: str, tell: Callable[[dict[str, Any]], None]) -> None:
    """Train until `about.steps` or, to the step, `about.seconds` of worker 0: it ends the others, wherever they are."""
    torch.set_num_threads(1)
    limit = timedelta(seconds=about.limit)
    dist.init_process_group("gloo", f"tcp://{address}", limit, world_size=about.workers, rank=rank)
    train, held_out = read(about)
    worker = Worker(about, method, rank, address)
    end = End(address, rank, about.workers, limit)
    clock, look = 0.0, about.every if worker.rounds else about.look
    if rank == 0:
        tell({"step": 0, "seconds": 0.0, "loss": worker.look(held_out, 0), "bits": 0})
    dist.barrier()
    for t in range(1, about.steps + 1):
        began = time.perf_counter()
        worker.step(t, train)
        clock += time.perf_counter() - began
        over = rank == 0 and (t == about.steps or clock > about.seconds)
        if over or t % look == 0:
            loss = worker.look(held_out, t)
            if rank == 0:
                tell({"step": t, "seconds": clock, "loss": loss, "bits": worker.sent()})
            if over:
                break
            dist.barrier()  # nobody waits for another's look in a step
    end.come()


class End:
    """How worker 0 ends all: no step waits to ask whether it is the last, and nobody fails because another ended."""

    def __init__(self, address: str, rank: int, workers: int, limit: timedelta):
        host, _, port = address.rpartition(":")
        self.rank, self.others, self.limit = rank, range(1, workers), limit
        self.store = TCPStore(host, int(port), is_master=False, timeout=timedelta(days=1))  # its waits hold up nobody
        if rank > 0:
            self.waits = threading.Thread(target=self._follow, daemon=True)
            self.waits.start()

    def come(self) -> None:
        """Of worker 0: the end of all. Of another: nothing is left but to wait for it."""
        if self.rank > 0:
            self.waits.join()
            raise RuntimeError("worker 0 is gone")
        self.store.set("end", "")
        self.store.wait([f"ended/{rank}" for rank in self.others], self.limit)
        _leave()

    def _follow(self) -> None:
        """Of the others, in a thread: for they may be in a collective that worker 0 does not come to."""
        try:
            self.store.wait(["end"])
        except RuntimeError:  # of a worker 0 that failed, which is told otherwise
            return
        self.store.set(f"ended/{self.rank}", "")
        _leave()


def _leave() -> None:
    """Threads of a peer's servers would keep the process."""
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """What is compared comes as JSON on standard input."""
    given = json.loads(sys.stdin.read())
    about = msgspec.convert(given["about"], Training)
    run(about, given["method"], int(sys.argv[1]), given["address"], lambda line: print(json.dumps(line), flush=True))


if __name__ == "__main__":
    main()
