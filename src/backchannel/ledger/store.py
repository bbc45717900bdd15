"""Where a log lies while it is open: one table of a temporary DuckDB database, on disk, in order of time.

A reader fills the table `log` with `insert`, a file or a chunk at a time, and calls `finish`; from then on `StoredLog`
(stored.py) streams it. Memory stays within a fixed limit, whatever the size of the log. Every row has all there is to
know of one decision, so that sorting moves it along.

The columns: `seq`, the order of reading; `file` and `row`, for messages; `action` ... `position` as in `Batch`; `n0`,
`n1`, ... the numeric context; `c0`, ... the categorical one; `w0`, ... numbers that each option has in a column of its
own; `options`, the options of a row, or, from line formats, where they lie beside the table (ragged.py); `bad`, the
number of the column that is wrong, and `value`, what stood there. With `text` the table keeps names where the log needs
their keys only: converting does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from backchannel.ledger import ragged
from backchannel.ledger.problems import LogError, Problems, counted, no_room, shortened
from backchannel.ledger.ragged import Ragged

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
    "id": "VARCHAR",
    "shown": "BOOLEAN",
}
DETAILS = {"policy": "VARCHAR", "version": "VARCHAR"}  # kept with `text` only
OPTIONS = {"options": "VARCHAR[]"}
FEATURES = {"features": "VARCHAR"}  # JSON of the options and their features, with `text` only
BAD = {"bad": "INTEGER", "value": "VARCHAR"}
MEMORY = "400MB"


def first_line(error: Exception) -> str:
    """DuckDB's complaint without its advice; where its own files have no room, that alone."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (no_room(said) if tempfile.gettempdir() in said else None) or said


def literal(text: str) -> str:
    """A string in SQL."""
    return "'" + text.replace("'", "''").replace("\0", "' || chr(0) || '") + "'"


