"""Methods as plain Python, for the battery: what their examples did, and what their docstrings show.

One process with NUMBA_DISABLE_JIT=1 plays all of them, a helper (`helper.py`): it imports once, and compiles nothing,
which takes longer than most examples.
"""

from __future__ import annotations

import doctest
import importlib
import traceback
import warnings

import numpy as np

from backchannel.card import find
from backchannel.loop import Run
from backchannel.testing.arena import arena
from backchannel.testing.helper import Helper, serve

_PLAYER = Helper("backchannel.testing.interpreted", NUMBA_DISABLE_JIT="1")


def interpreted(family: str, key: str, path: str) -> str:
    """Play `family`/`key` as plain Python in a process of its own; "", or what went wrong there."""
    return _asked("play", family, key, path)


def shown(module: str) -> str:
    """Run what the docstrings of a module show there; "", or what came out otherwise."""
    return _asked("show", module)


def _asked(*what: str) -> str:
    try:
        return str(_PLAYER.ask(what))
    except RuntimeError as error:
        return str(error)


def _answered(asked: list[str]) -> str:
    what, *given = asked
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)  # 64-bit hashes wrap on purpose
            return _play(*given) if what == "play" else _show(*given)
    except Exception:
        return traceback.format_exc()


def _play(family: str, key: str, path: str) -> str:
    """Play 60 rounds with seed 13 and write actions and State to `path`."""
    method = find(key, family)
    task, channel = arena(method.card)
    run = Run(method.example(), task, 60, seed=13, channel=channel).advance()
    np.savez(path, actions=run.trace.actions, **run.state._asdict())
    return ""


def _show(module: str) -> str:
    """What pytest would say of the module's doctests."""
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(importlib.import_module(module)):
        runner.run(test, out=said.append)
    return "".join(said)


if __name__ == "__main__":
    serve(_answered)
