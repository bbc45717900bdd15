"""Read what people and models said of answers, whatever it is written in, as the records of `lm/answers.py`.

A source is a file (JSON lines, JSON, CSV or Parquet in the columns of `align/rows.py`, or a feedback log), a glob, `-`
for standard input, a data set of `datasets`, or any iterable of dicts. Rows stream; a JSON file that is one array is
held while it is read, and of a log the feedback is.

    >>> found = read([{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5", "source": "school"}])
    >>> [(record.chosen, record.meta) for record in found]
    [(' 4', {'source': 'school'})]
    >>> found.notes
    ["kept as they are, in meta: the columns 'source'"]
"""

from __future__ import annotations

import csv
import io
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

import duckdb
import msgspec

from backchannel.align.log_answers import read_log
from backchannel.align.places import read_by
from backchannel.align.rows import Rows
from backchannel.ledger.problems import LogError, Problems, no_room, shortened
from backchannel.ledger.sources import Source, csv_header, find
from backchannel.ledger.store import first_line, literal
from backchannel.lm.answer_kinds import left_out
from backchannel.lm.answers import Kind, Record, kind_of

FORMATS = ("jsonl", "csv", "parquet")
STEP = 1000


def read(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
    kind: Kind | None = None,
    *,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    skip_bad_rows: int = 0,
    prompts: bool = False,
) -> Reading:
    """The records of a source, to be iterated over, as often as the source can be.

    Args:
        source: a file, a glob, `-`, or rows.
        kind: "pairs", "singles" or "rankings"; a row of another kind is a bad row, and feedback of a log that says
            another kind is left out and counted. None: whatever is found.
        format: "jsonl", "csv" or "parquet"; recognised if not given.
        columns: what columns with other names mean, such as {"prompt": "question"}.
        split: where two plain texts without a prompt are split: behind its last place.
        skip_bad_rows: up to so many bad rows are left out and counted; the next one raises LogError.
        prompts: of a row with a prompt nothing else is read: it becomes a `Rated` with the answer "(none)".
    """
    if kind is not None and kind not in get_args(Kind):
        raise LogError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    if format is not None and format not in FORMATS:
        raise LogError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    if split == "":
        raise LogError("split must be a text at which others are split, not an empty one")
    Rows(columns)  # a wrong map is said at once
    return Reading(source, kind, format, columns, split, skip_bad_rows, prompts)


class Reading:
    """Records to iterate over. `notes` says, after the last, what was left out and what was kept unread."""

    def __init__(
        self,
        source: Any,
        kind: Kind | None,
        format: str | None,
        columns: Mapping[str, str] | None,
        split: str | None,
        skip_bad_rows: int,
        prompts: bool,
    ) -> None:
        self.source, self.kind, self.format = source, kind, format
        self.columns, self.split, self.skip, self.prompts = columns, split, skip_bad_rows, prompts
        self.notes: list[str] = []
        self._cuts = 0
        self._parts: dict[str, None] = {}

    def __iter__(self) -> Iterator[Record]:
        problems, kept, said = Problems(self.skip), dict[str, None](), list[str]()
        count = self._cuts = 0
        self._parts = {}
        for record in self.records(problems, kept, said):
            count += 1
            yield record
        if not count and not problems.count:
            raise LogError(f"{self._name()} holds no record" + (f": {'; '.join(said)}" if said else ""))
        self.notes = [*said, *problems.notes()]
        if kept:
            shown = ", ".join(map(repr, list(kept)[:8])) + (", ..." if len(kept) > 8 else "")
            self.notes.append(f"kept as they are, in meta: the columns {shown}")
        if self._parts:
            self.notes.append(f"read of their columns, and no more of them: {', '.join(map(repr, self._parts))}")
        if self.split is not None and not self._cuts:
            self.notes.append(f"nothing was split at {self.split!r}: the prompts stand by themselves")

    def _name(self) -> str:
        return os.fspath(self.source) if isinstance(self.source, str | os.PathLike) else "the source"

    def records(self, problems: Problems, kept: dict[str, None], said: list[str]) -> Iterator[Record]:
        """The records, with what is wrong in the caller's hands: bad rows, columns kept in `meta`, what was said."""
        if not isinstance(self.source, str | os.PathLike):
            yield from self._taken(_given(self.source), "the source", False, problems, kept)
            return
        with tempfile.TemporaryDirectory(prefix="backchannel-") as folder:
            for each in find(self.source, self.format, folder):
                if each.format not in FORMATS:
                    raise LogError(
                        f"{each.name} is {each.format}, which holds no answers; expected {', '.join(FORMATS)}"
                    )
                if each.format == "jsonl" and _is_log(each):
                    prompt = dict(self.columns or {}).get("prompt", "prompt")
                    others: Counter[Kind] = Counter()
                    for record in read_log(each, prompt, problems, said):
                        if self.kind in (None, kind_of(record)):
                            yield record
                        else:
                            others[kind_of(record)] += 1
                    said += left_out(others)
                else:
                    if each.format == "jsonl":
                        rows = _json_rows(each, self.columns or {})
                    else:
                        rows = (_csv_rows if each.format == "csv" else _parquet_rows)(each)
                    yield from self._taken(rows, each.name, each.format != "jsonl", problems, kept)

    def _taken(
        self, rows: Iterator[Any], name: str, cells: bool, problems: Problems, kept: dict[str, None]
    ) -> Iterator[Record]:
        """Rows as records; what is bad goes to `problems` with its number."""
        maker = Rows(self.columns, self.kind, self.split, cells, self.prompts)
        maker.kept = kept
        for number, row in enumerate(rows, 1):
            if row is None:  # a blank line
                continue
            try:
                if isinstance(row, ValueError):
                    raise row
                record = maker.record(row)
            except ValueError as error:
                problems.add(f"{name}, row {number}: {error}")
            else:
                yield record
        self._cuts += maker.cuts
        self._parts |= maker.parts


