"""`compare` as its users run it: a table, a picture, Ctrl-C, going on, a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from backchannel.cli import compare
from backchannel.cli.tests.test_commands import call

assert compare  # which registers the command
COMMAND = [sys.executable, "-m", "backchannel.cli", "compare"]
SMALL = ["bernoulli", "--methods", "exp3,uniform,ucb1", "--seeds", "3", "--horizon", "300", "--tune", "2"]


class Done(NamedTuple):
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """The command in the test's folder, without a process of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: Done(*call("compare", *arguments))


def test_a_table_a_picture_and_a_record(run: Callable[..., Done], tmp_path: Path) -> None:
    first = run(*SMALL)
    assert first.returncode == 0, first.stderr
    assert "bernoulli, 300 rounds, 3 seeds, bandit feedback" in first.stdout
    assert "wrote comparison/compare.json, comparison/compare.png" in first.stdout
    assert (tmp_path / "comparison" / "compare.png").stat().st_size > 10_000
    again = run(*SMALL, "--json")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    kept = json.loads((tmp_path / "comparison" / "compare.json").read_text())
    assert {each["method"]: each for each in found["outcomes"]} == {each["method"]: each for each in kept["outcomes"]}
    assert {each["method"] for each in found["outcomes"]} == {"exp3", "uniform", "ucb1"}
    assert "3 of them were there from before" in run(*SMALL).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["poker"], "there is no standard task 'poker'"),
        (["bernoulli", "--methods", "hedge"], "hedge cannot meet here"),
        (["bernoulli", "--delay", "soon"], "--delay is written as fixed:100"),
        (["bernoulli", "--feedback", "rumour"], "Invalid enum value 'rumour'"),
        (["bernoulli", "--delay", "heavy_tailed:nan"], "channel.delay.heavy_tailed must be a finite number, not nan"),
        (["bernoulli", "--delay", "fixed:0.5"], "a fixed delay must be a whole number of rounds, not 0.5"),
        (["getcwd.toml"], "'os:getcwd' makes no task: it returns str"),
        (["nan.toml"], "methods.ucb1.exploration must be a finite number, not nan"),
        (["nowhere.toml"], "nowhere.toml: No such file"),
        ([*SMALL, "--workers", "there"], "ray://HOST:PORT"),
        ([*SMALL, "--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_mistakes_are_one_sentence(run: Callable[..., Done], tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "getcwd.toml").write_text('task = "os:getcwd"')
    (tmp_path / "nan.toml").write_text('task = "bernoulli"\n[methods]\nucb1 = { exploration = nan }')
    found = run(*arguments)
    assert found.returncode == 2
    assert said in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert found.stdout == ""
    assert not (tmp_path / "comparison" / "compare.json").exists()


def test_methods_meet_by_and_by_and_a_record_that_is_broken_is_moved_aside(
    run: Callable[..., Done], tmp_path: Path
) -> None:
    record = tmp_path / "comparison" / "compare.json"
    for methods in ("exp3,ucb1", "uniform"):
        found = run(*SMALL, "--methods", methods)
        assert found.returncode == 0, found.stderr
    assert "there from before" not in found.stdout
    assert {each["method"] for each in json.loads(record.read_text())["outcomes"]} == {"exp3", "ucb1", "uniform"}
    whole = record.read_bytes()
    assert "3 of them were there from before" in run(*SMALL).stdout
    other = run(*SMALL, "--horizon", "200")
    assert (other.returncode, other.stdout, len(other.stderr.splitlines())) == (2, "", 1)
    assert "comparison holds another contest (not the same: horizon): give another --out" in other.stderr
    assert record.read_bytes() == whole
    record.write_bytes(whole[:-100])
    anew = run(*SMALL, "--json")
    assert (anew.returncode, len(anew.stderr.splitlines())) == (0, 1)
    assert "compare.json could not be read: it is now comparison/compare.json.unreadable" in anew.stderr
    assert (record.parent / "compare.json.unreadable").read_bytes() == whole[:-100]
    key = "outcomes"
    assert {each["method"]: each for each in json.loads(record.read_text())[key]} == {
        each["method"]: each for each in json.loads(whole)[key]
    }


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(run: Callable[..., Done], tmp_path: Path) -> None:
    long = ["bernoulli", "--methods", "uniform,exp3", "--seeds", "100", "--horizon", "100000", "--tune", "60"]
    short = ["bernoulli", "--methods", "uniform", "--seeds", "100", "--horizon", "100000", "--tune", "60"]
    record = tmp_path / "comparison" / "compare.json"
    with subprocess.Popen([*COMMAND, *long], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 120
        while not record.exists() and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130
    assert "stopped with 1 of 2 methods done; the same command goes on from there" in said
    assert [each["method"] for each in json.loads(record.read_text())["outcomes"]] == ["uniform"]
    assert "1 of them were there from before" in run(*short).stdout


def test_a_cluster_gives_the_same_numbers(run: Callable[..., Done], tmp_path: Path) -> None:
    here = json.loads(run(*SMALL, "--json").stdout)
    there = run(*SMALL, "--json", "--workers", "ray://local", "--out", "other")
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == here
