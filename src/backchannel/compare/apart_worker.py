"""One worker of a contest of methods that train apart: `python -m backchannel.compare.apart_worker RANK < given.json`.

Every worker trains the same small language model on its own windows of the text, and exchanges by one method. Worker 0
writes a line of JSON after every look: the step, the seconds of training so far (looks do not count), the loss on what
was held out, the bits that were sent for a worker, and the seconds a step took at the median.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import Tensor, nn
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
        self.common: Callable[[], Tensor] | None = None
        self.rounds = not method.startswith(("ddp", "none"))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=about.step_size)
        size = sum(each.numel() for each in self.model.parameters())
        if method.startswith("ddp"):
            self._data_parallel(method, size)
        elif method == TORCHFT:
            from backchannel.compare.apart_torchft import begin

            self.peer = begin(self.model, optimizer, about.every, rank, about.workers, address, about.limit)
        elif method != "none":
            outer = find(method, "distributed").factory(**about.given(method))
            apart = wrap(self.model, optimizer, outer)
            self.sent = lambda: apart.comm.up // apart.comm.size
            self.common = lambda: apart.state.x
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

    def look(self, held_out: Tensor) -> float:
        """The loss of the model that all have in common; without a method, of this worker's own."""
        if self.common is None:
            return lm.validation_loss(self.model, held_out, self.about.context, most=64)
        parameters = list(self.model.parameters())
        kept = flat(parameters)
        put(parameters, self.common())
        loss = lm.validation_loss(self.model, held_out, self.about.context, most=64)
        put(parameters, kept)
        return loss


def run(about: Training, method: str, rank: int, address: str, tell: Callable[[dict[str, Any]], None]) -> None:
    """Train until `about.steps` or `about.seconds`, whichever comes first."""
    torch.set_num_threads(1)
    limit = timedelta(seconds=about.limit)
    dist.init_process_group("gloo", f"tcp://{address}", limit, world_size=about.workers, rank=rank)
    train, held_out = read(about)
    worker = Worker(about, method, rank, address)
    clock, look = 0.0, about.every if worker.rounds else about.look
    for t in range(1, about.steps + 1):
        began = time.perf_counter()
        worker.step(t, train)
        clock += time.perf_counter() - began
        if t % look == 0 or t == about.steps:
            loss = worker.look(held_out)
            over = torch.tensor([float(clock > about.seconds)])
            dist.all_reduce(over)
            if rank == 0:
                tell({"step": t, "seconds": clock, "loss": loss, "bits": worker.sent()})
            if over.item():
                break
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # threads of a peer's servers would keep the process


def main() -> None:
    """What is compared comes as JSON on standard input."""
    given = json.loads(sys.stdin.read())
    about = msgspec.convert(given["about"], Training)
    run(about, given["method"], int(sys.argv[1]), given["address"], lambda line: print(json.dumps(line), flush=True))


if __name__ == "__main__":
    main()
