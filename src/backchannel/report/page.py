"""The page: what `learn` found, in one HTML file that loads nothing and runs nothing.

Sentences first, numbers second. Whatever comes from the data is escaped (`markup`), numbers that are not finite are
dashes (`words`), and parts without data are left out (`findings`, `over_time`, `grounds`).
"""

from __future__ import annotations

import math
import os

from backchannel.decide.result import Learned
from backchannel.report import findings, grounds, over_time, words
from backchannel.report.document import document, write
from backchannel.report.markup import Markup, join, name, tag

_PROPENSITIES = {
    "logged": "The log says with which probability each choice was made.",
    "estimated": "Some rows lack the probability of their choice; how often the option was chosen stands in for it.",
}


def write_page(learned: Learned, path: str | os.PathLike[str]) -> None:
    """Write the page to `path`, whole or not at all."""
    write(page(learned), path)


def page(learned: Learned) -> str:
    """The page as text."""
    title = f"{learned.log.name}: what other policies would have earned"
    parts = [
        _head(learned),
        findings.values(learned),
        findings.table(learned),
        over_time.watched(learned),
        over_time.curves(learned),
        findings.choices(learned),
        grounds.weights(learned),
        grounds.calibrated(learned),
        over_time.told(learned),
        grounds.against(learned),
        grounds.estimators(learned),
        _method(learned),
        _limits(learned),
    ]
    return document(title, *parts)


def _head(learned: Learned) -> Markup:
    first, second = words.headline(learned)
    log, say = learned.log, words.numbers(learned)
    warned = [
        tag("p", tag("strong", "Warning. "), text, class_="warning", role="note") for text in words.warnings(learned)
    ]
    facts: list[tuple[str, str, str]] = [
        ("Decisions", f"{log.rows:,}", "" if log.with_feedback == log.rows else f"{log.with_feedback:,} with feedback"),
        ("Options", f"{len(log.actions):,}", "not all offered every time" if log.ragged else ""),
        ("Context columns", f"{len(log.contexts):,}", ""),
        ("Reward", f"{log.reward_low:g} to {log.reward_high:g}", ""),
        (
            "The log's own policy earned",
            say.say(log.earned.value),
            say.span(log.earned),
        ),
    ]
    if log.first_time is not None and log.last_time is not None:
        facts.append(("From", words.moment(log.first_time), f"to {words.moment(log.last_time)}"))
    cells = [tag("div", tag("dt", k), tag("dd", v, tag("small", s) if s else None)) for k, v, s in facts]
    kicker = tag("p", name(log.name), class_="kicker")
    return tag(
        "header", kicker, tag("h1", first), tag("p", second, class_="lede"), *warned, tag("dl", *cells, class_="facts")
    )


def _method(learned: Learned) -> Markup:
    log = learned.log
    sentences = (
        "Rows fall at random into two halves; each policy, and a linear model of the reward, is learned from either "
        "half. Each row is then weighed under the policy that was learned from the other half, by the estimator "
        f"named {words.estimator(learned.estimator).lower()}: the model's guess, corrected by what was seen, each row "
        "weighted by how much likelier the policy is than the log to make its choice. Intervals come from resampling "
        "the rows. A value is therefore that of a policy learned from half the log; the policy that is written was "
        "learned from all of it."
    )
    parts = [tag("p", sentences), tag("p", _PROPENSITIES[log.propensities])]
    if learned.command:
        parts.append(tag("p", tag("code", learned.command)))
    version = f"backchannel {learned.version}" if learned.version else "backchannel"
    seconds = f", {learned.seconds:.1f} seconds" if math.isfinite(learned.seconds) and learned.seconds > 0 else ""
    parts.append(tag("p", f"{version}{seconds}.", class_="small"))
    if log.notes:
        parts.append(tag("h3", "Notes on the data"))
        parts.append(tag("ul", *[tag("li", note) for note in log.notes], class_="small"))
    return tag("section", tag("h2", "How this was computed"), *parts, class_="method")


def _limits(learned: Learned) -> Markup:
    many = len(words.answered(learned)) > 1
    limits = [
        "What a policy would do to the world. Each decision is taken alone, as if it did not change what comes next.",
        "What the log left out. If its policy looked at something that is not in the log, the estimates can be wrong "
        "without a sign of it.",
        "The future. The estimates are for decisions like the logged ones.",
        "Rows that hang together. Rows are resampled one by one; if several come from one person, the true intervals "
        "are wider.",
    ]
    if many:
        limits.append(
            "The best of many. Each interval holds 95 times in 100 on its own; the best of several looks a little "
            "better than it is."
        )
    return tag("section", tag("h2", "What this cannot tell"), tag("ul", *[tag("li", _lead(text)) for text in limits]))


def _lead(text: str) -> Markup:
    first, rest = text.split(". ", 1)
    return join(tag("strong", f"{first}."), f" {rest}")
