"""The page's sections, in the order of a reader's questions. A section without data is None and is left out."""

from __future__ import annotations

import math

from backchannel.decide.result import Estimate, Learned, PolicyResult, Told
from backchannel.report import figures, pieces, words
from backchannel.report.figures import Row
from backchannel.report.markup import Child, Markup, name, tag
from backchannel.report.pieces import section

TOP = 12  # options shown one by one, where there are more than TOP + 3


def values(learned: Learned) -> Markup | None:
    """What each policy would have earned, as a forest plot."""
    if not learned.policies:
        return None
    say, own = words.numbers(learned), learned.log.earned
    rows = [Row("The log's own policy", own, note="really earned", quiet=True)]
    for p in learned.policies:
        reason = "" if p.answered else f"Cannot say: {words.count(p.effective_rows)} effective rows are too few."
        rows.append(Row(p.name, p.value, p.true_value, reason or ("" if p.value else "Cannot say.")))
    drawn = [x for row in rows for x in [*(figures.ends(row.estimate) if not row.reason else []), row.true_value]]
    known = any(p.true_value is not None for p in learned.policies)
    return section(
        "What each policy would have earned",
        "Each line is a policy, frozen as it was at the end of the log, and what it would have earned for each "
        "decision "
        "on average. The bar is the 95 % interval. Whether a policy is told apart from the log's own is decided "
        "by the lift "
        "in the next section, which compares the two on the very same rows.",
        pieces.key(known),
        tag("figure", figures.forest(rows, own, figures.scale(drawn), say), aria_label="Value of each policy"),
    )


def table(learned: Learned) -> Markup | None:
    """Every number of every policy."""
    if not learned.policies:
        return None
    say = words.numbers(learned)
    known = any(p.true_value is not None for p in learned.policies)
    heads = ["Value", "True value", "Lift over the log", "Behind the best", "Effective rows", "Largest weight"]
    heads = [h for h in [*heads, "Mean weight", "Never chosen", "Rows to settle"] if known or h != "True value"]
    rows = []
    for p in learned.policies:
        cells: list[Child] = [pieces.number(p.value, say) if p.answered else "cannot say"]
        if known:
            cells.append(say.say(p.true_value))
        cells.append(pieces.number(p.lift if p.answered else None, say, sign=True))
        first = p is learned.policies[0] and p.answered
        cells.append("best here" if first else pieces.number(p.regret if p.answered else None, say))
        cells += [words.count(p.effective_rows), words.count(p.largest_weight), pieces.plain(p.mean_weight)]
        cells += [words.share(p.unsupported), words.about(p.rows_to_settle)]
        data = [tag("td", cell, data_of=head) for cell, head in zip(cells, heads, strict=True)]
        verdict = tag("td", p.verdict, class_="text", data_of="Verdict")
        rows.append(
            tag("tr", tag("th", name(p.name), scope="row"), *data, verdict, class_=None if p.answered else "quiet")
        )
    top = tag("tr", *[tag("th", h, scope="col") for h in ["Policy", *heads]], tag("th", "Verdict", class_="text"))
    return section(
        "All numbers",
        "Behind the best: the regret, with an interval that takes the best as known. "
        "Effective rows: how many rows of its own the logged rows are worth for that policy. Never chosen: the "
        "share of "
        "rows whose choice the policy would never make; they say nothing of it. Rows to settle: how many rows "
        "like these "
        "would tell it from the log's own policy.",
        pieces.scroll("All numbers of every policy", tag("thead", top), tag("tbody", *rows), cards=True),
    )


