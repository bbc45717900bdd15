"""refs.bib: a strict reader. What it does not understand is an error, so that the file stays plain BibTeX.

An entry is `@kind{key,` and fields `name = {value}` or `name = "value"` or `name = number`, parted by commas, braces
balanced, closed by `}`. Between entries there is only white space.
"""

from __future__ import annotations

import re

_HEAD = re.compile(r"@([a-z]+)\{\s*([a-z0-9_:-]+)\s*,")
_NAME = re.compile(r"\s*([a-z]+)\s*=\s*")
_ACCENTS = {"`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", '"': "\u0308", "v": "\u030c", "c": "\u0327"}
_LETTERS = {r"\o": "ø", r"\O": "Ø", r"\l": "ł", r"\L": "Ł", r"\ss": "ß", r"\aa": "å", r"\ae": "æ", r"\i": "i"}


def parse(text: str) -> dict[str, dict[str, str]]:
    """{key: {"kind": ..., field: value}}.

    Raises:
        ValueError: with the line, if the text is anything but entries, or a key or a field stands twice.
    """
    entries: dict[str, dict[str, str]] = {}
    at = 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        head = _HEAD.match(text, at)
        if head is None:
            raise ValueError(f"line {_line(text, at)}: expected an entry such as @article{{key, ...}}")
        kind, key = head.groups()
        if key in entries:
            raise ValueError(f"line {_line(text, at)}: the key {key} stands twice")
        entries[key] = {"kind": kind}
        at = head.end()
        while not (closing := re.compile(r"\s*\}").match(text, at)):
            name = _NAME.match(text, at)
            if name is None:
                raise ValueError(f"line {_line(text, at)}: expected a field of {key} such as title = {{...}}")
            if name[1] in entries[key]:
                raise ValueError(f"line {_line(text, at)}: the field {name[1]} of {key} stands twice")
            entries[key][name[1]], at = _value(text, name.end(), key)
            comma = re.compile(r"\s*,").match(text, at)
            if comma is None and not re.compile(r"\s*\}").match(text, at):
                raise ValueError(f"line {_line(text, at)}: expected a comma or the end of {key}")
            at = comma.end() if comma else at
        at = closing.end()
    return entries


def plain(value: str) -> str:
    """A field as one reads it: accents composed, braces gone, white space single."""
    import unicodedata

    for code, letter in _LETTERS.items():
        value = re.sub(re.escape(code) + r"(?![A-Za-z])\s*", letter, value)
    value = re.sub(r"\\([&%])", r"\1", value)
    value = re.sub(r"\\([`'^~\"])\{?([A-Za-z])\}?", lambda m: m[2] + _ACCENTS[m[1]], value)
    value = re.sub(r"\\([vc])\{([A-Za-z])\}", lambda m: m[2] + _ACCENTS[m[1]], value)
    return unicodedata.normalize("NFC", " ".join(value.replace("{", "").replace("}", "").replace("--", "–").split()))


def citation(entry: dict[str, str]) -> str:
    """Authors, year, title, place, link, in one line."""
    names = [plain(name) for name in entry["author"].split(" and ")]
    authors = "; ".join(names[:3]) + (" et al." if len(names) > 3 else "")
    places = [entry[field] for field in ("journal", "booktitle", "publisher", "howpublished") if field in entry]
    said = f"{authors} ({entry['year']}). {plain(entry['title'])}." + (f" {plain(places[0])}." if places else "")
    return said + (f" <{entry['url']}>" if "url" in entry else "")


def _value(text: str, at: int, key: str) -> tuple[str, int]:
    number = re.compile(r"\d+").match(text, at)
    if number:
        return number[0], number.end()
    if text[at : at + 1] not in ("{", '"'):
        raise ValueError(f"line {_line(text, at)}: a value of {key} must stand in braces or quotes")
    closer = "}" if text[at] == "{" else '"'
    depth, start = 0, at + 1
    for i in range(start, len(text)):
        if text[i] == closer and depth == 0:
            return text[start:i], i + 1
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth < 0:
            break
    raise ValueError(f"line {_line(text, at)}: the braces of {key} do not balance")


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
