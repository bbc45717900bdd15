"""A document: a page as one HTML file that loads nothing and runs nothing, with the style of all pages."""

from __future__ import annotations

import os
from pathlib import Path

from backchannel.report.markup import Child, Markup, tag

_ALLOWED = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, *parts: Child) -> str:
    """A page with these parts, as text."""
    style = Markup(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_ALLOWED),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", style),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *parts)), lang='en')}\n"


def write(text: str, path: str | os.PathLike[str]) -> None:
    """Write a page to `path`: beside it first, then renamed, so that a reader never finds half a page."""
    target = Path(path)
    beside = target.with_name(f".{target.name}.tmp")
    beside.write_bytes(text.encode("utf-8", errors="replace"))
    beside.replace(target)
