import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from backchannel.decide import summary
from backchannel.decide.result import (
    Against,
    Bars,
    Calibration,
    Curve,
    Estimate,
    Learned,
    LogFacts,
    PolicyResult,
    Told,
)
from backchannel.report import figures, words
from backchannel.report.page import page, write_page

EVIL = '<script>alert(\'x\')</script>" onload="boom" & 名前 ' + "long" * 200


def lift(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high)


def policy(key: str = "a", gain: Estimate | None = None, **changed: object) -> PolicyResult:
    gain = gain or lift(0.1, 0.3)
    said = {
        "key": key,
        "name": key.upper(),
        "value": Estimate(0.4 + gain.value, 0.4 + gain.low, 0.4 + gain.high),
        "lift": gain,
        "estimates": {"ips": Estimate(0.123456, 0.1, 0.2), "self_normalised_doubly_robust": Estimate(0.6, 0.5, 0.7)},
        "effective_rows": 214.4,
        "largest_weight": 20.0,
        "mean_weight": 0.94,
        "unsupported": 0.64,
        "true_value": 0.5551,
        "rows_to_settle": 184_491 if gain.low <= 0 <= gain.high else None,
        "regret": Estimate(0.0, -0.1, 0.1),
        "shares": [0.25, 0.75],
        "weights": Bars([0.0, 0.01, 1.0, 100.0], [900.0, 90.0, 10.0]),
        "curve": Curve("at once", [20, 500, 1000], [0.1, 0.2, 0.3], [0.0, 0.15, 0.28], [0.2, 0.25, 0.32]),
        "answered": True,
        "verdict": summary._verdict(gain),
    }
    return PolicyResult(**{**said, **changed})  # type: ignore[arg-type]


def log(**changed: object) -> LogFacts:
    said = {
        "name": "shop",
        "rows": 1000,
        "with_feedback": 1000,
        "actions": ["red", "blue"],
        "contexts": ["age"],
        "ragged": False,
        "reward_low": 0.0,
        "reward_high": 1.0,
        "earned": Estimate(0.4, 0.38, 0.42),
        "first_time": None,
        "last_time": None,
        "shares": [0.5, 0.5],
        "propensities": "logged",
        "notes": ["data by someone"],
    }
    return LogFacts(**{**said, **changed})  # type: ignore[arg-type]


def learned(*policies: PolicyResult, facts: LogFacts | None = None, **changed: object) -> Learned:
    said = {
        "version": "0.1.0",
        "log": facts or log(),
        "estimator": "self_normalised_doubly_robust",
        "policies": list(policies),
        "warnings": [],
        "against": [Against("other", Estimate(0.5, 0.4, 0.6), 250.0, Estimate(0.45, 0.44, 0.46))],
        "told": [
            Told("at once", "a", 1000, Estimate(0.6, 0.58, 0.62)),
            Told("50% lost", "a", 500, Estimate(0.41, 0.4, 0.42)),
        ],
        "calibration": Calibration([0.1, 0.9], [0.2, 0.8], [500, 500]),
        "seconds": 3.25,
        "command": "backchannel learn shop.csv",
    }
    return Learned(**{**said, **changed})  # type: ignore[arg-type]


