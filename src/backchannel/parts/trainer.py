"""Training apart inside `transformers.Trainer`, by a callback.

    group = backchannel.distributed.connect("10.0.0.1:29500", rank, size)      # process 0 listens there
    callback = backchannel.distributed.TrainApart(sparse_loco(steps=30), TorchComm(group=group))
    Trainer(model, args, train_dataset=mine, callbacks=[callback]).train()

Each process runs a Trainer of its own, as if it were alone (no torchrun, which would make the Trainer average
gradients), on its own data. Checkpoints get a file `apart.pt` beside the Trainer's, and resuming reads it. At the end
the model is what all have in common.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from backchannel.parts.apart import Apart, wrap
from backchannel.parts.comm import Comm
from backchannel.parts.outer import Outer
from backchannel.parts.watch import Monitor

FILE = "apart.pt"


class TrainApart(TrainerCallback):
    """Exchange by `method` over `comm`, within a Trainer, heard by a `monitor`; `apart` is what `wrap` made."""

    def __init__(self, method: Outer, comm: Comm, monitor: Monitor | None = None):
        self.method, self.comm, self.monitor = method, comm, monitor
        self.apart: Apart | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Wrap the model; after a resumed checkpoint, go on from its `apart.pt`."""
        if args.world_size > 1:
            raise ValueError("this Trainer averages gradients over its processes: run one Trainer in each process")
        saved = None
        if state.global_step:
            file = self._folder(args, state) / FILE
            if not file.is_file():
                raise ValueError(
                    f"{file} is missing: to resume, output_dir must be that of the workers that trained apart"
                )
            saved = torch.load(file, weights_only=True)
        self.apart = wrap(given["model"], given["optimizer"], self.method, self.comm, saved, self.monitor)

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Beside the Trainer's own files."""
        assert self.apart is not None
        torch.save(self.apart.state_dict(), self._folder(args, state) / FILE)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The model that all have in common."""
        assert self.apart is not None
        self.apart.settle()

    def _folder(self, args: Any, state: Any) -> Path:
        return Path(args.output_dir) / f"checkpoint-{state.global_step}"
