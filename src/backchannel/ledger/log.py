"""A feedback log, opened: what every reader yields and everything above reads.

A `Log` knows its options, its context columns and how many rows it has; `batches()` streams it as arrays, in order of
time, as often as one likes. Text never leaves the readers: a categorical value is a stable 64-bit hash of
"column=value" (`key_of`), so that a policy learned today meets the same key tomorrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np


class Options(NamedTuple):
    """Options with features, ragged: option j has `key[start[j] : start[j + 1]]` with the values beside them."""

    start: np.ndarray  # int64[options + 1]
    key: np.ndarray  # uint64[features], from key_of(column, value); of a number: key_of(column)
    value: np.ndarray  # float64[features]; 1.0 for a category


class Batch(NamedTuple):
    """n consecutive decisions with their joined feedback. Missing numbers are nan, as everywhere."""

    row: np.ndarray  # int64[n]: number of the row in its file, from 1, for messages
    action: np.ndarray  # int64[n]: index into Log.actions
    reward: np.ndarray  # float64[n]: nan where no feedback came
    propensity: np.ndarray  # float64[n]: in (0, 1]; nan where the log has none
    time: np.ndarray  # float64[n]: seconds since 1970, or the row number where the log has no times
    feedback_time: np.ndarray  # float64[n]: nan where unknown
    position: np.ndarray  # int64[n]: 0 where the log has none
    numbers: np.ndarray  # float64[n, len(Log.numeric)]
    categories: np.ndarray  # uint64[n, len(Log.categorical)]: key_of(column, value); 0 where missing
    offered: np.ndarray | None  # int64[n + 1]: row i offered options offered[i]..offered[i + 1] - 1 of the two below
    option: np.ndarray | None  # int64[m]: index into Log.actions of each offered option; None: every row offers all
    features: Options | None  # m offered options with features of their own (None: see Log.items)


class Log(Protocol):
    """What the readers return."""

    name: str
    rows: int
    actions: list[str]  # every option, sorted (numerically where all are numbers)
    numeric: list[str]  # context columns that are numbers
    categorical: list[str]  # context columns that are not
    items: Options | None  # features of actions that never change, in the order of `actions`
    has_propensity: bool
    has_time: bool
    notes: list[str]  # what the reader counted and its user should see: rows skipped, feedback orphaned, ...

    def batches(self, size: int = 65536) -> Iterator[Batch]:
        """The whole log in order of time (rows of one time stay in order of the file)."""
        ...


def key_of(column: str, value: str | None = None) -> int:
    """A stable, non-zero 64-bit key of a feature: of the category `value` of `column`, or of a numeric column."""
    text = column if value is None else f"{column}={value}"
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()  # the hash that DuckDB can compute, too
    return int.from_bytes(digest[8:], "little") or 1
