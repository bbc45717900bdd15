"""What the workshop writes fits the files of this checkout: its glossary and its linter's settings."""

import ast
import re
import subprocess
import sys
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path

import pytest

from backchannel.feedback import KINDS
from backchannel.workshop import sync
from backchannel.workshop.skeleton import write_skeleton

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder of a fresh skeleton."""
    package = tmp_path_factory.mktemp("source") / "src" / "backchannel"
    package.mkdir(parents=True)
    write_skeleton(package, "online", "my_method")
    return package / "online"


@pytest.fixture(scope="module")
def topics():
    return sync.vocabulary((ROOT / "docs" / "glossary.md").read_text())


def test_a_skeletons_card_uses_the_words_of_the_glossary(written, topics):
    text = (written / "my_method.py").read_text()
    words = {name: ast.literal_eval(re.search(rf"    {name}=(.*),\n", text)[1]) for name in ("topics", "feedback")}
    assert set(words["topics"]) <= set(topics)
    assert set(words["feedback"]) <= {kind for kind, _ in sync.HAVE}


def test_a_skeleton_is_linted_as_the_library_is(written):
    files = [str(written / name) for name in ("my_method.py", "claims/my_method.py", "tests/test_my_method.py")]
    ours = ["--config", "lint.isort.known-first-party = ['backchannel']"]  # which Ruff cannot see from there
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        rules = ["--config", str(ROOT / "pyproject.toml"), *ours]
        program = [sys.executable, "-m", "ruff", *command, *rules, *files]
        done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=written.parents[2])
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_neighbour_topic_and_feedback_is_there(topics):
    assert topics
    assert sync.strangers(sync.entries(), topics) == []


def test_no_two_words_of_the_vocabulary_are_forms_of_one(topics):
    # delay and delayed, preference and preference learning: whoever looks for one would miss the other's methods.
    for words in (topics, sorted({kind for kind, _ in sync.HAVE})):
        for one, other in combinations(words, 2):
            if {one, other} <= set(KINDS):
                continue  # ranking and rating are the record's own words
            assert not other.startswith(one), f"{one!r} and {other!r}"
            assert SequenceMatcher(None, one, other).ratio() < 0.75, f"{one!r} and {other!r}"


def test_check_tells_a_stale_file_and_writes_nothing(tmp_path, monkeypatch, capsys):
    path = tmp_path / "page.md"
    path.write_text("old")
    monkeypatch.setattr(sync, "ROOT", tmp_path)
    monkeypatch.setattr(sync, "files", lambda: {path: "new"})
    assert sync.main(check=True) == 1
    assert "page.md is not what the cards say: run `make sync`" in capsys.readouterr().out
    assert path.read_text() == "old"
    assert sync.main(check=False) == 0
    assert path.read_text() == "new"
    assert sync.main(check=True) == 0
