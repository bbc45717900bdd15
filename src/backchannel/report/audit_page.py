"""The page of `audit`: what preference data can be trusted for, in one HTML file that loads and runs nothing."""

from __future__ import annotations

import os

from backchannel.align.audit import Audited, Bin, Share
from backchannel.decide.result import Estimate
from backchannel.preference.audit_card import REQUIRED, findings
from backchannel.report.audit_words import COLUMNS, full, headline, remarks, table
from backchannel.report.document import document, write
from backchannel.report.figures import Row, Scale, forest, percent, plot, scale
from backchannel.report.markup import Markup, name, tag
from backchannel.report.pieces import scroll, section
from backchannel.report.words import Numbers, many
from backchannel.report.words import share as said_share

_EVEN = Estimate(0.5, 0.5, 0.5)


def write_page(found: Audited, path: str | os.PathLike[str]) -> None:
    """Write the page to `path`, whole or not at all."""
    write(page(found), path)


def page(found: Audited) -> str:
    """The page as text."""
    parts = [each(found) for each in (_head, _shares, _length, _people, _repeats, _leakage, _counted, _how, _limits)]
    return document(f"{found.name}: {headline(found)}", *parts)


def _head(found: Audited) -> Markup:
    people = str(found.card.annotators) if found.card is not None and found.card.annotators > 1 else "not named"
    facts = [
        ("Votes", f"{found.votes:,}", f"{found.ties:,} of them ties"),
        ("Prompts", f"{found.prompts:,}", ""),
        ("Answers", f"{found.answers:,}", ""),
        ("Annotators", people, ""),
        ("Records", f"{sum(found.kinds.values()):,}", ", ".join(f"{n:,} {kind}" for kind, n in found.kinds.items())),
    ]
    cells = [tag("div", tag("dt", k), tag("dd", v, tag("small", s) if s else None)) for k, v, s in facts]
    seen = [tag("p", each, class_="warning") for each in remarks(found)]
    kicker = tag("p", name(found.name), class_="kicker")
    return tag("header", kicker, tag("h1", headline(found)), *seen, tag("dl", *cells, class_="facts"))


def _shares(found: Audited) -> Markup | None:
    named = [
        ("The longer answer was chosen", found.length.longer),
        ("The answer shown first was chosen", found.position),
    ]
    rows = [
        Row(label, Estimate(each.value, each.low, each.high), note=many(each.count, "vote"))
        for label, each in named
        if each.value is not None and each.low is not None and each.high is not None
    ]
    if not rows:
        return None
    axis = scale([0.4, 0.6, *[x for row in rows if row.estimate for x in (row.estimate.low, row.estimate.high)]])
    figure = forest(rows, _EVEN, axis, Numbers(3))
    text = (
        "Shares of votes with 95 % intervals, beside an even one. Neither length nor place should matter by itself; "
        "a good answer may well be long."
    )
    return section("What choices go by", text, tag("figure", figure))


def _length(found: Audited) -> Markup | None:
    length = found.length
    if length.effect is None or length.error is None or length.explained is None or length.ratio is None:
        return None
    text = (
        f"Preferred answers are, at the median, {length.ratio:.2f} times as long as the others. An answer that is "
        f"twice as long has log-odds higher by {length.effect:.2f} (standard error {length.error:.2f}); length by "
        f"itself explains {said_share(max(length.explained, 0.0))} of the log-likelihood of choices."
    )
    if length.beside is not None and length.beside_error is not None:
        text += f" Beside the ratings, where known, it is {length.beside:.2f}"
        text += f" (standard error {length.beside_error:.2f})."
    figure = tag(
        "figure",
        _curve(length.bins),
        tag(
            "figcaption", "How often an answer is chosen, by how much longer it is than the other one; 95 % intervals."
        ),
    )
    return section("Length", text, figure)


