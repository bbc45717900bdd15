"""`audit`: what preference data can be trusted for, before a model is tuned on them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from backchannel.cli import app
from backchannel.cli.methods import AsJson
from backchannel.cli.options import AnswerColumns, Seed, SplitAt, reading_answers
from backchannel.cli.show import print_json, print_table

COLUMNS = "Columns that say more"


@app.command()
def audit(
    data: Annotated[str, typer.Argument(help="JSON lines, CSV, Parquet or a feedback log with preferences; or '-'.")],
    against: Annotated[
        str | None, typer.Option(help="Other data with the same columns, to judge by, say: what is in both is counted.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where report.html, card.md and result.json go.")] = None,
    group: Annotated[
        str | None, typer.Option(help="The group that the annotator belongs to.", rich_help_panel=COLUMNS)
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="The circumstances of the choice.", rich_help_panel=COLUMNS)
    ] = None,
    shown_first: Annotated[
        str | None, typer.Option(help="Which was shown first: chosen or rejected.", rich_help_panel=COLUMNS)
    ] = None,
    column: AnswerColumns = None,
    split: SplitAt = None,
    draws: Annotated[int, typer.Option(min=19, help="Of each test; its least p is 1 / (draws + 1).")] = 999,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Audit preferences: transitivity, annotators, length, order, ratings, duplicates, conflicts, leakage."""
    import shlex
    import time

    import backchannel
    from backchannel.align.audit import audit as examine
    from backchannel.align.gathered import gather
    from backchannel.align.read import read
    from backchannel.cli.folder import check
    from backchannel.cli.progress import bar

    start = time.perf_counter()
    if out is not None:
        check(out)
    with bar(quiet=as_json) as progress:
        progress("reading", 0.0)
        how = reading_answers(column, split)
        own = gather(read(data, **how), data, group, context, shown_first)
        other = None if against is None else gather(read(against, **how), against, None, None, None)
        if not own.vote:
            first = "".join(f"; {sentence}" for sentence in [*own.bad.firsts.values()][:1])
            raise ValueError(f"{data} holds no preference: there is nothing to audit but {_kinds(own.kinds)}{first}")
        found = examine(own, other, draws, seed, progress)
    found.version, found.seconds = backchannel.__version__, time.perf_counter() - start
    found.command = shlex.join(["backchannel", *sys.argv[1:]])
    written = [] if out is None else _write(out, found)
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(found), "written": list(map(str, written))})
    else:
        _print(found, written)


def _kinds(kinds: Any) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()) or "rows that cannot be read"


def _write(out: Path, found: Any) -> list[Path]:
    import msgspec

    from backchannel.cli.folder import fill
    from backchannel.preference.audit_card import to_markdown
    from backchannel.report.audit_page import write_page

    result = msgspec.json.format(msgspec.json.encode(found), indent=1)
    writers: dict[str, Any] = {
        "report.html": lambda path: write_page(found, path),
        "result.json": lambda path: path.write_bytes(result),
    }
    if found.card is not None:
        writers["card.md"] = lambda path: path.write_text(to_markdown(found.card), encoding="utf-8")
    fill(out, writers)
    return [out / name for name in writers]


def _print(found: Any, written: list[Path]) -> None:
    from backchannel.report.audit_words import COLUMNS, headline, remarks, table

    print(headline(found))
    for each in remarks(found):
        print(f"- {each}")
    print()
    rows = [[cell.replace("–", "-") for cell in row] for row in table(found)]
    print_table(found.name, COLUMNS, rows)
    print(f"{found.seconds:.1f} s" + (f"; wrote {', '.join(map(str, written))}" if written else ""))
