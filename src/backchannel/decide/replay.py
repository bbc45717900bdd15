"""A classification table replayed as a log of decisions, so that every policy's true value is known.

Each row of the table becomes a decision: the context is its columns, the options are the labels, the reward is 1
for the right one and 0 else, and a stated logging policy chooses. The learners see only the reward of the logged
choice; the right label is kept aside, and tells what each learned policy would really earn.

Logging policies: `uniform`, each label with the same probability; `stale`, a poor old model with some exploration, as
products have them: with probability 1/2 the label whose mean among the first 100 rows of the table lies nearest, else
uniform.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import resources

import duckdb
import numpy as np

from backchannel.decide.streams import stream
from backchannel.ledger.log import Batch, key_of

DIGITS = str(resources.files("backchannel.ledger").joinpath("data", "digits.parquet"))
STALE_ROWS = 100
EXPLORATION = 0.5
MOST_LABELS = 1000
MOST_NUMBERS = 2**22  # of an array that is made for a part of the rows


class ReplayedTable:
    """A `Log` whose right answers are known: `right(batch)` gives each row's best option."""

    has_propensity = True
    has_time = False
    items = None

    def __init__(self, path: str | os.PathLike[str], label: str, logged_by: str = "stale", seed: int = 0):
        if logged_by not in ("uniform", "stale"):
            raise ValueError(f"a table can be logged by uniform or stale, not {logged_by!r}")
        columns = _read(path)
        if label not in columns:
            raise ValueError(f"{path} has no column {label!r}; its columns are {', '.join(columns)}")
        answers = columns.pop(label).tolist()
        if None in answers:
            raise ValueError(
                f"{path}, row {answers.index(None) + 1} of the table has no {label!r}: nothing is right there"
            )
        labels = [str(value) for value in answers]
        if not labels:
            raise ValueError(f"{path} has no rows")
        self.actions = sorted(set(labels), key=lambda text: (len(text), text) if text.isdigit() else (10**6, text))
        if not 2 <= len(self.actions) <= MOST_LABELS:
            raise ValueError(
                f"{label!r} in {path} has {len(self.actions)} different values; a choice needs 2 to {MOST_LABELS}"
            )
        order = stream(seed, "replay order").permutation(len(labels))
        place = {name: i for i, name in enumerate(self.actions)}
        self._right = np.array([place[text] for text in labels])[order]
        self.numeric = [name for name, column in columns.items() if column.dtype.kind in "iufb"]
        self.categorical = [name for name in columns if name not in self.numeric]
        n = self.rows = len(labels)
        numbers: list[np.ndarray] = [
            np.ma.filled(np.ma.asarray(columns[c], float), np.nan)[order] for c in self.numeric
        ]
        self._numbers = np.column_stack(numbers) if numbers else np.empty((n, 0))
        keys = [_keys(c, columns[c])[order] for c in self.categorical]
        self._categories = np.column_stack(keys) if keys else np.empty((n, 0), np.uint64)
        self.name = f"{os.path.basename(path)} replayed, logged by {logged_by}"
        self.notes = [
            f"a table of {n:,} rows replayed in random order as decisions: reward 1 for the right {label}, "
            f"logged by the policy {logged_by!r}"
        ]
        nearest = _nearest(self._numbers, self._right, len(self.actions)) if logged_by == "stale" else None
        draw = stream(seed, "replay choice").random(n)
        self._action, self._propensity = _chosen(draw, nearest, len(self.actions))

    def right(self, batch: Batch) -> np.ndarray:
        """int64[n]: the option that earns 1 in each row of the batch."""
        return self._right[batch.row - 1]

    def batches(self, size: int = 65536) -> Iterator[Batch]:
        """The log, in order."""
        for start in range(0, self.rows, size):
            part = slice(start, min(start + size, self.rows))
            n = part.stop - part.start
            yield Batch(
                row=np.arange(part.start + 1, part.stop + 1),
                action=self._action[part],
                reward=(self._action[part] == self._right[part]).astype(float),
                propensity=self._propensity[part],
                time=np.arange(part.start, part.stop, dtype=float),
                feedback_time=np.full(n, np.nan),
                position=np.zeros(n, np.int64),
                numbers=self._numbers[part],
                categories=self._categories[part],
                offered=None,
                option=None,
                features=None,
            )


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    with duckdb.connect() as connection:
        try:
            relation = connection.sql("SELECT * FROM read_parquet(?)" if str(path).endswith(".parquet") else
                                      "SELECT * FROM read_csv(?)", params=[str(path)])  # fmt: skip
            found: dict[str, np.ndarray] = relation.fetchnumpy()
        except duckdb.Error as error:
            raise ValueError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from None
    return found


def _keys(name: str, column: np.ndarray) -> np.ndarray:
    missing = np.ma.getmaskarray(np.ma.asarray(column))
    text = np.array([str(value) for value in np.ma.getdata(np.ma.asarray(column))])
    values, inverse = np.unique(text, return_inverse=True)
    keys = np.array([key_of(name, str(value)) for value in values], np.uint64)[inverse]
    return np.where(missing, np.uint64(0), keys)


def _parts(rows: int, labels: int) -> Iterator[slice]:
    """So many rows at a time that an array of [rows, labels] has at most MOST_NUMBERS entries, or one row."""
    size = max(MOST_NUMBERS // labels, 1)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _chosen(draw: np.ndarray, nearest: np.ndarray | None, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """The label that each row's `draw` from [0, 1) falls on, and its probability; uniform where nothing is near."""
    action, propensity = np.empty(draw.size, np.int64), np.empty(draw.size)
    for part in _parts(draw.size, labels):
        row = np.arange(part.stop - part.start)
        chance = np.full((row.size, labels), 1 / labels)
        if nearest is not None:
            chance *= EXPLORATION
            chance[row, nearest[part]] += 1 - EXPLORATION
        action[part] = np.minimum((chance.cumsum(axis=1) < draw[part, None]).sum(axis=1), labels - 1)
        propensity[part] = chance[row, action[part]]
    return action, propensity


def _nearest(numbers: np.ndarray, right: np.ndarray, labels: int) -> np.ndarray:
    """The label whose mean among the first rows lies nearest; label 0 where there are no numbers to tell by."""
    x = np.where(np.isfinite(numbers), numbers, 0.0)
    scale = x.std(axis=0)
    x = x / np.where(scale > 0, scale, 1.0)
    early = right[:STALE_ROWS]
    centers = {label: x[:STALE_ROWS][early == label].mean(axis=0) for label in np.unique(early).tolist()}
    found = np.empty(x.shape[0], np.int64)
    for part in _parts(x.shape[0], max(labels, x.shape[1])):
        distance = np.full((part.stop - part.start, labels), np.inf)
        for label, center in centers.items():
            distance[:, label] = ((x[part] - center) ** 2).sum(axis=1)
        found[part] = distance.argmin(axis=1)
    return found
