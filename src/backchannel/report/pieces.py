"""Small parts that several sections share."""

from __future__ import annotations

import math

from backchannel.decide.result import Estimate
from backchannel.report import words
from backchannel.report.markup import Child, Markup, tag
from backchannel.report.words import Numbers


def section(title: str, text: str, *parts: Child) -> Markup:
    """A titled part of the page, opened by a sentence or two."""
    return tag("section", tag("h2", title), tag("p", text) if text else None, *parts)


def scroll(label: str, *parts: Child, cards: bool = False) -> Markup:
    """A table that scrolls inside its box, or on a phone turns into cards."""
    kind = "scroll cards" if cards else "scroll"
    return tag("div", tag("table", *parts), class_=kind, tabindex="0", role="region", aria_label=label)


def fold(label: str, part: Markup) -> Markup:
    """A part that is folded away."""
    return tag("details", tag("summary", label), part)


def key(known: bool) -> Markup:
    """What the marks mean."""
    dot = [
        tag("line", x1="1", x2="27", y1="8", y2="8", class_="reach"),
        tag("circle", cx="14", cy="8", r="5.5", class_="dot"),
    ]
    own = [
        tag("rect", x="4", width="20", y="0", height="16", class_="ownband"),
        tag("line", x1="14", x2="14", y1="0", y2="16", class_="own"),
    ]
    true = [tag("path", d="M14 1L20 8L14 15L8 8Z", class_="true")]
    marks = [(dot, "estimate, 95 % interval"), (own, "the log's own policy")] + (
        [(true, "true value")] if known else []
    )
    spans = [tag("span", tag("svg", *m, width="28", height="16", aria_hidden="true"), said) for m, said in marks]
    return tag("p", *spans, class_="key")


def number(found: Estimate | None, say: Numbers, sign: bool = False) -> Markup:
    """A value over its interval."""
    if found is None:
        return Markup(words.NOTHING)
    span = say.span(found, sign)
    return tag("span", say.say(found.value, sign), tag("small", span) if span else None)


def plain(x: float) -> str:
    """Three digits."""
    return f"{x:.3g}" if math.isfinite(x) else words.NOTHING


def share(x: float, largest: float) -> Markup:
    """A share over a bar, as long as it is large beside the largest of the table."""
    wide = 100 * x / largest if math.isfinite(x) else 0.0
    bar = tag("svg", tag("rect", width=f"{wide:.1f}%", height="5", class_="bar"), height="5", aria_hidden="true")
    return tag("span", words.share(x), bar, class_="share")
