"""The engine: what is compiled depends on what the functions say, on nothing else; and the cache survives its users."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from typing import NamedTuple

import numpy as np
import pytest

from backchannel.engine import bind, cache_folder, compiled

TEMPLATE = '''
@compiled
def run(state):
    """Call what was bound."""
    return function(state)
'''

SOURCE = '''
"""A module of compiled functions."""
import numpy as np
from backchannel.engine import compiled

TABLE = np.array([1.0, 2.0])
SCALE = 3.0

@compiled
def helper(x):
    """Half of it."""
    return 0.5 * x

@compiled
def function(state):
    """Uses a helper, a constant and an array."""
    return helper(state.x[0]) + SCALE + TABLE[1]
'''


class State(NamedTuple):
    x: np.ndarray


class Other(NamedTuple):
    x: np.ndarray
    y: np.ndarray


STATE = State(np.array([4.0]))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("BACKCHANNEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """`written(old, new)`: the function of a module whose text had `old` replaced."""
    count = iter(range(100))

    def load(old="", new=""):
        assert old in SOURCE
        path = tmp_path / f"version_{next(count)}.py"
        path.write_text(SOURCE.replace(old, new) if old else SOURCE)
        spec = importlib.util.spec_from_file_location("version", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "version", module)  # where numba looks when it reads its cache
        spec.loader.exec_module(module)
        return module.function

    return load


def bound(function, state=STATE, template=TEMPLATE):
    return bind(template, {"function": function}, (state,))


def test_the_same_words_are_the_same_module(written):
    assert bound(written()) is bound(written())
    assert bound(written()).run(STATE) == 2.0 + 3.0 + 2.0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Half of it."""', '"""A half."""'),
        ('"""Uses a helper, a constant and an array."""', '"""Other words."""'),
        ('    """Half of it."""\n    return', '    """Half of it."""\n    # a remark\n\n    return'),
        ("SCALE = 3.0", "SCALE = 3.0\nUNUSED = 7"),
    ],
)
def test_words_and_what_is_not_used_compile_nothing(written, old, new):
    assert bound(written(old, new)) is bound(written())


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("return 0.5 * x", "return 0.25 * x", 6.0),  # a constant in a helper
        ("return 0.5 * x", "return 0.5 + x", 9.5),  # an operation in a helper
        ("SCALE = 3.0", "SCALE = 4.0", 8.0),  # a number of the module
        ("[1.0, 2.0]", "[1.0, 2.5]", 7.5),  # an array of the module
        ("TABLE[1]", "TABLE[0]", 6.0),  # the function itself
        ("def helper(x):", "def helper(x, y=1.0):", 7.0),  # a default
    ],
)
def test_a_change_anywhere_below_makes_another_module(written, old, new, value):
    changed = bound(written(old, new))
    assert changed is not bound(written())
    assert changed.run(STATE) == value


def test_a_captured_number_counts(written):
    def make(scale):
        @compiled
        def function(state):
            return scale * state.x[0]

        return function

    assert bound(make(2.0)) is bound(make(2.0))
    assert bound(make(2.0)) is not bound(make(3.0))
    assert bound(make(3.0)).run(STATE) == 12.0


def test_another_state_or_template_is_another_module(written):
    function = written()
    assert bound(function, Other(np.array([4.0]), np.zeros(1))) is not bound(function)
    assert bound(function, template=TEMPLATE + "\n# more\n") is not bound(function)


def test_values_of_a_state_compile_nothing(written):
    run = bound(written()).run
    run(STATE)
    before = len(run.signatures)
    assert run(State(np.array([8.0]))) == 9.0
    assert run(State(np.arange(100.0))) == 5.0
    assert len(run.signatures) == before == 1


def test_the_cache_lies_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("BACKCHANNEL_CACHE", str(tmp_path / "new" / "folder"))
    assert cache_folder() == tmp_path / "new" / "folder"
    monkeypatch.delenv("BACKCHANNEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "backchannel"


def test_where_no_folder_can_be_made_the_process_has_its_own(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BACKCHANNEL_CACHE", str(tmp_path / "file" / "folder"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    folder = cache_folder()
    assert folder.parent == tmp_path
    assert os.access(folder, os.W_OK)


PLAY = textwrap.dedent(
    """
    from typing import NamedTuple
    import numpy as np
    from backchannel.engine import bind, compiled

    class State(NamedTuple):
        x: np.ndarray

    @compiled
    def function(state):
        return 2.0 * state.x[0]

    print(bind(TEMPLATE, {"function": function}, (State(np.ones(1)),)).run(State(np.array([21.0]))))
    """
).replace("TEMPLATE", repr(TEMPLATE))


def start(cache):
    command = [sys.executable, "-c", PLAY]
    environment = {**os.environ, "BACKCHANNEL_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_compile_at_once_do_not_disturb_one_another(tmp_path):
    for process in [start(tmp_path) for _ in range(3)]:
        said, complaints = process.communicate(timeout=120)
        assert process.returncode == 0, complaints
        assert said == "42.0\n"
    assert len(list(tmp_path.glob("loop_*.py"))) == 1
    assert list(tmp_path.glob("*.tmp")) == []
    assert list(tmp_path.rglob("*.nbi"))  # the machine code was kept


def test_a_process_without_a_cache_works(tmp_path):
    (tmp_path / "file").write_text("in the way")
    process = start(tmp_path / "file" / "folder")
    said, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints
    assert said == "42.0\n"
