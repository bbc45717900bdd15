"""Tables in a page, between two marks, each on a line of its own."""

from __future__ import annotations

from pathlib import Path


def rewrite(path: Path, text: str, begin: str, end: str) -> None:
    """Put `text` between the marks of the file."""
    page = path.read_text()
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise SystemExit(f"{path} must have one line {begin!r} and after it one {end!r}")
    before, after = page[: page.index(begin)], page[page.index(end) :]
    path.write_text(f"{before}{begin}\n\n{text}\n\n{after}")
