"""Commands that fail, are stopped or lose their reader leave nothing half-written and say where it was."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from backchannel.cli.folder import earlier_policies, fill
from backchannel.cli.tests.test_commands import CSV, ROWS, call
from backchannel.decide.learn import LEAST_ROWS
from backchannel.report import page

WAIT = 120  # seconds: far more than it takes, far less than for ever


def command(*arguments):
    return [sys.executable, "-m", "backchannel.cli", *map(str, arguments)]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(CSV + ROWS)
    return path


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_learn_that_fails_leaves_no_folder(log, tmp_path):
    (tmp_path / "few.csv").write_text(CSV + ROWS[: 8 * (LEAST_ROWS - 2)])
    for arguments in ([log, "--policy", "exp4"], [tmp_path / "none.csv"], [tmp_path / "few.csv"]):
        assert call("learn", *arguments, "--out", tmp_path / "new" / "deep")[0] == 2
        assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_said_before_the_work(log, tmp_path):
    for out in (log, log / "deep", tmp_path / "new" / ("x" * 300)):
        code, _, said = call("learn", tmp_path / "none.csv", "--out", out)
        assert code == 2
        assert said.startswith(f"{out}: ")  # and not that none.csv is missing
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("stop", [OSError, KeyboardInterrupt])
def test_what_stops_the_writing_leaves_what_was_there(log, tmp_path, monkeypatch, stop):
    def half(learned, path):
        Path(path).write_text("<!doctype")
        raise stop(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    assert call("learn", log, "--policy", "ucb1", "--out", out)[0] == 0
    before = files(tmp_path)
    monkeypatch.setattr(page, "write_page", half)
    for folder in (out, tmp_path / "new" / "deep"):
        if stop is OSError:
            code, _, said = call("learn", log, "--policy", "uniform", "--out", folder)
            assert (code, said) == (2, f"{folder / 'report.html'}: No space left on device")
        else:
            assert call("learn", log, "--policy", "uniform", "--out", folder)[0] == 130
        assert files(tmp_path) == before
        assert not (tmp_path / "new").exists()


def test_a_report_that_cannot_be_written_leaves_what_was_there(log, tmp_path):
    out = tmp_path / "out"
    log.write_text(CSV + ROWS * 10)
    assert call("learn", log, "--policy", "uniform", "--out", out)[0] == 0
    (tmp_path / "new" / "reward_report.json").mkdir(parents=True)
    (tmp_path / "new" / "reward_report.md").write_text("old")
    before = files(tmp_path)
    code, _, said = call("report", out / "result.json", "--card", "--policy", "uniform", "--out", tmp_path / "new")
    assert code == 2
    assert said.startswith(f"{tmp_path / 'new' / 'reward_report.json'}: ")
    assert files(tmp_path) == before
    assert call("report", out / "result.json", "--card", "--policy", "nobody", "--out", tmp_path / "other")[0] == 2
    assert not (tmp_path / "other").exists()


def test_what_stops_the_moving_puts_back_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    (tmp_path / "stale").write_text("old")
    before = files(tmp_path)
    writers = {name: lambda path: path.write_text("new") for name in ("a", "b", "c")}
    replace = Path.replace

    def fails_once(self, target):
        if Path(target) == tmp_path / "c":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails_once)
        with pytest.raises(PermissionError) as error:
            fill(tmp_path, writers, ["stale"])
    assert error.value.filename == str(tmp_path / "c")
    assert files(tmp_path) == before
    fill(tmp_path, writers, ["stale"])
    assert files(tmp_path) == {"a": b"new", "b": b"new", "c": b"new"}


def test_policies_of_an_earlier_result_go(log, tmp_path):
    out = tmp_path / "out"
    assert call("learn", log, "--policy", "ucb1", "--policy", "uniform", "--out", out)[0] == 0
    (out / "mine.policy").write_text("kept: no result names it")
    code, said, _ = call("learn", log, "--policy", "uniform", "--out", out)
    assert code == 0
    assert said.splitlines()[-1] == f"removed, as of the earlier result there: {out / 'ucb1.policy'}"
    assert set(files(out)) == {"report.html", "result.json", "uniform.policy", "mine.policy"}
    code, said, _ = call("learn", log, "--policy", "ucb1", "--out", out, "--json")
    assert json.loads(said)["removed"] == [str(out / "uniform.policy")]
    assert "removed" not in call("learn", log, "--policy", "ucb1", "--out", out)[1]


def test_only_policies_that_a_result_names_are_of_it(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("../a.policy", "b.policy", "c.policy"):
        (out / name).write_text("")
    assert earlier_policies(out) == []
    for text in ("[]", "{", '{"policies": [{"key": 3}]}', '{"x": ' + "[" * 100_000):
        (out / "result.json").write_text(text)
        assert earlier_policies(out) == []
    keys = ["../a", "b", "gone", "b", str(tmp_path / "a")]
    (out / "result.json").write_text(json.dumps({"policies": [{"key": key} for key in keys]}))
    assert earlier_policies(out) == ["b.policy"]


@pytest.mark.parametrize("arguments", [["learn", "-", "--out", "new/deep"], ["convert", "-", "new.jsonl"]])
def test_a_command_that_is_terminated_leaves_nothing(tmp_path, arguments):
    room, work = tmp_path / "room", tmp_path / "work"
    room.mkdir()
    work.mkdir()
    started = threading.Event()
    process = subprocess.Popen(
        command(*arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=work,
        env={**os.environ, "TMPDIR": str(room)},
    )
    timer = threading.Timer(WAIT, process.kill)
    timer.start()
    try:
        while not list(room.glob("backchannel-*/stdin")):  # it copies what it is told until there is no more
            assert process.poll() is None
            started.wait(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    finally:
        timer.cancel()
        process.kill()
    assert (process.returncode, said) == (143, b"stopped\n")
    assert not list(room.iterdir())
    assert not list(work.iterdir())


def _ended(body):
    """(exit code, output, errors) of a command that does this."""
    program = f"""
