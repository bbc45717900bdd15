"""Real processes of one test, on loopback: started together, waited for with a limit, never left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from backchannel.testing.fork_server import Forked

LEAVE = """
import os, sys, time
sys.stdout.flush()
sys.stderr.flush()
open(os.environ["BACKCHANNEL_DONE"], "w").close()
time.sleep(600)
"""
"""How a process ends whose program ran through: it says so, and stays until all have, since others may be asking the
store that it keeps. It does not tear the interpreter down: while a thread of torch's is in an exchange or asks a store,
that may abort ("terminate called without an active exception") with all done."""


def run_processes(
    code: str, arguments: Callable[[int], Sequence[str]], count: int, folder: Path, timeout: float
) -> list[str]:
    """Run Python's `code` in `count` processes and wait until all have ended well; returns what each wrote.

    Args:
        code: of a program, which is killed once all have run through (`LEAVE`).
        arguments: what process `rank` finds in `sys.argv[1:]`.
        count: how many.
        folder: where `RANK.txt` takes what each writes, on both of its streams.
        timeout: seconds for everything.

    Raises:
        RuntimeError: if one fails: with its rank and what it wrote.
        TimeoutError: if some do not end: with their ranks and what they wrote.
    """
    processes: list[Forked] = []
    done = [folder / f"{rank}.done" for rank in range(count)]
    try:
        for rank in range(count):
            done[rank].unlink(missing_ok=True)
            own = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "BACKCHANNEL_DONE": str(done[rank])}
            processes.append(Forked(code + LEAVE, arguments(rank), os.environ | own, folder / f"{rank}.txt"))
        _await(processes, done, folder, timeout)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(folder / f"{rank}.txt").read_text() for rank in range(count)]


def _await(processes: list[Forked], done: list[Path], folder: Path, timeout: float) -> None:
    end = time.monotonic() + timeout
    while True:
        missing = [rank for rank, each in enumerate(processes) if not done[rank].exists() and each.poll() is None]
        failed = [rank for rank, each in enumerate(processes) if each.poll() not in (None, 0)]
        if failed:
            wrote = (folder / f"{failed[0]}.txt").read_text()[-2000:]
            raise RuntimeError(f"rank {failed[0]} of {len(processes)} failed: {wrote}")
        if not missing:
            return
        if time.monotonic() > end:
            wrote = "".join((folder / f"{rank}.txt").read_text()[-1000:] for rank in missing)
            names = ", ".join(map(str, missing))
            raise TimeoutError(f"rank {names} did not answer within {timeout} seconds. {wrote}")
        time.sleep(0.02)
