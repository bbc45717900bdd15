"""Timed processes: real ones over gloo on the loopback interface that time one another, with a fault in some of them.

A trial is some rounds in the same processes. In each round a rank computes (it sleeps), then all take part in a
`probe`, and everybody collects everybody's times. From round `onset` on, the trial's fault is there: a rank that
computes for longer ("slow rank"), a message that is held back on one link ("slow link"), or a rank that does not come
("absent"), after which nothing more can be done with these processes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from backchannel.parts.probe import probe
from backchannel.parts.timings import Recorder, Timings
from backchannel.testing.processes import run_processes

COMPUTE = 0.05  # seconds of computing in a round
PATIENCE = 60.0  # seconds that a rank waits for others that should come, on a busy machine
PAYLOAD = 1 << 16  # float32 numbers in a message


class Trial(NamedTuple):
    """`kind` is "none" or one of the above; `seconds` is how much longer it takes."""

    kind: str
    sender: int = -1
    receiver: int = -1
    seconds: float = 0.1


def in_processes(
    trials: Sequence[Trial],
    ranks: int = 4,
    rounds: int = 8,
    onset: int = 2,
    limit: float = 20.0,
    timeout: float = 120.0,
) -> list[list[Timings]]:
    """What was collected in each round of each trial, by the lowest rank that is not absent.

    Args:
        trials: one after the other; only the last may be "absent".
        ranks: how many processes.
        rounds: of each trial.
        onset: the first round with the fault, counted from 0.
        limit: seconds that a rank waits for one that is absent.
        timeout: seconds for everything; then TimeoutError or RuntimeError names who has not ended or has failed.
    """
    if any(trial.kind == "absent" for trial in trials[:-1]):
        raise ValueError("only the last trial may be absent: its processes cannot go on")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    code = "from backchannel.testing.timed_processes import _process; _process()"
    with tempfile.TemporaryDirectory() as folder:
        told = json.dumps([trials, ranks, rounds, onset, limit])
        run_processes(code, lambda rank: [str(rank), str(store.port), folder, told], ranks, Path(folder), timeout)
        seen = 1 if trials[-1].kind == "absent" and trials[-1].sender == 0 else 0
        with np.load(Path(folder) / f"{seen}.npz") as found:
            arrays = [found[name] for name in Timings._fields]
    every = [Timings(*rows) for rows in zip(*arrays, strict=True)]
    return [every[i * rounds : (i + 1) * rounds] for i in range(len(trials))]


def _process() -> None:
    """What one of the processes does."""
    rank, port, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    trials, ranks, rounds, onset, limit = json.loads(sys.argv[4])
    store = TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(seconds=PATIENCE))
    thread, payload, found = ThreadPoolExecutor(1), torch.zeros(PAYLOAD), []
    for index, each in enumerate(trials):
        trial = Trial(*each)
        recorder = Recorder(store, rank, ranks, f"trial {index}")
        for t in range(rounds):
            faulty = t >= onset and trial.sender == rank
            if faulty and trial.kind == "absent":
                store.wait(["over"], timedelta(seconds=PATIENCE))  # until somebody has noticed
                break
            time.sleep(COMPUTE + trial.seconds * (faulty and trial.kind == "slow rank"))
            held = trial.receiver if faulty and trial.kind == "slow link" else -1
            recorder.enter()
            thread.submit(_exchange, recorder, payload, held, trial.seconds)
            found.append(recorder.collect(limit if t >= onset and trial.kind == "absent" else PATIENCE))
            if not found[-1].left.all():
                store.set("over", "")
                break
    arrays: dict[str, Any] = {name: np.stack([getattr(each, name) for each in found]) for name in Timings._fields}
    np.savez(folder / f"{rank}.npz", **arrays)
    os._exit(0)  # a thread may be in a collective that nobody will finish


def _exchange(recorder: Recorder, payload: torch.Tensor, held: int, seconds: float) -> None:
    recorder.leave(probe(payload, before=lambda to: time.sleep(seconds if to == held else 0.0)))
