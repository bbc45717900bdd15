"""A queue in one small SQLite file: what is in it survives the process, and leaves it once the service has it.

Items of one application leave in the order in which they came. Several processes may share the file: each sends an
item only when all before it are acknowledged, and the service counts an item that two of them sent once.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

FORMAT = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (seq INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT NOT NULL, route TEXT NOT NULL,
    body BLOB NOT NULL, problem TEXT);
CREATE INDEX IF NOT EXISTS waiting ON items (app, seq) WHERE problem IS NULL;
"""


class ClientError(RuntimeError):
    """A call did not succeed; one sentence says why."""


class Item(NamedTuple):
    """What waits: the body of one request to /v1/APP/ROUTE."""

    seq: int
    app: str
    route: str
    body: bytes


class Refused(NamedTuple):
    """What the service refused: it is kept, and not sent again."""

    app: str
    route: str
    body: bytes
    problem: str


class Queue:
    """See the module. Methods may be called from any thread."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._lock = threading.Lock()
        with self._told():
            self._db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            with self._told():
                found = self._db.execute("PRAGMA user_version").fetchone()[0]
                if found not in (0, FORMAT):
                    raise ClientError(f"{self.path} has the queue format {found}; this version reads format {FORMAT}")
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.executescript(SCHEMA)
                self._db.execute(f"PRAGMA user_version = {FORMAT}")
        except ClientError:
            self._db.close()
            raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ClientError(f"the queue {self.path} cannot be used: {error}") from None

    @contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        """The file, in one transaction: all of it or nothing."""
        with self._lock, self._told():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def put(self, app: str, route: str, bodies: Sequence[bytes]) -> list[int]:
        """Keep requests, all or none, and return when they are on the disk."""
        with self._used() as db:
            insert = "INSERT INTO items (app, route, body) VALUES (?, ?, ?) RETURNING seq"
            return [int(db.execute(insert, (app, route, body)).fetchone()[0]) for body in bodies]

    def head(self, app: str, limit: int) -> list[Item]:
        """The next items of an application to be sent."""
        query = "SELECT seq, app, route, body FROM items WHERE app = ? AND problem IS NULL ORDER BY seq LIMIT ?"
        with self._lock, self._told():
            return [Item(*row) for row in self._db.execute(query, (app, limit))]

    def apps(self) -> list[str]:
        """Applications that something waits for."""
        with self._lock, self._told():
            return [app for (app,) in self._db.execute("SELECT DISTINCT app FROM items WHERE problem IS NULL")]

    def done(self, items: Sequence[Item]) -> None:
        """The service has them: they leave."""
        with self._used() as db:
            db.executemany("DELETE FROM items WHERE seq = ?", [(item.seq,) for item in items])

    def refuse(self, item: Item, problem: str) -> None:
        """The service will never take it: it is set aside with the reason."""
        with self._used() as db:
            db.execute("UPDATE items SET problem = ? WHERE seq = ?", (problem, item.seq))

    def refused(self) -> list[Refused]:
        """What was set aside, oldest first."""
        query = "SELECT app, route, body, problem FROM items WHERE problem IS NOT NULL ORDER BY seq"
        with self._lock, self._told():
            return [Refused(*row) for row in self._db.execute(query)]

    def fate(self, seq: int) -> Refused | bool:
        """True while this item waits, False once it was sent, or what became of it if it was refused."""
        query = "SELECT app, route, body, problem FROM items WHERE seq = ?"
        with self._lock, self._told():
            found = self._db.execute(query, (seq,)).fetchone()
        if found is None or found[3] is None:
            return found is not None
        return Refused(*found)

    def __len__(self) -> int:
        """How many items wait."""
        with self._lock, self._told():
            return int(self._db.execute("SELECT count(*) FROM items WHERE problem IS NULL").fetchone()[0])

    def close(self) -> None:
        """Give the file back; what waits stays in it."""
        with self._lock:
            self._db.close()
