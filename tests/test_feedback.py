"""The record: every one of them survives a round trip, and a wrong one is refused where it is wrong."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backchannel.feedback import KINDS, Decision, Feedback, decode, encode

names = st.text(max_size=6)
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
features = st.dictionaries(names, numbers | names | st.booleans(), max_size=3)
times = st.none() | st.floats(0, 1e11)
values = {
    "reward": numbers,
    "rating": numbers,
    "outcome": st.dictionaries(names, numbers, max_size=3),
    "losses": st.lists(numbers, max_size=4),
    "comparison": st.fixed_dictionaries({"better": names, "worse": names})
    | st.fixed_dictionaries({"tie": st.lists(names)}),
    "ranking": st.lists(names, max_size=4),
    "critique": names,
    "correction": names | features,
    "reaction": names,
    "followup": names,
    "violation": st.dictionaries(names, numbers, max_size=3),
    "retraction": names,
}


@st.composite
def decisions(draw):
    options = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    chosen = draw(st.sampled_from(options) | st.lists(st.sampled_from(options), max_size=3))
    offered = draw(st.sampled_from([None, options, {option: {} for option in options}]))
    if isinstance(offered, dict):
        offered = {option: draw(features) for option in options}
    return Decision(
        id=draw(names),
        action=chosen,
        options=offered,
        context=draw(features),
        propensity=draw(st.none() | st.floats(0, 1, exclude_min=True)),
        time=draw(times),
        policy=draw(st.none() | names),
        version=draw(st.none() | st.integers(0, 2**31)),
        position=draw(st.none() | st.integers(0, 100)),
        shown=draw(st.booleans()),
    )


@st.composite
def feedbacks(draw):
    kind = draw(st.sampled_from(KINDS))
    rest = {"time": draw(times), "source": draw(st.none() | names), "cost": draw(st.floats(0, 1e6))}
    return Feedback(id=draw(names), decision=draw(names), kind=kind, value=draw(values[kind]), **rest)


def test_every_kind_is_tried():
    assert set(values) == set(KINDS)


@given(decisions() | feedbacks())
def test_round_trip(record):
    line = encode(record)
    assert b"\n" not in line
    assert decode(line) == record
    assert decode(line.decode()) == record
    assert encode(decode(line)) == line
    assert json.loads(line)["record"] == type(record).__name__.lower()


def test_defaults_are_left_out():
    assert encode(Decision(id="d", action="a")) == b'{"record":"decision","id":"d","action":"a"}'


@pytest.mark.parametrize(
    "line",
    [
        '{"record":"decision","id":"d","action":"a","propensty":0.5}',
        '{"record":"feedback","id":"f","decision":"d","kind":"reward","value":1,"propensty":0.5}',
    ],
)
def test_a_field_that_a_record_has_not_is_refused(line):
    with pytest.raises(msgspec.ValidationError, match="unknown field `propensty`"):
        decode(line)


def test_an_option_that_is_named_twice():
    with pytest.raises(ValueError, match="the option 'b' is named twice in options"):
        Decision(id="d", action="a", options=["b", "a", "b"])


def test_contexts_are_not_shared():
    first, second = Decision(id="1", action="a"), Decision(id="2", action="a")
    first.context["x"] = 1
    assert second.context == {}


@pytest.mark.parametrize("propensity", [0, -0.1, 1.0001, float("nan"), float("inf")])
def test_a_propensity_outside_its_range(propensity):
    with pytest.raises(ValueError, match=r"propensity must lie in \(0, 1\], not"):
        Decision(id="d", action="a", propensity=propensity)


@pytest.mark.parametrize("options", [["b", "c"], {"b": {}, "c": {"price": 1}}])
@pytest.mark.parametrize("action", ["a", ["b", "a"]])
def test_an_action_that_was_not_offered(action, options):
    with pytest.raises(ValueError, match=r"action 'a' is not among the options \['b', 'c'\]"):
        Decision(id="d", action=action, options=options)


@pytest.mark.parametrize("kind", ["reward", "rating"])
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("5", "must be a number, not '5'"),
        (True, "must be a number, not True"),
        (None, "must be a number, not None"),
        (float("nan"), "must be finite, not nan"),
        (float("-inf"), "must be finite, not -inf"),
    ],
)
def test_a_value_that_is_no_number(kind, value, sentence):
    with pytest.raises(ValueError, match=f"a {kind} {sentence}"):
        Feedback(id="f", decision="d", kind=kind, value=value)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ('{"id":"d","action":"a"}', "missing required field `record`"),
        ('{"record":"guess","id":"d"}', "Invalid value 'guess'"),
        ('{"record":"decision","id":"d"}', "missing required field `action`"),
        ('{"record":"decision","id":1,"action":"a"}', r"Expected `str`, got `int` - at `\$.id`"),
        ('{"record":"decision","id":"d","action":"a","propensity":2}', r"propensity must lie in \(0, 1\], not 2"),
        ('{"record":"feedback","id":"f","decision":"d","kind":"smile","value":1}', r"'smile' - at `\$.kind`"),
        ('{"record":"feedback","id":"f","decision":"d","kind":"reward","value":"x"}', "a reward must be a number"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(line, sentence):
    with pytest.raises(msgspec.DecodeError, match=sentence) as raised:
        decode(line)
    assert isinstance(raised.value, ValueError)
