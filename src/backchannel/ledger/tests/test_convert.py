"""Converting: what goes there and back is the same, but for what was said to be lost."""

import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.feedback import Decision, Feedback, decode, encode
from backchannel.ledger.convert import convert
from backchannel.ledger.problems import LogError
from backchannel.ledger.read import open_log
from backchannel.ledger.tests.test_read import CSV, only, same

# Names with everything that quoting, escaping and hashing may stumble over; no surrogates, which UTF-8 cannot write.
NAMES = st.text(st.sampled_from("ab 0.,;|:='\"%^~/\\\n\r\té\x00#[{"), min_size=1, max_size=4)
PLAIN = st.text(st.sampled_from("abcxyz019_.é"), min_size=1, max_size=4)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64).map(lambda x: x + 0.0)
REWARDS = st.one_of(st.none(), NUMBERS)


@st.composite
def logs(draw, names=NAMES, features="none", rewards=REWARDS, details=True):
    """Decisions of one log, each with its reward or None; context kinds and the presence of times are consistent."""
    actions = draw(st.lists(names, min_size=2, max_size=4, unique_by=str.lower))
    numeric = draw(st.lists(names, max_size=2, unique_by=str.lower))
    taken = {name.lower() for name in numeric}
    text = [name for name in draw(st.lists(names, max_size=2, unique_by=str.lower)) if name.lower() not in taken]
    timed = draw(st.booleans())
    found = []
    for index in range(draw(st.integers(1, 4))):
        context = {name: draw(st.one_of(st.none(), NUMBERS)) for name in numeric}
        context |= {name: draw(st.one_of(st.none(), names)) for name in text}
        options = None
        if features != "none":
            offered = [action for action in actions if draw(st.booleans())] or actions[:1]
            options = {action: {} for action in offered}
            for action in offered:
                if draw(st.booleans()):
                    options[action]["f"] = draw(NUMBERS.filter(bool))
                if features == "all" and draw(st.booleans()):
                    options[action]["g"] = draw(names)
        decision = Decision(
            id=f"d{index}",
            action=draw(st.sampled_from(list(options or actions))),
            options=options,
            context=context,
            propensity=draw(st.one_of(st.none(), st.floats(0, 1, exclude_min=True))),
            time=float(index) if timed else None,
        )
        if details:
            decision.policy = draw(st.one_of(st.none(), names))
            decision.version = draw(st.one_of(st.none(), st.integers(0, 10**6)))
            decision.position = draw(st.one_of(st.none(), st.integers(1, 9)))
            decision.shown = draw(st.booleans())
        found.append((decision, draw(rewards)))
    return found


def write(path, log):
    lines = []
    for decision, reward in log:
        lines.append(encode(decision))
        if reward is not None:
            time = None if decision.time is None else decision.time + 0.5
            lines.append(encode(Feedback(f"{decision.id}/reward", decision.id, "reward", reward, time)))
    path.write_bytes(b"\n".join(lines) + b"\n")


def read(path):
    """The records of a native log, without what says the same in another way (line ends within a cell, for one)."""
    found = [decode(line.replace(rb"\r\n", rb"\n")) for line in path.read_bytes().splitlines()]
    for record in found:
        if isinstance(record, Decision):
            record.context = {name: value for name, value in record.context.items() if value is not None}
            if isinstance(record.options, dict) and not any(record.options.values()):
                record.options = list(record.options)
    return sorted(found, key=lambda record: (record.id, isinstance(record, Feedback)))


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
@settings(max_examples=8, deadline=None)
@given(log=st.one_of(logs(), logs(features="numbers")))
def test_limit_native_to_table_and_back_is_the_identity(suffix, log):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "a.jsonl", log)
        said = convert(folder / "a.jsonl", folder / f"b.{suffix}")
        assert not [each for each in said if "backwards" not in each]
        convert(folder / f"b.{suffix}", folder / "c.jsonl")
        assert read(folder / "c.jsonl") == read(folder / "a.jsonl")
        if all(decision.shown for decision, _ in log):
            same(open_log(folder / "a.jsonl"), open_log(folder / f"b.{suffix}"))


