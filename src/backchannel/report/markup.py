"""Markup that escapes by default: a plain string is data and is escaped; only what `tag` made is taken as it is.

>>> tag("td", "<script>", title='a "name"')
'<td title="a &quot;name&quot;">&lt;script&gt;</td>'
"""

from __future__ import annotations

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


LONG = 60  # characters of a name that are shown; the rest appears where the pointer rests
_EMPTY = frozenset({"circle", "line", "link", "meta", "path", "rect"})
Child = str | int | None | Iterable["str | None"]


def tag(kind: str, /, *children: Child, **attributes: str | int | None) -> Markup:
    """One element. `class_` is written class, `stroke_width` stroke-width; an attribute that is None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if kind in _EMPTY and not children:
        return Markup(f"<{kind}{written}/>")
    return Markup(f"<{kind}{written}>{join(*children)}</{kind}>")


def join(*children: Child) -> Markup:
    """Children one after the other: strings escaped, None left out, lists opened."""
    parts = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, str | int):
            parts.append(html.escape(str(child)))
        else:
            parts.append(str(join(*child)))
    return Markup("".join(parts))


def name(text: str) -> Markup:
    """A name out of the data: cut if long, and isolated, so that its writing direction turns nothing around it."""
    if len(text) > LONG:
        return tag("bdi", f"{text[: LONG - 1]}…", title=text)
    return tag("bdi", text)
