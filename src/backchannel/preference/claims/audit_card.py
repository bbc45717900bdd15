"""The card reports how many triples are truly intransitive, and rejects one utility only where some are.

The paper (Lambert, Gilbert and Zick 2023) proposes no algorithm: it asks that what a reward model presumes be stated
and looked into. Ours, on made menus of three items, two groups of 32 annotators with tastes of their own, and a
known share of menus in which choices go round:

1. With 0, 10 and 30 % of them planted, the reported rate is within 2 points of the truth, in each of several data sets.
2. The exact likelihood-ratio test rejects a utility for each item at p = 1/2000 in every planted data set, and at
   p = 1/10,000 in no other.
3. Majorities that go round, which is what is usually counted, are another number where votes are few: with three
   annotators a group and weak tastes they are at least 5 points above the planted 0 %. The reported rate and its
   interval are shown.
4. With two votes a pair the ratio has another mean than chi-square with the usual degrees of freedom (shown).
5. A rendered card has every required field.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.parts.comparisons import tally
from backchannel.parts.scalar_utility import scalar_utility
from backchannel.parts.triples import intransitive
from backchannel.preference.audit_card import REQUIRED, audit_card, to_markdown
from backchannel.tasks.voted_menus import voted_menus

SHARES = (0.0, 0.1, 0.3)
MENUS, ANNOTATORS, ALIKE, DRAWS, MORE = 600, 32, 0.8, 1999, 9999


def claim(seed: int, full: bool) -> Evidence:
    """Data sets of each planted share; `full` makes more of them."""
    data_sets = 10 if full else 2
    rates: dict[float, list[Any]] = {share: [] for share in SHARES}
    tests: dict[float, list[Any]] = {share: [] for share in SHARES}
    for share in SHARES:
        for k in range(data_sets):
            data = voted_menus(MENUS, ANNOTATORS, share, 1000 * seed + k, ALIKE)
            votes = tally(data, data.group)
            rates[share].append(intransitive(votes))
            tests[share].append(scalar_utility(votes, np.random.default_rng([seed, k]), DRAWS if share else MORE))
    few = voted_menus(500, 3, 0.0, 1000 * seed + 99, ALIKE, spread=0.5)
    weak = intransitive(tally(few, few.group))
    scarce = voted_menus(500, 1, 0.0, 1000 * seed + 98, ALIKE)
    lone = scalar_utility(tally(scarce), np.random.default_rng(seed), 199)
    card = to_markdown(audit_card(voted_menus(50, 4, 0.1, seed, ALIKE), {"name": "menus"}, np.zeros(150), 99, seed))
    heads = [line[3:] for line in card.split("\n") if line.startswith("## ")]
    off = max(abs(each.rate - share) for share, found in rates.items() for each in found)
    rows = [
        [
            f"{share:.0%}",
            f"{each.rate:.2%} ({each.low:.2%} to {each.high:.2%})",
            f"{each.counted:.2%}",
            f"{test.statistic:.0f}",
            f"{test.expected:.0f}",
            test.freedom,
            test.p,
        ]
        for share in SHARES
        for each, test in zip(rates[share], tests[share], strict=True)
    ]
    rows.append(
        [
            "0%, three votes, weak",
            f"{weak.rate:.2%} ({weak.low:.2%} to {weak.high:.2%})",
            f"{weak.counted:.2%}",
            *"----",
        ]
    )
    least = 1 / (1 + DRAWS)
    sure = [test.p for share in SHARES[1:] for test in tests[share]]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for at, share in enumerate(SHARES):
            for k, each in enumerate(rates[share]):
                x = at + 0.08 * (k - (data_sets - 1) / 2)
                left.plot([x, x], [100 * each.low, 100 * each.high], color="C0", lw=2)
                left.plot(x, 100 * each.rate, "o", color="C0", label="estimate, 95 % interval" if not at + k else None)
                left.plot(
                    x, 100 * each.counted, "x", color="C1", label="majorities that go round" if not at + k else None
                )
            left.plot([at - 0.3, at + 0.3], [100 * share] * 2, "k:", lw=1, label="planted" if not at else None)
        left.set(
            xticks=range(3), xticklabels=[f"{share:.0%}" for share in SHARES], xlabel="planted", ylabel="triples, %"
        )
        left.legend()
        excess = [[t.statistic / t.expected for t in tests[share]] for share in SHARES]
        for at, values in enumerate(excess):
            right.plot([at] * len(values), values, "o", color="C0")
        right.axhline(1, color="k", ls=":", lw=1)
        right.set(xticks=range(3), xticklabels=[f"{share:.0%}" for share in SHARES], xlabel="planted")
        right.set_ylabel("likelihood ratio / by chance alone")

    return Evidence(
        statement="Reported intransitivity is within 2 points of what was planted, and the exact likelihood-ratio test "
        "rejects one utility for each item only where some is.",
        checks=[
            at_most("largest |reported - planted|, points", 100 * off, 2.0, "below 1e-4 (errors 0.2 +- 0.2 points)"),
            at_most("planted 10 and 30 %: largest p of one utility", max(sure), least, "below 1e-4"),
            at_least(
                "planted 0 %: least p", min(t.p for t in tests[0.0]), 1.5 / (1 + MORE), f"{data_sets / (1 + MORE):.1g}"
            ),
            at_least(
                "three votes, weak tastes: majorities that go round, points", 100 * weak.counted, 5.0, "below 1e-4"
            ),
            at_most(
                "three votes, weak tastes: low end of the interval, points", 100 * weak.low, 0.0, "about 1/40", False
            ),
            at_most("three votes, weak tastes: reported, points", 100 * weak.rate, 2.0, "unknown", False),
            at_most(
                "two votes: mean ratio without a cause, over chi-square's mean, in its deviations",
                (lone.expected - lone.freedom) / np.sqrt(2 * lone.freedom),
                -1.0,
                "below 1e-2",
                headline=False,
            ),
            at_most("required fields that the card lacks", len(set(REQUIRED.values()) - set(heads)), 0.0, "exact"),
        ],
        tables=[
            Table(
                f"{2 * MENUS} triples (two groups), {ANNOTATORS} votes a pair and group",
                ["planted", "reported", "majorities go round", "ratio", "by chance", "degrees of freedom", "p"],
                rows,
            )
        ],
        draw=draw,
    )
