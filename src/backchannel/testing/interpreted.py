"""Run a method's example as plain Python and keep what it did: the battery's other side (see check_interpreted)."""

from __future__ import annotations

import sys
import warnings

import numpy as np

from backchannel.card import Method, find
from backchannel.loop import Run
from backchannel.testing.arena import arena


def main(family: str, key: str, path: str) -> None:
    """Play 60 rounds of `family`/`key` with seed 13 and write actions and State to `path`."""
    method: Method = find(key, family)
    task, channel = arena(method.card)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered", RuntimeWarning)  # 64-bit hashes wrap on purpose
        run = Run(method.example(), task, 60, seed=13, channel=channel).advance()
    np.savez(path, actions=run.trace.actions, **run.state._asdict())


if __name__ == "__main__":
    main(*sys.argv[1:])