@settings(max_examples=12, deadline=None)
@given(log=logs(names=PLAIN, features="all", rewards=NUMBERS, details=False))
def test_limit_native_to_blocks_and_back_keeps_all_but_times(log):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "a.jsonl", log)
        said = convert(folder / "a.jsonl", folder / "b.vw", "vw-adf")
        timed = log[0][0].time is not None
        missing = any("missing numbers" in each for each in said)
        expected = 2 * timed + missing
        assert len([each for each in said if "backwards" not in each]) == expected
        convert(folder / "b.vw", folder / "c.jsonl", source_format="vw-adf")
        ours, theirs = read(folder / "a.jsonl"), read(folder / "c.jsonl")
        names = {name for decision, _ in log for name, value in decision.context.items() if isinstance(value, float)}
        for record in ours:
            record.time = None
            if isinstance(record, Decision):
                record.context = dict.fromkeys(names, 0.0) | record.context
        for record in theirs:
            if isinstance(record, Decision) and isinstance(record.options, dict):
                record.options = {name: dict(features) for name, features in record.options.items()}
        assert theirs == ours


@settings(max_examples=12, deadline=None)
@given(log=logs(rewards=NUMBERS, details=False))
def test_limit_lines_keep_what_they_can_hold(log):
    # Any names: they come back escaped, and actions as numbers, so that the arrays are compared.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "a.jsonl", log)
        convert(folder / "a.jsonl", folder / "b.vw")
        one, other = open_log(folder / "a.jsonl"), open_log(folder / "b.vw", format="vw")
        a, b = only(one), only(other)
        np.testing.assert_array_equal(a.reward, b.reward)
        np.testing.assert_array_equal(a.propensity, b.propensity)
        np.testing.assert_array_equal(
            np.unique(a.action, return_inverse=True)[1], np.unique(b.action, return_inverse=True)[1]
        )
        told = np.count_nonzero(a.categories.any(axis=0))  # a column that is never known is not written
        assert (len(one.numeric), told) == (len(other.numeric), len(other.categorical))
        np.testing.assert_array_equal(np.sort(np.nan_to_num(a.numbers)), np.sort(b.numbers))
        assert (a.categories != 0).sum() == (b.categories != 0).sum()


def test_known_text_of_each_format(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    said = convert(tmp_path / "a.csv", tmp_path / "a.vw")
    assert (tmp_path / "a.vw").read_text() == "3:-1.0:0.5 | age:31.0 city=Paris\n1:2.5:1.0 | age:40.5\n"
    for part in ("times: 3 rows", "positions: 2 rows", "1 decision without feedback", "1 = 10, 2 = blue, 3 = red",
                 "missing numbers"):  # fmt: skip
        assert any(part in each for each in said), said
    convert(tmp_path / "a.csv", tmp_path / "b.vw", "vw-adf")
    block = "shared | age:31.0 city=Paris\n'10|\n'blue|\n0:-1.0:0.5 'red|\n\n"
    assert (tmp_path / "b.vw").read_text().startswith(block)
    assert "decisions are numbered, since there are no ids" in convert(tmp_path / "a.csv", tmp_path / "a.jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert lines[0] == (
        '{"record":"decision","id":"1","action":"red","context":{"age":31.0,"city":"Paris"},"propensity":0.5,'
        '"time":1704067200.0,"position":1}'
    )
    assert len(lines) == 5
    convert(tmp_path / "a.csv", tmp_path / "a.csv.gz")
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).startswith(b"action,reward,propensity,time,position,")
    same(open_log(tmp_path / "a.csv"), open_log(tmp_path / "a.csv.gz"))
    same(open_log(tmp_path / "a.csv"), open_log(tmp_path / "a.jsonl"))


def test_known_open_bandit_there_and_back(tmp_path):
    said = convert("open-bandit", tmp_path / "a.csv", "open-bandit", logged_by="bts")[1:]
    assert len(said) == 1
    assert "features of items in another file, item_context.csv: left out 'item_feature_0', " in said[0]
    ours, theirs = open_log("open-bandit", logged_by="bts"), open_log(tmp_path / "a.csv")
    same(ours, theirs)
    convert(tmp_path / "a.csv", tmp_path / "a.parquet")
    convert(tmp_path / "a.parquet", tmp_path / "b.csv", "open-bandit")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_known_open_bandit_names_what_it_cannot_hold(tmp_path):
    decision = Decision("d", "red", {"red": {"affinity": 2.0, "x": 1.0}, "blue": {}}, {"age": 3, "city": "Rome"}, 0.5)
    decision.policy, decision.shown = "p", False
    write(tmp_path / "a.jsonl", [(decision, 1.0)])
    said = " / ".join(convert(tmp_path / "a.jsonl", tmp_path / "b.csv", "open-bandit"))
    for part in ("column for the id", "column for the policy", "nobody saw", "which options", "left out 'age'",
                 "items are numbered: 0 = blue, 1 = red", "1 is written", "'city' is written as 'user_feature_0'",
                 "affinity only: left out 'x'"):  # fmt: skip
        assert part in said
    batch = only(open_log(tmp_path / "b.csv"))
    assert (batch.action[0], batch.reward[0], batch.propensity[0], batch.position[0]) == (1, 1, 0.5, 1)
    assert batch.features.value.tolist() == [2.0]


