"""Where a log lies while it is open: one table of a temporary DuckDB database, on disk, in order of time.

A reader fills the table `log` with `insert`, a file or a chunk at a time, and calls `finish`; from then on `StoredLog`
streams it. Memory stays within a fixed limit, whatever the size of the log. Every row has all there is to know of one
decision: ragged parts (the options offered, their features) are list columns, so that sorting moves them along.

The columns: `seq`, the order of reading; `file` and `row`, for messages; `action` ... `position` as in `Batch`; `n0`,
`n1`, ... the numeric context; `c0`, ... the categorical one; `w0`, ... numbers that each option has in a column of its
own; `options`, `keys`, `numbers`, `counts` the ragged part; `bad`, the number of the column that is wrong, and `value`,
what stood there. With `text` the table keeps names where the log needs their keys only: converting does.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from backchannel.ledger.log import Batch, Options, key_of
from backchannel.ledger.problems import LogError, Problems, counted, shortened

FIXED = {
    "seq": "BIGINT",
    "file": "INTEGER",
    "row": "BIGINT",
    "action": "VARCHAR",
    "reward": "DOUBLE",
    "propensity": "DOUBLE",
    "time": "DOUBLE",
    "feedback_time": "DOUBLE",
    "position": "BIGINT",
}
DETAILS = {"id": "VARCHAR", "policy": "VARCHAR", "version": "VARCHAR", "shown": "BOOLEAN"}  # kept with `text` only
RAGGED = {"options": "VARCHAR[]", "counts": "BIGINT[]", "keys": "UBIGINT[]", "numbers": "DOUBLE[]"}
RAGGED_TEXT = {"features": "VARCHAR[]"}  # JSON of each option's features, with `text` only
BAD = {"bad": "INTEGER", "value": "VARCHAR"}
MEMORY = "400MB"


def literal(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def key_sql(column: str, expression: str) -> str:
    """`key_of(column, value)` in SQL, 0 where the value is missing."""
    digest = f"md5_number_lower({literal(column + '=')} || {expression})"
    return f"coalesce(greatest({digest}, 1::UBIGINT), 0::UBIGINT)"


class Store:
    """The temporary database while a reader fills it."""

    def __init__(self, name: str, text: bool = False) -> None:
        self.name = name
        self.text = text
        self.files: list[str] = []
        self.notes: list[str] = []
        self.numeric: dict[str, str] = {}  # context name -> its column n0, ...
        self.categorical: dict[str, str] = {}
        self.wide: dict[str, dict[str, str]] = {}  # feature -> option -> its column w0, ...
        self.meanings: set[str] = set()  # which of propensity, time, options, ... the source has
        self.checks: list[tuple[str, str]] = []  # what `bad` counts: a column of a source and what was expected there
        self.rows = 0  # of the table, bad ones included: the next seq
        self._columns: set[str] = set()
        self.folder = folder = tempfile.mkdtemp(prefix="backchannel-")
        self.db = duckdb.connect(
            os.path.join(folder, "log.duckdb"),
            config={"memory_limit": MEMORY, "threads": min(4, os.cpu_count() or 1), "temp_directory": folder},
        )
        self.close = weakref.finalize(self, _drop, self.db, folder)
        self.db.execute("SET TimeZone = 'UTC'; SET pandas_analyze_sample = 0; SET preserve_insertion_order = true")
        self.db.execute("CREATE TABLE log (seq BIGINT)")
        self._columns.add("seq")
        self._need(FIXED | BAD | (DETAILS if text else {}))

    def _need(self, columns: Mapping[str, str]) -> None:
        for column, kind in columns.items():
            if column not in self._columns:
                self.db.execute(f"ALTER TABLE log ADD COLUMN {column} {kind}")
                self._columns.add(column)

    def number(self, name: str) -> str:
        """The table's column for the numeric context `name`."""
        if name not in self.numeric:
            self.numeric[name] = f"n{len(self.numeric)}"
            self._need({self.numeric[name]: "DOUBLE"})
        return self.numeric[name]

    def category(self, name: str) -> str:
        """The table's column for the categorical context `name`."""
        if name not in self.categorical:
            self.categorical[name] = f"c{len(self.categorical)}"
            self._need({self.categorical[name]: "VARCHAR" if self.text else "UBIGINT"})
        return self.categorical[name]

    def option_number(self, feature: str, option: str) -> str:
        """The table's column for the number `feature` of `option`."""
        columns = self.wide.setdefault(feature, {})
        if option not in columns:
            columns[option] = f"w{sum(len(each) for each in self.wide.values())}"
            self._need({columns[option]: "DOUBLE"})
        return columns[option]

    def ragged(self) -> None:
        """The log has rows with options of their own."""
        self.meanings.add("options")
        self._need(RAGGED | (RAGGED_TEXT if self.text else {}))

    def insert(self, expressions: Mapping[str, str], source: str) -> int:
        """Append `SELECT ... FROM source`: column -> SQL; returns how many rows came."""
        names = ", ".join(expressions)
        values = ", ".join(expressions.values())
        self.db.execute(f"INSERT INTO log ({names}) SELECT {values} FROM {source}")
        return int(self.db.fetchall()[0][0])

    def one(self, query: str) -> tuple[Any, ...]:
        """The only row of a query."""
        return self.db.execute(query).fetchall()[0]

    def finish(self, problems: Problems, strict: bool = False) -> None:
        """Take out bad rows, and sort by time; with `strict`, times that run backwards raise."""
        bad = self.db.execute(
            f"SELECT file, row, bad, value FROM log WHERE bad IS NOT NULL ORDER BY seq LIMIT {problems.skip + 1}"
        ).fetchall()
        for file, row, check, value in bad:
            column, expected = self.checks[check]
            found = "nothing" if value is None else shortened(value)
            problems.add(f"{self.files[file]}, row {row}, column {column!r}: expected {expected}, found {found}")
        if bad:
            self.db.execute("DELETE FROM log WHERE bad IS NOT NULL")
        if "time" in self.meanings:
            self._sort(strict)

    def _sort(self, strict: bool) -> None:
        backwards, first, last = 0, (0, 0), -math.inf
        for start in range(0, self.rows, 1 << 20):
            part = self.db.execute(
                f"SELECT time, file, row FROM log WHERE seq BETWEEN {start} AND {start + (1 << 20) - 1} ORDER BY seq"
            ).fetchnumpy()
            times = np.concatenate([[last], part["time"]])
            fell = np.flatnonzero(np.diff(times) < 0)
            if fell.size and not backwards:
                first = (int(part["file"][fell[0]]), int(part["row"][fell[0]]))
            backwards += fell.size
            last = times[-1]
        if backwards and strict:
            raise LogError(f"{self.files[first[0]]}, row {first[1]}: time runs backwards")
        if backwards:
            self.db.execute("CREATE TABLE sorted AS SELECT * FROM log ORDER BY time, seq")
            self.db.execute("DROP TABLE log; ALTER TABLE sorted RENAME TO log")
            self.db.execute("UPDATE log SET seq = rowid")
            self.notes.append(
                f"time runs backwards {counted(backwards, 'time', 'times')}, first in {self.files[first[0]]}, "
                f"row {first[1]}; rows were sorted by time"
            )


