"""Rewards of every kind of feedback, by hand."""

import random
from typing import Any

import pytest

from backchannel.serve.records import Decided, Given, Slot
from backchannel.serve.rewards import Rules, check_value, joined, slot_of

RULES = Rules(low=-1.0, high=3.0, reactions={"up": 2.0, "down": -1.0}, outcomes={"sale": 2.0, "minutes": 0.5})
SLATE = Decided("d", [Slot("a", 0.5), Slot("b", 0.5), Slot("c", 1.0)])


def given(value: Any, kind: Any = "reward", id: str = "f", time: float = 0.0, option: str | None = None) -> Given:
    return Given(id, kind, value, time, option)


@pytest.mark.parametrize(
    ("kind", "value", "option", "expected"),
    [
        ("reward", 0.5, None, {0: 0.5}),
        ("reward", 7.0, "c", {2: 7.0}),
        ("reward", 0.5, "z", {}),
        ("rating", 1.0, None, {0: -1.0}),
        ("rating", 4.0, "b", {1: 2.0}),
        ("rating", 5.0, None, {0: 3.0}),
        ("outcome", {"sale": 1.5, "minutes": 4.0, "weather": 9.0}, None, {0: 5.0}),
        ("outcome", {"weather": 9.0}, None, {}),
        ("comparison", {"better": "b", "worse": "c"}, None, {1: 3.0, 2: -1.0}),
        ("comparison", {"better": "z", "worse": "a"}, None, {0: -1.0}),
        ("comparison", {"tie": ["a", "b"]}, None, {}),
        ("correction", "a", None, {0: 3.0}),
        ("correction", "z", None, {0: -1.0}),
        ("correction", "a", "b", {1: -1.0}),
        ("reaction", "down", None, {0: -1.0}),
        ("reaction", "sideways", None, {}),
        ("critique", "poor", None, {}),
        ("followup", "1.0", None, {}),
        ("ranking", ["b", "a"], None, {}),
        ("losses", [0.0, 1.0, 0.5], None, {}),
        ("violation", {"speed": 2.0}, None, {}),
        ("retraction", "other", None, {}),
    ],
)
def test_each_kind_says_its_reward(kind: str, value: Any, option: str | None, expected: dict[int, float]) -> None:
    check_value(kind, value)
    assert joined(SLATE, [given(value, kind, option=option)], RULES) == expected


@pytest.mark.parametrize(
    ("combine", "expected"), [("sum", 4.5), ("first", 2.0), ("last", 0.5), ("mean", 1.5), ("max", 2.0)]
)
def test_several_rewards_of_a_slot_are_combined_by_their_own_time_in_any_order(combine: Any, expected: float) -> None:
    said = [given(2.0, id="z", time=1), given("up", "reaction", id="y", time=2), given(0.5, id="a", time=3)]
    said += [
        given(9.0, id="gone", time=0),
        given("gone", "retraction", id="r", time=-1),
        given(1.0, id="b", option="b"),
    ]
    for seed in range(6):
        random.Random(seed).shuffle(said)
        assert joined(SLATE, said, Rules(combine=combine, reactions={"up": 2.0})) == {0: expected, 1: 1.0}


def test_of_one_time_the_lower_id_is_first() -> None:
    said = [given(1.0, id="b"), given(0.0, id="a")]
    assert joined(SLATE, said, Rules(combine="first")) == {0: 0.0}
    assert joined(SLATE, said, Rules(combine="last")) == {0: 1.0}


def test_a_scale_of_ratings_may_run_downwards() -> None:
    assert joined(SLATE, [given(1.0, "rating")], Rules(rating=(6.0, 1.0))) == {0: 1.0}


@pytest.mark.parametrize(("reward", "loss"), [(3.0, 0.0), (-1.0, 1.0), (1.0, 0.5), (1e300, 0.0), (-1e300, 1.0)])
def test_the_loss_of_a_reward(reward: float, loss: float) -> None:
    assert RULES.loss(reward) == loss


def test_no_sum_of_numbers_that_are_let_in_is_no_number() -> None:
    rules = Rules(outcomes={"gain": 10.0, "loss": -10.0})
    for value in (1e308, 1.8e308, -1e101):
        with pytest.raises(ValueError, match="must be"):
            check_value("outcome", {"gain": value})
    said = [given({"gain": 1e100, "loss": 1e100}, "outcome", id="a"), given(-1e100, id="b"), given(1e100, id="c")]
    for each in said:
        check_value(each.kind, each.value)
    rewards = joined(SLATE, said, rules)
    assert rewards == {0: 0.0}
    assert rules.loss(rewards[0]) == 1.0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("reward", "1"), ("reward", True), ("reward", None), ("reward", 1e101), ("rating", [1]), ("rating", -1e200),
        ("outcome", {"sale": "much"}), ("outcome", 1.0), ("losses", [1.0, "x"]), ("comparison", {"better": "a"}),
        ("comparison", {"better": "a", "worse": "b", "tie": ["a", "b"]}), ("comparison", {"tie": ["a"]}),
        ("comparison", {}), ("ranking", "a"), ("critique", "x" * 10_001), ("correction", ""), ("reaction", 5),
        ("violation", {"speed": None}), ("retraction", ""), ("followup", {}),
    ],
)  # fmt: skip
def test_a_value_that_is_not_of_its_kind_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"the value of a[n]? {kind} must be"):
        check_value(kind, value)


def test_which_slot() -> None:
    assert [slot_of(SLATE, option) for option in (None, "a", "c", "z")] == [0, 0, 2, None]


def test_a_part_of_the_decisions_is_kept_by_a_hash_of_the_id() -> None:
    kept = [Rules(keep=0.25).kept(f"d{i}") for i in range(20_000)]
    assert abs(sum(kept) / 20_000 - 0.25) < 4 * (0.25 * 0.75 / 20_000) ** 0.5
    assert kept == [Rules(keep=0.25).kept(f"d{i}") for i in range(20_000)]
    assert all(Rules().kept(f"d{i}") for i in range(1000))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"low": 1.0, "high": 1.0}, "low must be below high, not 1 and 1"),
        ({"default": 2.0}, r"default must lie in \[0, 1\], not 2"),
        ({"rating": (3.0, 3.0)}, "rating needs two different ends"),
    ],
)
def test_rules_that_mean_nothing_are_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Rules(**wrong)