def test_known_native_copy_keeps_every_record(tmp_path):
    records = [
        Decision("d", ["a", "b"]),
        Feedback("f", "d", "critique", "no", source="me"),
        Feedback("g", "d", "rating", 3),
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(map(encode, records)))
    assert convert(tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz") == ["3 records were copied as they are"]
    assert [decode(line) for line in gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()).splitlines()] == records


def test_known_losses_of_tables_and_lines(tmp_path):
    decision = Decision("d", "a", {"a": {"t": "red", "f.g": 1.5}, "b": {}}, {"ok": True})
    write(tmp_path / "a.jsonl", [(decision, 1.0)])
    more = Feedback("more", "d", "reward", 2.0)
    with open(tmp_path / "a.jsonl", "ab") as file:
        file.write(encode(more) + b"\n" + encode(Feedback("no", "d", "critique", "x")) + b"\n")
    said = " / ".join(convert(tmp_path / "a.jsonl", tmp_path / "a.csv"))
    assert "left out what is text in 't'" in said
    assert "1 decision with more than one are added up" in said
    assert "kind 'critique' left out" in said
    convert(tmp_path / "a.csv", tmp_path / "b.jsonl")
    back = read(tmp_path / "b.jsonl")
    assert back[0].options == {"a": {"f.g": 1.5}, "b": {}}
    assert back[0].context == {"ok": True}
    assert back[1].value == 3.0
    said = " / ".join(convert(tmp_path / "a.jsonl", tmp_path / "a.vw"))
    assert "cannot hold features of options: 1 row has them; vw-adf can" in said


def test_known_names_alike_in_parquet(tmp_path):
    write(tmp_path / "a.jsonl", [(Decision("d", "a", None, {"X": 1.0, "x": 2.0}), 1.0)])
    with pytest.raises(LogError, match="differ in case alone"):
        convert(tmp_path / "a.jsonl", tmp_path / "a.parquet")
    assert convert(tmp_path / "a.jsonl", tmp_path / "a.csv") == []
    assert only(open_log(tmp_path / "a.csv")).numbers.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("decision", "first", "text"),
    [
        (Decision("1", "a", None, {"x y": 1.0}), "x y", "x%20y:1.0"),
        (Decision("1", "a", None, {"city": "New York"}), "New York", "city=New%20York"),
        (Decision("1", "a", None, {"k=": "v"}), "k=", "k%3D=v"),
        (Decision("1:2", "a"), "1:2", "'1%3A2|"),
        (Decision("1", "a|b"), "a|b", "0:-1.0 'a%7Cb|"),
        (Decision("1", "a", None, {"k": "v=w", "n=": 2.0}), None, "n=:2.0 k=v=w"),
    ],
)
def test_known_what_vowpal_wabbit_cannot_spell_is_encoded_and_said(tmp_path, decision, first, text):
    write(tmp_path / "a.jsonl", [(decision, 1.0)])
    said = [each for each in convert(tmp_path / "a.jsonl", tmp_path / "b.vw", "vw-adf") if "encoded" in each]
    assert text in (tmp_path / "b.vw").read_text()
    convert(tmp_path / "b.vw", tmp_path / "c.jsonl")
    assert ("%" in (tmp_path / "c.jsonl").read_text()) == bool(first)
    if first is None:
        assert said == []
    else:
        assert said == [
            "names and texts with spaces, bars, colons, percent or equals signs are percent-encoded, such as "
            f"{first!r}, and stay so when they are read: Vowpal Wabbit has no such encoding"
        ]
