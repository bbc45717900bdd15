"""From one format of logs to another, without losing what the target can hold, and saying what it cannot.

>>> import tempfile, pathlib
>>> from backchannel.ledger.convert import convert
>>> folder = pathlib.Path(tempfile.mkdtemp())
>>> _ = (folder / "log.csv").write_text("action,reward,propensity,time,context.age\\nred,1,0.5,1600000000,31\\n")
>>> for sentence in convert(folder / "log.csv", folder / "log.vw"):
...     print(sentence)
Vowpal Wabbit text cannot hold times: 1 row has them
actions are numbered: 1 = red
>>> (folder / "log.vw").read_text()
'1:-1.0:0.5 | age:31.0\\n'
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from backchannel.feedback import encode
from backchannel.ledger import chunk
from backchannel.ledger.columns import Columns
from backchannel.ledger.items import Items
from backchannel.ledger.lines import records
from backchannel.ledger.native import survey
from backchannel.ledger.open_bandit import is_packaged
from backchannel.ledger.problems import LogError, Problems, counted
from backchannel.ledger.read import fill
from backchannel.ledger.sources import SUFFIXES, find
from backchannel.ledger.store import Store, first_line
from backchannel.ledger.tables import write_open_bandit, write_table
from backchannel.ledger.writers import Writer, write_native, write_vw

TARGETS = ("jsonl", "csv", "parquet", "open-bandit", "vw", "vw-adf")


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    format: str | None = None,
    *,
    source_format: str | None = None,
    columns: Columns | None = None,
    items: str | os.PathLike[str] | Items | None = None,
    logged_by: str = "random",
    skip_bad_rows: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[str]:
    """Write the log `source` to the file `target`, whole or not at all; returns what was noted and what is lost.

    In CSV, a line end of two characters within a cell or a name is read back as one.

    Args:
        source: as for `open_log`.
        target: a file; it is replaced once all is written. With `.gz` behind, text formats are compressed.
        format: "jsonl", "csv", "parquet", "open-bandit", "vw" (a line a decision) or "vw-adf" (a block); by the
            target's suffix if not given.
        source_format: the format of `source`; recognised if not given.
        columns: what the columns of a source table mean.
        items: features of the options that never change, as for `open_log`. "jsonl" and "vw-adf" name them with
            every option of every decision, tables hold those that are numbers.
        logged_by: of the packaged `open-bandit`: the policy that made the log.
        skip_bad_rows: up to so many bad rows are left out and counted.
        progress: called now and then with the part of a source file that has been read.
    """
    path = Path(target)
    format = format or _format_of(path)
    if format not in TARGETS:
        raise LogError(f"format must be one of {', '.join(TARGETS)}, not {format!r}")
    gzipped = path.suffix == ".gz"
    if gzipped and format == "parquet":
        raise LogError(f"{path}: Parquet is compressed within; write it without .gz")
    name = os.fspath(source)
    problems = Problems(skip_bad_rows)
    store = Store(name, text=True, progress=progress)
    try:
        with beside(path) as where:
            if format == "jsonl" and items is None and columns is None:
                copied = _copy_records(store, name, source_format, where, gzipped, problems)
                if copied is not None:
                    return copied + problems.notes()
            found = fill(store, name, source_format, columns, items, problems, logged_by)
            writer = Writer(store, found or {})
            if format in ("csv", "parquet"):
                write_table(writer, where, format, gzipped)
            elif format == "open-bandit":
                write_open_bandit(writer, where, gzipped)
            else:
                with gzip.open(where, "wb") if gzipped else open(where, "wb") as file:
                    if format == "jsonl":
                        write_native(writer, file)
                    else:
                        write_vw(writer, file, blocks=format == "vw-adf")
            return store.notes + problems.notes() + writer.said()
    except duckdb.Error as error:
        raise LogError(f"{name} cannot be converted to {path}: {first_line(error)}") from None
    finally:
        store.close()


def _copy_records(
    store: Store, name: str, source_format: str | None, target: Path, gzipped: bool, problems: Problems
) -> list[str] | None:
    """Native to native: every record, as it is; None if the source is another format."""
    if is_packaged(name):
        return None
    found = find(name, source_format, store.folder)
    if found[0].format != "jsonl":
        return None
    count = survey(store, found, problems)
    passed = Problems(problems.skip)  # what is bad was counted by the survey
    with gzip.open(target, "wb") if gzipped else open(target, "wb") as file:
        for index, source in enumerate(found):
            for first, lines in chunk.blocks(source, store):
                for row, record in records(store, source, first, lines, passed):
                    if (index, row) not in store.left:
                        file.write(encode(record) + b"\n")
    return [*store.notes, f"{counted(count - len(store.left), 'record was', 'records were')} copied as they are"]


def _format_of(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    found = SUFFIXES.get(suffixes[-1].lower()) if suffixes else None
    if found is None:
        raise LogError(f"the format of {path} cannot be told from its name; give one of {', '.join(TARGETS)}")
    return found


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it replaces `path` if nothing fails, and vanishes if something does."""
    if path.is_dir():
        raise LogError(f"{path} is a directory; expected the name of a file to write")
    if not path.parent.is_dir():
        raise LogError(f"{path} cannot be written: the directory {path.parent} does not exist")
    made = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield made
        with open(made, "rb+") as file:
            os.fsync(file.fileno())
        made.replace(path)
    except OSError as error:
        raise LogError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        made.unlink(missing_ok=True)
