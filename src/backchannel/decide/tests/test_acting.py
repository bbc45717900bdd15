"""A policy at work: what it needs to be told, what it refuses, and draws that do not depend on batches."""

import itertools

import numpy as np
import pytest

from backchannel.card import find
from backchannel.decide import policies
from backchannel.decide.acting import Actor, Request, act
from backchannel.decide.encoder import Encoder
from backchannel.decide.policyfile import Policy
from backchannel.ledger.log import key_of

ACTIONS = ["a", "b", "c", "d"]
DEVICES = ("phone", "desktop")


def policy_of(key, own=False, ragged=False, columns=True):
    """A policy of this method that has learned something, at random."""
    encoder = Encoder(
        actions=ACTIONS,
        numeric=["age"] if columns else [],
        mean=[30.0] if columns else [],
        scale=[10.0] if columns else [],
        categorical=["device"] if columns else [],
        columns=[{str(key_of("device", name)): 2 + i for i, name in enumerate(DEVICES)}] if columns else [],
        others=[4] if columns else [],
        dimension=64 if ragged else 5 if columns else 1,
        hashed=ragged,
        ragged=ragged,
        own=own,
        bits=6,
    )
    method = find(key)
    given = policies.arguments(method, encoder, 100)
    state = policies.make(method, given).state
    rng = np.random.default_rng(0)
    for name in ("losses", "means", "theta", "center"):
        if name in state._fields:
            field = getattr(state, name)
            field[:] = rng.random(field.shape)
    if "table" in state._fields:
        state.table[:, 0] = 0.5 * rng.random(64)
        state.clock[:] = 100.0
    return Policy(key, method.family, given, encoder, state, "a log")


def mixed(n, own=False):
    """Requests that offer everything, in the log's order or another, or a part."""
    rng = np.random.default_rng(1)
    found = []
    for i in range(n):
        names = [None, ACTIONS, ACTIONS[::-1], ["c", "a"], ["b", "d", "c"]][rng.integers(5)]
        if own:
            names = {name: {"price": float(rng.random()), "brand": "xyz"[rng.integers(3)]} for name in names or ACTIONS}
        context = {"age": int(rng.integers(20, 60)), "device": [*DEVICES, "watch", None][rng.integers(4)]}
        found.append(Request(context=context, options=names, time=float(i)))
    return found


KINDS = [
    ("uniform", False, False),
    ("exp3", False, False),
    ("thompson", False, False),
    ("ucb1", False, False),
    ("lin_ts", False, False),
    ("square_cb", False, False),
    ("square_cb", True, False),
    ("square_cb", True, True),
    ("lin_ucb", True, True),
    ("uniform", True, True),
]


@pytest.mark.parametrize(("key", "own", "ragged"), KINDS)
def test_draws_do_not_depend_on_batches(key, own, ragged):
    policy, requests = policy_of(key, own, ragged), mixed(60, own)
    whole = list(act(policy, requests, seed=5))
    assert [decision.id for decision in whole] == [str(i) for i in range(1, 61)]
    for size in (1, 7, 59):
        assert list(act(policy, requests, seed=5, size=size)) == whole
    actor, parts = Actor(policy, 5), []
    for start, stop in itertools.pairwise([0, 1, 2, 30, 33, 60]):  # as they come through a pipe
        parts += actor.decide(enumerate(requests[start:stop], start + 1))
    assert parts == whole
    assert list(act(policy, requests[:20], seed=5)) == whole[:20]


def test_another_seed_draws_otherwise_and_deciding_changes_no_policy():
    for key in ("thompson", "lin_ts", "ucb1"):
        policy, requests = policy_of(key), mixed(60)
        before = [value.copy() for value in policy.state]
        one, other = (list(act(policy, requests, seed=seed)) for seed in (0, 1))
        assert key == "ucb1" or one != other
        for value, old in zip(policy.state, before, strict=True):
            np.testing.assert_array_equal(value, old)


def test_options_are_drawn_with_their_propensities():
    policy = policy_of("exp3")
    decisions = list(act(policy, [Request()] * 20_000))
    chance = {decision.action: decision.propensity for decision in decisions}
    assert sum(chance.values()) == pytest.approx(1.0)
    for name, p in chance.items():
        share = np.mean([decision.action == name for decision in decisions])
        assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / 20_000)  # four looks: once in 10^6


@pytest.mark.parametrize(
    ("key", "own", "ragged", "needed"),
    [
        ("ucb1", True, False, False),
        ("constant_best", True, False, False),
        ("uniform", True, True, False),
        ("lin_ucb", True, False, False),  # where every row offers all, its rows hold the context alone
        ("lin_ucb", True, True, True),
        ("square_cb", True, False, True),
        ("square_cb", True, True, True),
        ("square_cb", False, False, False),
    ],
)
def test_features_of_options_are_asked_for_where_they_are_read(key, own, ragged, needed):
    policy = policy_of(key, own, ragged)
    for options in (None, ["a", "b"]):
        request = Request(context={"age": 3}, options=options)
        if needed:
            with pytest.raises(ValueError, match="request 1: this policy reads features of options: give options as"):
                list(act(policy, [request]))
        else:
            (decision,) = act(policy, [request])
            assert decision.action in (options or ACTIONS)