class StoredLog:
    """A `Log` over a filled store."""

    def __init__(self, store: Store, items: Mapping[str, Mapping[str, Any]] | None, notes: list[str]) -> None:
        self.name = store.name
        self._store = store
        self._db = store.db
        self.rows, propensities = map(int, store.one("SELECT count(*), count(propensity) FROM log"))
        if not self.rows:
            raise LogError(f"{store.name} holds no decision")
        self.has_propensity = propensities > 0
        self.has_time = "time" in store.meanings
        self.numeric = list(store.numeric)
        self.categorical = list(store.categorical)
        self.notes = store.notes + notes
        if 0 < propensities < self.rows:
            self.notes.append(f"{counted(self.rows - propensities, 'row has', 'rows have')} no propensity")
        self.actions = self._find_actions()
        self.items = _items(items, self.actions) if items else None

    def _find_actions(self) -> list[str]:
        found = {action for (action,) in self._db.execute("SELECT DISTINCT action FROM log").fetchall()}
        if "options" in self._store._columns:
            query = "SELECT DISTINCT unnest(options) FROM log"
            found |= {option for (option,) in self._db.execute(query).fetchall()}
        for columns in self._store.wide.values():
            found |= set(columns)
        actions = in_order(found)
        self._db.execute(f"CREATE TYPE option AS ENUM ({', '.join(literal(action) for action in actions)})")
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
        fixed += [f"coalesce({column}, 'nan'::DOUBLE) AS {column}" for column in store.numeric.values()]
        fixed += list(store.categorical.values())
        ragged = "options" in store._columns
        fixed += ["len(options) AS offers"] if ragged else []
        last = int(store.one("SELECT max(seq) FROM log")[0])
        for start in range(0, last + 1, size):
            cursor = self._db.cursor()  # its own, so that several passes may run at once
            where = f"FROM log WHERE seq BETWEEN {start} AND {min(start + size - 1, last)}"
            part = cursor.execute(f"SELECT {', '.join(fixed)} {where} ORDER BY seq").fetchnumpy()
            rows = len(part["seq"])
            if not rows:
                continue
            offered = option = features = None
            if store.wide:
                offered, option, features = self._wide(cursor, where, rows)
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

    def _wide(self, cursor: Any, where: str, rows: int) -> tuple[np.ndarray, np.ndarray, Options]:
        """Every option in every row, with the numbers of its own columns; zeros are left out."""
        width = len(self.actions)
        place = {action: index for index, action in enumerate(self.actions)}
        cells: list[np.ndarray] = []
        keys: list[np.ndarray] = []
        values: list[np.ndarray] = []
        for feature, columns in self._store.wide.items():
            part = cursor.execute(f"SELECT {', '.join(columns.values())} {where} ORDER BY seq").fetchnumpy()
            key = key_of(feature)
            for option, column in columns.items():
                number = np.ma.filled(part[column], 0.0)
                at = np.flatnonzero(number)
                cells.append(at * width + place[option])
                keys.append(np.full(at.size, key, np.uint64))
                values.append(number[at])
        cell = np.concatenate(cells)
        order = np.argsort(cell, kind="stable")
        start = np.zeros(rows * width + 1, np.int64)
        np.cumsum(np.bincount(cell, minlength=rows * width), out=start[1:])
        features = Options(start, np.concatenate(keys)[order], np.concatenate(values)[order])
        return np.arange(0, rows * width + 1, width), np.tile(np.arange(width), rows), features


def in_order(names: set[str]) -> list[str]:
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


def _drop(db: duckdb.DuckDBPyConnection, folder: str) -> None:
    db.close()
    shutil.rmtree(Path(folder), ignore_errors=True)
