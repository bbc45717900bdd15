"""Methods' examples as plain Python, and what they did: the battery's other side (see check_interpreted).

A process that starts with NUMBA_DISABLE_JIT=1 is asked by lines of JSON, [family, key, path], and answers each with a
line, "" or what went wrong.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import traceback
import warnings

import numpy as np

from backchannel.card import find
from backchannel.loop import Run
from backchannel.testing.arena import arena


def interpreted(family: str, key: str, path: str) -> str:
    """Play `family`/`key` as plain Python in a process of its own; "", or what went wrong there."""
    player = _player(os.getpid())
    assert player.stdin is not None
    assert player.stdout is not None
    player.stdin.write(json.dumps([family, key, path]) + "\n")
    player.stdin.flush()
    answer = player.stdout.readline()
    if not answer:
        _player.cache_clear()
        return f"the process that plays ended with {player.wait()}"
    return str(json.loads(answer))


@functools.cache
def _player(process: int) -> subprocess.Popen[str]:
    """One for all methods: it imports once. A fork gets its own."""
    player = subprocess.Popen(
        [sys.executable, "-m", "backchannel.testing.interpreted"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def end() -> None:
        if os.getpid() == process:
            player.communicate()

    atexit.register(end)
    return player


def _play(family: str, key: str, path: str) -> None:
    """Play 60 rounds with seed 13 and write actions and State to `path`."""
    method = find(key, family)
    task, channel = arena(method.card)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)  # 64-bit hashes wrap on purpose
        run = Run(method.example(), task, 60, seed=13, channel=channel).advance()
    np.savez(path, actions=run.trace.actions, **run.state._asdict())


def _serve() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what a method prints is no answer
    for line in sys.stdin:
        try:
            _play(*json.loads(line))
            answer = ""
        except Exception:
            answer = traceback.format_exc()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
