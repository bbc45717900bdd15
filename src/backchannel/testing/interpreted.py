"""Methods' examples as plain Python, and what they did: the battery's other side (see check_interpreted).

One process with NUMBA_DISABLE_JIT=1 plays all of them, a helper (`helper.py`): it imports once.
"""

from __future__ import annotations

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
    try:
        return str(_PLAYER.ask([family, key, path]))
    except RuntimeError as error:
        return str(error)


def _answered(asked: list[str]) -> str:
    try:
        _play(*asked)
    except Exception:
        return traceback.format_exc()
    return ""


def _play(family: str, key: str, path: str) -> None:
    """Play 60 rounds with seed 13 and write actions and State to `path`."""
    method = find(key, family)
    task, channel = arena(method.card)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)  # 64-bit hashes wrap on purpose
        run = Run(method.example(), task, 60, seed=13, channel=channel).advance()
    np.savez(path, actions=run.trace.actions, **run.state._asdict())


if __name__ == "__main__":
    serve(_answered)