def _curve(bins: list[Bin]) -> Markup:
    """Shares chosen, a bin beside the other; the even share is dashed."""
    axis, wide = Scale(0.0, 1.0), 100 / len(bins)
    marks = [tag("line", x1="0", x2="100%", y1="50%", y2="50%", class_="own")]
    for i, each in enumerate(bins):
        found, x = each.chosen, percent((i + 0.5) * wide)
        if found.value is None or found.low is None or found.high is None:
            continue
        ends = {"y1": percent(100 - axis.at(found.low)), "y2": percent(100 - axis.at(found.high))}
        told = tag("title", f"{_times(each)}: {full(found)}, {many(found.count, 'vote')}")
        marks.append(tag("line", x1=x, x2=x, **ends, class_="reach"))
        marks.append(tag("circle", told, cx=x, cy=percent(100 - axis.at(found.value)), r="5", class_="dot"))
    left = [(100 * y, f"{y:.0%}") for y in (0.0, 0.25, 0.5, 0.75, 1.0)]
    places = [(i * wide, f"{2**each.low:.2g}") for i, each in enumerate(bins) if each.low is not None]
    below = [(at, f"× {label}") for at, label in places[::2]]
    drawn = [f"{_times(each)} {said_share(each.chosen.value)}" for each in bins if each.chosen.value is not None]
    return plot(
        260, left, below, marks, "How often an answer is chosen, by its length beside the other's: " + "; ".join(drawn)
    )


def _times(each: Bin) -> str:
    if each.low is None:
        return f"at most × {2 ** (each.high or 0):.2g}"
    return f"at least × {2**each.low:.2g}" if each.high is None else f"× {2**each.low:.2g} to {2**each.high:.2g}"


def _people(found: Audited) -> Markup | None:
    if found.card is None:
        text = "There are no choices between two answers here: rankings cannot go round, and one vote is none."
        return section("Utility and people", text)
    said = dict(findings(found.card)[1:-1])
    if not found.card.scalar.freedom:
        said[REQUIRED["utility"]] = "No answers were compared in a circle: one utility for each explains any choices."
    told = [part for title, text in said.items() for part in (tag("h3", title), tag("p", text))]
    text = "Whether choices are those of one reward for each answer, and of people who agree."
    return section("Utility and people", text, *told)


def _repeats(found: Audited) -> Markup | None:
    if not found.duplicates.examples:
        return None
    head = tag("thead", tag("tr", *[tag("th", each, class_="text") for each in ("prompt", "nearly the same")]))
    cells = [
        tag("tr", *[tag("td", _short(each), class_="text") for each in pair]) for pair in found.duplicates.examples
    ]
    text = f"{many(found.duplicates.prompts, 'prompt')} share at least 80 % of their runs of three words with another."
    return section("Prompts that nearly repeat", text, scroll("Prompts", head, tag("tbody", *cells)))


def _leakage(found: Audited) -> Markup | None:
    leak = found.leakage
    if leak is None:
        return None
    text = f"{_of(leak.prompts, 'prompts')} are also in {leak.name}, {leak.near:,} more nearly; "
    text += f"{_of(leak.pairs, 'pairs of answers')} are. Words are compared, not spaces, capitals or punctuation."
    return section("Leakage", text, tag("ul", *[tag("li", _short(each)) for each in leak.examples]))


def _of(found: Share, noun: str) -> str:
    return f"None of the {noun}" if not found.value else f"{said_share(found.value)} of the {found.count:,} {noun}"


def _counted(found: Audited) -> Markup:
    head = tag("thead", tag("tr", *[tag("th", each) for each in COLUMNS]))
    rows = [tag("tr", tag("th", row[0], scope="row"), *[tag("td", cell) for cell in row[1:]]) for row in table(found)]
    return section("All that was counted", "", scroll("Counts", head, tag("tbody", *rows)))


def _how(found: Audited) -> Markup:
    text = (
        "Intervals of shares hold 95 times in 100 and take the votes on one prompt together. Triples are called "
        "intransitive by the law of their probabilities that fits all of them best, so that noise is not counted; the "
        "test of one reward for each answer is exact, whatever the number of votes; agreement is corrected for chance."
    )
    parts = [tag("p", text)]
    if found.command:
        parts.append(tag("p", tag("code", found.command)))
    parts.append(tag("p", f"backchannel {found.version}, {found.seconds:.1f} seconds.", class_="small"))
    return tag("section", tag("h2", "How this was computed"), *parts, class_="method")


def _limits(found: Audited) -> Markup:
    limits = [
        "Whether choices are right. People who agree may all be wrong.",
        "Why the longer answer wins. It may be better; ratings or a rubric beside the choices would tell.",
        "Paraphrases. Texts are compared by their words.",
    ]
    return section("What this cannot tell", "", tag("ul", *[tag("li", each) for each in limits]))


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:199] + "…"
