"""Random numbers that are a pure function of (seed, round, index): a table too large to write down.

A task that draws its losses this way is *oblivious* by construction: the loss of arm a in round t is the same
whoever asks, whenever, and however often. Methods are then compared on the very same losses, feedback that
arrives late needs nothing kept, and a resumed run meets the world that it left.

The generator is SplitMix64 (Steele, Lea, Flood 2014) used as a counter-based hash: the stream position is
the key. It passes BigCrush as a stream; it is not a cryptographic function.
"""

from __future__ import annotations

import math

import numpy as np

from backchannel.engine import compiled

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_STRIDE = np.uint64(0xD1342543DE82EF95)


@compiled
def mix(value: np.uint64) -> np.uint64:
    """SplitMix64's finaliser: 64 bits in, 64 well-mixed bits out (a bijection)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@compiled
def uniform_at(seed: np.uint64, t: int, index: int) -> float:
    """A uniform number in [0, 1) for (seed, round, index)."""
    key = mix(seed + _GOLDEN * np.uint64(t + 1))
    bits = mix(key + _STRIDE * np.uint64(index + 1))
    return float(bits >> np.uint64(11)) * 2.0**-53


@compiled
def normal_at(seed: np.uint64, t: int, index: int) -> float:
    """A standard normal number for (seed, round, index), by Box and Muller."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform_at(seed, t, 2 * index)))
    return radius * math.cos(2.0 * math.pi * uniform_at(seed, t, 2 * index + 1))
