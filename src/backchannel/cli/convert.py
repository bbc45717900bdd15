"""`convert`: a log, or what was said of a model's answers, from one format into another, saying what is lost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from backchannel.cli import app
from backchannel.cli.methods import AsJson
from backchannel.cli.options import (
    AnswerColumns,
    Items,
    SkipBadRows,
    SplitAt,
    maps_columns,
    one_of,
    reading_answers,
    refuse,
)
from backchannel.cli.show import print_json

ANSWERS = "Answers of a model, and what was said of them"


@app.command()
@maps_columns
def convert(
    source: Annotated[str, typer.Argument(help="A file, a glob, '-' or 'open-bandit'.")],
    target: Annotated[str, typer.Argument(help="The file to write; its ending says the format.")],
    from_format: Annotated[str | None, typer.Option("--from", help="Of the source; else recognised.")] = None,
    to_format: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="jsonl, csv, parquet, open-bandit, vw or vw-adf; of answers jsonl, json, csv, parquet or log; "
            "else by the ending.",
        ),
    ] = None,
    columns: Any = None,
    items: Items = None,
    logged_by: Annotated[str | None, typer.Option(help="Of open-bandit: random (default) or bts.")] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            help="The source says of a model's answers which are better: write pairs, singles (good or bad), rankings, "
            "demonstrations (the best alone), or the same kinds as they are.",
            rich_help_panel=ANSWERS,
        ),
    ] = None,
    column: AnswerColumns = None,
    split: SplitAt = None,
    skip_bad_rows: SkipBadRows = 0,
    as_json: AsJson = False,
) -> None:
    """Write a log in another format, whole or not at all; with --answers, what was said of a model's answers."""
    if answers is not None:
        refuse({"--items": items, "--logged-by": logged_by}, "is for logs of decisions, not for --answers")
        if columns is not None:
            raise ValueError("--action and what goes with it are for logs of decisions; with --answers, give --column")
        said = _answers(source, target, from_format, to_format, answers, column, split, skip_bad_rows)
    else:
        refuse({"--column": column, "--split": split}, "is for --answers")
        said = _log(source, target, from_format, to_format, columns, items, logged_by, skip_bad_rows, as_json)
    if as_json:
        print_json({"source": source, "target": target, "notes": said})
    else:
        print("\n".join([*said, f"wrote {target}"]))


def _log(
    source: str,
    target: str,
    from_format: str | None,
    to_format: str | None,
    columns: Any,
    items: str | None,
    logged_by: str | None,
    skip_bad_rows: int,
    as_json: bool,
) -> list[str]:
    from backchannel.cli.progress import bar
    from backchannel.ledger.convert import TARGETS
    from backchannel.ledger.convert import convert as job
    from backchannel.ledger.open_bandit import POLICIES, is_packaged
    from backchannel.ledger.sources import FORMATS

    if not is_packaged(source):
        refuse({"--logged-by": logged_by}, f"is for open-bandit, not for {source}")
    one_of("--logged-by", logged_by, POLICIES)
    one_of("--from", from_format, FORMATS)
    one_of("--to", to_format, TARGETS)
    with bar(quiet=as_json) as progress:
        return job(
            source,
            target,
            to_format,
            source_format=from_format,
            columns=columns,
            items=items,
            logged_by=logged_by or "random",
            skip_bad_rows=skip_bad_rows,
            progress=lambda share: progress("converting", share),
        )


def _answers(
    source: str,
    target: str,
    from_format: str | None,
    to_format: str | None,
    answers: str,
    column: list[str] | None,
    split: str | None,
    skip_bad_rows: int,
) -> list[str]:
    from backchannel.align.convert import KINDS, convert_answers
    from backchannel.align.read import FORMATS
    from backchannel.align.write import FORMATS as TARGETS

    one_of("--answers", answers, KINDS)
    one_of("--from", from_format, FORMATS)
    one_of("--to", to_format, TARGETS)
    return convert_answers(
        source,
        target,
        answers,
        to_format,
        source_format=from_format,
        skip_bad_rows=skip_bad_rows,
        **reading_answers(column, split),
    )
