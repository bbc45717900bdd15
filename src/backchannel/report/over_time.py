"""As rows come in: the best policy watched, learning as it goes, and worse feedback. Without data: None, left out."""

from __future__ import annotations

import math

from backchannel.decide.result import Curve, Estimate, Learned, Told
from backchannel.report import figures, pieces, words
from backchannel.report.figures import Row
from backchannel.report.markup import Markup, name, tag
from backchannel.report.pieces import section


def watched(learned: Learned) -> Markup | None:
    """The best policy beside the log's own, with bands for looking at any time."""
    found = learned.monitor
    if found is None:
        return None
    say, log = words.numbers(learned), learned.log
    label = next((p.name for p in learned.policies if p.key == found.policy), found.policy)
    rows = words.many(found.value.rows[-1], "row")
    lift = Estimate(math.nan, found.lift_low, found.lift_high)
    if found.told_after is None:
        told = f"The two were not told apart in {rows}: the lift's band still reaches from {say.span(lift, sign=True)}."
    else:
        told = f"The two were told apart after {words.many(found.told_after, 'row')}: there the lift's band left 0."
        told += f" After {rows} it reaches from {say.span(lift, sign=True)}."
    axis = figures.scale(_late(learned, [found.value, found.own]))
    picked = f", the best of {found.tried} by its estimate" if found.tried > 1 else ""
    allows = " It allows for the choice of the best." if found.tried > 1 else ""
    return section(
        "Watched as rows come in",
        f"{label}{picked}, beside the log's own policy. Both bands may be looked at any time: in 95 of 100 logs like "
        "this one, a band holds its true value after every row at once, so that stopping at a glance misleads no one.",
        tag("p", tag("strong", told)),
        tag(
            "figure",
            figures.watched(found, axis, label, say),
            tag(
                "figcaption",
                f"Line and shade: {label}, estimated from the rows so far. Dashed and grey: the log's own policy. "
                "A band that leaves the figure is cut.",
            ),
        ),
        tag(
            "p",
            f"The price is width: the band is wider than an interval for one look at the end.{allows} Weights may be "
            "of any size and none is clipped; a tenth of the rows only sets the band's scale. Assumed are right "
            f"propensities, rewards from {log.reward_low:g} to {log.reward_high:g} and no others, and rows drawn "
            "independently from one world: a log whose policy learned while it logged, or whose world changed, is "
            "not covered.",
            class_="small",
        ),
    )


def curves(learned: Learned) -> Markup | None:
    """Learning as it goes, one panel a policy."""
    found = [(p, p.curve) for p in learned.policies if p.answered and p.curve is not None and p.curve.rows]
    if not any(figures.drawable(curve) for _, curve in found):
        return None
    own = learned.log.earned
    axis = figures.scale([*_late(learned, [curve for _, curve in found]), own.value])
    say = words.numbers(learned)
    panels = []
    for p, curve in found:
        last = Estimate(curve.value[-1], curve.low[-1], curve.high[-1])
        last = _cut(last, learned.log.reward_low, learned.log.reward_high)
        told = tag("p", f"{say.full(last)} after {words.many(curve.rows[-1], 'row')}", class_="small")
        drawn = figures.learning(curve, own, axis, p.name, say) if len(figures.drawable(curve)) > 1 else None
        why = None if drawn else tag("p", "Nothing to draw: the rewards of its choices are all alike.", class_="small")
        panels.append(tag("div", tag("h3", name(p.name)), told, drawn, why))
    labels = {curve.label for _, curve in found} - {"at once"}
    silent = _silent([p.name for p in learned.policies if p.name not in {shown.name for shown, _ in found}])
    late_note = f" Feedback as the learners were told it: {', '.join(sorted(labels))}." if labels else ""
    return section(
        "Learning as it goes",
        "Here each policy starts with nothing and learns row by row. The line is the mean reward of its choices so "
        "far, its beginner's mistakes included, so it usually ends below what the finished policy earns.",
        silent,
        tag(
            "figure",
            tag("div", *panels, class_="panels"),
            tag(
                "figcaption",
                "Shaded: 95 %. Dashed: the log's own policy. All panels share one scale; bands of the first "
                f"rows, where little is known, are cut.{late_note}",
            ),
        ),
    )


def told(learned: Learned) -> Markup | None:
    """What late, lost, bought or false feedback costs."""
    names = {p.key: p.name for p in learned.policies}
    unanswered = {p.key for p in learned.policies if not p.answered}
    shown = {each.policy for each in learned.told if each.value is not None} - unanswered
    if not shown:
        return None
    say, own = words.numbers(learned), learned.log.earned
    low, high = learned.log.reward_low, learned.log.reward_high
    by_policy: dict[str, list[tuple[Told, Row]]] = {}
    for each in (each for each in learned.told if each.policy in shown):
        value = None if each.value is None else _cut(each.value, low, high)
        row = Row(each.channel, value, reason="" if value else "Cannot say.", note=f"{each.told:,} told")
        by_policy.setdefault(each.policy, []).append((each, row))
    every = [row.estimate for rows in by_policy.values() for _, row in rows]
    axis = figures.scale([x for found in every for x in figures.ends(found)] + figures.ends(own))
    order = [p.key for p in learned.policies if p.key in by_policy] + [k for k in by_policy if k not in names]
    panels = [
        tag(
            "div",
            tag("h3", name(names.get(key, key))),
            figures.forest([r for _, r in by_policy[key]], own, axis, say),
            class_="panel",
        )
        for key in order
    ]
    return section(
        "What late, lost, bought or false feedback costs",
        "The same rows once more, as if feedback came late, got lost, was bought for a few decisions, or lied. Each "
        "line is the mean reward of a policy's choices while it learns.",
        tag("p", words.cost([pair[0] for key in order for pair in by_policy[key]], names, say)),
        _silent(
            [names.get(key, key) for key in dict.fromkeys(each.policy for each in learned.told) if key not in shown]
        ),
        pieces.key(known=False),
        tag("figure", tag("div", *panels, class_="panels wide"), aria_label="Mean reward by policy and channel"),
    )


def _silent(names: list[str]) -> Markup | None:
    """Whom nothing is drawn of."""
    return tag("p", f"Cannot say, and left out: {words.listed(names)}.", class_="small") if names else None


def _late(learned: Learned, curves: list[Curve]) -> list[float]:
    """What an axis must hold: bands and lines but for the first fifth of the rows, within the range of rewards."""
    return [
        min(max(x, learned.log.reward_low), learned.log.reward_high)
        for curve in curves
        for n, *values in figures.drawable(curve)
        for x in values
        if n >= curve.rows[-1] / 5
    ]


def _cut(found: Estimate, low: float, high: float) -> Estimate:
    return Estimate(found.value, *(min(max(x, low), high) if math.isfinite(x) else x for x in (found.low, found.high)))
