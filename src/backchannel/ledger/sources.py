"""Where a log comes from: a file, a glob, standard input; plain or gzipped; and in which format it is written."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import os
import re
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from backchannel.ledger.problems import LogError, nearest, temporary

FORMATS = ("jsonl", "csv", "parquet", "vw", "vw-adf")
TABLES = ("csv", "parquet")  # the formats whose columns a column map explains
SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".pq": "parquet", ".vw": "vw",
}  # fmt: skip
LABEL = re.compile(rb"(shared|\d+(:[^\s:|]*){0,2})?\s*('?\S+)?\|")


@dataclass(frozen=True)
class Source:
    """One file: where it lies, what messages call it, how it is written."""

    path: Path
    name: str
    format: str
    gzipped: bool

    @contextmanager
    def opened(self) -> Iterator[BufferedIOBase]:
        """The plain bytes; whatever fails while reading them is a LogError."""
        try:
            with gzip.open(self.path, "rb") if self.gzipped else open(self.path, "rb") as file:
                yield file
        except EOFError:
            raise LogError(f"{self.name} is cut off: its gzip stream has no end") from None
        except (zlib.error, gzip.BadGzipFile) as error:
            raise LogError(f"{self.name} is damaged: {error}") from None
        except OSError as error:
            raise LogError(f"{self.name} cannot be read: {error.strerror or error}") from None

    def decoded(self, text: bytes, where: str) -> str:
        """UTF-8, without a byte order mark."""
        try:
            return text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise LogError(f"{self.name}: expected UTF-8 in {where}, found byte {text[error.start]:#04x}") from None

    def with_plain_line_ends(self, folder: str) -> Source:
        """A copy in `folder`, not gzipped, whose lines all end alike."""
        path = Path(folder, "plain")
        with self.opened() as file, temporary(), open(path, "wb") as copy:
            rest = b""
            while block := file.read(1 << 20):
                block = rest + block
                rest = b"\r" if block.endswith(b"\r") else b""
                block = block.removesuffix(b"\r")
                copy.write(block.replace(b"\r\n", b"\n"))
            copy.write(rest)
        return Source(path, self.name, self.format, False)


def find(source: str | os.PathLike[str], format: str | None, folder: str) -> list[Source]:
    """The files that `source` names; standard input is first copied into `folder`."""
    if format is not None and format not in FORMATS:
        raise LogError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    name = os.fspath(source)
    if name == "-":
        path = Path(folder, "stdin")
        if not path.exists():  # it can be read once only
            with temporary(), open(path, "wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
        return [_recognise(path, "standard input", format)]
    if any(mark in name for mark in "*?[") and not os.path.exists(name):
        names = sorted(each for each in glob.glob(name, recursive=True) if not os.path.isdir(each))
        if not names:
            raise LogError(f"no file matches {name}")
        found = [_recognise(Path(each), each, format) for each in names]
        if len({each.format for each in found}) > 1:
            other = next(each for each in found if each.format != found[0].format)
            raise LogError(
                f"{name} mixes formats: {found[0].name} is {found[0].format}, {other.name} is {other.format}"
            )
        return found
    return [_recognise(Path(name), name, format)]


def csv_header(source: Source) -> tuple[list[str], str, str]:
    """The names in the first line of a CSV file, what stands between them, and the option for the line's end."""
    with source.opened() as file:
        head, end, rest = file.read(1 << 20).partition(b"\n")
    line = source.decoded(head, "the header")
    text = line + (end + rest).decode(errors="replace")
    delimiter = max(",\t;", key=lambda mark: (line.count(mark), mark == ","))
    try:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise LogError(f"{source.name} has no readable header: {error}") from None
    if not any(header):
        raise LogError(f"{source.name} is empty: expected a header and a row for each decision")
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise LogError(f"{source.name} has two columns {twice[0]!r}")
    # With `new_line`, quoted cells may hold carriage returns; DuckDB finds out for itself about other line ends.
    return header, delimiter, "" if head.endswith(b"\r") or not end else "new_line = '\\n', "


def _recognise(path: Path, name: str, format: str | None) -> Source:
    if path.is_dir():
        raise LogError(f"{name} is a directory; expected a file, or a pattern such as {path / '*.csv'}")
    if not path.exists():
        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise LogError(f"{name} does not exist" + (f"; {nearest(path.name, beside)}" if beside else ""))
    plain = Source(path, name, format or "csv", False)
    with plain.opened() as file:
        head = file.read(1 << 16)
    gzipped = head[:2] == b"\x1f\x8b"
    if name.lower().endswith(".gz") and head and not gzipped:
        raise LogError(f"{name} is not gzip, although its name ends in .gz")
    if gzipped:
        with Source(path, name, format or "csv", True).opened() as file:
            head = file.read(1 << 16)
    if not head:
        raise LogError(f"{name} is empty")
    return Source(path, name, format or _format(path, head), gzipped)


def _format(path: Path, head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    named = SUFFIXES.get(suffixes[-1], "") if suffixes else ""
    if named == "vw":
        return _kind_of_vw(start)
    if named:
        return named
    if start.startswith(b"{"):
        return "jsonl"
    return _kind_of_vw(start) if LABEL.match(start) else "csv"


def _kind_of_vw(start: bytes) -> str:
    """Blocks, if the first example is one: it starts with `shared`, or blank lines stand between groups of lines."""
    block = start.replace(b"\r", b"").split(b"\n\n")[0]
    grouped = len(block) < len(start.rstrip()) and b"\n" in block
    return "vw-adf" if start.startswith(b"shared") or grouped else "vw"
