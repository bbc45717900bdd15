"""What was found: each policy's value, every number, what it chooses. A section without data is None: left out."""

from __future__ import annotations

import math

from backchannel.decide.result import Learned
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
        reason = "" if p.answered else f"Cannot say: {words.few(p.effective_rows)}."
        rows.append(Row(p.name, p.value, p.true_value, reason or ("" if p.value else "Cannot say.")))
    drawn = [x for row in rows for x in [*(figures.ends(row.estimate) if not row.reason else []), row.true_value]]
    known = any(p.true_value is not None for p in learned.policies)
    return section(
        "What each policy would have earned",
        "Each line is a policy, frozen as it was at the end of the log, and what it would have earned for each "
        "decision on average. The bar is the 95 % interval. Whether a policy is told apart from the log's own is "
        "decided by the lift in the next section, which compares the two on the very same rows.",
        pieces.key(known),
        tag("figure", figures.forest(rows, own, figures.scale(drawn), say), aria_label="Value of each policy"),
    )


def table(learned: Learned) -> Markup | None:
    """Every number of every policy."""
    if not learned.policies:
        return None
    say = words.numbers(learned)
    known = any(p.true_value is not None for p in learned.policies)
    best = learned.best_fixed
    left_out = {*(() if known else ("True value",)), *(() if best else ("Regret",))}
    heads = ["Value", "True value", "Lift over the log", "Regret", "Effective rows", "Largest weight"]
    heads = [h for h in [*heads, "Mean weight", "Never chosen", "Rows to settle"] if h not in left_out]
    rows = []
    for p in learned.policies:
        cells: list[Child] = [pieces.number(p.value, say) if p.answered else "cannot say"]
        if known:
            cells.append(say.say(p.true_value))
        cells.append(pieces.number(p.lift if p.answered else None, say, sign=True))
        if best:
            regret = p.regret if p.answered else None
            bare = regret is not None and not words.stands_out(learned)
            cells.append(tag("small", say.span(regret, True)) if bare else pieces.number(regret, say, sign=True))
        cells += [words.count(p.effective_rows), words.count(p.largest_weight), pieces.plain(p.mean_weight)]
        cells += [words.share(p.unsupported), words.about(p.rows_to_settle)]
        data = [tag("td", cell, data_of=head) for cell, head in zip(cells, heads, strict=True)]
        kind = None if p.answered else "quiet"
        long = words.doubted(p)
        verdict = f"{words.verdict(p).capitalize()}." if long else p.verdict
        head = tag("th", name(p.name), scope="row", rowspan=2 if long else None)
        rows.append(tag("tr", head, *data, tag("td", verdict, class_="text", data_of="Verdict"), class_=kind))
        if long:
            why = tag("td", p.verdict, class_="text", colspan=len(heads) + 1)
            rows.append(tag("tr", why, class_=f"why {kind or ''}".strip()))
    top = tag("tr", *[tag("th", h, scope="col") for h in ["Policy", *heads]], tag("th", "Verdict", class_="text"))
    return section(
        "All numbers",
        "Effective rows: how many rows of its own the logged rows are worth for that policy. Never chosen: the share "
        "of rows whose choice the policy would never make; they say nothing of it. Rows to settle: how many rows "
        "like these would tell it from the log's own policy.",
        tag("p", words.hindsight(best, learned)) if best else None,
        pieces.scroll("All numbers of every policy", tag("thead", top), tag("tbody", *rows), cards=True),
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
