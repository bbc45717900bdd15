"""A helper process: what is asked and answered, and what happens when it ends."""

import pytest

from backchannel.testing.helper import Helper

ECHO = """
import os
from backchannel.testing.helper import serve

def answer(asked):
    print("no answer")
    if asked == "end":
        os._exit(3)
    return [asked, os.environ["NAME"], os.getpid()]

serve(answer)
"""


def test_it_starts_once_answers_and_starts_anew_when_it_has_ended(tmp_path):
    (tmp_path / "echo.py").write_text(ECHO)
    helper = Helper("echo", PYTHONPATH=str(tmp_path), NAME="x")
    first, second = helper.ask({"a": 1}), helper.ask("two\nlines")
    assert first[:2] == [{"a": 1}, "x"]
    assert second == ["two\nlines", "x", first[2]]
    with pytest.raises(RuntimeError, match="echo ended with 3 when it was asked"):
        helper.ask("end")
    assert helper.ask(None)[2] != first[2]
