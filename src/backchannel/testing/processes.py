"""Real processes of one test, on loopback: started together, waited for with a limit, never left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LEAVE = "\nimport os, sys, time\nsys.stdout.flush()\nsys.stderr.flush()\ntime.sleep(2)\nos._exit(0)\n"
"""How a process ends whose program ran through. It stays a moment, since others may be asking the store that it keeps.
And it does not tear the interpreter down: while a thread of torch's is in an exchange or asks a store, that may abort
("terminate called without an active exception") with all done."""


def run_processes(
    code: str, arguments: Callable[[int], Sequence[str]], count: int, folder: Path, timeout: float
) -> list[str]:
    """Run Python's `code` in `count` processes and wait until all have ended well; returns what each wrote.

    Args:
        code: of a program, which leaves without tearing down the interpreter once it has run through (`LEAVE`).
        arguments: what process `rank` finds in `sys.argv[1:]`.
        count: how many.
        folder: where `RANK.txt` takes what each writes, on both of its streams.
        timeout: seconds for everything.

    Raises:
        RuntimeError: if one fails: with its rank and what it wrote.
        TimeoutError: if some do not end: with their ranks and what they wrote.
    """
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    processes = []
    try:
        for rank in range(count):
            with open(folder / f"{rank}.txt", "wb") as wrote:
                command = [sys.executable, "-c", code + LEAVE, *arguments(rank)]
                processes.append(subprocess.Popen(command, env=environment, stdout=wrote, stderr=wrote))
        _await(processes, folder, timeout)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(folder / f"{rank}.txt").read_text() for rank in range(count)]


def _await(processes: list[subprocess.Popen[bytes]], folder: Path, timeout: float) -> None:
    end = time.monotonic() + timeout
    while any(process.poll() is None for process in processes):
        failed = [rank for rank, process in enumerate(processes) if process.poll() not in (None, 0)]
        missing = [rank for rank, process in enumerate(processes) if process.poll() is None]
        if failed or time.monotonic() > end:
            break
        time.sleep(0.05)
    else:
        failed, missing = [rank for rank, process in enumerate(processes) if process.returncode], []
    if failed:
        wrote = (folder / f"{failed[0]}.txt").read_text()[-2000:]
        raise RuntimeError(f"rank {failed[0]} of {len(processes)} failed: {wrote}")
    if missing:
        wrote = "".join((folder / f"{rank}.txt").read_text()[-1000:] for rank in missing)
        raise TimeoutError(f"rank {', '.join(map(str, missing))} did not answer within {timeout} seconds. {wrote}")
