"""Write records of answers as JSON lines, JSON, CSV or Parquet, in the columns of `align/rows.py`; what is written is
read back as it was.

In CSV, and in a Parquet column where texts and conversations are mixed, messages are JSON; so a plain text that would
be read as messages is refused there. `meta` is JSON in both. A CSV file holds no NUL characters.

    >>> import tempfile, pathlib
    >>> from backchannel.align.read import read
    >>> from backchannel.lm.answers import Preference
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "pairs.csv"
    >>> written = [Preference("2 + 2 =", " 4", " 5", gap=0.5, meta={"by": "Ada"})]
    >>> write(written, path)
    1
    >>> list(read(path)) == written
    True
"""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import msgspec

from backchannel.align.log_answers import log_lines
from backchannel.align.messages import messages_in
from backchannel.ledger.convert import beside
from backchannel.ledger.problems import LogError, no_room, shortened
from backchannel.ledger.store import first_line, identifier, literal
from backchannel.lm.answers import Preference, Rated, Record, Text

FORMATS = ("jsonl", "json", "csv", "parquet", "log")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
TEXTS = ("prompt", "chosen", "rejected", "completion")
TYPES = {
    "strength": "DOUBLE",
    "gap": "DOUBLE",
    "label": "BOOLEAN",
    "score": "DOUBLE",
    "responses": "",
    "ratings": "DOUBLE[]",
    "rankings": "BIGINT[]",
    "rationale": "VARCHAR",
    "annotator": "VARCHAR",
    "id": "VARCHAR",
    "continues": "BOOLEAN",
    "meta": "VARCHAR",
}
COLUMNS = (*TEXTS, *TYPES)
MESSAGES = "STRUCT(role VARCHAR, content VARCHAR)[]"
LARGEST = 1 << 28  # bytes of a record that DuckDB takes


def write(
    records: Iterable[Record],
    path: str | os.PathLike[str],
    format: str | None = None,
    said: list[str] | None = None,
) -> int:
    """Write records to a file, whole or not at all; returns how many.

    Args:
        records: of any kinds.
        path: a file, which is replaced once all is written. With `.gz` behind, all but Parquet is compressed.
        format: "jsonl", "json" (one array), "csv", "parquet" or "log" (decisions and feedback as JSON lines); by the
            path's suffix if not given.
        said: gets sentences of what a log cannot hold.
    """
    target = Path(path)
    format = format or format_of(target)
    if format not in FORMATS:
        raise LogError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    gzipped = target.suffix == ".gz"
    if gzipped and format == "parquet":
        raise LogError(f"{target}: Parquet is compressed within; write it without .gz")
    counter = _Counter(records)
    with beside(target) as where:
        if format == "parquet":
            _parquet(counter, where)
        else:
            with gzip.open(where, "wb") if gzipped else open(where, "wb") as file:
                if format == "log":
                    file.writelines(log_lines(counter, [] if said is None else said))
                else:
                    _WRITERS[format](counter, file)
    return counter.count


def format_of(path: Path) -> str:
    """What a file's name says of its format."""
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    found = SUFFIXES.get(suffixes[-1].lower()) if suffixes else None
    if found is None:
        raise LogError(f"the format of {path} cannot be told from its name; give one of {', '.join(FORMATS)}")
    return found


def row_of(record: Record) -> dict[str, Any]:
    """A record as a row, without what is not known."""
    if isinstance(record, Preference):
        own = {"chosen": _plain(record.chosen), "rejected": _plain(record.rejected)}
        own |= {"strength": record.strength, "gap": record.gap}
    elif isinstance(record, Rated):
        own = {"completion": _plain(record.answer), "label": record.good, "score": record.score}
    else:
        own = {"responses": [_plain(answer) for answer in record.answers], "ratings": record.scores}
        if record.scores is None:
            own["rankings"] = list(range(1, len(record.answers) + 1))
    row = {"prompt": _plain(record.prompt), **own}
    row |= {name: getattr(record, name) for name in ("rationale", "annotator", "id")}
    row |= {"continues": record.continues or None, "meta": record.meta or None}
    return {name: value for name, value in row.items() if value is not None}


