"""A table of items: features of the options that never change, one row for each option."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import duckdb

from backchannel.ledger.columns import Columns
from backchannel.ledger.problems import LogError, counted, nearest, shortened
from backchannel.ledger.sources import find
from backchannel.ledger.store import Store
from backchannel.ledger.stored import option_names
from backchannel.ledger.tabular import Table, unreadable

Items = Mapping[str, Mapping[str, Any]]
SHOWN = 5  # names in a note


def read_items(store: Store, path: str | os.PathLike[str], columns: Columns | None) -> Items:
    """{option: {feature: value}} of a table beside a filled store; notes what the two have not in common."""
    (source,) = find(path, None, store.folder)
    table = Table(source, store)
    action = columns.action if columns else "action"
    if action not in table.header:
        raise LogError(
            f"{source.name} has no column {action!r}, which names the option; {nearest(action, table.header)}"
        )
    features = [name for name in table.header if name and name != action]
    cells = ", ".join([table.row, *(table.text(name) for name in [action, *features])])
    try:
        rows = store.db.execute(f"SELECT {cells} FROM {table.source} ORDER BY 1").fetchall()
        rejected = table.rejected(store)
    except duckdb.Error as error:
        raise unreadable(source, error) from None
    if rejected:
        raise LogError(f"{source.name}, row {rejected[0][0]}: {rejected[0][1]}")
    first: dict[str, int] = {}
    for row, name, *_ in rows:
        where = f"{source.name}, row {row}, column {action!r}"
        if name is None:
            raise LogError(f"{where}: expected the name of an option, found nothing")
        if name in first:
            raise LogError(f"{where}: expected each option once, found {name!r} again, the option of row {first[name]}")
        first[name] = row
    known = option_names(store)
    _note(store, [name for name in known if name not in first], "of the log", f"missing in {source.name}")
    _note(store, sorted(first.keys() - set(known)), f"of {source.name}", "not in the log")
    found: dict[str, dict[str, Any]] = {name: {} for name in first}
    for at, feature in enumerate(features, 2):
        numbers = {row[1]: _number(row[at]) for row in rows if row[at] is not None}
        text = [row for row in rows if row[at] is not None and numbers[row[1]] is None]
        if text and 2 * len(text) < len(numbers):
            held = f"row {text[0][0]} holds {shortened(text[0][at])}"
            store.notes.append(
                f"column {feature!r} of {source.name} is read as text: {held}, "
                f"but {len(numbers) - len(text):,} of its {len(numbers):,} cells are numbers"
            )
        for row in rows:
            if row[at] is not None:
                found[row[1]][feature] = row[at] if text else numbers[row[1]]
    return found


def _note(store: Store, names: list[str], whose: str, what: str) -> None:
    if names:
        shown = ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
        are = "is" if len(names) == 1 else "are"
        store.notes.append(f"{counted(len(names), 'option', 'options')} {whose} {are} {what}: {shown}")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
