"""On what the findings rest: weights, the reward model, another log, all estimators. Without data: None, left out."""

from __future__ import annotations

import math

from backchannel.decide.result import Learned, PolicyResult
from backchannel.report import figures, pieces, words
from backchannel.report.figures import Row
from backchannel.report.markup import Markup, name, tag
from backchannel.report.pieces import section


def weights(learned: Learned) -> Markup | None:
    """Histograms of the importance weights."""
    found = [(p, p.weights) for p in learned.policies if p.weights is not None and p.weights.counts]
    if not found:
        return None
    panels = []
    for p, bars in found:
        said = f"worth {words.many(p.effective_rows, 'effective row')}; largest weight {words.count(p.largest_weight)}"
        panels.append(
            tag(
                "div",
                tag("h3", name(p.name)),
                tag("p", said, class_="small"),
                figures.weights(bars, p.name, p.effective_rows),
            )
        )
    return section(
        "How far the log's choices are from theirs",
        "A row's weight says how much more often a policy would make that row's choice than the log did. Weights "
        "near 1 are well informed. A few large weights among many near nothing mean that a few rows decide.",
        tag(
            "figure",
            tag("div", *panels, class_="panels"),
            tag(
                "figcaption",
                "Rows by weight, both on logarithmic scales. The first bar holds weights below 0.01, the last "
                "also all larger ones. Dashed: weight 1.",
            ),
        ),
    )


def calibrated(learned: Learned) -> Markup | None:
    """Whether the reward model can be believed."""
    found = learned.calibration
    if found is None or not any(map(math.isfinite, found.predicted)):
        return None
    say = words.numbers(learned)
    heads = tag("tr", *[tag("th", h, scope="col") for h in ("Group", "Predicted", "Seen", "Rows")])
    rows = [
        tag("tr", tag("th", i, scope="row"), tag("td", say.say(x)), tag("td", say.say(y)), tag("td", f"{n:,}"))
        for i, (x, y, n) in enumerate(zip(found.predicted, found.seen, found.rows, strict=True), 1)
    ]
    return section(
        "Is the reward model right?",
        "The estimates lean on a model of the reward and correct it by what was seen. Points on the dashed line mean "
        "that the model is right on average; points far off it leave the correction more to do.",
        tag(
            "figure",
            figures.calibration(found, say),
            tag(
                "figcaption",
                f"Across: predicted. Up: seen. Rows in {len(rows)} groups of equal size, by prediction.",
            ),
        ),
        pieces.fold("The numbers", pieces.scroll("Calibration", tag("thead", heads), tag("tbody", *rows))),
    )


def against(learned: Learned) -> Markup | None:
    """The policy of another log: what this log says of it, and what it really earned there."""
    if not learned.against:
        return None
    say, parts = words.numbers(learned), []
    for each in learned.against:
        few = words.few(each.effective_rows)
        really, rest = f" really earned {say.full(each.earned)}. ", ""
        if not each.answered:
            really += f"This log cannot answer for it: {few}. "
        else:
            really += f"Estimated from this log alone it would have earned {say.full(each.estimate)}, from "
            really += f"{words.many(each.effective_rows, 'effective row')}. "
            rest = words.overlap(each) if not each.doubts else ""
        doubtful = tag("strong", "Doubtful. ") if each.doubts and each.answered else None
        parts.append(tag("p", "The policy of ", name(each.name), really, doubtful, each.doubts or rest))
        here = Row("estimated here", each.estimate, reason="" if each.answered else f"Cannot say: {few}.")
        rows = [here, Row("really earned there", each.earned)]
        own = learned.log.earned
        axis = figures.scale([x for row in rows for x in figures.ends(row.estimate)] + figures.ends(own))
        parts.append(tag("figure", figures.forest(rows, own, axis, say), aria_label="Estimated and really earned"))
    parts.append(pieces.key(known=False))
    return section(
        "A check against another log",
        "Another policy decided over the same options, and its log says what it earned. If estimates from this log can "
        "be believed, they must agree with that.",
        *parts,
    )


def estimators(learned: Learned) -> Markup | None:
    """Every estimator side by side, folded away."""
    shown = [p for p in learned.policies if p.estimates]
    if not shown:
        return None
    say = words.numbers(learned)
    keys = list(dict.fromkeys(key for p in shown for key in p.estimates))
    top = tag("tr", tag("th", "Estimator", scope="col"), *[_column(p) for p in shown])
    rows = []
    for key in keys:
        used = key == learned.estimator
        cells = [tag("td", pieces.number(p.estimates.get(key), say)) for p in shown]
        label = tag("th", words.estimator(key), tag("small", "the one used above") if used else None, scope="row")
        rows.append(tag("tr", label, *cells, class_="used" if used else None))
    return section(
        "Every estimator, side by side",
        "Estimators err in different ways. Where they agree, the answer does not hang on the choice of one. Not "
        "among them is balanced weighting: it replaces propensities by the odds, from a classifier of your own, that "
        "a choice is the policy's and not the log's (balanced_ips in the library).",
        pieces.fold(
            f"Show all {len(keys)}", pieces.scroll("Estimates of every policy", tag("thead", top), tag("tbody", *rows))
        ),
    )


def _column(p: PolicyResult) -> Markup:
    return tag("th", name(p.name), tag("small", " (cannot say)") if not p.answered else None, scope="col")
