"""Decisions that Python parsed, a chunk at a time, into the store: what the line formats share.

A context feature is numeric or categorical by its first value; the rest must agree. In JSON lines the first decision
says which columns there are, and a feature of options is a number everywhere or nowhere. Features of options are
hashed once for each distinct pair of name and value, not once for each row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from types import NoneType
from typing import Any

import msgspec
import numpy as np

from backchannel.feedback import Decision
from backchannel.ledger.log import key_of
from backchannel.ledger.problems import LogError, Problems, nearest, shortened
from backchannel.ledger.sources import Source
from backchannel.ledger.store import Store, key_sql, list_sql

BLOCK = 1 << 22  # bytes of text parsed at a time
WIDEST = 2000  # context features that a log may have: each becomes a column

NUMBERS = {int, float, NoneType}
TEXTS = {str, bool, NoneType}

_key = lru_cache(1 << 16)(key_of)
_encode = msgspec.json.Encoder().encode


class Row(msgspec.Struct, gc=False):
    """A decision where it was read, with its reward if the format has it beside."""

    row: int
    decision: Decision
    reward: float | None = None


def blocks(source: Source, store: Store, block_size: int = BLOCK) -> Iterator[tuple[int, bytes]]:
    """Whole lines, about `block_size` bytes at a time: the number of the first line, and the lines."""
    size = max(source.path.stat().st_size, 1)
    row, rest = 1, b""
    with source.opened() as file:
        while block := file.read(block_size):
            end = block.rfind(b"\n") + 1
            if not end:
                rest += block
                if len(rest) > 1 << 28:
                    raise LogError(f"{source.name}, row {row} is longer than {1 << 28:,} bytes")
                continue
            lines, rest = rest + block[:end], block[end:]
            yield row, lines
            row += lines.count(b"\n")
            store.progress(min(file.tell() / size, 1.0) if not source.gzipped else 0.0)
        if rest:
            yield row, rest


def append(store: Store, rows: list[Row], file: int, problems: Problems) -> None:
    """Add rows to the store; those that contradict the rows before them are bad."""
    cells = _columns(store, rows)
    if cells is None:  # something is wrong, or new: go through them one by one
        sound = [_sound(store, row, file, problems) for row in rows]
        store.missed |= {row.decision.id for row, is_sound in zip(rows, sound, strict=True) if not is_sound}
        rows = [row for row, is_sound in zip(rows, sound, strict=True) if is_sound]
        cells = _columns(store, rows) or {}
    if not rows:
        return
    decisions = [row.decision for row in rows]
    arrays: dict[str, np.ndarray] = {}
    values: dict[str, str] = {}

    def put(column: str, cells: Sequence[Any] | np.ndarray, numeric: bool, sql: Callable[[str], str] = str) -> None:
        arrays[column] = np.array(cells, np.float64) if numeric else _objects(cells)
        values[column] = sql(f"chunk.{column}")

    arrays["seq"] = np.arange(store.rows, store.rows + len(rows))
    arrays["row"] = np.array([row.row for row in rows])
    values |= {"seq": "chunk.seq", "row": "chunk.row", "file": str(file)}
    put("action", [_action(decision) for decision in decisions], False)
    put("id", [None if store.zero and not decision.id else decision.id for decision in decisions], False)
    put("reward", [row.reward for row in rows], True)
    put("propensity", [decision.propensity for decision in decisions], True)
    put("time", [decision.time for decision in decisions], True)
    put("position", [decision.position for decision in decisions], True, "{}::BIGINT".format)
    arrays["shown"] = np.array([decision.shown for decision in decisions])
    values["shown"] = "chunk.shown"
    if store.text:
        put("policy", [decision.policy for decision in decisions], False)
        put("version", [None if d.version is None else str(d.version) for d in decisions], False)
    for name, found in cells.items():
        if name in store.numeric:
            put(store.numeric[name], found, True)
        else:
            sql = str if store.text else partial(key_sql, name)
            put(store.categorical[name], [_text(cell) for cell in found], False, sql)
    if any(decision.options is not None for decision in decisions):
        store.offers(beside=True)
        if store.text:
            options = [decision.options for decision in decisions]
            names = [None if each is None else _encode(list(each)).decode() for each in options]
            put("options", names, False, list_sql)
            held = [_encode(each).decode() if isinstance(each, dict) else None for each in options]
            put("features", held, False)
        else:
            for column, places in _options_of(store, decisions).items():
                put(column, places, True, "{}::BIGINT".format)
    store.rows += store.insert(values, "chunk", chunk=arrays)


def _columns(store: Store, rows: list[Row]) -> dict[str, list[Any]] | None:
    """The context, a column at a time; None if something must be looked at more closely."""
    decisions = [row.decision for row in rows]
    times = {decision.time is not None for decision in decisions}
    if times - {store.timed} or any(isinstance(decision.action, list) for decision in decisions):
        return None
    if not all(-1 << 53 < (decision.position or 0) < 1 << 53 for decision in decisions):
        return None
    if any(_unsound_feature(store, decision) for decision in decisions if isinstance(decision.options, dict)):
        return None
    known = None if store.context is None else store.context.keys()
    if not store.zero and any(decision.context.keys() != known for decision in decisions):
        return None
    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(chain.from_iterable(decision.context for decision in decisions)):
        cells = [decision.context.get(name) for decision in decisions]
        types = set(map(type, cells))
        fresh = name not in store.numeric and name not in store.categorical and store.width < WIDEST
        if fresh and types <= NUMBERS and types != {NoneType}:
            store.number(name)
        elif fresh and types <= TEXTS and types != {NoneType}:
            store.category(name)
        if types <= NUMBERS and name in store.numeric:
            try:
                if np.isinf(np.array(cells, np.float64)).any():
                    return None
            except OverflowError:
                return None
        elif not (types <= TEXTS and name in store.categorical) and types != {NoneType}:
            return None
        if types != {NoneType}:
            columns[name] = cells
            (store.truths if bool in types else store.texts).add(name)
    return columns


def _options_of(store: Store, decisions: list[Decision]) -> dict[str, np.ndarray]:
    """Keep the options of some decisions beside the table; returns the columns that point to them."""
    ragged = store.ragged
    assert ragged is not None
    offers: list[int] = []
    option: list[int] = []
    count: list[int] = []
    pairs: list[tuple[int, float]] = []
    for decision in decisions:
        options = decision.options
        offers.append(-1 if options is None else len(options))
        for name in options or ():
            before = len(pairs)
            if isinstance(options, dict):
                pairs += _features(options[name])
            option.append(ragged.place(name))
            count.append(len(pairs) - before)
    return ragged.append(
        np.array(offers, np.int64),
        np.array(option, np.int64),
        np.array(count, np.int64),
        np.array([key for key, _ in pairs], np.uint64),
        np.array([value for _, value in pairs], np.float64),
    )


def _features(given: dict[str, Any]) -> Iterator[tuple[int, float]]:
    for name, value in given.items():
        if isinstance(value, str | bool):
            yield _key(name, _text(value)), 1.0
        elif value:  # a number that is 0 says as much as none
            yield _key(name), float(value)


def _sound(store: Store, row: Row, file: int, problems: Problems) -> bool:
    """Whether a row agrees with the rows before it; what it is the first to have becomes a column."""
    decision, where = row.decision, f"{store.files[file]}, row {row.row}"
    if isinstance(decision.action, list) and len(decision.action) != 1:
        problems.add(f"{where}, column 'action': expected one option, found a list of {len(decision.action)}")
        return False
    if store.timed is None:
        store.timed = decision.time is not None
        store.meanings |= {"time"} if store.timed else set()
    if store.timed != (decision.time is not None):
        wanted = "a time" if store.timed else "no time"
        problems.add(f"{where}, column 'time': expected {wanted}, as in the rows before, found {decision.time}")
        return False
    if decision.time is not None and not math.isfinite(decision.time):
        problems.add(f"{where}, column 'time': expected a finite number, found {decision.time}")
        return False
    if decision.position is not None and abs(decision.position) >= 1 << 53:
        problems.add(f"{where}, column 'position': expected a place, found {decision.position}")
        return False
    misfit = "" if store.zero or store.context is None else _misfit(store.context, decision.context)
    if misfit:
        problems.add(f"{where}, column {misfit}")
        return False
    for name, value in decision.context.items():
        kind = type(value)
        if kind is float or kind is int:
            known, other = store.numeric, store.categorical
            fits = _finite(value)
        elif kind is str or kind is bool:
            known, other = store.categorical, store.numeric
            fits = True
        elif value is None:
            continue
        else:
            known = other = {}
            fits = False
        if name in known and fits:
            continue
        if not fits or name in other:
            wanted = "a finite number" if name in store.numeric else "text" if name in store.categorical else ""
            wanted = f"{wanted}, as in the rows before" if wanted and fits else "a finite number, text or a truth value"
            problems.add(f"{where}, column {name!r}: expected {wanted}, found {shortened(value)}")
            return False
        if store.width == WIDEST:
            raise LogError(f"{where}: more than {WIDEST:,} different context features; each becomes a column")
        if known is store.numeric:
            store.number(name)
        else:
            store.category(name)
    unsound = _unsound_feature(store, decision)
    if unsound:
        problems.add(f"{where}, feature {unsound}")
        return False
    if store.context is None:
        store.context = dict.fromkeys(decision.context)
    return True


def _misfit(known: dict[str, None], context: dict[str, Any]) -> str:
    """The first column that a context has, or lacks, unlike the first decision, and what is wrong with it."""
    for name in context:
        if name not in known:
            return f"{name!r}: the first decision has no such column; {nearest(name, known)}"
    for name in known:
        if name not in context:
            return f"{name!r}: expected it here as in the first decision; null stands for what is not known"
    return ""


def _unsound_feature(store: Store, decision: Decision) -> str:
    """The first feature of an option that is no number, text or truth value, or not what it was before."""
    if isinstance(decision.options, dict):
        for option, features in decision.options.items():
            for name, value in features.items():
                if value is None:
                    continue
                is_text = isinstance(value, str | bool)
                if not (is_text or _finite(value)):
                    wanted = "a finite number, text or a truth value"
                elif store.zero or store.option_texts.setdefault(name, is_text) == is_text:
                    continue
                else:
                    wanted = f"{'a number' if is_text else 'text or a truth value'}, as before"
                return f"{name!r} of option {option!r}: expected {wanted}, found {shortened(value)}"
    return ""


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def _action(decision: Decision) -> str:
    return decision.action[0] if isinstance(decision.action, list) else decision.action


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _objects(cells: Sequence[Any] | np.ndarray) -> np.ndarray:
    array = np.empty(len(cells), object)
    array[:] = cells
    return array
