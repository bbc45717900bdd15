"""Open Human Feedback: proofs and contrast."""

import itertools
import json
from collections import Counter

import msgspec
import numpy as np
import pytest

from backchannel.feedback import KINDS
from backchannel.lm.answers import Preference, Rated
from backchannel.lm.protocol import user
from backchannel.preference.open_human_feedback import Credit, OpenFeedback, load, open_human_feedback

ASKED = "2 + 2 ="
VALUES = {
    "comparison": (["4", "5"], {"better": "4", "worse": "5"}),
    "ranking": (["5", "4", "3"], ["4", "5", "3"]),
    "rating": (["4"], 5),
    "reaction": (["5"], "bad"),
    "correction": (["5"], "4"),
    "critique": (["5"], "one too many"),
}


def row(kind="comparison", **changes):
    responses, value = VALUES[kind]
    found = {
        "prompt": ASKED,
        "responses": responses,
        "kind": kind,
        "value": value,
        "contributor": "Ada",
        "licence": "CC-BY-4.0",
        "consent": {"uses": ["training"], "given": "2026-01-01"},
        "provenance": {"source": "school", "collected": "2026-01-02"},
    }
    if kind == "rating":
        found["scale"] = [1, 5]
    return found | changes


def random_pool(seed, n=400):
    """Records of few words, so that many are copies, and what they are."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        kind = str(rng.choice(list(VALUES)))
        found = row(
            kind,
            prompt=str(rng.choice(["2 + 2 =", "1 + 3 ="])),
            contributor=str(rng.choice(["Ada", "Bob", "Eve"])),
            licence=str(rng.choice(["CC-BY-4.0", "CC0-1.0", "unknown"])),
            consent={
                "uses": [["training"], ["research"], ["training", "research"]][rng.integers(3)],
                "given": "2026-01-01",
            },
            provenance={"source": str(rng.choice(["a", "b"])), "collected": f"2026-0{rng.integers(1, 7)}-15"},
            language=[None, "en", "de"][rng.integers(3)],
        )
        rows.append(found)
    return rows


def test_step_every_kind_of_export_by_hand():
    pool = open_human_feedback(
        [row(kind) for kind in VALUES]
        + [row("rating", responses=["5"], value=2), row("rating", responses=["3"], value=3)]
    )
    left = Counter()
    about = {"annotator": "Ada", "meta": {"licence": "CC-BY-4.0", "source": "school"}}
    ids = {each.kind: each.content for each in pool.records}
    pairs = list(pool.export("pairs", left))
    why = "one too many"
    assert pairs == [
        Preference(ASKED, "4", "5", id=ids["comparison"], rationale=why, **about),
        Preference(ASKED, "4", "5", id=ids["ranking"] + "/1-2", rationale=why, **about),
        Preference(ASKED, "4", "3", id=ids["ranking"] + "/1-3", rationale=why, **about),
        Preference(ASKED, "5", "3", id=ids["ranking"] + "/2-3", rationale=why, **about),
        Preference(ASKED, "4", "5", id=ids["correction"], rationale=why, **about),
        Preference(ASKED, "4", "3", gap=0.5, **about),  # ratings of 5, 3 and 2, of 1 to 5
        Preference(ASKED, "4", "5", gap=0.75, **about),
        Preference(ASKED, "3", "5", gap=0.25, **about),
    ]
    assert +left == {"ratings without another of the same prompt and annotator": 1}  # the reaction
    left = Counter()
    singles = [(each.answer, each.good) for each in pool.export("singles", left)]
    assert singles == [
        ("4", True),
        ("5", False),  # the comparison
        ("4", True),  # the rating
        ("5", False),  # the reaction
        ("4", True),
        ("5", False),  # the correction
        ("5", False),  # the rating of 2
    ]
    assert +left == {"rankings without scores": 1, "ratings in the middle of their scale": 1}
    assert [each.answer for each in pool.export("demonstrations")] == ["4", "4", "4", "4"]
    assert list(pool.export("rewards")) == pairs


def test_step_ties_are_for_reward_models_alone():
    pool = open_human_feedback([row(value={"tie": ["4", "5"]}), row("rating", scale=None)])
    left = Counter()
    assert list(pool.export("pairs", left)) == []
    assert +left == {"ties": 1, "ratings without a scale": 1}
    (tie,) = pool.export("rewards")
    assert (tie.strength, tie.tie) == (0.5, True)
    assert list(pool.export("singles")) == list(pool.export("demonstrations")) == []


def test_step_a_rating_is_good_above_the_middle_of_its_scale():
    for value, good in ((1, [False]), (2.9, [False]), (3, []), (3.1, [True]), (5, [True])):
        assert [each.good for each in open_human_feedback([row("rating", value=value)]).export("singles")] == good


def test_step_a_critique_belongs_to_its_contributor_and_answer():
    critique = row("critique")
    for other, found in (
        ({}, "one too many"),
        ({"contributor": "Bob"}, None),
        ({"prompt": "1 + 1 ="}, None),
        ({"responses": ["7"]}, None),
    ):
        left = Counter()
        (pair,) = open_human_feedback([row(), critique | other]).export("pairs", left)
        assert pair.rationale == found
        assert left["critiques of what nothing else was said of"] == (found is None)


def test_step_credits():
    rows = [row(), row(), row("rating", contributor="Bob"), row(licence="CC0-1.0")]
    assert open_human_feedback(rows).credits() == [
        Credit("CC-BY-4.0", "school", ["Ada", "Bob"], 3),
        Credit("CC0-1.0", "school", ["Ada"], 1),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_known_filters_against_brute_force(seed):
    rows = random_pool(seed)
    pool = open_human_feedback(rows)
    options = {
        "licences": [None, {"CC-BY-4.0", "CC0-1.0"}],
        "contributors": [None, {"Ada", "Bob"}],
        "withdrawn": [(), {"Bob"}],
        "use": [None, "training"],
        "kinds": [None, {"rating", "critique"}],
        "sources": [None, {"a"}],
        "languages": [None, {"en"}],
        "since": [None, "2026-04-15"],
    }
    for chosen in itertools.product(*options.values()):
        how = dict(zip(options, chosen, strict=True))
        expected = []
        for each in rows:
            keep = how["licences"] is None or each["licence"] in how["licences"]
            keep &= how["contributors"] is None or each["contributor"] in how["contributors"]
            keep &= each["contributor"] not in how["withdrawn"]
            keep &= how["use"] is None or how["use"] in each["consent"]["uses"]
            keep &= how["kinds"] is None or each["kind"] in how["kinds"]
            keep &= how["sources"] is None or each["provenance"]["source"] in how["sources"]
            keep &= how["languages"] is None or each["language"] in how["languages"]
            keep &= how["since"] is None or each["provenance"]["collected"] >= how["since"]
            if keep:
                expected.append(msgspec.convert(each, OpenFeedback))
        assert pool.select(**how).records == expected


@pytest.mark.parametrize("seed", range(3))
def test_known_copies_against_comparing_all_with_all(seed):
    pool = open_human_feedback(random_pool(seed))

    def same(a, b):
        return all(getattr(a, name) == getattr(b, name) for name in ("kind", "prompt", "value", "contributor"))

    kept = []
    for each in pool.records:
        if not any(same(each, other) for other in kept):
            kept.append(each)
    assert pool.once().records == kept
    assert len(kept) == 6 * 2 * 3 < len(pool) == 400
    left = Counter()
    list(pool.export("pairs", left))
    assert left["copies"] == 400 - 36


def test_known_what_makes_a_copy():
    def content(*more, **changes):
        return open_human_feedback([row(*more, **changes)]).records[0].content

    first = content()
    for same in (
        {"responses": ["5", "4"]},
        {"prompt": "2  + 2\n="},
        {"licence": "unknown"},
        {"consent": {"uses": [], "given": "2026-03-01"}},
        {"provenance": {"source": "mirror", "collected": "2026-02-01"}},
        {"language": "en"},
    ):
        assert content(**same) == first
    for other in (
        {"responses": ["4", "5", "6"]},
        {"prompt": "2 + 3 ="},
        {"prompt": [user("2 + 2 =")]},
        {"contributor": "Bob"},
        {"value": {"better": "5", "worse": "4"}},
    ):
        assert content(**other) != first
    assert content(value={"tie": ["4", "5"]}) == content(value={"tie": ["5", "4"]}) != first
    assert content("ranking") != content("ranking", value=["5", "4", "3"])
    assert content("rating", value=5.0) == content("rating") != content("rating", scale=[0, 5])
    assert content("correction", value="caf\u00e9") == content("correction", value="cafe\u0301")
    assert content("correction", value="x") != content("critique", value="x")
    assert content("correction", value="Four") != content("correction", value="four")


@pytest.mark.parametrize("seed", range(3))
def test_known_what_is_dumped_is_loaded(seed, tmp_path):
    rows = random_pool(seed)
    rows[0] |= {"prompt": [{"role": "user", "content": "a\nb\u2028c"}], "meta": {"x": [1, None, 0.1]}}
    pool = open_human_feedback(rows)
    pool.dump(tmp_path / "pool.jsonl")
    assert load(tmp_path / "pool.jsonl").records == pool.records
    again = [json.loads(line) for line in (tmp_path / "pool.jsonl").read_text().split("\n") if line]
    assert open_human_feedback(again).records == pool.records


def test_limit_without_copies_and_conditions_it_is_the_concatenation():
    first, second = open_human_feedback([row()]), open_human_feedback([row(contributor="Bob")])
    both = first + second
    assert both.select().records == both.once().records == first.records + second.records
    assert list(both.export("pairs")) == [*first.export("pairs"), *second.export("pairs")]
    assert len(both) == 2


def test_contrast_a_concatenation_counts_copies_and_takes_what_it_may_not():
    # Ada says 4, and nine mirrors copy what Eve says, who did not agree to training: plain concatenation learns Eve's.
    eve = row(
        value={"better": "5", "worse": "4"}, contributor="Eve", consent={"uses": ["research"], "given": "2026-01-01"}
    )
    mirrors = [eve | {"provenance": {"source": f"mirror {i}", "collected": "2026-02-01"}} for i in range(9)]
    pool = open_human_feedback([row(), *mirrors])

    def share(pairs):
        return np.mean([pair.chosen == "4" for pair in pairs])

    everything = [Preference(each.prompt, each.value["better"], each.value["worse"]) for each in pool.records]
    assert share(everything) == 0.1
    assert share(pool.export("pairs")) == 0.5  # each of the two once
    assert share(pool.select(use="training").export("pairs")) == 1.0


def test_contrast_copies_are_left_out_after_the_filter():
    # The first copy is under a licence that may not be used: leaving out copies first would lose both.
    pool = open_human_feedback([row(licence="unknown"), row()])
    assert len(list(pool.select(licences={"CC-BY-4.0"}).export("pairs"))) == 1
    assert len(pool.once().select(licences={"CC-BY-4.0"})) == 0


def test_kinds_are_those_of_the_record_of_feedback():
    assert set(VALUES) < set(KINDS)
    assert next(iter(open_human_feedback([row("reaction", value="good")]).export("singles"))).good is True


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"contributor": " "}, "record 1: every record names its contributor and its licence"),
        ({"licence": ""}, "every record names its contributor and its licence"),
        ({"responses": ["4"]}, "a comparison is of several responses, not 1"),
        ({"responses": ["4", ""]}, "answer is empty"),
        ({"responses": ["4", "5", "4"]}, "cannot have the value"),
        ({"value": {"better": "4", "worse": "6"}}, "a comparison of .* cannot have the value"),
        ({"value": {"better": "4", "worse": "4"}}, "cannot have the value"),
        ({"value": {"better": "4"}}, "cannot have the value"),
        ({"value": "4"}, "cannot have the value"),
        ({"kind": "ranking", "value": ["4"]}, "a ranking of .* cannot have the value"),
        ({"kind": "rating", "responses": ["4"], "value": True}, "a rating of .* cannot have the value True"),
        ({"kind": "rating", "responses": ["4"], "value": 6, "scale": [1, 5]}, "cannot have the value 6"),
        ({"kind": "rating", "responses": ["4"], "value": 6, "scale": [5, 1]}, "scale is of ratings, from low to high"),
        ({"scale": [1, 5]}, "scale is of ratings, from low to high, not .* of a comparison"),
        ({"kind": "rating", "value": 3}, "a rating is of one, not 2"),
        ({"kind": "reaction", "responses": ["4"], "value": "hm"}, "cannot have the value 'hm'"),
        ({"kind": "correction", "responses": ["4"], "value": "4"}, "cannot have the value '4'"),
        ({"kind": "critique", "responses": ["4"], "value": " "}, "cannot have the value ' '"),
        ({"prompt": []}, "the prompt has no message"),
        ({"kind": "followup"}, "Invalid enum value 'followup'"),
        ({"licnce": "x"}, "unknown field `licnce`"),
        ({"consent": {"uses": ["everything"], "given": "2026-01-01"}}, "Invalid enum value 'everything'"),
        ({"consent": {"uses": [], "given": "yesterday"}}, "Invalid isoformat string: 'yesterday'"),
        ({"provenance": {"source": "x", "collected": "soon"}}, "Invalid isoformat string: 'soon'"),
    ],
)
def test_what_is_no_record_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        open_human_feedback([row() | changes])


def test_wrong_arguments(tmp_path):
    pool = open_human_feedback([row()])
    with pytest.raises(ValueError, match=r"expected a set of names, not the text 'CC-BY-4.0'"):
        pool.select(licences="CC-BY-4.0")
    with pytest.raises(ValueError, match="use must be one of training, research, publication, not 'profit'"):
        pool.select(use="profit")
    with pytest.raises(ValueError, match="an export is one of pairs, singles, rewards, demonstrations, not 'dpo'"):
        list(pool.export("dpo"))
    (tmp_path / "pool.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="record 1: Object missing required field `prompt`"):
        load(tmp_path / "pool.jsonl")
    assert all(isinstance(each, Rated) for each in pool.export("singles"))
