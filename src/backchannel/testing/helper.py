"""A process beside the tests that imports once what takes long, and is asked by lines of JSON.

    helper = Helper("backchannel.testing.interpreted", NUMBA_DISABLE_JIT="1")
    helper.ask(["bandits", "ucb1", "played.npz"])

runs `python -m backchannel.testing.interpreted`, which calls `serve`. It ends when nobody can ask any more.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any


class Helper:
    """Starts with the first question, in each process that asks: a fork has none of its parent's."""

    def __init__(self, module: str, **environment: str):
        """A helper that runs `module`, with these variables beside those of here."""
        self._module, self._environment = module, environment
        self._asking = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._asker = 0

    def ask(self, about: Any) -> Any:
        """The answer; RuntimeError if the helper ended instead: the next question starts another."""
        with self._asking:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(about) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if not answer:
                self._process = None
                raise RuntimeError(f"{self._module} ended with {process.wait()} when it was asked")
        return json.loads(answer)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._asker != os.getpid():
            command = [sys.executable, "-m", self._module]
            environment = os.environ | self._environment
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
            self._asker = os.getpid()
            atexit.register(_end, self._process, self._asker)
        return self._process


def serve(answer: Callable[[Any], Any]) -> None:
    """Answer what is asked, until nobody asks any more. What is printed meanwhile goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def _end(process: subprocess.Popen[str], asker: int) -> None:
    if os.getpid() == asker:
        process.communicate()
