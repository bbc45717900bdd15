"""The ledger in one SQLite file: WAL, and a commit that is on the disk before it is acknowledged (synchronous=FULL).

One connection writes, under a lock; every thread that reads has its own. `committer.py` gathers the appends that wait
for one another, so that one flush of the disk serves them all.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from backchannel.serve.ledger import Entry, Kept, Kind, LedgerError

FORMAT = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (seq INTEGER PRIMARY KEY, app TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
    about TEXT NOT NULL, time REAL NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS entry_id ON entries (app, kind, id);
CREATE INDEX IF NOT EXISTS entry_about ON entries (app, about) WHERE kind != 'decision';
CREATE TABLE IF NOT EXISTS counts (app TEXT, kind TEXT, many INTEGER NOT NULL, PRIMARY KEY (app, kind));
CREATE TABLE IF NOT EXISTS snapshots (app TEXT, name TEXT, seq INTEGER, data BLOB NOT NULL,
    PRIMARY KEY (app, name, seq));
"""
COLUMNS = "seq, app, kind, id, about, time, body"
INSERT = f"INSERT INTO entries ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
SNAPSHOTS = 2


class SqliteLedger:
    """See `Ledger`."""

    shared = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock = threading.Lock()
        self._readers = threading.local()
        self._open: list[sqlite3.Connection] = []
        try:
            os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
            claim = open(f"{self.path}.lock", "w")  # noqa: SIM115  # held as long as we live; the system frees it
        except OSError as error:
            raise LedgerError(f"the ledger {self.path} cannot be opened: {error.strerror}") from None
        self._claim = claim
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._claim.close()
            raise LedgerError(f"the ledger {self.path} is in use by another process") from None
        try:
            self._writer = self._connect()
            found = self._writer.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, FORMAT):
                raise LedgerError(f"{self.path} has the ledger format {found}; this version reads format {FORMAT}")
            self._writer.executescript(SCHEMA)
            self._writer.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.Error as error:
            self.close()
            raise LedgerError(f"the ledger {self.path} cannot be opened: {error}") from None
        except LedgerError:
            self.close()
            raise
        self._seq = int(self._writer.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0])

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -32000")
        self._open.append(connection)
        return connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(f"the ledger {self.path} cannot be used now: {error}") from None

    def _read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._told():
            connection = getattr(self._readers, "connection", None)
            if connection is None:
                connection = self._readers.connection = self._connect()
            return connection.execute(query, values).fetchall()

    def append(self, entries: Sequence[Entry]) -> list[Kept]:
        """Keep entries, all or none, and return when they are durable."""
        kept: list[Kept] = []
        with self._lock, self._told():
            run = self._writer.execute
            run("BEGIN IMMEDIATE")
            try:
                seq, fresh = self._seq, Counter[tuple[str, str]]()
                for entry in entries:
                    row = (seq + 1, *entry)
                    if run(INSERT, row).rowcount:
                        seq += 1
                        fresh[entry.app, entry.kind] += 1
                        kept.append(Kept(seq, entry))
                    else:
                        first = run(f"SELECT {COLUMNS} FROM entries WHERE app = ? AND kind = ? AND id = ?", entry[:3])
                        kept.append(_kept(first.fetchone(), False))
                for (app, kind), many in fresh.items():
                    run(
                        "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET many = many + excluded.many",
                        (app, kind, many),
                    )
                run("COMMIT")
                self._seq = seq
            except BaseException:
                if self._writer.in_transaction:
                    run("ROLLBACK")
                raise
        return kept

    def read(self, app: str, after: int, limit: int) -> list[Kept]:
        """Up to `limit` entries of an application with a seq above `after`, in order."""
        query = f"SELECT {COLUMNS} FROM entries WHERE seq > ? AND app = ? ORDER BY seq LIMIT ?"
        return [_kept(row) for row in self._read(query, after, app, limit)]

    def get(self, app: str, kind: Kind, id: str) -> Kept | None:
        """One entry by its id."""
        rows = self._read(f"SELECT {COLUMNS} FROM entries WHERE app = ? AND kind = ? AND id = ?", app, kind, id)
        return _kept(rows[0]) if rows else None

    def latest(self, app: str, kind: Kind, limit: int) -> list[Kept]:
        """The last entries of a kind, newest first."""
        source = "entries" if kind == "control" else "entries NOT INDEXED"  # rare ones by index, others from the end
        query = f"SELECT {COLUMNS} FROM {source} WHERE app = ? AND kind = ? ORDER BY seq DESC LIMIT ?"
        return [_kept(row) for row in self._read(query, app, kind, limit)]

    def about(self, app: str, ids: Sequence[str]) -> list[Kept]:
        """Feedback and shown entries about some decisions, in order."""
        marks = ", ".join("?" * len(ids))
        where = f"app = ? AND kind != 'decision' AND about IN ({marks})"
        query = f"SELECT {COLUMNS} FROM entries WHERE {where} ORDER BY seq"
        return [_kept(row) for row in self._read(query, app, *ids)]

    def counts(self, app: str) -> dict[str, int]:
        """How many entries of each kind there are."""
        return dict(self._read("SELECT kind, many FROM counts WHERE app = ?", app))

    def last(self) -> int:
        """The highest seq, 0 of an empty ledger."""
        return int(self._read("SELECT coalesce(max(seq), 0) FROM entries")[0][0])

    def save_snapshot(self, app: str, name: str, seq: int, data: bytes) -> None:
        """Keep a snapshot of what was computed from the entries up to `seq`; the last two are kept."""
        with self._lock, self._told():
            self._writer.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)", (app, name, seq, data))
            self._writer.execute(
                "DELETE FROM snapshots WHERE app = ? AND name = ? AND seq NOT IN "
                "(SELECT seq FROM snapshots WHERE app = ? AND name = ? ORDER BY seq DESC LIMIT ?)",
                (app, name, app, name, SNAPSHOTS),
            )

    def load_snapshots(self, app: str, name: str) -> list[tuple[int, bytes]]:
        """The kept snapshots, newest first."""
        return self._read("SELECT seq, data FROM snapshots WHERE app = ? AND name = ? ORDER BY seq DESC", app, name)

    def lease(self, owner: str) -> bool:
        """This process has the file for itself: it always holds the right to learn."""
        return True

    def close(self) -> None:
        """Give everything back."""
        with self._lock:
            for connection in self._open:
                connection.close()
        self._claim.close()


def _kept(row: tuple[Any, ...], fresh: bool = True) -> Kept:
    return Kept(row[0], Entry(*row[1:]), fresh)
