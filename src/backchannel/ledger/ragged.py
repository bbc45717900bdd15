"""The options of rows that have options of their own: four growing files of plain numbers beside the database.

A row of the table knows where its part begins: `offer`, the place of its first option, `offers`, how many it has, and
`feature`, the place of its first option's first feature. So sorting and joining move three numbers, whatever a row
offers, and a batch is read as arrays. Option names are numbered in the order in which they were met.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from backchannel.ledger.log import Options
from backchannel.ledger.problems import LogError

COLUMNS = {"offer": "BIGINT", "offers": "BIGINT", "feature": "BIGINT"}
PARTS: dict[str, Any] = {"option": np.int32, "count": np.int32, "key": np.uint64, "value": np.float64}


class Ragged:
    """The files, in a folder of their own use.

    Attributes:
        places: option name -> its number in the files.
        features: whether any option has features.
    """

    def __init__(self, folder: str) -> None:
        self.places: dict[str, int] = {}
        self.features = False
        self._paths = {part: os.path.join(folder, f"{part}.bin") for part in PARTS}
        self._sizes = dict.fromkeys(PARTS, 0)

    def place(self, name: str) -> int:
        """The number of an option, new or known."""
        return self.places.setdefault(name, len(self.places))

    def append(
        self, offers: np.ndarray, option: np.ndarray, count: np.ndarray, key: np.ndarray, value: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Keep the options of some rows; returns what their table columns say (nan where a row offers all).

        Args:
            offers: int64[rows]: how many options each row has; -1 where it names none.
            option: [sum of offers]: numbers from `place`.
            count: [sum of offers]: how many features each of them has.
            key: [sum of count]: the features, as in `Options`.
            value: [sum of count].
        """
        own = np.maximum(offers, 0)
        first = np.cumsum(own) - own
        ahead = np.concatenate([[0], np.cumsum(count)])
        columns = {
            "offer": first + self._sizes["option"],
            "offers": own,
            "feature": ahead[first] + self._sizes["key"],
        }
        for part, numbers in (("option", option), ("count", count), ("key", key), ("value", value)):
            try:
                with open(self._paths[part], "ab") as file:
                    np.ascontiguousarray(numbers, PARTS[part]).tofile(file)
            except OSError as error:
                raise LogError(f"the options of a log cannot be kept in {self._paths[part]}: {error}") from None
            self._sizes[part] += len(numbers)
        self.features = self.features or len(key) > 0
        return {name: np.where(offers < 0, np.nan, column) for name, column in columns.items()}

    def options(self, offer: np.ndarray, offers: np.ndarray) -> np.ndarray:
        """int64[sum of offers]: numbers of the options of some rows."""
        return self._part("option", offer, offers).astype(np.int64)

    def features_of(self, offer: np.ndarray, offers: np.ndarray, feature: np.ndarray) -> Options:
        """The features of those options."""
        count = self._part("count", offer, offers).astype(np.int64)
        start = np.concatenate([[0], np.cumsum(count)])
        ends = np.cumsum(offers)
        many = start[ends] - start[ends - offers]
        return Options(start, self._part("key", feature, many), self._part("value", feature, many))

    def _part(self, part: str, first: np.ndarray, many: np.ndarray) -> np.ndarray:
        """`many` numbers from each place of `first`, one after the other."""
        kind = np.dtype(PARTS[part])
        total = int(many.sum())
        if not total:
            return np.empty(0, kind)
        first, many = first[many > 0], many[many > 0]
        if np.array_equal(first[1:], first[:-1] + many[:-1]):  # rows in the order of reading
            return np.fromfile(self._paths[part], kind, total, offset=int(first[0]) * kind.itemsize)
        inside = np.arange(total) - np.repeat(np.cumsum(many) - many, many)
        return np.memmap(self._paths[part], kind, "r")[np.repeat(first, many) + inside]