def curves(learned: Learned) -> Markup | None:
    """Learning as it goes, one panel a policy."""
    found = [(p, p.curve) for p in learned.policies if p.curve is not None and p.curve.rows]
    if not any(figures.drawable(curve) for _, curve in found):
        return None
    own = learned.log.earned
    late = [
        min(max(x, learned.log.reward_low), learned.log.reward_high)
        for _, curve in found
        for n, *values in figures.drawable(curve)
        for x in values
        if n >= curve.rows[-1] / 5
    ]
    axis = figures.scale([*late, own.value])
    say = words.numbers(learned)
    panels = []
    for p, curve in found:
        last = Estimate(curve.value[-1], curve.low[-1], curve.high[-1])
        last = _cut(last, learned.log.reward_low, learned.log.reward_high)
        told = tag("p", f"{say.full(last)} after {curve.rows[-1]:,} rows", class_="small")
        drawn = figures.learning(curve, own, axis, p.name, say) if len(figures.drawable(curve)) > 1 else None
        why = None if drawn else tag("p", "Nothing to draw: the rewards of its choices are all alike.", class_="small")
        panels.append(tag("div", tag("h3", name(p.name)), told, drawn, why))
    labels = {curve.label for _, curve in found} - {"at once"}
    late_note = f" Feedback as the learners were told it: {', '.join(sorted(labels))}." if labels else ""
    return section(
        "Learning as it goes",
        "Here each policy starts with nothing and learns row by row. The line is the mean reward of its choices "
        "so far, "
        "its beginner's mistakes included, so it usually ends below what the finished policy earns.",
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


def choices(learned: Learned) -> Markup | None:
    """How often log and policies take each option: the most taken ones, and the rest together."""
    names = learned.log.actions
    shown = [("The log", learned.log.shares), *((p.name, p.shares) for p in learned.policies)]
    shown = [(label, shares) for label, shares in shown if names and len(shares) == len(names)]
    if not shown:
        return None
    order = list(range(len(names)))
    few = len(names) <= TOP + 3
    if not few:
        order.sort(key=lambda a: -max(shares[a] if math.isfinite(shares[a]) else 0.0 for _, shares in shown))
        order = order[:TOP]
    largest = max([1e-9, *(shares[a] for _, shares in shown for a in order if math.isfinite(shares[a]))])
    rows = [
        tag(
            "tr",
            tag("th", name(names[a]), scope="row"),
            *[tag("td", pieces.share(s[a], largest), class_="left") for _, s in shown],
        )
        for a in order
    ]
    if not few:
        left = [1.0 - sum(shares[a] for a in order) for _, shares in shown]
        rest = [tag("td", words.share(max(x, 0.0) if abs(x) > 1e-9 else 0.0), class_="left") for x in left]
        rows.append(tag("tr", tag("th", f"the other {len(names) - TOP}", scope="row"), *rest, class_="quiet"))
    top = tag(
        "tr",
        tag("th", "Option", scope="col"),
        *[tag("th", name(label), scope="col", class_="left") for label, _ in shown],
    )
    which = "" if few else f" Shown are the {TOP} of {len(names)} options that anyone takes most often."
    return section(
        "What they choose",
        f"How often the log and each policy take each option.{which}",
        pieces.scroll("How often each option is taken", tag("thead", top), tag("tbody", *rows)),
    )


def weights(learned: Learned) -> Markup | None:
    """Histograms of the importance weights."""
    found = [(p, p.weights) for p in learned.policies if p.weights is not None and p.weights.counts]
    if not found:
        return None
    panels = []
    for p, bars in found:
        said = f"worth {words.count(p.effective_rows)} effective rows; largest weight {words.count(p.largest_weight)}"
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
        "near 1 "
        "are well informed. A few large weights among many near nothing mean that a few rows decide.",
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
        "The estimates lean on a model of the reward and correct it by what was seen. Points on the dashed line "
        "mean that "
        "the model is right on average; points far off it leave the correction more to do.",
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


def told(learned: Learned) -> Markup | None:
    """What late, lost, bought or false feedback costs."""
    if not learned.told:
        return None
    say, own = words.numbers(learned), learned.log.earned
    low, high = learned.log.reward_low, learned.log.reward_high
    by_policy: dict[str, list[tuple[Told, Row]]] = {}
    for each in learned.told:
        value = None if each.value is None else _cut(each.value, low, high)
        row = Row(each.channel, value, reason="" if value else "Cannot say.", note=f"{each.told:,} told")
        by_policy.setdefault(each.policy, []).append((each, row))
    every = [row.estimate for rows in by_policy.values() for _, row in rows]
    axis = figures.scale([x for found in every for x in figures.ends(found)] + figures.ends(own))
    names = {p.key: p.name for p in learned.policies}
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
        "The same rows once more, as if feedback came late, got lost, was bought for a few decisions, or lied. "
        "Each line "
        "is the mean reward of a policy's choices while it learns.",
        tag("p", words.cost([pair[0] for key in order for pair in by_policy[key]], names, say)),
        pieces.key(known=False),
        tag("figure", tag("div", *panels, class_="panels wide"), aria_label="Mean reward by policy and channel"),
    )


def against(learned: Learned) -> Markup | None:
    """The policy of another log: what this log says of it, and what it really earned there."""
    if not learned.against:
        return None
    say, parts = words.numbers(learned), []
    for each in learned.against:
        agree = ""
        if words.told(each.estimate) and words.told(each.earned):
            meet = each.estimate.low <= each.earned.high and each.earned.low <= each.estimate.high
            agree = " The two intervals overlap." if meet else " The two intervals do not overlap: something is off."
        really = f" really earned {say.full(each.earned)}."
        here = f" Estimated from this log alone it would have earned {say.full(each.estimate)},"
        here += f" from {words.count(each.effective_rows)} effective rows."
        parts.append(tag("p", "The policy of ", name(each.name), really, here, agree))
        rows = [Row("estimated here", each.estimate), Row("really earned there", each.earned)]
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
        "Estimators err in different ways. Where they agree, the answer does not hang on the choice of one.",
        pieces.fold(
            f"Show all {len(keys)}", pieces.scroll("Estimates of every policy", tag("thead", top), tag("tbody", *rows))
        ),
    )


def _column(p: PolicyResult) -> Markup:
    return tag("th", name(p.name), tag("small", " (cannot say)") if not p.answered else None, scope="col")


def _cut(found: Estimate, low: float, high: float) -> Estimate:
    return Estimate(found.value, *(min(max(x, low), high) if math.isfinite(x) else x for x in (found.low, found.high)))
