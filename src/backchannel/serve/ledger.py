"""The ledger of a service: one durable list of entries, in one order; all else is a function of it.

`append` returns when the entries are durable (they survive a crash of process and machine). An entry's id counts once
for its application and kind: appending it again changes nothing and returns the first. `seq` grows with every entry,
and whoever has read up to a `seq` has read everything before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

Kind = Literal["decision", "shown", "feedback", "control"]


class Entry(NamedTuple):
    """What happened. `about`: the id of the decision that it is about; `body`: JSON, see records.py."""

    app: str
    kind: Kind
    id: str
    about: str
    time: float
    body: bytes


class Kept(NamedTuple):
    """An entry where it lies. `fresh`: this call brought it; else its id was there already and `entry` is the first."""

    seq: int
    entry: Entry
    fresh: bool = True


class Ledger(Protocol):
    """Where entries lie. Methods may be called from any thread; failures raise LedgerError.

    Attributes:
        shared: whether several processes work on it.
    """

    shared: bool

    def append(self, entries: Sequence[Entry]) -> list[Kept]:
        """Keep entries, all or none, and return when they are durable."""
        ...

    def read(self, app: str, after: int, limit: int) -> list[Kept]:
        """Up to `limit` entries of an application with a seq above `after`, in order."""
        ...

    def get(self, app: str, kind: Kind, id: str) -> Kept | None:
        """One entry by its id."""
        ...

    def latest(self, app: str, kind: Kind, limit: int) -> list[Kept]:
        """The last entries of a kind, newest first."""
        ...

    def about(self, app: str, ids: Sequence[str]) -> list[Kept]:
        """Feedback and shown entries about some decisions, in order."""
        ...

    def counts(self, app: str) -> dict[str, int]:
        """How many entries of each kind there are; must be cheap however many there are."""
        ...

    def last(self) -> int:
        """The highest seq, 0 of an empty ledger."""
        ...

    def save_snapshot(self, app: str, name: str, seq: int, data: bytes) -> None:
        """Keep a snapshot of what was computed from the entries up to `seq`; the last two are kept."""
        ...

    def load_snapshots(self, app: str, name: str, after: int = -1) -> list[tuple[int, bytes]]:
        """The kept snapshots with a seq above `after`, newest first."""
        ...

    def lease(self, owner: str) -> bool:
        """Try to hold, or go on holding, the right to learn; True while it is held. One owner at a time."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class LedgerError(RuntimeError):
    """The ledger cannot be read or written now: one sentence says why. What was acknowledged is kept."""


def open_ledger(url: str) -> Ledger:
    """The ledger at `sqlite:PATH` or `postgresql://...`."""
    if url.startswith("sqlite:"):
        from backchannel.serve.sqlite import SqliteLedger

        return SqliteLedger(url.removeprefix("sqlite:"))
    if url.startswith(("postgresql://", "postgres://")):
        from backchannel.serve.postgres import PostgresLedger

        return PostgresLedger(url)
    raise ValueError(f"store must be sqlite:PATH or postgresql://..., not {url!r}")