def identifier(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def key_sql(column: str, expression: str) -> str:
    """`key_of(column, value)` in SQL, 0 where the value is missing."""
    digest = f"md5_number_lower({literal(column + '=')} || {expression})"
    return f"CASE WHEN {expression} IS NULL THEN 0::UBIGINT ELSE greatest({digest}, 1::UBIGINT) END"


def list_sql(expression: str) -> str:
    """A JSON list of text as a list, in SQL."""
    return f"from_json({expression}, '[\"VARCHAR\"]')"


class Store:
    """The temporary database while a reader fills it."""

    def __init__(self, name: str, text: bool = False, progress: Callable[[float], None] | None = None) -> None:
        self.name = name
        self.text = text
        self._progress = progress
        self.file_of = (0, 1)  # which file is read, of how many
        self.files: list[str] = []
        self.notes: list[str] = []
        self.numeric: dict[str, str] = {}  # context name -> its column n0, ...
        self.categorical: dict[str, str] = {}
        self.truths: set[str] = set()  # those of the context that held a truth value
        self.texts: set[str] = set()  # those that held something else
        self.wide: dict[str, dict[str, str]] = {}  # feature -> option -> its column w0, ...
        self.meanings: set[str] = set()  # which of propensity, time, options, ... the source has
        self.checks: list[tuple[str, str]] = []  # what `bad` counts: a column of a source and what was expected there
        self.spelt: dict[int, dict[str, str]] = {}  # file -> meaning -> the column that has it there
        self.left: set[tuple[int, int]] = set()  # file and row of records that are bad beside others
        self.missed: set[str] = set()  # ids of bad decisions, whose feedback goes with them
        self.context: dict[str, None] | None = None  # of JSON lines: the columns, which the first decision says
        self.option_texts: dict[str, bool] = {}  # of JSON lines: feature of options -> whether it is text
        self.timed: bool | None = None  # whether decisions of a line format have times: the first one says
        self.zero = False  # whether a number that is not named is 0, instead of missing
        self.answers = 0  # rows of the table of feedback
        self.select = "SELECT * FROM log"  # what the log is in the end, before it is sorted
        self.ragged: Ragged | None = None  # options that lie beside the table
        self.rows = 0  # of the table, bad ones included: the next seq
        created = FIXED | BAD | (DETAILS if text else {})
        self.columns = set(created)
        try:
            self.folder = folder = tempfile.mkdtemp(prefix="backchannel-")
        except OSError as error:
            raise LogError(f"no temporary directory can be made for {name}: {error.strerror}") from None
        threads = str(min(4, os.cpu_count() or 1))
        settings: dict[str, Any] = {"memory_limit": MEMORY, "threads": threads, "temp_directory": folder}
        try:
            self.db = duckdb.connect(os.path.join(folder, "log.duckdb"), config=settings)
        except duckdb.Error as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise LogError(f"no temporary database can be made for {name}: {first_line(error)}") from None
        self.close = weakref.finalize(self, _drop, self.db, folder)
        self.db.execute("SET TimeZone = 'UTC'; SET pandas_analyze_sample = 0; SET preserve_insertion_order = true")
        self.db.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        self.db.execute(f"CREATE TABLE log ({', '.join(f'{column} {kind}' for column, kind in created.items())})")

    def _need(self, columns: Mapping[str, str]) -> None:
        for column, kind in columns.items():
            if column not in self.columns:
                self.db.execute(f"ALTER TABLE log ADD COLUMN {column} {kind}")
                self.columns.add(column)

    def number(self, name: str) -> str:
        """The table's column for the numeric context `name`."""
        if name not in self.numeric:
            self.numeric[name] = f"n{len(self.numeric)}"
            self._need({self.numeric[name]: "DOUBLE"})
        return self.numeric[name]

    @property
    def width(self) -> int:
        """How many columns the context has."""
        return len(self.numeric) + len(self.categorical)

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

    def offers(self, beside: bool = False) -> None:
        """The log has rows with options of their own: in the table, or `beside` it in files."""
        self.meanings.add("options")
        if self.text:
            self._need(OPTIONS | FEATURES)
        elif beside:
            self.ragged = self.ragged or Ragged(self.folder)
            self._need(ragged.COLUMNS)
        else:
            self._need(OPTIONS)

    def insert(
        self,
        expressions: Mapping[str, str],
        source: str,
        chunk: Mapping[str, np.ndarray] | None = None,
        table: str = "log",
    ) -> int:
        """Append `SELECT ... FROM source`: column -> SQL; returns how many rows came. A source may be the `chunk`."""
        names = ", ".join(expressions)
        values = ", ".join(expressions.values())
        with self._watched(chunk is None):
            self.db.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM {source}")  # `chunk` is found by name
        return int(self.db.fetchall()[0][0])

    def progress(self, part: float) -> None:
        """Tell how much of the present file has been read."""
        if self._progress:
            self._progress((self.file_of[0] + part) / self.file_of[1])

    @contextmanager
    def _watched(self, long: bool) -> Iterator[None]:
        """Tell, from a thread beside, how far a long statement is."""
        if not long or self._progress is None:
            yield
            return
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.25):
                self.progress(min(max(self.db.query_progress(), 0.0) / 100, 1.0))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def one(self, query: str) -> tuple[Any, ...]:
        """The only row of a query."""
        return self.db.execute(query).fetchall()[0]

    def bad(self, problems: Problems, place: tuple[int, int], column: str, sentence: str) -> None:
        """One more bad row, in a file and at a row, for what it has as `column`, a meaning."""
        file, row = place
        column = self.spelt.get(file, {}).get(column, column)
        problems.add(f"{self.files[file]}, row {row}, column {column!r}: {sentence}")
        self.left.add(place)

    def drop(self, table: str, seq: np.ndarray) -> None:
        """Take rows out; decisions among them are missed."""
        chunk = {"seq": seq}
        gone = self.db.execute(f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM chunk) RETURNING id").fetchall()
        if chunk and table == "log":
            self.missed |= {name for (name,) in gone if name is not None}

    def clean(self, problems: Problems) -> None:
        """Take out the rows with a cell that is wrong."""
        bad = self.db.execute(
            f"SELECT file, row, bad, value FROM log WHERE bad IS NOT NULL ORDER BY seq LIMIT {problems.left + 1}"
        ).fetchall()
        for file, row, check, value in bad:
            column, expected = self.checks[check]
            found = "nothing" if value is None else shortened(value)
            problems.add(f"{self.files[file]}, row {row}, column {column!r}: expected {expected}, found {found}")
        if bad:
            self.db.execute("DELETE FROM log WHERE bad IS NOT NULL")

    def finish(self, overlap: bool) -> None:
        """Take out what nobody saw, and sort by time where files overlap in time."""
        unseen = 0 if self.text else int(self.one("SELECT count(*) FROM log WHERE shown = false")[0])
        if unseen:
            self.notes.append(f"{counted(unseen, 'decision', 'decisions')} that nobody saw left out")
            self.db.execute("DELETE FROM log WHERE shown = false")
        if not self.one("SELECT count(*) FROM log")[0]:
            raise LogError(f"{self.name} holds no decision")
        if overlap:
            self.notes.append("the times of the files overlap; their rows were merged by time")
        if overlap or self.select != "SELECT * FROM log":
            by = "time, seq" if "time" in self.meanings else "seq"
            self.db.execute(f"CREATE TABLE sorted AS {self.select} ORDER BY {by}")
            self.db.execute("DROP TABLE log; ALTER TABLE sorted RENAME TO log")
        if overlap:
            self.db.execute("UPDATE log SET seq = rowid")


def _drop(db: duckdb.DuckDBPyConnection, folder: str) -> None:
    db.close()
    shutil.rmtree(Path(folder), ignore_errors=True)
