"""A log that lies in a filled store, streamed as arrays: what `open_log` returns.

The table is in order of time and numbered by `seq`, so that a batch is a range of it; DuckDB turns names into places
in `Log.actions`. Options of rows come from list columns, from columns of their own, or from the files of ragged.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from backchannel.ledger.log import Batch, Options, key_of
from backchannel.ledger.problems import counted
from backchannel.ledger.store import Store


class StoredLog:
    """A `Log` over a filled store."""

    def __init__(self, store: Store, items: Mapping[str, Mapping[str, Any]] | None, notes: list[str]) -> None:
        self.name = store.name
        self._store = store
        self._db = store.db
        self.rows, propensities = map(int, store.one("SELECT count(*), count(propensity) FROM log"))
        self.has_propensity = propensities > 0
        self.has_time = "time" in store.meanings
        self.numeric = list(store.numeric)
        self.categorical = list(store.categorical)
        self.notes = store.notes + notes
        if 0 < propensities < self.rows:
            self.notes.append(f"{counted(self.rows - propensities, 'row has', 'rows have')} no propensity")
        self.actions = self._find_actions()
        self.items = _items(items, self.actions) if items else None
        places = {action: index for index, action in enumerate(self.actions)}
        self._numbered = np.array([places[name] for name in store.ragged.places] if store.ragged else [], np.int64)

    def _find_actions(self) -> list[str]:
        actions = option_names(self._store)
        named = {"name": np.array(actions, object)}
        self._db.register("named", named)
        self._db.execute("CREATE TABLE names AS SELECT name FROM named")
        self._db.execute("CREATE TYPE option AS ENUM (SELECT name FROM names)")
        return actions

    def close(self) -> None:
        """Delete the temporary database; else it goes with the last reference."""
        self._store.close()

    def batches(self, size: int = 65536) -> Iterator[Batch]:
        """The whole log in order of time (rows of one time stay in order of the file)."""
        store = self._store
        code = "enum_code({}::option)::BIGINT"
        fixed = ["seq", "row", code.format("action") + " AS action"]
        fixed += [f"coalesce({name}, 'nan'::DOUBLE) AS {name}" for name in ("reward", "propensity", "feedback_time")]
        fixed += [
            "time" if self.has_time else "(seq + 1)::DOUBLE AS time",
            "coalesce(position, 0) AS position",
        ]
        absent = "0" if store.zero else "'nan'::DOUBLE"
        fixed += [f"coalesce({column}, {absent}) AS {column}" for column in store.numeric.values()]
        fixed += list(store.categorical.values())
        last = int(store.one("SELECT max(seq) FROM log")[0])
        for start in range(0, last + 1, size):
            cursor = self._db.cursor()  # its own, so that several passes may run at once
            where = f"FROM log WHERE seq BETWEEN {start} AND {min(start + size - 1, last)}"
            part = cursor.execute(f"SELECT {', '.join(fixed)} {where} ORDER BY seq").fetchnumpy()
            rows = len(part["seq"])
            if not rows:
                continue
            offered = option = features = None
            if store.ragged:
                offered, option, features = self._beside(cursor, where)
            elif store.wide or "options" in store.meanings:
                offered, option = self._offers(cursor, where, rows)
                if store.wide:
                    features = self._wide(cursor, where, offered, option)
            numbers = [part[column] for column in store.numeric.values()]
            categories = [part[column] for column in store.categorical.values()]
            yield Batch(
                row=part["row"],
                action=part["action"],
                reward=part["reward"],
                propensity=part["propensity"],
                time=part["time"],
                feedback_time=part["feedback_time"],
                position=part["position"],
                numbers=np.column_stack(numbers) if numbers else np.empty((rows, 0)),
                categories=np.column_stack(categories) if categories else np.empty((rows, 0), np.uint64),
                offered=offered,
                option=option,
                features=features,
            )

    def _offers(self, cursor: Any, where: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Which options each row offers: all of them where it names none."""
        width = len(self.actions)
        if "options" not in self._store.meanings:
            return np.arange(0, rows * width + 1, width), np.tile(np.arange(width), rows)
        offers = "coalesce(options, enum_range(NULL::option)::VARCHAR[])"
        lengths = cursor.execute(f"SELECT len({offers}) AS offers {where} ORDER BY seq").fetchnumpy()["offers"]
        code = "enum_code(each::option)::BIGINT AS code"
        flat = f"SELECT {code} FROM (SELECT unnest({offers}) AS each FROM (SELECT options {where} ORDER BY seq))"
        return np.concatenate([[0], np.cumsum(lengths)]), cursor.execute(flat).fetchnumpy()["code"]

    def _beside(self, cursor: Any, where: str) -> tuple[np.ndarray, np.ndarray, Options | None]:
        """Options that lie beside the table; a row that names none offers all, without features."""
        ragged = self._store.ragged
        assert ragged is not None
        part = cursor.execute(f"SELECT offer, offers, feature {where} ORDER BY seq").fetchnumpy()
        everyone = np.ma.getmaskarray(part["offers"])
        offer, offers, feature = (np.ma.filled(part[column], 0) for column in ("offer", "offers", "feature"))
        named = self._numbered[ragged.options(offer, offers)]
        own = ragged.features_of(offer, offers, feature) if ragged.features else None
        if not everyone.any():
            return np.concatenate([[0], np.cumsum(offers)]), named, own
        width = len(self.actions)
        offered = np.concatenate([[0], np.cumsum(np.where(everyone, width, offers))])
        option = np.arange(offered[-1]) - np.repeat(offered[:-1], np.diff(offered))  # right where all are offered
        listed = np.repeat(~everyone, np.diff(offered))
        option[listed] = named
        if own is None:
            return offered, option, None
        count = np.zeros(offered[-1], np.int64)
        count[listed] = np.diff(own.start)
        return offered, option, Options(np.concatenate([[0], np.cumsum(count)]), own.key, own.value)

    def _wide(self, cursor: Any, where: str, offered: np.ndarray, option: np.ndarray) -> Options:
        """Features of offered options that lie in columns of their own; zeros are left out."""
        width = len(self.actions)
        place = {action: index for index, action in enumerate(self.actions)}
        cells: list[np.ndarray] = []
        keys: list[np.ndarray] = []
        values: list[np.ndarray] = []
        for feature, columns in self._store.wide.items():
            part = cursor.execute(f"SELECT {', '.join(columns.values())} {where} ORDER BY seq").fetchnumpy()
            hashed = key_of(feature)
            for name, column in columns.items():
                number = np.ma.filled(part[column], 0.0)
                at = np.flatnonzero(number)
                cells.append(at * width + place[name])
                keys.append(np.full(at.size, hashed, np.uint64))
                values.append(number[at])
        cell, key, value = np.concatenate(cells), np.concatenate(keys), np.concatenate(values)
        # A cell is a row and an option; `offers` are the cells that are offered, in the order of the flat arrays.
        offers = np.repeat(np.arange(len(offered) - 1), np.diff(offered)) * width + option
        order = np.argsort(offers, kind="stable")
        found = np.searchsorted(offers, cell, sorter=order).clip(max=len(offers) - 1)
        at = order[found]
        kept = offers[at] == cell
        at, key, value = at[kept], key[kept], value[kept]
        order = np.argsort(at, kind="stable")
        start = np.zeros(len(offers) + 1, np.int64)
        np.cumsum(np.bincount(at, minlength=len(offers)), out=start[1:])
        return Options(start, key[order], value[order])


