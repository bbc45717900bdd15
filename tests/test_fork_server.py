"""Processes that a server forks: what they are given, how they end."""

import os
import signal
import time

import pytest

pytest.importorskip("torch", reason="the server imports torch")

from backchannel.testing.fork_server import Forked


def _started(folder, code, *arguments, **environment):
    return Forked(code, arguments, {"PATH": os.environ["PATH"], **environment}, folder / "out.txt")


def test_a_process_has_its_own_arguments_environment_and_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "import os, sys; print(sys.argv[1:], os.environ['NAME'], os.getcwd()); print('oh', file=sys.stderr)"
    process = _started(tmp_path, code, "a", "b c", NAME="x")
    assert process.wait() == 0
    assert (tmp_path / "out.txt").read_text() == f"['a', 'b c'] x {tmp_path}\noh\n"
    assert process.pid != os.getpid()


@pytest.mark.parametrize(
    ("code", "ended", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("import sys; sys.exit()", 0, ""),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ],
)
def test_how_it_ends_is_told(tmp_path, code, ended, said):
    process = _started(tmp_path, code)
    assert process.wait() == process.returncode == process.poll() == ended
    assert (tmp_path / "out.txt").read_text().endswith(said)


def test_it_can_be_killed_and_another_runs_meanwhile(tmp_path):
    sleeping = _started(tmp_path, "import time; time.sleep(600)")
    assert sleeping.poll() is None
    assert _started(tmp_path, "pass").wait() == 0
    began = time.monotonic()
    sleeping.kill()
    assert sleeping.wait() == -signal.SIGKILL
    assert time.monotonic() - began < 30
    sleeping.kill()  # nothing is left to kill
