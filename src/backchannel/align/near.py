"""Texts that are nearly the same: by their runs of words, found without comparing all pairs.

A text is the set of its runs of `RUN` words, in small letters and without punctuation. Two texts are near if these
sets share at least `NEAR` of their union (Jaccard). Candidates are found by minima of hashes: two sets have the same
minimum of a random hash with a probability that is their Jaccard similarity J, so that of `BANDS` bands of `ROWS`
minima at least one agrees with probability 1 - (1 - J^ROWS)^BANDS: more than 0.9999 at J = 0.8. Each candidate is then
compared exactly.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from itertools import combinations

import numpy as np

RUN, NEAR = 3, 0.8
BANDS, ROWS = 18, 4
CROWD = 50  # of a bucket, at most so many texts are compared with one another: beyond that, with the first alone
_PRIME = (1 << 31) - 1
_WORD = re.compile(r"\w+")


def plain(text: str) -> str:
    """Its words in small letters: what punctuation, spaces and capitals leave."""
    return " ".join(_WORD.findall(text.casefold()))


def near_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs i < j of texts that are near; of texts that are the same words, each goes with the first alone."""
    first: dict[str, int] = {}
    found = []
    for i, text in enumerate(texts):
        j = first.setdefault(plain(text), i)
        if j != i:
            found.append((j, i))
    own = sorted(first.values())
    runs = [_runs(texts[i]) for i in own]
    buckets: dict[tuple[int, bytes], list[int]] = {}
    for k, minima in enumerate(_minima(runs)):
        for band in range(BANDS):
            buckets.setdefault((band, minima[band * ROWS : (band + 1) * ROWS].tobytes()), []).append(k)
    candidates: set[tuple[int, int]] = set()
    for bucket in buckets.values():
        candidates.update(combinations(bucket[:CROWD], 2))
        candidates.update((bucket[0], k) for k in bucket[CROWD:])
    found += [(own[a], own[b]) for a, b in candidates if _alike(runs[a], runs[b])]
    return sorted(found)


def _runs(text: str) -> frozenset[int]:
    """Hashes of the runs of words; a text of fewer words is one run."""
    words = plain(text).split(" ")
    count = max(len(words) - RUN + 1, 1)
    return frozenset(zlib.crc32(" ".join(words[i : i + RUN]).encode()) % _PRIME for i in range(count))


def _minima(runs: Sequence[frozenset[int]]) -> np.ndarray:
    """int64[texts, BANDS * ROWS]: the minima of random hashes a x + b mod a prime."""
    rng = np.random.default_rng(0)
    a = rng.integers(1, _PRIME, BANDS * ROWS)[:, None]
    b = rng.integers(0, _PRIME, BANDS * ROWS)[:, None]
    each = [((a * np.fromiter(own, np.int64, len(own)) + b) % _PRIME).min(1) for own in runs]
    return np.array(each, np.int64).reshape(len(runs), BANDS * ROWS)


def _alike(a: frozenset[int], b: frozenset[int]) -> bool:
    return len(a & b) >= NEAR * len(a | b)