def test_features_of_options_decide():
    policy = policy_of("square_cb", own=True)
    options = [{name: {"price": price if name == "a" else 0.0} for name in ACTIONS} for price in (0.0, 0.5)]
    chances = []
    for each in options:
        decisions = act(policy, [Request({"age": 40}, each)] * 100)
        chances.append({decision.action: decision.propensity for decision in decisions})
    assert chances[0] != chances[1]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request({"devise": "phone"}), "knows no context column 'devise'; the nearest are 'device'"),
        (Request({"age": 3, "Age": 3}), "knows no context column 'Age'; the nearest are 'age'"),
        (Request({"age": 3, "zip": 8}), "knows no context column 'zip'; the nearest are 'age', 'device'"),
        (Request({}), "its context has none of the 2 columns that the policy reads ('age', 'device')"),
        (Request({"age": "3"}), "age must be a number, as in the log, not '3'"),
        (Request({"age": 10**400}), "age is a number beyond all floats"),
        (Request({"device": ["phone"]}), "device must be a text, a number, true or false, not ['phone']"),
        (Request({"age": 3}, []), "options is empty"),
        (Request({"age": 3}, ["a", "e"]), "the policy has never met the option 'e'"),
        (Request({"age": 3}, ["a", "b", "a"]), "the option 'a' is given more than once"),
    ],
)
def test_what_cannot_be_decided_is_named_when_all_before_it_is_decided(request_, words):
    policy, good = policy_of("lin_ts"), Request({"age": 3})
    whole = list(act(policy, [good] * 3))
    for size in (1, 2, 3, 4096):
        found = []
        with pytest.raises(ValueError, match=r"^request 4: ") as error:
            found.extend(act(policy, [good, good, good, request_, good], size=size))
        assert words in str(error.value)
        decided = act(policy, [good, good, good, request_, good], size=size)
        assert list(itertools.islice(decided, 3)) == whole


def test_features_that_are_none_are_named():
    policy = policy_of("square_cb", own=True)
    for value, words in (([1], "price of the option 'a' must be a text"), (10**400, "beyond all floats")):
        with pytest.raises(ValueError, match="request 1: price of the option 'a'") as error:
            list(act(policy, [Request({"age": 3}, {"a": {"price": value}})]))
        assert words in str(error.value)


def test_unknown_columns_can_be_passed_over_and_stay_in_the_record():
    policy = policy_of("lin_ts")
    more = [Request({**request.context, "zip": "8001"}, request.options) for request in mixed(20)]
    less = [Request(request.context, request.options) for request in mixed(20)]
    found = list(Actor(policy, 0, ignore_unknown=True).decide(enumerate(more, 1)))
    assert [d.action for d in found] == [d.action for d in act(policy, less)]
    assert found[0].context["zip"] == "8001"
    with pytest.raises(ValueError, match="has none of the 2 columns"):
        list(Actor(policy, 0, ignore_unknown=True).decide([(1, Request({"zip": "8001"}))]))


def test_a_policy_that_reads_no_context_needs_none_but_knows_its_columns():
    policy = policy_of("ucb1")
    assert next(act(policy, [Request()])).action in ACTIONS
    with pytest.raises(ValueError, match="'devise'; the nearest are 'device'"):
        list(act(policy, [Request({"devise": "phone"})]))
    without = policy_of("lin_ucb", columns=False)
    assert next(act(without, [Request()])).action in ACTIONS
    with pytest.raises(ValueError, match=r"knows no context column 'age' \(--ignore-unknown"):
        list(act(without, [Request({"age": 3})]))


def test_null_is_a_missing_value_and_counts_as_the_mean():
    policy = policy_of("lin_ucb")
    a, b = act(policy, [Request({"age": None, "device": "phone"}), Request({"age": 30, "device": "phone"})])
    assert (a.action, a.propensity) == (b.action, b.propensity)
    assert next(act(policy, [Request({"age": None, "device": None})])).action in ACTIONS


@pytest.mark.parametrize("key", ["lin_ucb", "lin_ts", "square_cb"])
@pytest.mark.parametrize("age", [1e308, -1e308, 1e200, float("inf"), float("nan")])
def test_numbers_of_any_size_are_decided_or_named(key, age):
    policy = policy_of(key)
    try:
        (decision,) = act(policy, [Request({"age": age})])
    except ValueError as error:
        said = str(error)
        assert said.startswith("request 1: ")
    else:
        assert 0 < decision.propensity <= 1
