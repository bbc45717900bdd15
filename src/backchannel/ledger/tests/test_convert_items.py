"""Converting a log whose options have features that never change: who holds them, and who says that it cannot."""

import numpy as np
import pytest

from backchannel.feedback import Decision
from backchannel.ledger.convert import convert
from backchannel.ledger.problems import LogError
from backchannel.ledger.read import open_log
from backchannel.ledger.tests.test_convert import write

ITEMS = {"a": {"size": 2.5, "kind": "hat", "new": True, "lost": None}, "b": {"size": -1.0}, "z": {"size": 9.0}}


def features(log):
    """For each row: what every option that it offers has, of its own and as an item; zeros say nothing."""
    found = []
    for batch in log.batches(1000):
        width = len(log.actions)
        for row in range(len(batch.action)):
            places = range(width) if batch.offered is None else range(*batch.offered[row : row + 2])
            options = {}
            for at in places:
                number = at if batch.option is None else batch.option[at]
                have = set()
                for held, place in (
                    (log.items, number),
                    (batch.features, row * width + at if batch.offered is None else at),
                ):
                    if held is not None:
                        part = slice(held.start[place], held.start[place + 1])
                        have |= set(zip(held.key[part].tolist(), held.value[part].tolist(), strict=True))
                options[log.actions[number]] = {(key, value) for key, value in have if value}
            found.append(options)
    return found


def write_choices(path):
    """Decisions that offer all options, some of them, and with features of their own."""
    log = [
        (Decision("1", "a", ["a", "b"], {"x": 1.0}, 0.5), 1.0),
        (Decision("2", "b", ["b"], {"x": 2.0}, 0.5), 0.0),
        (Decision("3", "c", {"c": {"mine": 4.0}, "a": {"mine": 2.0}}, {"x": 2.0}, 0.5), 0.5),
    ]
    write(path, log)


@pytest.mark.parametrize("target", ["b.jsonl", "b.vw"])
def test_limit_items_become_features_of_every_offered_option(tmp_path, target):
    write_choices(tmp_path / "a.jsonl")
    said = convert(tmp_path / "a.jsonl", tmp_path / target, {"b.vw": "vw-adf"}.get(target), items=ITEMS)
    assert said == []
    ours, theirs = open_log(tmp_path / "a.jsonl", items=ITEMS), open_log(tmp_path / target)
    assert features(theirs) == features(ours)
    assert len(features(ours)[0]["a"]) == 3
    assert theirs.items is None


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_limit_tables_hold_the_numbers_of_items(tmp_path, suffix):
    write_choices(tmp_path / "a.jsonl")
    said = convert(tmp_path / "a.jsonl", tmp_path / f"b.{suffix}", items=ITEMS)
    assert said == [
        "a table holds numbers of items, not their text: left out 'kind', 'new'; jsonl and vw-adf hold them"
    ]
    numbers = {name: {"size": each["size"]} for name, each in ITEMS.items()}
    ours, theirs = open_log(tmp_path / "a.jsonl", items=numbers), open_log(tmp_path / f"b.{suffix}")
    assert features(theirs) == features(ours)


def test_limit_lines_and_open_bandit_name_the_items_features_that_they_leave_out(tmp_path):
    write_choices(tmp_path / "a.jsonl")
    left = "left out 'size', 'kind', 'new'; jsonl and vw-adf hold them"
    for target, format in (("b.vw", "vw"), ("b.csv", "open-bandit")):
        said = convert(tmp_path / "a.jsonl", tmp_path / target, format, items=ITEMS)
        assert len([each for each in said if each.endswith(left)]) == 1
    (tmp_path / "items.csv").write_text("action,size\na,2\n")
    said = convert(tmp_path / "a.jsonl", tmp_path / "b.vw", items=tmp_path / "items.csv")
    assert any("cannot hold features of items: left out 'size'" in each for each in said)


@pytest.mark.parametrize("target", ["b.jsonl", "b.vw", "b.csv"])
def test_limit_a_rows_own_feature_comes_before_the_items(tmp_path, target):
    write_choices(tmp_path / "a.jsonl")
    items = {"a": {"mine": 7.0}, "b": {"mine": 8.0}}
    said = convert(tmp_path / "a.jsonl", tmp_path / target, {"b.vw": "vw-adf"}.get(target), items=items)
    assert said == ["features both of rows and of items: a row's own are written, of 'mine'"]
    found = features(open_log(tmp_path / target))
    assert [{name: [value for _, value in have] for name, have in row.items()} for row in found] == [
        {"a": [7.0], "b": [8.0]}, {"b": [8.0]}, {"c": [4.0], "a": [2.0]}
    ]  # fmt: skip


def test_limit_an_infinite_feature_of_an_item_is_refused(tmp_path):
    write_choices(tmp_path / "a.jsonl")
    with pytest.raises(LogError, match="the item 'a' has the feature 'size' of inf: expected a finite number"):
        convert(tmp_path / "a.jsonl", tmp_path / "b.vw", "vw-adf", items={"a": {"size": np.inf}})


def test_limit_the_packaged_log_keeps_its_items_in_blocks(tmp_path):
    said = convert("open-bandit", tmp_path / "b.vw", "vw-adf")
    assert not any("left out" in each for each in said)
    ours, theirs = open_log("open-bandit"), open_log(tmp_path / "b.vw")
    assert ours.items is not None
    (one,), (other,) = ours.batches(10_000), theirs.batches(10_000)
    assert ours.actions == theirs.actions
    np.testing.assert_array_equal(one.action, other.action)
    np.testing.assert_array_equal(one.reward, other.reward)
    np.testing.assert_array_equal(one.categories, other.categories)
    items, own, held = ours.items, one.features, other.features
    assert own is not None
    assert held is not None
    cell = np.repeat(np.arange(len(held.start) - 1), np.diff(held.start))
    own_cell = np.repeat(np.arange(len(own.start) - 1), np.diff(own.start))
    item = np.repeat(np.arange(80), np.diff(items.start))
    expected = np.concatenate([own_cell, (np.arange(10_000)[:, None] * 80 + item).ravel()])
    keys = np.concatenate([own.key, np.tile(items.key, 10_000)])
    values = np.concatenate([own.value, np.tile(items.value, 10_000)])
    order, theirs_order = np.lexsort((keys, expected)), np.lexsort((held.key, cell))
    np.testing.assert_array_equal(cell[theirs_order], expected[order])
    np.testing.assert_array_equal(held.key[theirs_order], keys[order])
    np.testing.assert_array_equal(held.value[theirs_order], values[order])
