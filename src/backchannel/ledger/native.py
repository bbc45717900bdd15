"""The library's own log: JSON lines of `Decision` and `Feedback`, joined by id.

Decisions lie in order of time and have one set of context columns, which the first of them says; feedback may stand
anywhere. A decision's reward is the sum of its rewards that were not taken back, and nan where none came; its feedback
time is that of the last of them. Feedback of other kinds and decisions that nobody saw are counted in the notes and
left out.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from backchannel.feedback import Decision, Feedback
from backchannel.ledger import chunk
from backchannel.ledger.between import answers, ids_once, times_forwards
from backchannel.ledger.lines import records
from backchannel.ledger.problems import SLATES, LogError, Problems, counted
from backchannel.ledger.sources import Source
from backchannel.ledger.store import Store

USED = ("reward", "retraction")
FEEDBACK = (
    "seq BIGINT, file INTEGER, row BIGINT, id VARCHAR, decision VARCHAR, kind VARCHAR, reward DOUBLE, time DOUBLE, "
    "target VARCHAR"
)


def read_native(store: Store, source: Source, problems: Problems) -> None:
    """Append one file to the store; `join` follows when all are read."""
    file = _begin(store, source)
    others: Counter[str] = Counter()
    for first, lines in chunk.blocks(source, store):
        rows: list[chunk.Row] = []
        answers: list[tuple[int, Feedback]] = []
        for number, record in records(store, source, first, lines, problems):
            if isinstance(record, Decision) and isinstance(record.action, list) and len(record.action) > 1:
                found = f"expected one option, found a list of {len(record.action)}"
                problems.add(f"{source.name}, row {number}, column 'action': {found}; {SLATES}")
                store.missed.add(record.id)
            elif isinstance(record, Decision):
                rows.append(chunk.Row(number, record))
            elif record.kind in USED:
                answers.append((number, record))
            else:
                others[record.kind] += 1
        chunk.append(store, rows, file, problems)
        _append_feedback(store, answers, file)
    for kind, number in sorted(others.items()):
        store.notes.append(f"{counted(number, 'feedback', 'feedbacks')} of kind {kind!r} left out: no reward")


def join(store: Store, problems: Problems) -> None:
    """Apply retractions, and give each decision its reward."""
    for name in store.context or ():
        if name not in store.numeric and name not in store.categorical:
            store.category(name)  # never known
    _check_feedback(store, problems)
    taken = "(SELECT DISTINCT target FROM feedback WHERE kind = 'retraction')"
    back = int(store.one(f"SELECT count(*) FROM feedback WHERE kind = 'reward' AND id IN {taken}")[0])
    if back:
        store.notes.append(f"{counted(back, 'reward was', 'rewards were')} taken back")
    store.db.execute(
        "CREATE TABLE answer AS SELECT decision, sum(reward) AS reward, max(time) AS feedback_time, count(*) AS parts "
        f"FROM feedback WHERE kind = 'reward' AND id NOT IN {taken} GROUP BY decision"
    )
    several = int(store.one("SELECT count(*) FROM answer WHERE parts > 1")[0])
    if several:
        decisions = counted(several, "decision", "decisions")
        store.notes.append(f"the rewards of {decisions} with more than one are added up")
    store.select = (
        "SELECT log.* REPLACE (answer.reward AS reward, answer.feedback_time AS feedback_time) "
        "FROM log LEFT JOIN answer ON log.id = answer.decision"
    )
    store.db.execute("DROP TABLE feedback")


def survey(store: Store, sources: list[Source], problems: Problems) -> int:
    """Find the records of any kind that are bad beside the others: `store.left`; returns how many there are in all."""
    count = 0
    for source in sources:
        file = _begin(store, source)
        for first, lines in chunk.blocks(source, store):
            found = records(store, source, first, lines, problems)
            count += len(found)
            _append_decisions(store, [(row, each) for row, each in found if isinstance(each, Decision)], file)
            _append_feedback(store, [(row, each) for row, each in found if isinstance(each, Feedback)], file)
    if not count:
        raise LogError(f"{store.name} holds no record")
    ids_once(store, "log", problems)
    times_forwards(store, problems)
    _check_feedback(store, problems)
    return count


def _begin(store: Store, source: Source) -> int:
    store.files.append(source.name)
    store.db.execute(f"CREATE TABLE IF NOT EXISTS feedback ({FEEDBACK})")
    return len(store.files) - 1


def _check_feedback(store: Store, problems: Problems) -> None:
    if not store.one("SELECT count(*) FROM log")[0]:
        raise LogError(f"{store.name} holds no decision")
    ids_once(store, "feedback", problems)
    answers(store, problems)


def _append_decisions(store: Store, decisions: list[tuple[int, Decision]], file: int) -> None:
    """Of decisions what others refer to: ids and times."""
    if decisions:
        arrays = {
            "seq": np.arange(store.rows, store.rows + len(decisions)),
            "row": np.array([row for row, _ in decisions]),
            "id": np.array([each.id for _, each in decisions], object),
            "time": np.array([each.time for _, each in decisions], np.float64),
        }
        values = {name: f"chunk.{name}" for name in arrays} | {"file": str(file)}
        store.rows += store.insert(values, "chunk", chunk=arrays)


def _append_feedback(store: Store, answers: list[tuple[int, Feedback]], file: int) -> None:
    if not answers:
        return
    rewards = [each.value if each.kind == "reward" else None for _, each in answers]
    arrays = {
        "seq": np.arange(store.answers, store.answers + len(answers)),
        "row": np.array([row for row, _ in answers]),
        "id": np.array([each.id for _, each in answers], object),
        "decision": np.array([each.decision for _, each in answers], object),
        "kind": np.array([each.kind for _, each in answers], object),
        "reward": np.array(rewards, np.float64),
        "time": np.array([each.time for _, each in answers], np.float64),
        "target": np.array([str(each.value) if each.kind == "retraction" else None for _, each in answers], object),
    }
    store.answers += len(answers)
    values = {name: f"chunk.{name}" for name in arrays} | {"file": str(file)}
    store.insert(values, "chunk", chunk=arrays, table="feedback")
