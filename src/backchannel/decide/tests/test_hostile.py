"""Logs that no one would wish for: each gives an honest result, or one sentence that says what is wrong."""

import csv
import math

import msgspec
import numpy as np
import pytest

from backchannel.decide import policies, watch
from backchannel.decide.acting import Request, act
from backchannel.decide.learn import learn
from backchannel.decide.policyfile import load_policy
from backchannel.decide.told import Channel
from backchannel.ledger.read import open_log

ROWS = 200
NAMES = ["constant_best", "thompson", "exp3", "lin_ucb", "lin_ts", "square_cb"]


def write(path, names=("a", "b", "c"), **given):
    """A log of uniform choices, with `given` columns in place of its own."""
    rng = np.random.default_rng(0)
    action = rng.integers(0, len(names), ROWS)
    columns = {
        "action": [names[a] for a in action],
        "reward": rng.integers(0, 2, ROWS).tolist(),
        "propensity": [1 / len(names)] * ROWS,
        **given,
    }
    with open(path / "log.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return open_log(path / "log.csv")


def numbers_of(found):
    if isinstance(found, dict | list):
        for each in found.values() if isinstance(found, dict) else found:
            yield from numbers_of(each)
    elif isinstance(found, float):
        yield found


def some(kinds):
    return [kinds[i % len(kinds)] for i in range(ROWS)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("given", "low", "high"),
    [
        ({"reward": some([1, *[""] * 9])}, 0, 1),  # twenty rewards
        ({"propensity": [1.0] * ROWS}, 0, 1),
        ({"time": ["2020-01-01T00:00:00"] * ROWS}, 0, 1),
        ({"reward": some([1e90, -1e90, 0.0])}, -1e90, 1e90),
        ({"reward": some([1e12, 1e12 + 1, 1e12])}, 1e12, 1e12 + 1),
        ({"reward": [0] * ROWS}, 0, 1),
        ({"context.x": [5.0] * ROWS, "context.c": ["red"] * ROWS}, 0, 1),
        ({"context.x": [""] * ROWS, "context.c": [""] * ROWS}, 0, 1),
        ({"context.x": some([1e120, -1e120, 3.0])}, 0, 1),
        ({"propensity": some([1 / 3, 1e-49, 1 / 3])}, 0, 1),
        ({"action": ["c", *some(["a", "b"])[1:]]}, 0, 1),  # chosen once
    ],
    ids=["rewards missing", "propensity 1", "one time", "huge", "far from zero", "all zero", "constant", "missing",
         "huge numbers", "small propensities", "chosen once"],
)  # fmt: skip
def test_what_is_said_is_finite_and_in_range(tmp_path, given, low, high):
    learned, written = learn(write(tmp_path, **given), NAMES)
    assert all(math.isfinite(number) for number in numbers_of(msgspec.to_builtins(learned)))
    for said in learned.policies:
        assert said.value is None or low <= said.value.low <= said.value.value <= said.value.high <= high
        assert sum(said.shares) == pytest.approx(1.0)
    for policy in written:
        assert all(np.isfinite(value).all() for value in policy.state if value.dtype.kind == "f")
        assert next(act(policy, [Request(context=dict.fromkeys(learned.log.contexts))])).action in learned.log.actions


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"action": ["a"] * ROWS}, "every decision of .*log.csv is 'a': with one option there is nothing to learn"),
        ({"reward": [1] * 19 + [""] * (ROWS - 19)}, "holds 19 decisions with feedback, too few"),
        ({"reward": [1] + [""] * (ROWS - 1)}, "holds 1 decision with feedback, too few"),
        ({"reward": [""] * ROWS}, "200 decisions but no feedback"),
        ({"reward": [7] * ROWS}, "every reward of .*log.csv is 7: there is nothing to learn"),
        ({"reward": some([1e300, -1e300, 0])}, r"lie in \[-1e\+300, 1e\+300\], too far apart to compute with"),
        ({"context.x": some([1e300, -1e300, 3.0])}, "'x' has no finite mean and scale"),
        ({"propensity": [0.5] * 99 + [1e-300] * (ROWS - 99)}, "row 100: a propensity of 1e-300 is too small to divide"),
    ],
)
def test_what_cannot_be_learned_from_is_one_sentence(tmp_path, given, said):
    with pytest.raises(ValueError, match=said) as caught:
        learn(write(tmp_path, **given), ["uniform"])
    assert "\n" not in str(caught.value)


def test_a_delay_needs_times_that_differ(tmp_path):
    log = write(tmp_path, time=["2020-01-01T00:00:00"] * ROWS)
    with pytest.raises(ValueError, match=r"no feedback of .* gets through before it ends \(5s late\)"):
        learn(log, ["uniform"], channel=Channel(delay=5))


def test_names_may_be_anything(tmp_path):
    names = ["a,b", '"quoted"', "line\nbreak", "naïve ☃ 日本", "=1+1", "it's", "<b>x</b>&amp;", "%s {0} \\"]
    learned, written = learn(write(tmp_path, names), ["square_cb", "thompson"])
    assert sorted(learned.log.actions) == sorted(names)
    for policy in written:
        policy.save(tmp_path / "a.policy")
        loaded = load_policy(tmp_path / "a.policy")
        for name in names:
            assert next(act(loaded, [Request(options=[name])])).action == name


def test_matrices_that_would_not_fit_are_left_out_and_said(tmp_path, monkeypatch):
    log = write(tmp_path, **{"context.x": list(range(ROWS))})
    monkeypatch.setattr(policies, "MOST_NUMBERS", 3 * 2**2)
    assert not any("Left out" in said for said in learn(log, NAMES)[0].warnings)
    monkeypatch.setattr(policies, "MOST_NUMBERS", 3 * 2**2 - 1)
    learned, written = learn(log)
    assert {policy.key for policy in written} == set(policies.DEFAULT) - {"lin_ucb", "lin_ts"}
    assert "Left out as too large (3 options with a model of 2 features each): lin_ucb, lin_ts." in learned.warnings
    with pytest.raises(ValueError, match="lin_ts would be too large"):
        learn(log, ["uniform", "lin_ts"])


def test_curves_are_shorter_where_options_are_many(tmp_path, monkeypatch):
    log = write(tmp_path)
    assert learn(log, ["uniform"])[0].policies[0].curve.rows[-1] == ROWS
    monkeypatch.setattr(watch, "CURVE_WORK", 600)
    monkeypatch.setattr(watch, "FEWEST_ROWS", 120)
    assert learn(log, ["uniform"])[0].policies[0].curve.rows[-1] == 200
    monkeypatch.setattr(watch, "CURVE_WORK", 30)
    assert learn(log, ["uniform"])[0].policies[0].curve.rows[-1] == 120
