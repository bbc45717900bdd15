"""What docstrings show, as plain Python."""

import sys
import types

import pytest

from backchannel.testing import interpreted


@pytest.mark.parametrize(
    ("text", "said"), [(">>> 1 + 1\n2", ""), (">>> 1 + 1\n3", "Got:\n    2"), (">>> 1 / 0", "ZeroDiv")]
)
def test_what_a_docstring_shows_is_compared(monkeypatch, text, said):
    monkeypatch.setitem(sys.modules, "made_up", types.ModuleType("made_up", text))
    found = interpreted._answered(["show", "made_up"])
    assert (said in found) if said else found == ""


def test_warnings_are_errors_and_errors_are_told(monkeypatch):
    warned = ">>> import warnings\n>>> warnings.warn('careful')"
    monkeypatch.setitem(sys.modules, "made_up", types.ModuleType("made_up", warned))
    assert "UserWarning: careful" in interpreted._answered(["show", "made_up"])
    assert "ModuleNotFoundError" in interpreted.shown("no_such_module")
    assert interpreted.interpreted("online", "no_such_method", "out").endswith("'\n")
