"""Vowpal Wabbit's contextual-bandit text, both kinds; a cost is a loss, so that reward = -cost.

One line a decision (`vw`): `action:cost:probability | features`. Other actions may stand beside without a cost: they
were offered too. A block of lines a decision, ended by a blank line (`vw-adf`): `shared | features` of the context,
then a line for each option, of which one has the label. An option is called by its tag, or by its number in the block,
from 0, as in Vowpal Wabbit's predictions. The tag of a single line, or of the shared one, is the decision's id.

    >>> from backchannel.ledger.vw import context_of
    >>> context_of("user age:25 city=Paris new|:2 x:3")
    {'user^age': 25.0, 'user^city': 'Paris', 'user^new': 1.0, 'x': 6.0}

A feature `name:number` of the namespace `user` is called `user^name`; `name` alone is 1; `name=text` and `name:text`
are categories. What a line does not name is 0. A feature that is named twice counts twice. There are no comments, no
times and no positions in this format; labels of other kinds of learning are errors, and examples without a label are
counted and left out.

Plain text goes through the compiled scanner of vw_scan.py, some megabytes at a time. What that one does not know, and
what is to be converted, is read here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backchannel.feedback import Decision
from backchannel.ledger import chunk
from backchannel.ledger.problems import LogError, Problems, counted, shortened
from backchannel.ledger.sources import Source
from backchannel.ledger.store import Store
from backchannel.ledger.vw_scan import Found
from backchannel.ledger.vw_take import scanned, take

Piece = tuple[int, bytes]  # number of its first line, and whole examples
PIECE = 1 << 21  # bytes of text, about
INFINITE = math.inf
CELLS = 1 << 20  # of a chunk: rows by features
LONGEST = 100_000  # lines of a block


def read_vw(store: Store, source: Source, problems: Problems) -> None:
    """Append one file to the store."""
    file = len(store.files)
    store.files.append(source.name)
    store.zero = True
    unlabelled = 0
    blocks = source.format == "vw-adf"
    for first, text, found in _ahead(store, _pieces(source, store), blocks):
        taken = take(store, text, found, blocks, file) if found is not None else None
        unlabelled += _look_closer(store, source, text, first, file, problems) if taken is None else taken
    if unlabelled:
        store.notes.append(f"{counted(unlabelled, 'example has', 'examples have')} no label; left out")


def _ahead(store: Store, pieces: Iterable[Piece], blocks: bool) -> Iterator[tuple[int, bytes, Found | None]]:
    """The pieces, each scanned while the one before it goes into the store: the scanner holds no lock."""

    def scan(first: int, text: bytes) -> tuple[int, bytes, Found | None]:
        return first, text, None if store.text else scanned(text, blocks, first)

    with ThreadPoolExecutor(1) as beside:
        last = None
        for first, text in pieces:
            now = beside.submit(scan, first, text)
            if last:
                yield last.result()
            last = now
        if last:
            yield last.result()


def _look_closer(store: Store, source: Source, text: bytes, first: int, file: int, problems: Problems) -> int:
    """Whole examples, a line at a time; returns how many have no label."""
    rows: list[chunk.Row] = []
    unlabelled = 0
    for number, lines in _examples(source, text, first, problems):
        try:
            row = _block(number, lines) if source.format == "vw-adf" else _line(number, lines[0])
        except _LineError as error:
            problems.add(f"{source.name}, row {error.line} (block from row {number}): {error}")
            continue
        except ValueError as error:
            problems.add(f"{source.name}, row {number}: {error}")
            continue
        if row is None:
            unlabelled += 1
            continue
        rows.append(row)
        if len(rows) * (8 + store.width) >= CELLS:
            chunk.append(store, rows, file, problems)
            rows = []
    chunk.append(store, rows, file, problems)
    return unlabelled


def _pieces(source: Source, store: Store) -> Iterator[Piece]:
    """Whole examples, about two megabytes at a time."""
    row, rest = 1, b""
    for first, lines in chunk.blocks(source, store, PIECE):
        if first == 1:
            lines = lines.removeprefix(b"\xef\xbb\xbf")
        lines = rest + re.sub(rb"\r+$", b"", lines, flags=re.MULTILINE) if b"\r" in lines else rest + lines
        end = len(lines) if source.format == "vw" else lines.rfind(b"\n\n") + 2
        if end < 2:
            if lines.count(b"\n") > LONGEST:
                raise LogError(
                    f"{source.name}, row {row}: a block of more than {LONGEST:,} lines; a blank line ends one"
                )
            rest = lines
            continue
        piece, rest = lines[:end].replace(b"\t", b" "), lines[end:]
        yield row, piece
        row += piece.count(b"\n")
    if rest:
        yield row, rest.replace(b"\t", b" ")


def _examples(source: Source, piece: bytes, first: int, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    block: list[str] = []
    start = first
    for number, raw in enumerate(piece.split(b"\n"), first):
        try:
            line = raw.decode()
        except UnicodeDecodeError as error:
            problems.add(f"{source.name}, row {number}: expected UTF-8, found byte {raw[error.start]:#04x}")
            line = ""
        if line and source.format == "vw":
            yield number, [line]
        elif line:
            start = start if block else number
            block.append(line)
            if len(block) > LONGEST:
                raise LogError(
                    f"{source.name}, row {start}: a block of more than {LONGEST:,} lines; a blank line ends one"
                )
        elif block:
            yield start, block
            block = []
    if block:
        yield start, block


def _line(number: int, line: str) -> chunk.Row | None:
    label, _, features = line.partition("|")
    words, tag = _label(label)
    chosen: tuple[str, float | None, float | None] | None = None
    options = []
    for word in words:
        action, cost, probability = _cost(word)
        options.append(action)
        if cost is not None:
            if chosen:
                raise ValueError(f"expected the cost of one action, found {shortened(label.strip())}")
            chosen = action, cost, probability
    if chosen is None:
        return None
    action, cost, probability = chosen
    offered = options if len(options) > 1 else None
    decision = Decision(tag, action, offered, context_of(features), probability)
    return chunk.Row(number, decision, 0.0 - (cost or 0.0))


class _LineError(ValueError):
    """What is wrong with one line of a block: `line` is its number."""

    def __init__(self, error: ValueError, line: int) -> None:
        super().__init__(str(error))
        self.line = line


def _block(number: int, lines: list[str]) -> chunk.Row | None:
    context: dict[str, Any] = {}
    options: dict[str, dict[str, Any]] = {}
    decision: Decision | None = None
    name, reward = "", 0.0
    for at, line in enumerate(lines):
        try:
            label, _, features = line.partition("|")
            words, tag = _label(label)
            if words and words[0] == "shared":
                if len(words) > 1 or at:
                    raise ValueError("expected 'shared' alone, on the first line of a block")
                context, name = context_of(features), tag
                continue
            option = tag or str(len(options))
            if option in options:
                raise ValueError(f"two options of a block are called {option!r}")
            options[option] = context_of(features)
            if not words:
                continue
            _, cost, probability = _cost(words[0])
            if len(words) > 1 or (cost is not None and decision is not None):
                raise ValueError(f"expected the cost of one option, found {shortened(label.strip())}")
            if cost is not None:
                decision, reward = Decision(name, option, None, context, probability), 0.0 - cost
        except ValueError as error:
            raise _LineError(error, number + at) from None
    if decision is None:
        return None
    decision.options = options
    return chunk.Row(number, decision, reward)


def _label(label: str) -> tuple[list[str], str]:
    """The words before the first bar, and the tag: the last word, if it touches the bar or starts with a quote."""
    words = [word for word in label.split(" ") if word]
    if words and (not label.endswith(" ") or words[-1][0] == "'"):
        return words[:-1], words[-1].removeprefix("'")
    return words, ""


def _cost(word: str) -> tuple[str, float | None, float | None]:
    """Action, cost and probability of `action:cost:probability`; what is left out is None."""
    parts = word.split(":")
    try:
        if len(parts) > 3 or not parts[0].isdigit():
            raise ValueError
        numbers = [float(part) for part in parts[1:]]
    except ValueError:
        raise ValueError(f"expected action:cost:probability, found {shortened(word)}") from None
    if numbers and not math.isfinite(numbers[0]):
        raise ValueError(f"expected a finite cost, found {shortened(word)}")
    cost, probability = (*numbers, None, None)[:2]
    return parts[0], cost, probability


def context_of(text: str) -> dict[str, Any]:
    """The features behind the first bar of a line."""
    found: dict[str, Any] = {}
    for part in text.split("|"):
        words = part.split(" ")
        prefix, scale = "", 1.0
        if words[0]:
            name, colon, factor = words[0].partition(":")
            prefix = f"{name}^" if name else ""
            scale = _number(factor) if colon else 1.0
        for word in words[1:]:
            name, mark, value = word.partition(":")
            if mark:
                try:
                    number = float(value)
                except ValueError:
                    found.setdefault(prefix + name, value)
                    continue
                if not -INFINITE < number < INFINITE or "_" in value:
                    raise ValueError(f"expected a finite number, found {shortened(word)}")
            elif word:
                number = 1.0
                name, mark, value = word.partition("=")
                if mark and prefix + name not in found:
                    found[prefix + name] = value
                    continue
                name = word
            else:
                continue
            name = prefix + name
            if name in found:
                before = found[name]
                if isinstance(before, str):
                    raise ValueError(f"feature {name!r} is text {shortened(before)} and a number in one example")
                found[name] = before + number * scale
            else:
                found[name] = number * scale
    return found


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f"expected a finite number, found {shortened(text)}")
    return value