import os
from backchannel import cli
@cli.app.command()
def work():
{textwrap.indent(textwrap.dedent(body), "    ")}
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program, "work"], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def _struck(number, caught):
    """What a command does that is sent a signal, and what then."""
    return f"""
        try:
            os.kill(os.getpid(), {int(number)})
            os.kill(os.getpid(), 0)
        {caught}
    """


SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])


@pytest.mark.parametrize("error", ["RuntimeError", "SystemError"])  # DuckDB's, and that of compiled code
@SIGNALS
def test_a_signal_that_others_make_an_error_of_is_none(number, code, error):
    caught = f"except BaseException: raise {error}('Query interrupted')"
    assert _ended(_struck(number, caught)) == (code, "", "stopped\n")


@SIGNALS
def test_a_command_may_write_what_it_has_when_a_signal_comes(number, code):
    caught = "except KeyboardInterrupt: print('half of it')"
    assert _ended(_struck(number, caught)) == (code, "half of it\n", "stopped\n")


def test_what_a_command_says_as_it_exits_is_printed():
    assert _ended("raise SystemExit('gave up')") == (1, "", "gave up\n")


def test_a_signal_ends_the_claims_of_a_family(tmp_path):
    program = f"""
import os
from backchannel import cli
from backchannel.workshop import publish
def run(family, key, *_):
    print(key, flush=True)
    try:
        os.kill(os.getpid(), {int(signal.SIGTERM)})
        os.kill(os.getpid(), 0)
    except BaseException:
        raise SystemError("returned a result with an exception set")
publish.claims = lambda family: [(family, "one"), (family, "other")]
publish.run_seed = run
cli.main()
"""
    arguments = ["claim", "--family", "online", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "one\n", "stopped\n")


def test_temporary_files_without_room_are_not_blamed_on_the_log(log, tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    log.write_text(CSV + ROWS * 100)
    done = subprocess.run(
        command("learn", log, "--out", tmp_path / "out"),
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(room)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (14_000, 14_000)),
        check=False,
    )
    assert done.returncode == 2
    assert f"the temporary folder {room} has no room: File too large" in done.stderr
    assert "log.duckdb" not in done.stderr
    assert not list(room.iterdir())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["find"], ["find", "--json"], ["show", "exp3"], ["--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_without_room_is_named(tmp_path, arguments, unbuffered):
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            command(*arguments),
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, "backchannel: standard output: File too large\n")
    assert (tmp_path / "out").stat().st_size == 100


def test_output_that_nobody_reads_or_that_is_closed(log, tmp_path):
    assert call("learn", log, "--policy", "uniform", "--out", tmp_path / "out")[0] == 0
    act = command("act", "--policy", tmp_path / "out" / "uniform.policy")
    for arguments in (act, command("find"), command("find", "--json")):
        inside, outside = os.pipe()
        os.close(inside)
        done = subprocess.run(arguments, input=b"{}\n", stdout=outside, stderr=subprocess.PIPE, check=False)
        os.close(outside)
        assert (done.returncode, done.stderr) == (141, b"")
    done = subprocess.run(
        command("find", "--json"), preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
