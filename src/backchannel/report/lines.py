"""Lines and bars for pages of training: numbers against steps, two histograms over one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from backchannel.report.figures import Scale, box, counts, path, percent, plot, scale, spaced
from backchannel.report.markup import Markup, tag

SMOOTH = 0.9  # of an exponential mean


def line(steps: Sequence[float], values: Sequence[float], said: str, level: float | None = None) -> Markup:
    """Values against steps: each as a dot, and their exponential mean as a line; `level` is dashed.

    Args:
        steps: ascending, the first at least 0.
        values: finite ones are drawn.
        said: for those who cannot see the figure.
        level: a value to compare with.
    """
    points = [(x, y) for x, y in zip(steps, values, strict=True) if math.isfinite(y)]
    axis, across = scale([*[y for _, y in points], level]), Scale(0, max([x for x, _ in points] + [1]))
    dots = [
        tag("circle", cx=percent(across.at(x)), cy=percent(100 - axis.at(y)), r="1.6", class_="speck")
        for x, y in points
    ]
    mean, smooth = 0.0, []
    for i, (x, y) in enumerate(points, 1):
        mean = SMOOTH * mean + (1 - SMOOTH) * y
        smooth.append((10 * across.at(x), 1000 - 10 * axis.at(mean / (1 - SMOOTH**i))))
    drawn = [box(tag("path", d=path(smooth), class_="curve", vector_effect="non-scaling-stroke"))] if smooth else []
    rule = []
    if level is not None:
        at = percent(100 - axis.at(level))
        rule = [tag("line", x1="0", x2="100%", y1=at, y2=at, class_="own")]
    return plot(190, axis, counts(across), [*rule, *dots, *drawn], said)


def histogram(values: Sequence[float], said: str, middle: float = 0.0, most: int = 24) -> Markup:
    """How often values fall where, with a dashed line at `middle`; bars below it are pale."""
    found = [x for x in values if math.isfinite(x)]
    axis = scale([*found, middle])
    wide = (axis.high - axis.low) / most
    start = middle - math.ceil((middle - axis.low) / wide) * wide  # the middle lies between two bars
    many = [0] * (most + 2)
    for x in found:
        many[min(int((x - start) / wide), most + 1)] += 1
    top = Scale(0, max([1, *many]) * 1.05)
    across = Scale(start, start + (most + 2) * wide)
    bars = [
        tag(
            "rect",
            x=percent(across.at(start + i * wide) + 0.2),
            width=percent(100 / (most + 2) - 0.4),
            y=percent(100 - top.at(n)),
            height=percent(top.at(n)),
            class_="bar" if start + (i + 0.5) * wide > middle else "pale",
        )
        for i, n in enumerate(many)
        if n
    ]
    at = percent(across.at(middle))
    return plot(170, top, spaced(across), [*bars, tag("line", x1=at, x2=at, y1="0", y2="100%", class_="own")], said)


def track(x: Sequence[float], y: Sequence[float], said: str) -> Markup:
    """Points joined in their order, the last one larger; `said` is for those who cannot see it."""
    axis, across = scale(y), scale([0.0, *x])
    places = [(across.at(a), 100 - axis.at(b)) for a, b in zip(x, y, strict=True)]
    dots = [
        tag("circle", cx=percent(a), cy=percent(b), r="5" if i == len(places) else "3", class_="speck")
        for i, (a, b) in enumerate(places, 1)
    ]
    way = tag("path", d=path([(10 * a, 10 * b) for a, b in places]), class_="curve", vector_effect="non-scaling-stroke")
    return plot(190, axis, spaced(across), [box(way), *dots], said)