class Tree(HTMLParser):
    """Checks that every element is closed in its turn; keeps elements, attributes and text."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


WIN, DRAW, LOSS = lift(0.1, 0.3), lift(-0.1, 0.2), lift(-0.3, -0.1)


@pytest.mark.parametrize(
    ("policies", "first"),
    [
        ([policy("a", WIN), policy("b", DRAW)], "A would have earned 0.600 a decision, 0.200 more than the log's own"),
        ([policy("a", lift(-0.3, 0.9)), policy("b", WIN)], "B would have earned 0.600 a decision, 0.200 more than"),
        ([policy("a", DRAW)], "No policy can be told apart from the log's own on these 1,000 rows; about 184,000 rows"),
        ([policy("a", DRAW), policy("b", LOSS)], "No policy is clearly better than the log's own on these 1,000 rows"),
        ([policy("a", LOSS)], "The log's own policy is better than every policy learned here; the nearest, A, would"),
        ([policy("a", answered=False), policy("b", answered=False)], "This log cannot answer for A and B."),
        ([policy("a", answered=False, value=None, lift=None)], "This log cannot answer for A."),
        ([policy("a", WIN, verdict="One row decides.")], "A would have earned 0.600 a decision, 0.200 more than"),
        ([], "No policy was learned from this log."),
    ],
)
def test_headline_says_what_the_facts_allow(policies: list[PolicyResult], first: str) -> None:
    found, _ = words.headline(learned(*policies))
    assert found.startswith(first)
    assert found in Tree(page(learned(*policies))).text


def test_headline_passes_a_doubt_on() -> None:
    first, second = words.headline(learned(policy("a", WIN, verdict="One row decides.")))
    assert first.endswith("but do not rely on it yet.")
    assert "One row decides." in second
    assert words.headline(learned(policy("a", WIN)))[0].endswith("more than the log's own policy.")
    assert not any(words.doubted(policy("a", gain)) for gain in (WIN, DRAW, LOSS))


def test_the_page_holds_every_part_and_its_numbers() -> None:
    tree = Tree(page(learned(policy("a"), policy("b", LOSS))))
    titles = [
        "What each policy would have earned",
        "All numbers",
        "Learning as it goes",
        "What they choose",
        "How far the log's choices",
        "Is the reward model right?",
        "What late, lost, bought",
        "A check against another log",
        "Every estimator",
        "How this was computed",
        "What this cannot tell",
    ]
    places = [tree.text.index(title) for title in titles]
    assert places == sorted(places)
    numbers = [
        "0.600 (0.500 to 0.700)",
        "true value 0.555",
        "+0.200",
        "+0.100 to +0.300",
        "−0.200",
        "214",
        "64.0 %",
        "25.0 %",
        "0.123",
        "0.300 (0.280 to 0.320) after 1,000 rows",
        "A earns 0.190 less a decision with its feedback “50% lost”",
        "500 told",
        "really earned 0.450 (0.440 to 0.460)",
        "250 effective rows",
        "3.2 seconds",
        "backchannel learn shop.csv",
        "data by someone",
    ]
    assert [n for n in numbers if n not in tree.text] == []


def test_figures_say_their_numbers_to_those_who_cannot_see() -> None:
    tree = Tree(page(learned(policy("a"))))
    drawn = [a for tag, a in tree.tags if tag == "svg" and a.get("role") == "img"]
    said = "\n".join(str(a["aria-label"]) for a in drawn)
    assert all(a["aria-label"] for a in drawn)
    assert "A: 0.600 (0.500 to 0.700), true value 0.555" in said
    assert "after 1,000 rows 0.300 (0.280 to 0.320)" in said
    assert "1,000 rows, worth 214 rows of its own" in said
    hidden = [a for tag, a in tree.tags if tag == "svg" and "viewbox" not in a and a.get("class") != "free"]
    assert all(a.get("role") == "img" or a.get("aria-hidden") == "true" for a in hidden)


def test_marks_stand_where_the_numbers_are() -> None:
    row = figures.Row("a", Estimate(0.5, 0.25, 0.75), true_value=0.6)
    drawn = figures.forest([row], Estimate(0.4, 0.3, 0.5), figures.Scale(0.0, 1.0), words.Numbers(2))
    assert '<line x1="25.00%" x2="75.00%"' in drawn
    assert '<circle cx="50.00%"' in drawn
    assert '<svg x="60.00%"' in drawn
    assert '<rect x="30.00%" width="20.00%"' in drawn
    bars = figures.weights(Bars([0.0, 0.1, 1.0, 10.0], [9.0, 0.0, 99.0]), "a", 5.0)
    heights = [float(h) for h in re.findall(r'height="([\d.]+)%"', bars)]
    np.testing.assert_allclose(heights, [50.0, 100.0], atol=0.01)
    assert f'x1="{200 / 3:.2f}%"' in bars  # the line of weight 1


def test_nothing_is_loaded_and_nothing_runs() -> None:
    text = page(learned(policy("a")))
    tree = Tree(text)
    loading = {"script", "img", "iframe", "object", "embed", "form", "base", "image", "use"}
    assert not loading & {kind for kind, _ in tree.tags}
    urls = [a[key] for _, a in tree.tags for key in ("src", "href", "xlink:href", "action") if key in a]
    assert urls == ["data:,"]
    assert "url(" not in text
    assert "@import" not in text
    assert not [key for _, a in tree.tags for key in a if key.startswith("on")]
    policies = [a["content"] for _, a in tree.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert [str(p).split(";")[0] for p in policies] == ["default-src 'none'"]


def test_whatever_comes_from_the_data_is_escaped() -> None:
    facts = log(name=EVIL, actions=[EVIL, "blue"], contexts=[EVIL], notes=[EVIL])
    bad = policy("a", name=EVIL, verdict=EVIL, estimates={EVIL: lift(0, 1)})
    bad.curve = Curve(EVIL, [1, 2], [0.1, 0.2], [0.0, 0.1], [0.2, 0.3])
    given = learned(bad, facts=facts, warnings=[EVIL], command=EVIL, version=EVIL, estimator=EVIL)
    given.told = [Told(EVIL, EVIL, 1, lift(0, 1))]
    given.against = [Against(EVIL, lift(0, 1), 5.0, lift(0, 1))]
    text = page(given)
    tree = Tree(text)
    plain = Tree(page(learned(policy("a"))))
    assert {t for t, _ in tree.tags} <= {t for t, _ in plain.tags} | {"p"}
    assert {key for _, a in tree.tags for key in a} == {key for _, a in plain.tags for key in a} | {"role", "title"}
    assert "<script" not in text
    assert tree.text.count("<script>alert('x')</script>") >= 12


def test_parts_without_data_are_left_out() -> None:
    bare = policy("a", curve=None, weights=None, shares=[], estimates={}, true_value=None, regret=None)
    given = learned(
        bare, facts=log(ragged=True, shares=[], notes=[]), told=[], against=[], calibration=None, command=""
    )
    text = Tree(page(given)).text
    for title in ("Learning as it goes", "What they choose", "How far the log's", "reward model right", "What late"):
        assert title not in text
    for title in ("check against another", "Every estimator", "True value", "Notes on the data"):
        assert title not in text
    assert "What each policy would have earned" in text
    nothing = Tree(page(learned(told=[], against=[], calibration=None)))
    assert "No policy was learned from this log." in nothing.text
    assert "All numbers" not in nothing.text


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_do_no_harm(bad: float) -> None:
    hole = Estimate(bad, bad, bad)
    broken = policy(
        "a",
        value=hole,
        lift=hole,
        regret=hole,
        estimates={"ips": hole},
        effective_rows=bad,
        largest_weight=bad,
        mean_weight=bad,
        unsupported=bad,
        true_value=bad,
        shares=[bad, bad],
        curve=Curve("at once", [1, 2, 3], [bad, 0.1, 0.2], [bad, 0.0, 0.1], [bad, 0.2, 0.3]),
    )
    given = learned(broken, facts=log(earned=hole, shares=[bad, bad], first_time=bad, last_time=bad), seconds=bad)
    given.told = [Told("at once", "a", 1, hole), Told("50% lost", "a", 1, None)]
    given.against = [Against("other", hole, bad, hole)]
    given.calibration = Calibration([bad, 0.1], [bad, 0.2], [1, 1])
    tree = Tree(page(given))
    said = " ".join(str(v) for _, a in tree.tags for v in a.values()) + tree.text
    assert re.findall(r"\b(nan|inf)\b", said) == []
    assert words.NOTHING in tree.text


def test_a_policy_that_the_log_cannot_answer_for_is_grey_and_says_why() -> None:
    silent = policy("b", answered=False, effective_rows=3.2, verdict="Too few rows.", true_value=None)
    tree = Tree(page(learned(policy("a"), silent)))
    assert "Cannot say: 3.2 effective rows are too few." in tree.text
    assert "Too few rows." in tree.text
    assert any(a.get("class") == "row quiet" for _, a in tree.tags)
    assert any(str(a.get("aria-label")).startswith("B: Cannot say") for _, a in tree.tags)


def test_many_options_show_the_most_taken_and_the_rest_together() -> None:
    many = [f"option {i}" for i in range(80)]
    shares = np.full(80, 0.5 / 79)
    shares[77] = 0.5
    facts = log(actions=many, shares=[1 / 80] * 80)
    tree = Tree(page(learned(policy("a", shares=shares.tolist()), facts=facts)))
    assert "the other 68" in tree.text
    assert "option 77" in tree.text
    assert tree.text.count("option ") < 20
    assert words.share(1 - 0.5 - 11 * 0.5 / 79) in tree.text


def test_an_interval_without_width_is_no_certainty() -> None:
    flat = Curve("at once", [1, 2, 3], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    text = Tree(page(learned(policy("a", curve=flat), policy("b")))).text
    assert "0.000 (no interval) after 3 rows" in text
    assert "Nothing to draw" in text


def test_a_long_name_is_cut_and_still_there_in_full() -> None:
    tree = Tree(page(learned(policy("a"), facts=log(actions=["x" * 500, "blue"]))))
    assert "x" * 59 + "…" in tree.text
    assert "x" * 61 not in tree.text
    assert any(a.get("title") == "x" * 500 for _, a in tree.tags)


def test_warnings_come_before_all_numbers() -> None:
    text = Tree(page(learned(policy("a"), warnings=["The propensities cannot be right."]))).text
    assert text.index("Warning. The propensities") < text.index("Decisions")


@pytest.mark.parametrize(
    ("earned", "said"),
    [
        (Estimate(0.456, 0.433, 0.480), "0.456"),
        (Estimate(0.0038, 0.0027, 0.0050), "0.0038"),
        (Estimate(1_234_567.8, 1_200_000.0, 1_300_000.0), "1,234,568"),
        (Estimate(0.25, math.nan, math.nan), "0.250"),
    ],
)
def test_digits_follow_the_interval(earned: Estimate, said: str) -> None:
    assert words.numbers(learned(facts=log(earned=earned))).say(earned.value) == said


def test_words_for_numbers() -> None:
    assert [words.about(n) for n in (7, 1234, 184_491, 40_304_503, 2_100_000_000)] == [
        "7",
        "1,230",
        "184,000",
        "40.3 million",
        "2.1 billion",
    ]
    assert [words.share(x) for x in (0.0, 1e-5, 0.25, 0.9999, 1.0)] == ["0 %", "< 0.1 %", "25.0 %", "> 99.9 %", "100 %"]
    assert words.moment(1574553634.76) == "2019-11-24 00:00 UTC"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.Numbers(2).say(-0.001) == "0.00"


def test_axes_hold_their_values_and_have_round_ticks() -> None:
    axis = figures.scale([0.0, 0.0268, math.nan, None])
    assert axis.low < 0 < 0.0268 < axis.high
    np.testing.assert_allclose(axis.ticks(), [0.0, 0.01, 0.02], atol=1e-12)
    assert figures.scale([]).ticks()
    assert figures.scale([3.0, 3.0]).ticks()


def test_write_page_replaces_the_old_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")
    write_page(learned(policy("a", name="lone \ud800 half")), target)
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
