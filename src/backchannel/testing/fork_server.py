"""Processes that need not import torch again: a server has imported it once, and forks them from itself.

Importing torch with what training needs takes seconds, and a test of processes starts several. The server is a helper
(`helper.py`), which is asked to start a process, or how one ended.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backchannel.testing.helper import Helper, serve

_SERVER = Helper("backchannel.testing.fork_server", OMP_NUM_THREADS="1")


class Forked:
    """A process of the server's, with `pid`, `returncode`, `poll`, `kill` and `wait` as `subprocess.Popen` has them."""

    def __init__(self, code: str, arguments: Sequence[str], environment: Mapping[str, str], out: Path):
        """Runs Python's `code` with these `sys.argv[1:]`; both of its streams go to the file `out`."""
        self.returncode: int | None = None
        out.touch()
        about = {"code": code, "arguments": [*arguments], "environment": {**environment}, "out": str(out)}
        self.pid: int = _SERVER.ask(about | {"folder": os.getcwd()})

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = _SERVER.ask({"pid": self.pid, "wait": False})
        return self.returncode

    def wait(self) -> int | None:
        """The same, once it has ended."""
        if self.returncode is None:
            self.returncode = _SERVER.ask({"pid": self.pid, "wait": True})
        return self.returncode

    def kill(self) -> None:
        """At once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _answered(asked: dict[str, Any]) -> int | None:
    """A new process's number, or the exit code of one that is asked after."""
    if "pid" in asked:
        pid, status = os.waitpid(asked["pid"], 0 if asked["wait"] else os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None
    pid = os.fork()
    if not pid:
        _become(**asked)
    return pid


def _become(code: str, arguments: list[str], environment: dict[str, str], out: str, folder: str) -> None:
    """A fresh program in this fork; does not return."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    wrote = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(wrote, 1)
    os.dup2(wrote, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
    ended = 1
    try:
        exec(compile(code, "<process>", "exec"), {"__name__": "__main__"})
        ended = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        ended = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended)


if __name__ == "__main__":
    for name in ("torch._dynamo", "torch.distributed.fsdp"):  # the first of them by the first optimizer
        importlib.import_module(name)
    serve(_answered)
