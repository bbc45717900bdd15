"""What a log's columns become: the plain data from which features are made, and that travels inside the policy file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import msgspec
import numpy as np

from backchannel.engine import bind, compiled
from backchannel.ledger.log import Batch, Log

WIDTH = 64
BITS = 18
MOST_BITS = 30
MOST_CATEGORIES = 16  # columns of its own for each categorical context column; rarer values share one
MOST_COLUMNS = 160  # a context of more dense columns than this is hashed with a sign into WIDTH
MOST_VALUES = 2**20  # of a column, counted; values first met after so many others are rare ones
_CALL = """
@compiled
def measured(numbers, count, mean, squares):
    measure(numbers, count, mean, squares)
"""


class Encoder(msgspec.Struct, forbid_unknown_fields=True):
    """How rows of one log become features. Everything is a list or a number: it is kept as JSON.

    Attributes:
        columns: {categorical column: {key of a frequent value: dense column}}; column 0 is the constant.
        others: {categorical column: dense column of its rarer values; -1 if it has none}.
        dimension: width of the dense view.
        hashed: the dense view is hashed with a sign into `dimension` columns instead.
        ragged: options have features of their own, row by row, and rows differ in what they offer: learners see one
            vector an option.
        own: options have features of their own, row by row.
    """

    actions: list[str]
    numeric: list[str]
    mean: list[float]
    scale: list[float]
    categorical: list[str]
    columns: list[dict[str, int]]
    others: list[int]
    dimension: int
    hashed: bool
    ragged: bool
    own: bool = False
    items: tuple[list[int], list[int], list[float]] | None = None
    bits: int = BITS

    def __post_init__(self) -> None:
        """An encoder from a file must not lead compiled code outside its arrays, nor ask for more than a log makes."""
        for names, what in ((self.actions, "option"), (self.numeric + self.categorical, "column")):
            twice = [name for name, times in Counter(names).items() if times > 1]
            if twice:
                raise ValueError(f"the {what} {twice[0]!r} is named twice")
        if not self.actions:
            raise ValueError("there are no options")
        if not 1 <= self.bits <= MOST_BITS:
            raise ValueError(f"bits must lie in 1..{MOST_BITS}, not {self.bits}")
        if self.ragged and not (self.hashed and self.own):
            raise ValueError("ragged options must have features of their own, hashed")
        for what, size, names in (
            ("mean", len(self.mean), self.numeric),
            ("scale", len(self.scale), self.numeric),
            ("columns", len(self.columns), self.categorical),
            ("others", len(self.others), self.categorical),
        ):
            if size != len(names):
                raise ValueError(f"{what} has {size} entries for {len(names)} columns")
        for name, mean, scale in zip(self.numeric, self.mean, self.scale, strict=True):
            if not (math.isfinite(mean) and math.isfinite(scale) and scale > 0):
                raise ValueError(f"the column {name!r} has no finite mean and scale: its numbers are too large")
        self._check_places()
        if self.items is not None:
            _check_items(self.items, len(self.actions))

    def _check_places(self) -> None:
        """Every frequent value has a dense column of its own, and so have the rarer ones of each column together."""
        places = [place for place in self.others if place != -1]
        for name, columns in zip(self.categorical, self.columns, strict=True):
            places += columns.values()
            if not all(key.isascii() and key.isdecimal() and 0 < int(key[:21]) < 2**64 for key in columns):
                raise ValueError(f"the values of the column {name!r} must be named by their 64-bit keys")
        first = 1 + len(self.numeric)
        if sorted(places) != list(range(first, first + len(places))):
            raise ValueError(f"the dense columns of categories must be {first} to {first + len(places) - 1}")
        width = WIDTH if self.hashed else first + len(places)
        if self.dimension != width or width > MOST_COLUMNS:
            raise ValueError(f"dimension is {self.dimension}, but its columns make {width}, at most {MOST_COLUMNS}")


def _check_items(items: tuple[list[int], list[int], list[float]], actions: int) -> None:
    start, key, value = items
    if len(start) != actions + 1 or start[0] != 0 or any(a > b for a, b in pairwise(start)):
        raise ValueError(f"the features of {actions} options must begin at {actions + 1} rising places from 0")
    if not start[-1] == len(key) == len(value):
        raise ValueError(f"{start[-1]} features of options need as many keys and values")
    if not all(0 <= each < 2**64 for each in key) or not all(map(math.isfinite, value)):
        raise ValueError("the features of options must have 64-bit keys and finite values")


def fit_encoder(log: Log, batches: Iterable[Batch]) -> Encoder:
    """One pass over the log's batches: scales of the numbers, frequent categories.

    Everything is gathered row by row, so that the same log in other batches gives the same encoder to the last bit.
    """
    count, mean, squares = (np.zeros(len(log.numeric)) for _ in range(3))
    seen: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.uint64), np.empty(0, np.int64))] * len(log.categorical)
    measured = bind(_CALL, {"measure": _measure}, ()).measured
    ragged = own = False
    for batch in batches:
        measured(batch.numbers, count, mean, squares)
        seen = [_counted(*counts, batch.categories[:, j]) for j, counts in enumerate(seen)]
        own = own or batch.features is not None
        ragged = ragged or (batch.features is not None and not offers_all(batch, len(log.actions)))
    deviation = np.sqrt(squares / np.maximum(count, 1))
    columns, others, dimension = [], [], 1 + len(log.numeric)
    for keys, counts in seen:
        frequent = [int(key) for key in keys[np.lexsort((keys, -counts))] if key != 0][:MOST_CATEGORIES]
        columns.append({str(key): dimension + i for i, key in enumerate(sorted(frequent))})
        dimension += len(frequent)
        rarer = keys.size > len(frequent)
        others.append(dimension if rarer else -1)
        dimension += rarer
    hashed = ragged or dimension > MOST_COLUMNS
    items = None if log.items is None else tuple(part.tolist() for part in log.items)
    return Encoder(
        actions=log.actions,
        numeric=log.numeric,
        mean=mean.tolist(),
        scale=np.where(deviation > 0, deviation, 1.0).tolist(),
        categorical=log.categorical,
        columns=columns,
        others=others,
        dimension=WIDTH if hashed else dimension,
        hashed=hashed,
        ragged=ragged,
        own=own,
        items=items,
    )


def offers_all(batch: Batch, actions: int) -> bool:
    """Whether every row offers every action, in their order."""
    if batch.offered is None or batch.option is None:
        return True
    same = np.diff(batch.offered) == actions
    return bool(same.all()) and bool((batch.option.reshape(-1, actions) == np.arange(actions)).all())


def _counted(keys: np.ndarray, counts: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each value occurs, a batch further; in the order in which they first occurred."""
    found, first, more = np.unique(column, return_index=True, return_counts=True)
    order = np.argsort(keys)
    at = np.searchsorted(keys, found, sorter=order)
    place = order[np.minimum(at, keys.size - 1)] if keys.size else np.zeros(found.size, np.int64)
    known = keys[place] == found if keys.size else np.zeros(found.size, bool)
    counts = counts.copy()
    counts[place[known]] += more[known]
    new = np.flatnonzero(~known)
    new = new[np.argsort(first[new])][: MOST_VALUES - keys.size]
    return np.concatenate([keys, found[new]]), np.concatenate([counts, more[new]])


@compiled
def _measure(numbers, count, mean, squares):
    """Welford's recursion: mean and sum of squared deviations, exact also far from 0."""
    for i in range(numbers.shape[0]):
        for j in range(numbers.shape[1]):
            if np.isfinite(numbers[i, j]):
                count[j] += 1.0
                step = numbers[i, j] - mean[j]
                mean[j] += step / count[j]
                squares[j] += step * (numbers[i, j] - mean[j])
