"""Figures as inline SVG: text stays text, at one size on every screen, and colours come from the page's style.

A figure is as wide as the page lets it be. Marks are placed in percent of the width, so that nothing is scaled but the
distances: letters and circles keep their size on a phone. Only a path cannot be written in percent; it is drawn in a
box of 1000 by 1000 that stretches, with lines that keep their width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from backchannel.decide.result import Bars, Calibration, Curve, Estimate, Monitor
from backchannel.report.markup import Child, Markup, name, tag
from backchannel.report.words import Numbers, many, told

Say = Callable[[float], str]
NARROW = 30  # letters that fit side by side in the narrowest figure, on a phone
_BEFORE = {"start": 0.0, "middle": 0.5, "end": 1.0}  # share of a label that lies before its place


class Scale(NamedTuple):
    """An axis from `low` to `high`."""

    low: float
    high: float

    def at(self, x: float) -> float:
        """Where x lies, in percent; what lies outside is put on the edge."""
        return min(max(100 * (x - self.low) / (self.high - self.low), 0.0), 100.0)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers on the axis, at most `most` steps from end to end."""
        rough = (self.high - self.low) / most
        step = 10 ** math.floor(math.log10(rough))
        step *= next(k for k in (1, 2, 5, 10) if k * step >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]


def scale(values: Iterable[float | None], room: float = 0.04) -> Scale:
    """An axis that holds every finite value, with a little room at both ends."""
    finite = [x for x in values if x is not None and math.isfinite(x)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    span = high - low or abs(high) or 1.0
    return Scale(low - room * span, high + room * span)


def tick_words(ticks: Sequence[float]) -> Say:
    """Tick labels with as many decimals as their step needs."""
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(ticks[0]) if ticks and ticks[0] else 1.0
    decimals = max(-math.floor(math.log10(step) + 1e-9), 0)
    return lambda x: f"{x + 0.0:,.{decimals}f}".replace("-", "−")


def spaced(axis: Scale) -> list[tuple[float, str]]:
    """Places, in percent, and labels of as many ticks as do not touch where the figure is `NARROW` letters wide."""
    for most in range(5, 0, -1):
        ticks = axis.ticks(most)
        say = tick_words(ticks)
        labels = [(axis.at(x), say(x)) for x in ticks]
        starts = [NARROW * x / 100 - len(said) * _BEFORE[_anchor(x)] for x, said in labels]
        if all(a + len(said) + 1 <= b for (a, b), (_, said) in zip(pairwise(starts), labels, strict=False)):
            break
    return labels


class Row(NamedTuple):
    """One line of a forest plot. `reason` stands where nothing can be drawn; `quiet` draws in grey."""

    label: str
    estimate: Estimate | None
    true_value: float | None = None
    reason: str = ""
    quiet: bool = False
    note: str = ""


def ends(found: Estimate | None) -> list[float]:
    """Value and ends of an estimate, for `scale`."""
    return [] if found is None else [found.value, found.low, found.high]


def forest(rows: Sequence[Row], own: Estimate, axis: Scale, words: Numbers) -> Markup:
    """Values with their 95 % intervals, one a line, over the line and the interval of the log's own policy."""
    lines = []
    for row in rows:
        said = words.full(row.estimate) if row.estimate is not None and not row.reason else row.reason
        known = row.true_value is not None and math.isfinite(row.true_value)
        true = f"true value {words.say(row.true_value)}" if known else ""
        strip = tag(
            "svg",
            *_own(own, axis, 100.0),
            *(_interval(row, axis) if not row.reason else []),
            _diamond(axis.at(row.true_value), true) if row.true_value is not None and known else None,
            class_="strip",
            height="34",
            role="img",
            aria_label=f"{row.label}: {said}{', ' + true if true else ''}",
        )
        lines.append(
            tag(
                "div",
                tag("div", name(row.label), tag("small", row.note) if row.note else None, class_="label"),
                strip,
                tag("div", said, tag("small", true) if true else None, class_="said"),
                class_="row quiet" if row.quiet or row.reason else "row",
            )
        )
    marks = [
        part
        for x, said in spaced(axis)
        for part in (
            tag("line", x1=percent(x), x2=percent(x), y1="0", y2="5", class_="rule"),
            tag("text", said, x=percent(x), y="20", text_anchor=_anchor(x)),
        )
    ]
    base = tag("line", x1="0", x2="100%", y1="0", y2="0", class_="rule")
    foot = tag("svg", base, *marks, class_="strip", height="26", aria_hidden="true")
    return tag("div", *lines, tag("div", tag("div"), foot, tag("div"), class_="row axis"), class_="forest")


def drawable(curve: Curve) -> list[tuple[int, float, float, float]]:
    """Points with a band: while all rewards were alike it has no width, which would look like certainty."""
    points = zip(curve.rows, curve.value, curve.low, curve.high, strict=True)
    return [p for p in points if all(map(math.isfinite, p)) and p[3] > p[2]]


def learning(curve: Curve, own: Estimate, axis: Scale, label: str, words: Numbers) -> Markup:
    """A learning curve with its band, over the line of the log's own policy."""
    points = drawable(curve)
    last = points[-1]
    across = Scale(0, max(last[0], 1))
    said = f"{label}: after {many(last[0], 'row')} {words.say(last[1])} ({words.say(last[2])} to {words.say(last[3])})"
    drawn = box(*_banded(points, across, axis, "band", "curve"))
    y = axis.at(own.value) if math.isfinite(own.value) else None
    reference = (
        [] if y is None else [tag("line", x1="0", x2="100%", y1=percent(100 - y), y2=percent(100 - y), class_="own")]
    )
    return plot(170, axis, counts(across), [*reference, drawn], said)


def watched(found: Monitor, axis: Scale, label: str, words: Numbers) -> Markup:
    """A policy's value and that of the log's own, each with its band, as rows come in."""
    across = Scale(0, found.value.rows[-1])
    both = [(found.own, "ownband", "ownline"), (found.value, "band", "curve")]
    drawn = [p for curve, band, line in both for p in _banded(drawable(curve), across, axis, band, line)]
    ends = [f"{words.say(c.value[-1])} ({words.say(c.low[-1])} to {words.say(c.high[-1])})" for c, _, _ in both]
    said = f"{label} after {many(found.value.rows[-1], 'row')}: {ends[1]}; the log's own policy: {ends[0]}"
    return plot(300, axis, counts(across), [box(*drawn)], said)


def weights(bars: Bars, label: str, effective: float) -> Markup:
    """How large the importance weights are; both axes by powers of ten, the first bar holding weights near nothing."""
    top = math.log10(1 + max([1.0, *bars.counts]))
    wide = 100 / max(len(bars.counts), 1)
    drawn = [
        tag(
            "rect",
            tag("title", f"weight {low:.3g} to {high:.3g}: {many(n, 'row')}"),
            x=percent(i * wide + 0.1 * wide),
            width=percent(0.8 * wide),
            y=percent(100 - 100 * math.log10(1 + n) / top),
            height=percent(100 * math.log10(1 + n) / top),
            class_="bar",
        )
        for i, (low, high, n) in enumerate(zip(bars.edges[:-1], bars.edges[1:], bars.counts, strict=True))
        if n > 0
    ]
    one = _along(bars.edges, 1.0)
    line = [] if one is None else [tag("line", x1=percent(one), x2=percent(one), y1="0", y2="100%", class_="own")]
    places = [(t, _along(bars.edges, t)) for t in (0.01, 0.1, 1.0, 10.0, 100.0)]
    below = [(at, f"{t:g}") for t, at in places if at is not None]
    rows = [
        (100 * math.log10(1 + n) / top, f"{n:,}") for n in (10**k for k in range(0, int(top) + 1, 1 + int(top > 4)))
    ]
    worth = many(effective, "row")
    said = f"Importance weights of {label}: {many(sum(bars.counts), 'row')}, worth {worth} of its own"
    return plot(120, rows, below, [*drawn, *line], said)


def calibration(found: Calibration, words: Numbers) -> Markup:
    """Mean reward seen against mean reward predicted; on the line, the model is right on average."""
    axis = scale([*found.predicted, *found.seen])
    dots = [
        tag(
            "circle",
            tag("title", f"{many(rows, 'row')}: predicted {words.say(x)}, seen {words.say(y)}"),
            cx=percent(axis.at(x)),
            cy=percent(100 - axis.at(y)),
            r="5",
            class_="dot",
        )
        for x, y, rows in zip(found.predicted, found.seen, found.rows, strict=True)
        if math.isfinite(x) and math.isfinite(y)
    ]
    line = tag("line", x1="0", y1="100%", x2="100%", y2="0", class_="own")
    said = f"Calibration of the reward model: {len(dots)} groups of rows, mean reward seen against mean predicted"
    return plot(300, axis, spaced(axis), [line, *dots], said, "square")


def plot(
    height: int,
    left: Scale | list[tuple[float, str]],
    below: list[tuple[float, str]],
    marks: list[Markup],
    said: str,
    kind: str = "",
) -> Markup:
    """A frame: labels on the left with a rule each, labels below, and the marks between."""
    if isinstance(left, Scale):
        ticks = left.ticks(4)
        say = tick_words(ticks)
        left = [(left.at(y), say(y)) for y in ticks]
    frame: list[Child] = []
    for y, words in left:
        frame.append(tag("line", x1="0", x2="100%", y1=percent(100 - y), y2=percent(100 - y), class_="rule"))
        frame.append(tag("text", words, x="-8", y=percent(100 - y), dy="0.35em", text_anchor="end"))
    for x, words in below:
        frame.append(tag("text", words, x=percent(x), y="100%", dy="18", text_anchor=_anchor(x)))
    return tag("svg", *frame, *marks, class_=f"plot {kind}".strip(), height=height, role="img", aria_label=said)


def _interval(row: Row, axis: Scale) -> list[Markup]:
    found = row.estimate
    if found is None or not math.isfinite(found.value):
        return []
    at = axis.at(found.value)
    drawn = []
    if told(found):
        low, high = axis.at(found.low), axis.at(found.high)
        drawn.append(tag("line", x1=percent(low), x2=percent(high), y1="50%", y2="50%", class_="reach"))
    return [*drawn, tag("circle", cx=percent(at), cy="50%", r="5.5", class_="dot")]


def _own(own: Estimate, axis: Scale, height: float) -> list[Markup]:
    if not math.isfinite(own.value):
        return []
    at, drawn = axis.at(own.value), []
    if told(own):
        low, high = axis.at(own.low), axis.at(own.high)
        drawn.append(
            tag("rect", x=percent(low), width=percent(high - low), y="0", height=percent(height), class_="ownband")
        )
    return [*drawn, tag("line", x1=percent(at), x2=percent(at), y1="0", y2=percent(height), class_="own")]


def _diamond(at: float, said: str) -> Markup:
    shape = tag("path", tag("title", said), d="M0 -7L6 0L0 7L-6 0Z", class_="true")
    return tag("svg", shape, x=percent(at), y="50%", width="1", height="1", class_="free")


def _banded(
    points: Sequence[tuple[int, float, float, float]], across: Scale, axis: Scale, band: str, line: str
) -> list[Markup]:
    """A band, and a line through it."""
    up = [(10 * across.at(n), 1000 - 10 * axis.at(high)) for n, _, _, high in points]
    down = [(10 * across.at(n), 1000 - 10 * axis.at(low)) for n, _, low, _ in points]
    middle = [(10 * across.at(n), 1000 - 10 * axis.at(value)) for n, value, _, _ in points]
    return [
        tag("path", d=path(up + down[::-1]) + "Z", class_=band),
        tag("path", d=path(middle), class_=line, vector_effect="non-scaling-stroke"),
    ]


def counts(across: Scale) -> list[tuple[float, str]]:
    """Labels of an axis of rows: its ends and its middle."""
    return [(across.at(n), f"{n:,.0f}") for n in (across.low, across.high / 2, across.high)]


def box(*paths: Markup) -> Markup:
    """Paths in a box of 1000 by 1000 that stretches."""
    return tag("svg", *paths, width="100%", height="100%", viewBox="0 0 1000 1000", preserveAspectRatio="none")


def path(points: list[tuple[float, float]]) -> str:
    """Straight lines from point to point."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _along(edges: Sequence[float], x: float) -> float | None:
    """Where x lies among bars of equal width, in percent: by its logarithm inside a bar; None outside all bars."""
    for i, (low, high) in enumerate(pairwise(edges)):
        if low <= x <= high * (1 + 1e-12):
            inside = math.log(x / low) / math.log(high / low) if low > 0 else (x - low) / (high - low)
            return 100 * (i + inside) / (len(edges) - 1)
    return None


def percent(x: float) -> str:
    """As an attribute."""
    return f"{x:.2f}%"


def _anchor(percent: float) -> str:
    return "start" if percent < 1 else "end" if percent > 99 else "middle"
