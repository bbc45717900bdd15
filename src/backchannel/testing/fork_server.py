"""Processes that need not import torch again: a server has imported it once, and forks them from itself.

Importing torch with what training needs takes seconds, and a test of processes starts several. The server is
`python -m backchannel.testing.fork_server`: it reads a line of JSON for each process to start or to ask after, and
answers with a line. It ends when nobody writes to it any more.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_asking = threading.Lock()


class Forked:
    """A process of the server's, with `pid`, `returncode`, `poll`, `kill` and `wait` as `subprocess.Popen` has them."""

    def __init__(self, code: str, arguments: Sequence[str], environment: Mapping[str, str], out: Path):
        """Runs Python's `code` with these `sys.argv[1:]`; both of its streams go to the file `out`."""
        self.returncode: int | None = None
        out.touch()
        about = {"code": code, "arguments": [*arguments], "environment": {**environment}, "out": str(out)}
        self.pid: int = _ask(about | {"folder": os.getcwd()})

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = _ask({"pid": self.pid, "wait": False})
        return self.returncode

    def wait(self) -> int | None:
        """The same, once it has ended."""
        if self.returncode is None:
            self.returncode = _ask({"pid": self.pid, "wait": True})
        return self.returncode

    def kill(self) -> None:
        """At once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@functools.cache
def _server(process: int) -> subprocess.Popen[str]:
    """Of this process: a fork has none of its parent's."""
    command = [sys.executable, "-m", "backchannel.testing.fork_server"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def end() -> None:
        if os.getpid() == process:
            server.communicate()

    atexit.register(end)
    return server


def _ask(about: Mapping[str, Any]) -> Any:
    server = _server(os.getpid())
    assert server.stdin is not None
    assert server.stdout is not None
    with _asking:
        server.stdin.write(json.dumps(about) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
    if not answer:
        raise RuntimeError(f"the server that starts processes has ended with {server.wait()}")
    return json.loads(answer)


def _serve() -> None:
    for name in ("torch._dynamo", "torch.distributed.fsdp"):  # the first of them by the first optimizer
        importlib.import_module(name)

    for line in sys.stdin:
        asked = json.loads(line)
        if "pid" in asked:
            pid, status = os.waitpid(asked["pid"], 0 if asked["wait"] else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                _become(**asked)
        print(json.dumps(answer), flush=True)


def _become(code: str, arguments: list[str], environment: dict[str, str], out: str, folder: str) -> None:
    """A fresh program in this fork; does not return."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    wrote = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(wrote, 1)
    os.dup2(wrote, 2)
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
    _serve()
