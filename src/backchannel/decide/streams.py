"""Randomness of one's own: a generator for each use, unlike any that a user's seed makes.

`default_rng(0)`, `default_rng([0])` and `default_rng([0, 0])` are one stream. Whoever simulated a log with it and
learned with seed 0 would have had the split into halves depend on the logged actions; so every use here has a key from
its name.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, use: str) -> np.random.Generator:
    """The generator for `use` under the user's `seed`, which is at least 0."""
    if seed < 0:
        raise ValueError(f"a seed must be at least 0, not {seed}")
    key = int.from_bytes(hashlib.sha256(f"backchannel.decide {use}".encode()).digest()[:16], "little")
    return np.random.default_rng([seed, key])
