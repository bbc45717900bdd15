"""The recipe does not rot: what `new` writes lints, and passes the battery before its first line is changed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import backchannel
from backchannel.card import FAMILIES, index
from backchannel.testing.battery import CHECKS
from backchannel.workshop.skeleton import write_skeleton
from backchannel.workshop.status import status, written_tests

PACKAGE = Path(backchannel.__file__).resolve().parent
BATTERY = """
import sys
from backchannel.card import find
from backchannel.testing.battery import CHECKS
method = find("my_method", "online")
assert method.module.__file__.startswith(sys.argv[1]), method.module.__file__
for check in CHECKS:
    check(method)
    print(check.__name__)
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package, with a fresh skeleton in it."""
    package = tmp_path_factory.mktemp("source") / "backchannel"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "data", "tests"))
    write_skeleton(package, "online", "my_method")
    return package


def run(copy, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(copy.parent)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=copy.parent, timeout=300)


def test_three_files_are_written(copy):
    for name in ("my_method.py", "tests/test_my_method.py", "claims/my_method.py"):
        text = (copy / "online" / name).read_text()
        assert not re.search(r"\b(FAMILY|KEY|TITLE)\b", text), f"{name} has a word that was not filled in"


def test_the_battery_passes_on_the_fresh_skeleton(copy):
    done = run(copy, "-c", BATTERY, str(copy))
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.split()) == len(CHECKS)


def test_its_doctest_passes(copy):
    done = run(copy, "-m", "doctest", str(copy / "online" / "my_method.py"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_its_claim_runs(copy):
    program = (
        "from backchannel.claim import run_claim; print(run_claim('online', 'my_method', 0)[0].checks[0].measured)"
    )
    done = run(copy, "-c", program)
    assert done.returncode == 0, done.stderr[-3000:]
    assert float(done.stdout) > 0


def test_its_proofs_fail_until_they_are_written_and_it_is_a_sketch_so_long(copy):
    tests = copy / "online" / "tests" / "test_my_method.py"
    assert status(copy, copy / "none", "online", "my_method") == "sketch"
    assert written_tests(tests) == []
    done = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(copy), str(tests))
    assert "4 failed" in done.stdout, done.stdout
    assert "passed" not in done.stdout


def test_its_proofs_have_the_names_that_status_looks_for(copy, tmp_path):
    skeleton = (copy / "online" / "tests" / "test_my_method.py").read_text()
    tests = tmp_path / "online" / "tests" / "test_my_method.py"
    tests.parent.mkdir(parents=True)
    written, count = re.subn(r"pytest\.fail\(.*\)", "assert value() == 1", skeleton)
    tests.write_text(written)
    assert count == 4
    assert status(tmp_path, tmp_path / "none", "online", "my_method") == "checked"


def test_what_is_there_is_not_written_over(copy):
    before = (copy / "online" / "my_method.py").read_text()
    with pytest.raises(ValueError, match=r"my_method\.py exists already"):
        write_skeleton(copy, "online", "my_method")
    assert (copy / "online" / "my_method.py").read_text() == before


def test_the_first_method_of_a_family_brings_its_battery(copy):
    assert copy / "games" / "tests" / "test_battery.py" in write_skeleton(copy, "games", "first_game")
    assert len(write_skeleton(copy, "games", "second_game")) == 3
    tests = str(copy / "games" / "tests" / "test_battery.py")
    done = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(copy), tests, "-k", "first_game")
    assert f"{len(CHECKS)} passed, {len(CHECKS)} deselected" in done.stdout, done.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_the_library_with_methods_runs_its_battery(family, tmp_path):
    shutil.copytree(PACKAGE / family, tmp_path / family, ignore=shutil.ignore_patterns("__pycache__"))
    learners = [entry for entry in index() if (entry["family"], entry["protocol"]) == (family, "learner")]
    brings = tmp_path / family / "tests" / "test_battery.py" in write_skeleton(tmp_path, family, "my_method")
    assert not (brings and learners)


@pytest.mark.parametrize("name", ["Exp3", "3exp", "my-method", "a.b", "../up", "", "class", "_hidden", "naïve"])
def test_a_name_that_does_not_serve(tmp_path, name):
    with pytest.raises(ValueError, match="cannot name a method"):
        write_skeleton(tmp_path, "online", name)
    assert list(tmp_path.iterdir()) == []


def test_a_family_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="there is no family 'offline'; one of online, games"):
        write_skeleton(tmp_path, "offline", "my_method")
