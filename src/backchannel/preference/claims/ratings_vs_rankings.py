"""Ratings and choices that contradict each other make two reward models, of which each wins under its own protocol.

The paper (Bansal, Dang and Grover 2024): preferences from ratings and from choices disagree in about 60 % of pairs;
raters favour dense answers where choosers favour accurate ones; and best-of-n by a reward model of choices beats that
of ratings if judged by choices, but not if judged by ratings. Ours, on an annotator in whom that is planted and whose
noise is calibrated to 60 %: a test of the measurement, not of people.

1. On 6,000 fresh pairs the measured inconsistency is 0.6 +- 0.03.
2. The density weight is found to be larger in ratings, by at least 6 standard errors.
3. Best of 64 by the reward model of choices is preferred to plain answers at least 2 points more often than that of
   ratings if judged by choices, and not at all more often if judged by ratings.
4. An annotator with the same weights in both protocols, as inconsistent by noise alone, shows none of it: less than 2
   points under either protocol, and a tilt within 5 standard errors of 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_least, at_most, within
from backchannel.preference.ratings_vs_rankings import from_choices, from_ratings, ratings_vs_rankings
from backchannel.tasks.two_protocols import Annotator, calibrated, choices, ratings, win_rate

PAIRS, DRAWN = 6000, (1, 4, 16, 64)


def claim(seed: int, full: bool) -> Evidence:
    """The biased annotator and the consistent one; `full` draws more pairs."""
    found = {}
    for name, annotator in (
        ("two protocols", Annotator()),
        ("consistent", Annotator(rating=(1.0, 0.5), choice=(1.0, 0.5))),
    ):
        judge, rng = calibrated(annotator, 0.6), np.random.default_rng(seed)
        x, y = rng.normal(size=(2, PAIRS * (10 if full else 1), 2))
        rx, ry, c = ratings(judge, x, rng), ratings(judge, y, rng), choices(judge, x, y, rng)
        rewards = {
            "ratings": from_ratings(np.concatenate([x, y]), np.concatenate([rx, ry])),
            "choices": from_choices(x - y, c),
        }
        wins = {
            (kind, protocol): [100 * win_rate(judge, reward, n, protocol) for n in DRAWN]
            for kind, reward in rewards.items()
            for protocol in ("choice", "rating")
        }
        found[name] = (ratings_vs_rankings(rx, ry, c, x - y), wins)
    gain = {
        (name, protocol): wins["choices", protocol][-1] - wins["ratings", protocol][-1]
        for name, (_, wins) in found.items()
        for protocol in ("choice", "rating")
    }
    own, other = (each[0] for each in found.values())
    assert own.tilt is not None
    assert other.tilt is not None
    rows = [
        [name, f"trained on {kind}", *(f"{wins[kind, protocol][-1]:.1f}" for protocol in ("choice", "rating"))]
        for name, (_, wins) in found.items()
        for kind in ("ratings", "choices")
    ]
    rows += [[name, "plain answers", "50.0", "50.0"] for name in found]

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, protocol in zip(panels, ("choice", "rating"), strict=True):
            for kind, colour in (("choices", "C0"), ("ratings", "C1")):
                for name, style in (("two protocols", "o-"), ("consistent", "s:")):
                    label = f"trained on {kind}, {name}"
                    axes.plot(DRAWN, found[name][1][kind, protocol], style, color=colour, label=label, alpha=0.8)
            axes.set(xscale="log", xticks=DRAWN, xlabel="best of", title=f"judged by {protocol}s")
            axes.set_xticklabels(DRAWN)
            axes.minorticks_off()
        panels[0].set_ylabel("preferred to a plain answer, %")
        panels[0].legend(fontsize=8)

    return Evidence(
        statement="Where ratings and choices weigh answers differently, a reward model wins under the protocol that it "
        "was trained on; where they only add noise, neither does.",
        checks=[
            within("measured inconsistency", own.inconsistent, 0.57, 0.63, "below 1e-5"),
            at_least(
                "density tilt of ratings, standard errors", own.tilt.tilt[1] / own.tilt.error[1], 6.0, "below 1e-6"
            ),
            at_least(
                "judged by choices: choices less ratings, points", gain["two protocols", "choice"], 2.0, "below 1e-6"
            ),
            at_most(
                "judged by ratings: choices less ratings, points", gain["two protocols", "rating"], 0.0, "below 1e-6"
            ),
            at_most(
                "consistent: largest difference, points",
                max(abs(gain["consistent", protocol]) for protocol in ("choice", "rating")),
                2.0,
                "below 1e-6",
            ),
            at_most(
                "consistent: density tilt, standard errors",
                abs(other.tilt.tilt[1]) / other.tilt.error[1],
                5.0,
                "below 1e-6",
            ),
            within("consistent: measured inconsistency", other.inconsistent, 0.57, 0.63, "below 1e-5", headline=False),
        ],
        tables=[
            Table(
                "best of 64 preferred to a plain answer, %", ["annotator", "policy", "by choices", "by ratings"], rows
            )
        ],
        draw=draw,
        note=f"Reversed outright: {own.reversed:.1%} of pairs, {other.reversed:.1%} of the consistent annotator's.",
    )
