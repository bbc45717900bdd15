"""Calls that may never answer: what they say, and what is left of them at the exit."""

import subprocess
import sys
import threading
import time

import pytest

from backchannel.parts.patience import within


def test_what_is_returned_and_raised_comes_back():
    assert within(10, lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 / 0)


def test_who_takes_too_long_is_left_alone():
    over = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 seconds"):
        within(0.05, over.wait)
    over.set()


PROGRAM = """
import time
from backchannel.parts import patience
patience.LAST = {last}
try:
    patience.within(0.05, lambda: (time.sleep({seconds}), print("came back", flush=True)))
except TimeoutError:
    print("went on", flush=True)
"""


@pytest.mark.parametrize(("last", "seconds", "wrote"), [(20, 0.5, "went on\ncame back\n"), (0.1, 30, "went on\n")])
def test_at_the_exit_a_call_has_a_last_moment_and_no_more(last, seconds, wrote):
    began = time.monotonic()
    code = PROGRAM.format(last=last, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == wrote
    assert time.monotonic() - began < 20
