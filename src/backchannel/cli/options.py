"""Options that several commands share: what the columns of a table mean, and seeds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any

import typer

MEANINGS = "What the columns mean"


def _column(meaning: str) -> Any:
    return typer.Option(help=meaning, rich_help_panel=MEANINGS)


_COLUMNS: dict[str, Any] = {
    "action": Annotated[str | None, _column("What was chosen.")],
    "reward": Annotated[str | None, _column("What came of it, higher is better; empty where nothing came.")],
    "propensity": Annotated[str | None, _column("The probability that the choice had when it was made.")],
    "context": Annotated[list[str] | None, _column("Known before the choice; more than once, patterns allowed.")],
    "category": Annotated[list[str] | None, _column("Of the context: a category, although it looks like a number.")],
    "time": Annotated[str | None, _column("When: seconds since 1970, or ISO text.")],
    "options": Annotated[str | None, _column("What could have been chosen, where that changes from row to row.")],
    "position": Annotated[str | None, _column("The place in which it was shown.")],
}
Items = Annotated[str | None, typer.Option(help="A table with features of each option.")]
SkipBadRows = Annotated[int, typer.Option(min=0, help="Go on past so many bad rows.")]
AnswerColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="MEANING=NAME",
        help="Of a model's answers: what a column means, as in prompt=question; more than once. It may go into a "
        "column (responses=completions.text) or name several (responses=a,b).",
        rich_help_panel=MEANINGS,
    ),
]
SplitAt = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Where plain answers without a prompt are split: behind the last of these words; \\n is a line end.",
        rich_help_panel=MEANINGS,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of all randomness.")]


def maps_columns(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with an option for each meaning in place of its parameter `columns`: the `Columns` that they make."""

    @wraps(command)
    def mapped(**given: Any) -> None:
        columns = _column_map(**{name: given.pop(name) for name in _COLUMNS})
        command(**given, columns=columns)

    own = inspect.signature(command, eval_str=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(name, kind, default=None, annotation=what) for name, what in _COLUMNS.items()]
    parameters = [each.replace(kind=kind) for each in own.parameters.values()]
    at = list(own.parameters).index("columns")
    vars(mapped)["__signature__"] = own.replace(parameters=[*parameters[:at], *options, *parameters[at + 1 :]])
    return mapped


def _column_map(context: list[str] | None, category: list[str] | None, **names: str | None) -> Any:
    """None where no option was given."""
    from backchannel.ledger.columns import Columns

    given = {name: column for name, column in names.items() if column is not None}
    if not given and not context and not category:
        return None
    if "action" not in given:
        raise ValueError("a column map needs --action: the column that says what was chosen")
    return Columns(**given, context=tuple(context or ()), categories=tuple(category or ()))  # type: ignore[arg-type]


def reading_answers(column: list[str] | None, split: str | None) -> dict[str, Any]:
    """What `--column` and `--split` say, as `align.read` takes it."""
    columns: dict[str, str] = {}
    for each in column or ():
        meaning, mark, name = each.partition("=")
        if not (meaning and mark and name):
            raise ValueError(f"--column must be MEANING=NAME, such as prompt=question, not {each!r}")
        if meaning in columns:
            raise ValueError(f"--column says twice what {meaning} is: {columns[meaning]} and {name}")
        columns[meaning] = name
    return {"columns": columns, "split": None if split is None else split.replace("\\n", "\n")}


def refuse(given: dict[str, Any], why: str) -> None:
    """ValueError for the first option that was given where it means nothing; {option: its value}."""
    for option, value in given.items():
        if value not in (None, 0):
            raise ValueError(f"{option} {why}")


def one_of(option: str, value: str | None, known: Sequence[str]) -> None:
    """ValueError that names the option as it was typed, unless its value is one of the `known`, or was not given."""
    if value not in (None, *known):
        raise ValueError(f"{option} must be one of {', '.join(known)}, not {value!r}")
