"""From one file of answers to another: its format, and whether it holds pairs, single answers or rankings.

>>> import tempfile, pathlib
>>> folder = pathlib.Path(tempfile.mkdtemp())
>>> _ = (folder / "pairs.jsonl").write_text('{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}\\n')
>>> convert_answers(folder / "pairs.jsonl", folder / "singles.csv", "singles")
['2 records written']
>>> print((folder / "singles.csv").read_text().splitlines()[1][:33])
"2 + 2 =","",""," 4","","","true"
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from backchannel.align.log_answers import fits
from backchannel.align.read import read
from backchannel.align.write import write
from backchannel.ledger.problems import LogError, counted
from backchannel.lm.answer_kinds import TARGETS, Target, converted, left_out
from backchannel.lm.answers import Record

KINDS = (*TARGETS, "same")


def convert_answers(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    kind: str = "same",
    format: str | None = None,
    *,
    source_format: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    skip_bad_rows: int = 0,
) -> list[str]:
    """Write what `source` holds to the file `target`, whole or not at all; returns what was noted and what is lost.

    Args:
        source: as for `read`; a feedback log, too.
        target: a file, as for `write`.
        kind: "pairs", "singles", "rankings" or "demonstrations", or "same" for the kinds that the source holds.
        format: of the target: "jsonl", "json", "csv", "parquet" or "log"; by its suffix if not given.
        source_format: recognised if not given.
        columns: what columns with other names mean.
        split: where two plain texts without a prompt are split.
        skip_bad_rows: up to so many bad rows are left out and counted.
    """
    if kind not in KINDS:
        raise LogError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    found = read(source, format=source_format, columns=columns, split=split, skip_bad_rows=skip_bad_rows)
    left: Counter[str] = Counter()
    records: Iterable[Record] = found if kind == "same" else converted(found, cast(Target, kind), left)
    said: list[str] = []
    if format == "log":
        records = _fitting(records, left)
    count = write(_some(records, Path(target), kind, left), target, format, said)
    return [*found.notes, *left_out(left), *said, f"{counted(count, 'record', 'records')} written"]


def _fitting(records: Iterable[Record], left: Counter[str]) -> Iterable[Record]:
    """The records that a log can hold; the others are counted, and not among those that are written."""
    for record in records:
        if fits(record):
            yield record
        else:
            left["demonstrations, which a log cannot hold"] += 1


def _some(records: Iterable[Record], target: Path, kind: str, left: Mapping[str, int]) -> Iterable[Record]:
    """The records; LogError, and so no file, where there is none."""
    empty = True
    for record in records:
        empty = False
        yield record
    if empty:
        raise LogError(f"{target} would hold no {kind}" + "".join(f"; {each}" for each in left_out(left)))