class _Counter:
    """Counts what is iterated over."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records, self.count = records, 0

    def __iter__(self) -> Iterator[Record]:
        for record in self.records:
            self.count += 1
            yield record


def _plain(text: Text) -> Any:
    return text if isinstance(text, str) else msgspec.to_builtins(text)


def _jsonl(records: Iterable[Record], file: BinaryIO) -> None:
    for record in records:
        file.write(msgspec.json.encode(row_of(record)) + b"\n")


def _json(records: Iterable[Record], file: BinaryIO) -> None:
    for index, record in enumerate(records):
        file.write((b",\n" if index else b"[\n") + msgspec.json.encode(row_of(record)))
    file.write(b"\n]\n")


def _csv(records: Iterable[Record], file: BinaryIO) -> None:
    """Every cell is quoted, so that line ends within are the text's own."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    rows = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    rows.writerow(COLUMNS)
    for number, record in enumerate(records, 1):
        cells = []
        row = row_of(record)
        for name in COLUMNS:
            value = row.get(name)
            cell = "" if value is None else _cell(name, value, number)
            if "\0" in cell:
                raise LogError(f"CSV cannot hold the NUL character in {name} of record {number}; jsonl can")
            cells.append(cell)
        rows.writerow(cells)
    text.flush()
    text.detach()


def _cell(name: str, value: Any, number: int) -> str:
    """A value as a text that is read back as the same value."""
    if isinstance(value, str):
        if name in TEXTS:
            _unlike_messages(name, value, number)
        return value
    return msgspec.json.encode(value).decode()


def _unlike_messages(name: str, text: str, number: int) -> None:
    try:
        same = messages_in(text) is None
    except ValueError:
        same = False
    if not same:
        raise LogError(f"{name} of record {number} is a text that a table would hold as messages: {shortened(text)}")


def _parquet(records: Iterable[Record], path: Path) -> None:
    """By way of JSON lines, which DuckDB reads with the types of the columns."""
    lines = path.with_name(path.name + ".lines")
    plain: set[str] = set()
    framed: set[str] = set()
    filled: dict[str, None] = {"prompt": None}
    try:
        with open(lines, "wb") as file:
            for number, record in enumerate(records, 1):
                row = row_of(record)
                filled |= dict.fromkeys(row)
                for name in (*TEXTS, "responses"):
                    for value in row[name] if name == "responses" and name in row else [row.get(name)]:
                        if isinstance(value, str):
                            plain.add(name)
                            _unlike_messages(name, value, number)
                        elif value is not None:
                            framed.add(name)
                if "meta" in row:
                    row["meta"] = msgspec.json.encode(row["meta"]).decode()
                file.write(msgspec.json.encode(row) + b"\n")
        types = {name: _type(name, name in plain, name in framed) for name in COLUMNS if name in filled}
        columns = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in types.items())
        read = f"read_json({literal(str(lines))}, format = 'newline_delimited', columns = {{{columns}}}"
        cells = ", ".join(identifier(name) for name in types)
        with duckdb.connect() as db:
            query = f"SELECT {cells} FROM {read}, maximum_object_size = {LARGEST})"
            db.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet)")
    except duckdb.Error as error:
        raise LogError(
            no_room(str(error)) or f"the records cannot be written as Parquet: {first_line(error)}"
        ) from None
    finally:
        lines.unlink(missing_ok=True)


def _type(name: str, plain: bool, framed: bool) -> str:
    """Of a column; texts and messages together are JSON."""
    if name not in TEXTS and name != "responses":
        return TYPES[name]
    one = "VARCHAR" if plain or not framed else MESSAGES
    return one + "[]" if name == "responses" else one


_WRITERS: dict[str, Callable[[Iterable[Record], Any], None]] = {"jsonl": _jsonl, "json": _json, "csv": _csv}
