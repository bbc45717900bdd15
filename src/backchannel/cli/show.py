"""How commands print: tables and JSON."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

WIDE = 120  # of output that is no terminal
GAP = 2  # between columns
_PART = r"[-+]?[\d,.]*\d(e[-+]\d+)?"
_NUMBER = re.compile(rf"-|{_PART}( %)?|{_PART}\.\.{_PART}|{_PART} \+- {_PART}")  # or an interval
_JOINT = re.compile(r"(?<=\d) (?=\+-|%)|(?<=\+-) (?=\d)")


def print_json(value: Any) -> None:
    """One JSON object on standard output; nan and infinity become null."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    spare: Sequence[str] = (),
    under: Mapping[str, str] | None = None,
) -> list[str]:
    """A table on standard output; returns the columns that were left out.

    Numbers have four digits. Text is wrapped between words where the terminal ends; no word and no number is ever
    broken: where even so the columns do not fit, each row is printed as a record, `column: value` after
    `column: value`.

    Args:
        spare: columns to leave out, the first one first, while the table is wider than the terminal.
        under: columns to set beneath another one (column: the other), before any is left out.
    """
    from rich.console import Console
    from rich.text import Text

    room = shutil.get_terminal_size((WIDE, 24)).columns
    whole = [list(column) for column in zip(columns, *([cell(v) for v in row] for row in rows), strict=True)]
    layouts = [whole]
    for n in range(len(spare) + 1):
        kept = [column for column in whole if column[0] not in spare[:n]]
        layouts.append(_set_under(kept, under or {}))
    shown = next((found for found in layouts if _width(map(_most, found)) <= room), layouts[-1])
    console = Console(width=room)
    if _width(map(_least, shown)) <= room:
        console.print(_table(title, shown, _share(shown, room)))
    else:
        console.print(Text(title, style="bold"))
        for record in zip(*(column[1:] for column in shown), strict=True):
            print(_record([column[0] for column in shown], record, room))
    left = {head for column in shown for head in column[0].split("\n")}
    return [name for name in spare if name in columns and name not in left]


def _set_under(columns: list[list[str]], under: Mapping[str, str]) -> list[list[str]]:
    """Columns with others beneath them, line by line; what has nothing to say is said once."""
    by_name = {column[0]: column for column in columns}
    above = {upper: by_name[lower] for lower, upper in under.items() if lower in by_name}
    found = []
    for column in columns:
        if column[0] not in under:
            lower = above.get(column[0], column)
            found.append([a if a == b else f"{a}\n{b}" for a, b in zip(column, lower, strict=True)])
    return found


def _table(title: str, columns: list[list[str]], widths: list[int]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", collapse_padding=True)
    table.title, table.title_justify = escape(title) or None, "left"
    for (head, *_), column, width in zip(columns, columns, widths, strict=True):
        justify: JustifyMethod = "right" if _numbers(column) else "left"
        table.add_column(escape(_wrap(head, width)), justify=justify, no_wrap=True, width=width)
    for row in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*(escape(_wrap(text, width)) for text, width in zip(row, widths, strict=True)))
    return table


def _record(heads: Sequence[str], row: Sequence[str], room: int) -> str:
    """One row as `column: value` after `column: value`, lines after the first one indented; empty cells left out."""
    lines: list[str] = []
    for head, value in zip(heads, row, strict=True):
        pair = f"{head}: {value}".replace("\n", " ")
        if not value:
            continue
        if lines and len(lines[-1]) + GAP + len(pair) <= room:
            lines[-1] += " " * GAP + pair
        else:
            lines += [" " * GAP * bool(lines or i) + part for i, part in enumerate(_wrap(pair, room - GAP).split("\n"))]
    return "\n".join(lines)


def _share(columns: list[list[str]], room: int) -> list[int]:
    """Each column's width: what it must have, and of the rest an equal share, or all that it would like."""
    least, most = list(map(_least, columns)), list(map(_most, columns))
    widths, left = list(least), room - _width(least)
    order = sorted(range(len(columns)), key=lambda i: most[i] - least[i])
    for n, i in enumerate(order):
        more = min(most[i] - least[i], left // (len(order) - n))
        widths[i], left = widths[i] + more, left - more
    return widths


def _width(columns: Iterable[int]) -> int:
    widths = list(columns)
    return sum(widths) + GAP * (len(widths) - 1)


def _most(column: list[str]) -> int:
    return max(len(line) for text in column for line in text.split("\n"))


def _least(column: list[str]) -> int:
    return max(len(line) for text in column for line in _wrap(text, 1).split("\n"))


def _numbers(column: list[str]) -> bool:
    return all(_NUMBER.fullmatch(line) for text in column[1:] for line in text.split("\n"))


def _wrap(text: str, width: int) -> str:
    """Lines of at most this width, broken between words only; what is a number as a whole (3 +- 1) stays one."""
    lines = []
    for line in text.split("\n"):
        joined = _JOINT.sub("\xa0", line)  # which textwrap takes for a letter
        lines += textwrap.wrap(joined, width, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(lines).replace("\xa0", " ")


def cell(value: Any) -> str:
    """A number to four significant digits; anything else as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(part) for part in value)
    return str(value)