def _given(source: Any) -> Iterator[Any]:
    """Rows of a data set or another iterable."""
    if isinstance(source, Mapping):
        raise LogError(f"the source has parts ({', '.join(map(str, source))}): give one of them")
    if not isinstance(source, Iterable):
        raise LogError(f"the source must be a file or rows, not {shortened(source)}")
    if hasattr(source, "iterrows"):
        raise LogError("of a table of pandas, give the rows: table.to_dict('records')")
    for row in source:
        yield row if isinstance(row, Mapping) else ValueError(f"expected a row as a dict, not {shortened(row)}")


def _first_object(source: Source) -> Any:
    """What the first line that is not blank holds, if it is JSON."""
    with source.opened() as file:
        for line in file:
            if text := line.removeprefix(b"\xef\xbb\xbf").strip():
                try:
                    return msgspec.json.decode(text)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    return None
    return None


def _is_log(source: Source) -> bool:
    first = _first_object(source)
    return isinstance(first, dict) and first.get("record") in ("decision", "feedback")


def _json_rows(source: Source, columns: Mapping[str, str]) -> Iterator[Any]:
    """JSON lines, or one array, or one object: a row, if it has a prompt or all mapped columns, else a list of rows."""
    first = _first_object(source)
    if isinstance(first, dict) and (_goes_on(source) or not any(_holds_rows(each) for each in first.values())):
        yield from _lines(source)
        return
    with source.opened() as file:
        whole = file.read().removeprefix(b"\xef\xbb\xbf")
    try:
        held = msgspec.json.decode(whole)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield from _lines(source)
        return
    if isinstance(held, dict):
        lists = [each for each in held.values() if _holds_rows(each)]
        needed = set[str]().union(*(read_by(held, name) for name in columns.values()))
        row = "prompt" in held or (needed and needed <= held.keys())
        held = lists[0] if len(lists) == 1 and not row else [held]
    for row in held if isinstance(held, list) else [held]:
        yield row if isinstance(row, dict) else ValueError(f"expected an object, not {shortened(row)}")


def _goes_on(source: Source) -> bool:
    """Whether a second line follows that is not blank."""
    with source.opened() as file:
        texts = (line for line in file if line.removeprefix(b"\xef\xbb\xbf").strip())
        return next(texts, None) is not None and next(texts, None) is not None


def _holds_rows(value: Any) -> bool:
    """Whether a value is a list of objects that are no messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and each.keys().isdisjoint(("role", "from")) for each in value)
    )


def _lines(source: Source) -> Iterator[Any]:
    with source.opened() as file:
        for line in file:
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                yield None
                continue
            try:
                row = msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                said = " ".join(str(error).split())
                nan = next((name for name in (b"NaN", b"Infinity") if name in text), None)
                hint = f"; JSON has no {nan.decode()}" if nan else ""
                yield ValueError(f"expected a JSON object, but {said}{hint}")
                continue
            yield row if isinstance(row, dict) else ValueError(f"expected a JSON object, not {shortened(row)}")


def _csv_rows(source: Source) -> Iterator[Any]:
    header, delimiter, _ = csv_header(source)
    csv.field_size_limit(sys.maxsize)  # answers may be longer than Python's default of 128 KiB
    with source.opened() as file:
        plain: Any = file
        text = io.TextIOWrapper(plain, encoding="utf-8-sig", newline="")
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            next(rows)
            for cells in rows:
                if not cells:
                    continue
                if len(cells) != len(header):
                    yield ValueError(f"expected {len(header)} cells, found {len(cells)}")
                else:
                    yield dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise LogError(f"{source.name}, line {rows.line_num}: {error}") from None
        except UnicodeDecodeError as error:
            raise LogError(f"{source.name}: expected UTF-8, found byte {error.object[error.start]:#04x}") from None


def _parquet_rows(source: Source) -> Iterator[Any]:
    if source.gzipped:
        raise LogError(f"{source.name} is gzipped; Parquet is compressed within")
    try:
        with duckdb.connect() as db:
            found = db.execute(f"SELECT * FROM read_parquet({literal(str(source.path))})")
            names = [each[0] for each in found.description or ()]
            while rows := found.fetchmany(STEP):
                for cells in rows:
                    yield dict(zip(names, cells, strict=True))
    except duckdb.Error as error:
        raise LogError(no_room(str(error)) or f"{source.name} cannot be read: {first_line(error)}") from None
