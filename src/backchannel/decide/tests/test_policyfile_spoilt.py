"""Policy files with something changed at random: loaded, or refused with a ValueError; never much memory."""

import json
import tracemalloc

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backchannel.decide.acting import act
from backchannel.decide.policyfile import load_policy
from backchannel.decide.tests.test_policyfile import (
    KINDS,
    LITTLE,
    arrays_of,
    facts_of,
    policy_of,
    requests_for,
    write,
)

SHOTS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-2, 70), max_size=5),
    st.lists(st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(-2, 70), max_size=3),
)


def places(value, before=()):
    """Every place in a JSON value, as keys from the top."""
    found = [before] if before else []
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(inner, (*before, key))
    return found


@st.composite
def spoilt(draw):
    """(the policy, its facts with one to three values changed, dropped or added)."""
    policy = policy_of(*draw(st.sampled_from(KINDS)))
    facts = json.loads(json.dumps(facts_of(policy)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(places(facts)))
        inside = facts
        for key in at[:-1]:
            inside = inside[key]
        what = draw(st.sampled_from(["change", "drop", "add"]))
        if what == "change":
            inside[at[-1]] = draw(SHOTS)
        elif what == "drop":
            del inside[at[-1]]
        elif isinstance(inside, dict):
            inside[draw(st.text(max_size=4))] = draw(SHOTS)
        else:
            inside.append(draw(SHOTS))
        if not places(facts):
            break
    return policy, json.dumps(facts)


def loads_or_says_why(path, requests):
    """A policy that decides, or a ValueError; never another error, never much memory."""
    tracemalloc.start()
    try:
        policy = load_policy(path)
    except ValueError as error:
        return str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < LITTLE
    try:
        decisions = list(act(policy, requests))
    except ValueError as error:
        return str(error)
    assert all(0 < decision.propensity <= 1 for decision in decisions)
    return ""


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spoilt())
def test_spoilt_facts_are_refused_or_harmless(tmp_path, spoilt):
    policy, text = spoilt
    write(tmp_path / "a.policy", text, arrays_of(policy))
    loads_or_says_why(tmp_path / "a.policy", requests_for(policy))


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_spoilt_numbers_are_refused_or_harmless(tmp_path, data):
    policy = policy_of(*data.draw(st.sampled_from(KINDS)))
    arrays = {name: value.copy() for name, value in arrays_of(policy).items()}
    name = data.draw(st.sampled_from(sorted(arrays)))
    at = data.draw(st.integers(0, arrays[name].size - 1))
    number = st.floats() if arrays[name].dtype.kind == "f" else st.integers(-(2**63), 2**63 - 1)
    arrays[name].flat[at] = data.draw(number)
    write(tmp_path / "a.policy", json.dumps(facts_of(policy)), arrays)
    said = loads_or_says_why(tmp_path / "a.policy", requests_for(policy))
    assert ("not finite" in said) == (not np.isfinite(arrays[name]).all())


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_spoilt_bytes_are_refused_or_harmless(tmp_path, data):
    policy = policy_of(*data.draw(st.sampled_from(KINDS)))
    path = tmp_path / "a.policy"
    policy.save(path)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        at = max(len(whole) - 1 - at % 700, 0)  # where the directory of the entries lies
    what = data.draw(st.sampled_from(["cut", "change", "insert", "drop"]))
    more = data.draw(st.binary(min_size=1, max_size=8))
    kept = {"cut": b"", "change": more + whole[at + len(more) :], "insert": more + whole[at:], "drop": whole[at + 1 :]}
    path.write_bytes(whole[:at] + kept[what])
    loads_or_says_why(path, requests_for(policy))
