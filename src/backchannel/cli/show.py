"""How commands print: tables and JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_json(value: Any) -> None:
    """One JSON object on standard output; nan and infinity become null."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on standard output, as wide as the terminal; numbers to four digits."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title) or None, title_justify="left", header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(escape(column), overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell(value)) for value in row))
    Console().print(table)


def cell(value: Any) -> str:
    """A number to four significant digits; anything else as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(part) for part in value)
    return str(value)
