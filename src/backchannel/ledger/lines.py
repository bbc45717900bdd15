"""The records of JSON lines, and one sentence for a line that is none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from backchannel.feedback import Decision, Feedback, Record, decode
from backchannel.ledger.problems import Problems, nearest
from backchannel.ledger.sources import Source
from backchannel.ledger.store import Store

_lines = msgspec.json.Decoder(Record)
FIELDS = {"decision": Decision.__struct_fields__, "feedback": Feedback.__struct_fields__}
UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


class _NotFinite(str):
    """NaN, Infinity or -Infinity, which JSON has not."""


def records(store: Store, source: Source, first: int, lines: bytes, problems: Problems) -> list[tuple[int, Record]]:
    """The records of a few whole lines, with the numbers of their lines; what is bad goes to `problems`."""
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
            held = _loosely(line)
            problems.add(f"{source.name}, row {number}{_complaint(held, error)}")
            if held.get("record") == "decision" and isinstance(held.get("id"), str):
                store.missed.add(held["id"])
    return numbered


def _loosely(line: bytes) -> dict[str, Any]:
    """What a bad line holds, as far as it is an object."""
    try:
        held = json.loads(line, parse_constant=_NotFinite)
    except (ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _complaint(held: dict[str, Any], error: Exception) -> str:
    """What is wrong with a line, from its column on."""
    record = str(held.get("record"))
    if isinstance(error, msgspec.ValidationError):  # JSON, but no record
        unknown = UNKNOWN.fullmatch(str(error))
        if unknown and record in FIELDS:
            return f", column {unknown[1]!r}: a {record} has no such field; {nearest(unknown[1], FIELDS[record])}"
        said, _, place = " ".join(str(error).split()).partition(" - at `$.")
        return (f", column {place.rstrip('`')!r}: " if place else ": ") + said[0].lower() + said[1:]
    for path, value in _not_finite(held, ()):
        if path == ("value",):
            return f", column 'value': a {held.get('kind')} must be finite, not {value}"
        expected = f"expected a finite number, or null for what is not known, found {value}"
        if path[0] == "options" and len(path) == 3:
            return f", feature {path[2]!r} of option {path[1]!r}: {expected}"
        return f", column {path[1] if path[0] == 'context' and len(path) > 1 else path[0]!r}: {expected}"
    return f": expected a decision or a feedback as JSON, but {' '.join(str(error).split())}"


def _not_finite(held: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where an object holds what is no finite number, and what stands there; lists are one place."""
    if isinstance(held, _NotFinite):
        yield path, held
    for name, value in held.items() if isinstance(held, dict) else ():
        yield from _not_finite(value, (*path, name))
    for value in held if isinstance(held, list) else ():
        yield from _not_finite(value, path)