def option_names(store: Store) -> list[str]:
    """Every option that a filled store names, in order."""
    found = {action for (action,) in store.db.execute("SELECT DISTINCT action FROM log").fetchall()}
    if store.ragged:
        found |= set(store.ragged.places)
    elif "options" in store.meanings:
        found |= {option for (option,) in store.db.execute("SELECT DISTINCT unnest(options) FROM log").fetchall()}
    for columns in store.wide.values():
        found |= set(columns)
    return _in_order(found)


def _in_order(names: set[str]) -> list[str]:
    """Sorted: as numbers where all are numbers."""

    def number(name: str) -> float:
        value = float(name)
        if not math.isfinite(value):
            raise ValueError
        return value

    try:
        return sorted(names, key=lambda name: (number(name), name))
    except ValueError:
        return sorted(names)


def features_of(given: Mapping[str, Any]) -> Iterator[tuple[int, float]]:
    """Keys and values of {feature: number | text | bool}; what is missing has none."""
    for name, value in given.items():
        if isinstance(value, str | bool):
            yield key_of(name, value if isinstance(value, str) else str(value).lower()), 1.0
        elif value is not None and not math.isnan(value):
            yield key_of(name), float(value)


def _items(items: Mapping[str, Mapping[str, Any]], actions: list[str]) -> Options:
    starts, keys, values = [0], [], []
    for action in actions:
        for key, value in features_of(items.get(action, {})):
            keys.append(key)
            values.append(value)
        starts.append(len(keys))
    return Options(np.array(starts, np.int64), np.array(keys, np.uint64), np.array(values, np.float64))
