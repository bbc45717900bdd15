"""What the terminal says of a `learn`: short words in a table that fits; sentences are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from backchannel.decide.result import Estimate, Learned
from backchannel.report import words
from backchannel.report.words import Numbers, headline, many, numbers, told, verdict, warnings

VALUES, LIFTS = "95 % of value", "95 % of lift"
UNDER = {VALUES: "value", LIFTS: "lift"}  # where there is no room beside it
SPARE = ("regret", "effective rows", "true value", VALUES, LIFTS)  # left out in this order where there is still none


class Table(NamedTuple):
    """Columns, the ones that matter first, and a row for each policy."""

    columns: list[str]
    rows: list[list[str]]


def before(learned: Learned) -> list[str]:
    """Lines above the table: the log, and what its own policy earned."""
    facts, say = learned.log, numbers(learned)
    columns = many(len(facts.contexts), "context column")
    lines = [
        f"{facts.name}: {many(facts.rows, 'decision')}, {many(len(facts.actions), 'option')}, {columns}",
        f"its own policy earned {_full(facts.earned, say)} a decision",
    ]
    return [*lines, *(f"note: {note}" for note in facts.notes)]


def table(learned: Learned) -> Table:
    """The policies, best first."""
    say = numbers(learned)
    columns = ["policy", "value", VALUES, "true value", "lift", LIFTS, "verdict", "effective rows", "regret"]
    best = words.stands_out(learned)
    rows = []
    for p in learned.policies:
        value, lift, regret = (p.value, p.lift, p.regret) if p.answered else (None, None, None)
        cells = [p.key, _value(value, say), _span(value, say), _plain(say.say(p.true_value)), _value(lift, say, True)]
        cells += [_span(lift, say, True), verdict(p), f"{p.effective_rows:,.0f}"]
        rows.append([*cells, _value(regret, say, True) if best else _span(regret, say, True)])
    left_out = {"true value"} if all(p.true_value is None for p in learned.policies) else set()
    if learned.best_fixed is None:
        left_out.add("regret")
    kept = [i for i, column in enumerate(columns) if column not in left_out]
    return Table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


def after(learned: Learned, written: Sequence[Path]) -> list[str]:
    """Lines below the table: what its words mean, what else was found, and where all of it is."""
    say, (first, second) = numbers(learned), headline(learned)
    lines = [_plain(first if second.startswith("The log's own") else f"{first} {second}")]
    doubtful = any(verdict(p) == "doubtful" for p in learned.policies)
    if doubtful:
        lines.append("doubtful: too few rows decide, or the weights are off; the page says which")
    if learned.best_fixed is not None and not words.stands_out(learned):
        span = _span(learned.best_fixed, say)
        lines.append(f"cannot say which option is best, none stands out; always taken, it would have earned {span}")
    elif learned.best_fixed is not None:
        lines.append(f"the best option in hindsight, always taken, would have earned {_full(learned.best_fixed, say)}")
    if learned.monitor is not None:
        found = learned.monitor
        apart = (
            f"told apart from the log's own after {many(found.told_after, 'row')}"
            if found.told_after is not None
            else f"never told apart from the log's own in {many(found.value.rows[-1], 'row')}"
        )
        lines.append(f"looked at after every row, {found.policy} is {apart}")
    for each in learned.against:
        really = f"it really earned {_full(each.earned, say)}"
        if not each.answered or each.estimate is None:
            few = words.few(each.effective_rows)
            lines.append(f"cannot say what the policy of {each.name} would have earned: {few}; {really}")
            continue
        lines.append(
            f"{'doubtful: ' if each.doubts else ''}the policy of {each.name} would have earned "
            f"{_full(each.estimate, say)}, by this log's {many(each.effective_rows, 'effective row')}; {really}"
        )
    lines += [f"warning: {warning}" for warning in warnings(learned)]
    files = ", ".join(str(path) for path in written[:2])
    return [*lines, f"{learned.seconds:.1f} s; wrote {files} and {many(len(written) - 2, 'policy', 'policies')}"]


def left_out(columns: Sequence[str]) -> list[str]:
    """The line that names the columns for which there was no room."""
    return [f"in a wider terminal or with --json: {', '.join(columns)}"] if columns else []


def _full(found: Estimate, say: Numbers) -> str:
    return f"{_value(found, say)} ({_span(found, say)})"


def _value(found: Estimate | None, say: Numbers, sign: bool = False) -> str:
    return "-" if found is None else _plain(say.say(found.value, sign))


def _span(found: Estimate | None, say: Numbers, sign: bool = False) -> str:
    if found is None or not told(found) or found.low == found.high:
        return "-"
    return f"{_plain(say.say(found.low, sign))}..{_plain(say.say(found.high, sign))}"


def _plain(text: str) -> str:
    return text.replace("−", "-").replace("–", "-")
