"""How commands print: tables and JSON."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 120  # of output that is no terminal
_NUMBER = re.compile(r"-|[-+]?[\d,.]*\d(e[-+]\d+)?( %)?|[-+]?[\d,.]*\d\.\.[-+]?[\d,.]*\d")  # or an interval


def print_json(value: Any) -> None:
    """One JSON object on standard output; nan and infinity become null."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], spare: Sequence[str] = ()) -> None:
    """A table on standard output: numbers to four digits, one line each; text is folded where the terminal ends.

    Args:
        spare: columns to leave out, the first one first, while the table is wider than the terminal.
    """
    from rich.console import Console

    width = shutil.get_terminal_size((WIDE, 24)).columns
    cells = [[cell(value) for value in row] for row in rows]
    shown = list(range(len(columns)))
    for name in [*spare, None]:
        table = _table(title, [columns[i] for i in shown], [[row[i] for i in shown] for row in cells])
        if Console(width=10 * WIDE).measure(table).maximum <= width or name is None:
            break
        shown = [i for i in shown if columns[i] != name]
    Console(width=width).print(table)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    table.title, table.title_justify = escape(title) or None, "left"
    for i, column in enumerate(columns):
        number = all(_NUMBER.fullmatch(row[i]) for row in rows)
        table.add_column(escape(column), justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def cell(value: Any) -> str:
    """A number to four significant digits; anything else as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(part) for part in value)
    return str(value)
