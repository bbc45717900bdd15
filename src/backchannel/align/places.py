"""Places: where a value stands in a row of a data set, by the name that a column map gives.

    question                   the column of that name
    completions.response       within it: of an object that field, of a list of objects that field of each
    human_ref_A,human_ref_B    several, as one list

    >>> from backchannel.align.places import found
    >>> row = {"q": "2 + 2 =", "tried": [{"text": "4", "by": {"score": 5}}, {"text": "5", "by": {"score": 1}}]}
    >>> [found(row, name) for name in ("q", "tried.text", "tried.by.score")]
    ['2 + 2 =', ['4', '5'], [5, 1]]
    >>> found({"q": "2 + 2 =", "a": "4", "b": "5"}, "a,b")
    ['4', '5']

A column that is itself called so comes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backchannel.ledger.problems import nearest


def found(row: Mapping[str, Any], name: str) -> Any:
    """The value; of several a list.

    Raises:
        ValueError: what is not there.
    """
    if name in row:
        return row[name]
    if "," in name:
        values = {part.strip(): found(row, part.strip()) for part in name.split(",")}
        if empty := [part for part, value in values.items() if value is None]:
            raise ValueError(f"there is nothing in {empty[0]!r}")
        return [*values.values()]
    column, dot, path = name.partition(".")
    if column not in row:
        raise ValueError(f"there is no column {column!r}; {nearest(column, row)}")
    return _within(_decoded(row[column]), path, column) if dot else row[column]


def is_place(name: str) -> bool:
    """Whether a name may be more than a column's."""
    return "." in name or "," in name


def read_by(row: Mapping[str, Any], name: str) -> set[str]:
    """The columns of a row that a name reads."""
    if name in row or "," not in name:
        return {name if name in row else name.partition(".")[0]}
    return {column for part in name.split(",") for column in read_by(row, part.strip())}


def _within(value: Any, path: str, where: str) -> Any:
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return [_within(each, path, where) for each in value]
    if not isinstance(value, Mapping):
        raise ValueError(f"{where!r} holds no object with {path!r} in it")
    if path in value:
        return value[path]
    field, dot, rest = path.partition(".")
    if field not in value:
        raise ValueError(f"there is no {field!r} in {where!r}; {nearest(field, value)}")
    return _within(value[field], rest, f"{where}.{field}") if dot else value[field]


def _decoded(value: Any) -> Any:
    """What a cell of a table holds as JSON; None where it is empty."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
