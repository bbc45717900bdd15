"""The library's own log: JSON lines of `Decision` and `Feedback`, in any order, joined by id.

The same id twice counts once. A decision's reward is the sum of its rewards that were not taken back, and nan where
none came; its feedback time is that of the last of them. Feedback of other kinds, feedback that answers no decision
and decisions that nobody saw are counted in the notes and left out.
"""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from backchannel.feedback import Decision, Feedback, Record, decode
from backchannel.ledger import chunk
from backchannel.ledger.problems import SLATES, LogError, Problems, counted
from backchannel.ledger.sources import Source
from backchannel.ledger.store import Store

_lines = msgspec.json.Decoder(Record)
USED = ("reward", "retraction")


def read_native(store: Store, source: Source, problems: Problems) -> None:
    """Append one file to the store; `join` follows when all are read."""
    file = len(store.files)
    store.files.append(source.name)
    store.db.execute(
        "CREATE TABLE IF NOT EXISTS feedback (seq BIGINT, id VARCHAR, decision VARCHAR, kind VARCHAR, reward DOUBLE, "
        "time DOUBLE, target VARCHAR)"
    )
    others: Counter[str] = Counter()
    for first, lines in chunk.blocks(source, store):
        rows: list[chunk.Row] = []
        answers: list[Feedback] = []
        for number, record in records(source, first, lines, problems):
            if isinstance(record, Decision) and isinstance(record.action, list) and len(record.action) > 1:
                found = f"expected one option, found a list of {len(record.action)}"
                problems.add(f"{source.name}, row {number}, column 'action': {found}; {SLATES}")
            elif isinstance(record, Decision):
                rows.append(chunk.Row(number, record))
            elif record.kind in USED:
                answers.append(record)
            else:
                others[record.kind] += 1
        chunk.append(store, rows, file, problems)
        _append_feedback(store, answers)
    for kind, number in sorted(others.items()):
        store.notes.append(f"{counted(number, 'feedback', 'feedbacks')} of kind {kind!r} left out: no reward")


def records(source: Source, first: int, lines: bytes, problems: Problems) -> list[tuple[int, Record]]:
    """The records of a few whole lines, with the numbers of their lines."""
    try:
        found = _lines.decode_lines(lines)
        if len(found) == lines.count(b"\n") + (not lines.endswith(b"\n")):
            return list(enumerate(found, first))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # a line of these is wrong, or blank: find which
    numbered: list[tuple[int, Record]] = []
    for number, line in enumerate(lines.split(b"\n"), first):
        if not line.strip():
            continue
        try:
            numbered.append((number, decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.add(f"{source.name}, row {number}: expected a decision or a feedback as JSON, but {error}")
    return numbered


def _append_feedback(store: Store, answers: list[Feedback]) -> None:
    if not answers:
        return
    rewards = [each.value if each.kind == "reward" else None for each in answers]
    arrays = {
        "id": np.array([each.id for each in answers], object),
        "decision": np.array([each.decision for each in answers], object),
        "kind": np.array([each.kind for each in answers], object),
        "reward": np.array(rewards, np.float64),
        "time": np.array([each.time for each in answers], np.float64),
        "target": np.array([str(each.value) if each.kind == "retraction" else None for each in answers], object),
        "seq": np.arange(store.answers, store.answers + len(answers)),
    }
    store.answers += len(answers)
    store.insert({name: f"chunk.{name}" for name in arrays}, "chunk", chunk=arrays, table="feedback")


def join(store: Store, strict: bool) -> None:
    """Count every id once, apply retractions, and give each decision its reward."""
    for table, what in (("log", "decision"), ("feedback", "feedback")):
        again = int(store.one(f"SELECT count(*) - count(DISTINCT id) FROM {table}")[0])
        if again:
            twice = store.one(f"SELECT id FROM {table} GROUP BY id HAVING count(*) > 1 ORDER BY min(seq) LIMIT 1")[0]
            repeats = counted(again, f"{what} repeats an id", f"{what}s repeat an id")
            note = f"{repeats}, first {twice!r}; each id counts once"
            if strict:
                raise LogError(f"{store.name}: {note}")
            store.notes.append(note)
            store.db.execute(
                f"DELETE FROM {table} WHERE seq IN (SELECT seq FROM (SELECT seq, row_number() OVER "
                f"(PARTITION BY id ORDER BY seq) AS nth FROM {table}) WHERE nth > 1)"
            )
    lost = "FROM feedback WHERE NOT EXISTS (SELECT 1 FROM log WHERE log.id = feedback.decision)"
    orphans = int(store.one(f"SELECT count(*) {lost}")[0])
    if orphans:
        one = store.one(f"SELECT id {lost} ORDER BY seq LIMIT 1")[0]
        note = f"{counted(orphans, 'feedback answers', 'feedbacks answer')} no decision of this log, first {one!r}"
        if strict:
            raise LogError(f"{store.name}: {note}")
        store.notes.append(note)
    taken = "(SELECT DISTINCT target FROM feedback WHERE kind = 'retraction')"
    back = int(store.one(f"SELECT count(*) FROM feedback WHERE kind = 'reward' AND id IN {taken}")[0])
    if back:
        store.notes.append(f"{counted(back, 'reward was', 'rewards were')} taken back")
    store.db.execute(
        "CREATE TABLE answer AS SELECT decision, sum(reward) AS reward, max(time) AS feedback_time, count(*) AS parts "
        f"FROM feedback WHERE kind = 'reward' AND id NOT IN {taken} GROUP BY decision"
    )
    store.summed = int(store.one("SELECT count(*) FROM answer WHERE parts > 1")[0])
    store.select = (
        "SELECT log.* REPLACE (answer.reward AS reward, answer.feedback_time AS feedback_time) "
        "FROM log LEFT JOIN answer ON log.id = answer.decision"
    )
    store.db.execute("DROP TABLE feedback")
