"""What the rows of a log owe each other: ids of their own, times that run forwards, a decision for each feedback.

All of it is asked of the database, so that memory stays within its limit. What fails is a bad row like any other: one
sentence, or, as far as bad rows may be skipped, left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from backchannel.ledger.problems import Problems, counted
from backchannel.ledger.store import Store

STEP = 1 << 20  # rows at a time


def ids_once(store: Store, table: str, problems: Problems) -> None:
    """Of the rows of `table` ("log" or "feedback") that have one id only the first is sound."""

    def sentence(file: int, name: str, file_of_first: int, first: int) -> str:
        there = "" if file_of_first == file else f" of {store.files[file_of_first]}"
        return f"expected an id of its own, found {name!r} again, the id of row {first}{there}"

    if store.one(f"SELECT count(id) - count(DISTINCT id) FROM {table}")[0]:
        query = (
            f"SELECT again.seq, again.file, again.row, again.id, one.file, one.row FROM {table} AS again "
            f"JOIN (SELECT id, min(seq) AS seq FROM {table} GROUP BY id HAVING count(*) > 1) AS twice "
            f"ON again.id = twice.id AND again.seq > twice.seq JOIN {table} AS one ON one.seq = twice.seq"
        )
        _leave_out(store, table, "id", query, sentence, problems)


def times_forwards(store: Store, problems: Problems) -> bool:
    """Decisions whose time lies before that of one above, in their file, are bad; tells whether files overlap."""
    overlap, file = False, -1
    high, row = ended = -np.inf, 0  # the latest time of this file so far, and its row; of the files before
    for start in range(0, store.rows, STEP):
        where = f"time IS NOT NULL AND seq BETWEEN {start} AND {start + STEP - 1}"
        part = store.db.execute(f"SELECT seq, file, row, time FROM log WHERE {where} ORDER BY seq").fetchnumpy()
        for places in np.split(np.arange(len(part["seq"])), np.flatnonzero(np.diff(part["file"])) + 1):
            if not places.size:
                continue
            times, rows = part["time"][places], part["row"][places]
            if part["file"][places[0]] != file:
                file, ended, high = int(part["file"][places[0]]), max(ended, (high, row)), -np.inf
                overlap |= bool(times[0] < ended[0])
            highs, above = np.maximum.accumulate([high, *times]), [row, *rows]
            early = np.flatnonzero(times < highs[:-1])
            for at in early[: problems.left + 1].tolist():
                gap, of = highs[at] - times[at], above[np.searchsorted(highs, highs[at])]
                store.bad(
                    problems,
                    (file, int(rows[at])),
                    "time",
                    f"time runs backwards, {gap:,.9g} s behind row {of}; sort the log by time, or let such rows "
                    "be skipped (--skip-bad-rows)",
                )
            if early.size:
                store.drop("log", part["seq"][places[early]])
            high, row = highs[-1], above[np.searchsorted(highs, highs[-1])]
    return overlap


def answers(store: Store, problems: Problems) -> None:
    """Feedback has a decision in the log, and comes no earlier than it; what answers a bad row is left out with it."""
    if store.missed:
        store.db.execute("CREATE TEMP TABLE missed (id VARCHAR)")
        store.insert({"id": "chunk.id"}, "chunk", {"id": np.array(list(store.missed), object)}, "missed")
        gone = "decision IN (SELECT id FROM missed) AND NOT EXISTS (FROM log WHERE log.id = feedback.decision)"
        found = store.db.execute(f"DELETE FROM feedback WHERE {gone} RETURNING file, row").fetchall()
        if found:
            store.left |= set(found)
            store.notes.append(f"{counted(len(found), 'feedback', 'feedbacks')} of skipped decisions left out")
    query = "SELECT seq, file, row, decision FROM feedback AS f WHERE NOT EXISTS (FROM log WHERE log.id = f.decision)"
    _leave_out(
        store,
        "feedback",
        "decision",
        query,
        lambda file, decision: f"expected the id of a decision of this log, found {decision!r}",
        problems,
    )
    query = (
        "SELECT f.seq, f.file, f.row, f.decision, log.time - f.time FROM feedback AS f "
        "JOIN log ON log.id = f.decision WHERE f.time < log.time"
    )
    _leave_out(
        store,
        "feedback",
        "time",
        query,
        lambda file, decision, gap: (
            f"expected a time no earlier than that of the decision {decision!r}, found one {gap:,.9g} s before it"
        ),
        problems,
    )


def _leave_out(
    store: Store, table: str, column: str, query: str, sentence: Callable[..., str], problems: Problems
) -> None:
    """Take out the bad rows that `query` finds: it selects seq, file, row and what the sentence needs besides."""
    found: list[tuple[Any, ...]] = store.db.execute(f"{query} ORDER BY 1 LIMIT {problems.left + 1}").fetchall()
    for _, file, row, *rest in found:
        store.bad(problems, (file, row), column, sentence(file, *rest))
    if found:
        store.drop(table, np.array([seq for seq, *_ in found]))
