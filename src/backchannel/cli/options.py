"""Options that several commands share: what the columns of a table mean, and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

MEANINGS = "What the columns mean"


def _column(meaning: str) -> Any:
    return typer.Option(help=meaning, rich_help_panel=MEANINGS)


Action = Annotated[str | None, _column("What was chosen.")]
Reward = Annotated[str | None, _column("What came of it, higher is better; empty where nothing came.")]
Propensity = Annotated[str | None, _column("The probability that the choice had when it was made.")]
Context = Annotated[list[str] | None, _column("Known before the choice; more than once, patterns allowed.")]
Category = Annotated[list[str] | None, _column("Of the context: a category, although it looks like a number.")]
Time = Annotated[str | None, _column("When: seconds since 1970, or ISO text.")]
Options = Annotated[str | None, _column("What could have been chosen, where that changes from row to row.")]
Position = Annotated[str | None, _column("The place in which it was shown.")]
Items = Annotated[str | None, typer.Option(help="A table with features of each option.")]
SkipBadRows = Annotated[int, typer.Option(min=0, help="Go on past so many bad rows.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all randomness.")]


def column_map(context: list[str] | None, category: list[str] | None, **names: str | None) -> Any:
    """The `Columns` of a table's options; None where no option was given."""
    from backchannel.ledger.columns import Columns

    given = {name: column for name, column in names.items() if column is not None}
    if not given and not context and not category:
        return None
    if "action" not in given:
        raise ValueError("a column map needs --action: the column that says what was chosen")
    return Columns(**given, context=tuple(context or ()), categories=tuple(category or ()))  # type: ignore[arg-type]


def refuse(given: dict[str, Any], why: str) -> None:
    """ValueError for the first option that was given where it means nothing; {option: its value}."""
    for option, value in given.items():
        if value not in (None, 0):
            raise ValueError(f"{option} {why}")


def one_of(option: str, value: str | None, known: Sequence[str]) -> None:
    """ValueError that names the option as it was typed, unless its value is one of the `known`, or was not given."""
    if value not in (None, *known):
        raise ValueError(f"{option} must be one of {', '.join(known)}, not {value!r}")
