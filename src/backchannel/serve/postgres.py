"""The ledger in PostgreSQL, for several processes: schema `backchannel` of the database that the URL names.

Every append is one transaction, which holds an advisory lock until it has committed. So entries become visible in the
order of their seq, and whoever has read up to a seq has read everything before it. The right to learn is a row with
an owner and a time by the server's clock. A thread renews it while the process lives; else it ends after `LEASE`
seconds. It saves work and guards nothing: two that learn from the same entries come to the same state.
"""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from backchannel.serve.ledger import Entry, Kept, Kind, LedgerError

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError:
    raise ValueError("a store in PostgreSQL needs psycopg: pip install 'backchannel[postgres]'") from None

log = logging.getLogger("backchannel.serve")
FORMAT = 1
LEASE = 3.0  # seconds
SNAPSHOTS = 2
IDLE = 8  # connections kept for the next call
LOCK = "SELECT pg_advisory_xact_lock(7089051958219399534)"  # any number will do, if it is the same in all processes
# A server that is gone without a word is noticed within about ten seconds. What the URL says goes first.
DEFAULTS: dict[str, Any] = {
    "application_name": "backchannel",
    "client_encoding": "UTF8",
    "connect_timeout": 5,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Nobody waits for ever for a process that was stopped while it held the lock; and a commit is on the disk.
BEGIN = f"""
SET LOCAL lock_timeout = '5s';
SET LOCAL idle_in_transaction_session_timeout = '5s';
SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write');
{LOCK};
"""
SCHEMA = f"""
CREATE SCHEMA IF NOT EXISTS backchannel;
CREATE TABLE backchannel.entries (app TEXT COLLATE "C" NOT NULL, seq BIGINT NOT NULL, kind TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL, about TEXT COLLATE "C" NOT NULL, time DOUBLE PRECISION NOT NULL, body BYTEA NOT NULL,
    PRIMARY KEY (app, seq));
CREATE UNIQUE INDEX entry_id ON backchannel.entries (app, kind, id);
CREATE INDEX entry_kind ON backchannel.entries (app, kind, seq) WHERE kind <> 'decision';
CREATE INDEX entry_about ON backchannel.entries (app, about) WHERE kind <> 'decision';
CREATE TABLE backchannel.counts (app TEXT COLLATE "C", kind TEXT COLLATE "C", many BIGINT NOT NULL,
    last BIGINT NOT NULL, PRIMARY KEY (app, kind));
CREATE TABLE backchannel.snapshots (app TEXT COLLATE "C", name TEXT COLLATE "C", seq BIGINT, data BYTEA NOT NULL,
    PRIMARY KEY (app, name, seq));
CREATE TABLE backchannel.service (format INT NOT NULL, owner TEXT, until TIMESTAMPTZ);
INSERT INTO backchannel.service (format) VALUES ({FORMAT});
"""
COLUMNS = "seq, app, kind, id, about, time, body"
APPEND = """
WITH given AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::bytea[])
    WITH ORDINALITY AS each (app, kind, id, about, time, body, place)),
fresh AS (
    INSERT INTO backchannel.entries (app, seq, kind, id, about, time, body)
    SELECT app, (SELECT coalesce(max(last), 0) FROM backchannel.counts) + place, kind, id, about, time, body FROM given
    ON CONFLICT (app, kind, id) DO NOTHING RETURNING seq, app, kind, id),
counted AS (
    INSERT INTO backchannel.counts AS old SELECT app, kind, count(*), max(seq) FROM fresh GROUP BY app, kind
    ON CONFLICT (app, kind) DO UPDATE SET many = old.many + excluded.many, last = excluded.last)
SELECT seq, app, kind, id FROM fresh
"""
FIRST = f"""
SELECT {COLUMNS} FROM backchannel.entries
JOIN unnest(%s::text[], %s::text[], %s::text[]) AS each (app, kind, id) USING (app, kind, id)
"""
HOLD = """
UPDATE backchannel.service SET owner = %s, until = clock_timestamp() + make_interval(secs => %s)
WHERE owner IS NULL OR owner = %s OR until < clock_timestamp() RETURNING 1
"""
RENEW = """
UPDATE backchannel.service SET until = clock_timestamp() + make_interval(secs => %s) WHERE owner = %s RETURNING 1
"""
SAVE = """
INSERT INTO backchannel.snapshots VALUES (%s, %s, %s, %s)
ON CONFLICT (app, name, seq) DO UPDATE SET data = excluded.data
"""
FORGET = """
DELETE FROM backchannel.snapshots WHERE app = %s AND name = %s AND seq NOT IN
    (SELECT seq FROM backchannel.snapshots WHERE app = %s AND name = %s ORDER BY seq DESC LIMIT %s)
"""


class PostgresLedger:
    """See `Ledger`. A call takes a connection that nobody uses, or makes one; a lost one is not used again."""

    shared = True

    def __init__(self, url: str) -> None:
        try:
            self._url = make_conninfo(**(DEFAULTS | conninfo_to_dict(url)))
        except psycopg.Error as error:
            raise ValueError(f"the store is no URL of PostgreSQL: {_sentence(error)}") from None
        self._idle: list[psycopg.Connection] = []
        self._owner: str | None = None
        self._closed = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        try:
            self._open()
        except LedgerError:
            self.close()
            raise

    def _open(self) -> None:
        with self._connection() as connection, connection.transaction():
            encoding = connection.execute("SHOW server_encoding").fetchone()
            if encoding != ("UTF8",):
                raise LedgerError(f"the ledger needs a database in UTF8, not {encoding and encoding[0]}")
            connection.execute(LOCK)  # of processes that start together, one makes the tables
            if connection.execute("SELECT to_regclass('backchannel.service')").fetchone() == (None,):
                connection.execute(SCHEMA)
            found = connection.execute("SELECT format FROM backchannel.service").fetchone()
            if found != (FORMAT,):
                raise LedgerError(
                    f"the database has the ledger format {found and found[0]}; this version reads {FORMAT}"
                )

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection]:
        if self._closed.is_set():
            raise LedgerError("the ledger in PostgreSQL is closed")
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                if connection.closed or self._closed.is_set() or len(self._idle) >= IDLE:
                    connection.close()
                else:
                    self._idle.append(connection)
        except psycopg.Error as error:
            raise LedgerError(f"the ledger in PostgreSQL cannot be used now: {_sentence(error)}") from None

    def _take(self) -> psycopg.Connection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread had the last
                break
            if not _speaks(connection):
                return connection
            connection.close()
        connection = psycopg.connect(self._url, autocommit=True)
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # it must see what the lock waited for
        return connection

    def _run(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._connection() as connection, connection.cursor(binary=True) as cursor:
            return cursor.execute(query, values).fetchall()

    def append(self, entries: Sequence[Entry]) -> list[Kept]:
        """Keep entries, all or none, and return when they are durable."""
        given: dict[tuple[str, ...], Entry] = {}
        for entry in entries:
            given.setdefault(entry[:3], entry)
        if not given:
            return []
        rows = [
            (app, kind, _written(id), _written(about), time, body)
            for app, kind, id, about, time, body in given.values()
        ]
        with self._connection() as connection, connection.transaction(), connection.cursor(binary=True) as cursor:
            connection.execute(BEGIN)
            cursor.execute(APPEND, [list(column) for column in zip(*rows, strict=True)])
            places = {(app, kind, _read(id)): seq for seq, app, kind, id in cursor.fetchall()}
            kept = {key: Kept(seq, given[key]) for key, seq in places.items()}
            known = [(app, kind, _written(id)) for app, kind, id in given if (app, kind, id) not in places]
            if known:
                cursor.execute(FIRST, [list(column) for column in zip(*known, strict=True)])
                kept |= {first.entry[:3]: first._replace(fresh=False) for first in map(_kept, cursor.fetchall())}
        answer = []
        for entry in entries:
            answer.append(kept[entry[:3]])
            kept[entry[:3]] = answer[-1]._replace(fresh=False)  # what is given twice is fresh once
        return answer

    def read(self, app: str, after: int, limit: int) -> list[Kept]:
        """Up to `limit` entries of an application with a seq above `after`, in order."""
        query = f"SELECT {COLUMNS} FROM backchannel.entries WHERE app = %s AND seq > %s ORDER BY seq LIMIT %s"
        return [_kept(row) for row in self._run(query, app, after, limit)]

    def get(self, app: str, kind: Kind, id: str) -> Kept | None:
        """One entry by its id."""
        query = f"SELECT {COLUMNS} FROM backchannel.entries WHERE app = %s AND kind = %s AND id = %s"
        rows = self._run(query, app, kind, _written(id))
        return _kept(rows[0]) if rows else None

    def latest(self, app: str, kind: Kind, limit: int) -> list[Kept]:
        """The last entries of a kind, newest first."""
        other = (
            "" if kind == "decision" else "AND kind <> 'decision'"
        )  # so that the server may use the index of the rest
        query = (
            f"SELECT {COLUMNS} FROM backchannel.entries WHERE app = %s AND kind = %s {other} ORDER BY seq DESC LIMIT %s"
        )
        return [_kept(row) for row in self._run(query, app, kind, limit)]

    def about(self, app: str, ids: Sequence[str]) -> list[Kept]:
        """Feedback and shown entries about some decisions, in order."""
        where = "app = %s AND kind <> 'decision' AND about = ANY(%s)"
        query = f"SELECT {COLUMNS} FROM backchannel.entries WHERE {where} ORDER BY seq"
        return [_kept(row) for row in self._run(query, app, [_written(id) for id in ids])]

    def counts(self, app: str) -> dict[str, int]:
        """How many entries of each kind there are."""
        return dict(self._run("SELECT kind, many FROM backchannel.counts WHERE app = %s", app))

    def last(self) -> int:
        """The highest seq, 0 of an empty ledger."""
        return int(self._run("SELECT coalesce(max(last), 0) FROM backchannel.counts")[0][0])

    def save_snapshot(self, app: str, name: str, seq: int, data: bytes) -> None:
        """Keep a snapshot of what was computed from the entries up to `seq`; the last two are kept."""
        with self._connection() as connection, connection.transaction():
            connection.execute(SAVE, (app, name, seq, data))
            connection.execute(FORGET, (app, name, app, name, SNAPSHOTS))

    def load_snapshots(self, app: str, name: str, after: int = -1) -> list[tuple[int, bytes]]:
        """The kept snapshots with a seq above `after`, newest first."""
        where = "app = %s AND name = %s AND seq > %s"
        query = f"SELECT seq, data FROM backchannel.snapshots WHERE {where} ORDER BY seq DESC"
        return [(seq, data) for seq, data in self._run(query, app, name, after)]

    def lease(self, owner: str) -> bool:
        """Try to hold, or go on holding, the right to learn; True while it is held."""
        held = bool(self._run(HOLD, owner, LEASE, owner))
        if held or self._owner == owner:
            self._owner = owner if held else None
        if held and not self._renewer.is_alive() and not self._closed.is_set():
            self._renewer.start()
        return held

    def _renew(self) -> None:
        while not self._closed.wait(LEASE / 3):
            owner = self._owner
            try:
                if owner is not None:
                    self._run(RENEW, LEASE, owner)
            except LedgerError as error:  # whoever learns asks again, and is told
                log.debug("the lease was not renewed: %s", error)

    def close(self) -> None:
        """Give everything back."""
        if self._owner is not None:
            try:
                self._run("UPDATE backchannel.service SET owner = NULL WHERE owner = %s RETURNING 1", self._owner)
            except LedgerError as error:
                log.warning("the right to learn was not given back, and ends in %g seconds: %s", LEASE, error)
            self._owner = None
        self._closed.set()
        if self._renewer.is_alive():
            self._renewer.join()
        while self._idle:
            self._idle.pop().close()


def _speaks(connection: psycopg.Connection) -> bool:
    """Whether the server has said something, or hung up, while nobody asked."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _sentence(error: psycopg.Error) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _written(id: str) -> str:
    """PostgreSQL's text has no character 0: ids are kept with backslashes doubled, and it as a backslash and a 0."""
    return id.replace("\\", "\\\\").replace("\0", "\\0")


def _read(id: str) -> str:
    return "\\".join(part.replace("\\0", "\0") for part in id.split("\\\\"))


def _kept(row: tuple[Any, ...]) -> Kept:
    seq, app, kind, id, about, time, body = row
    return Kept(seq, Entry(app, kind, _read(id), _read(about), time, body))
