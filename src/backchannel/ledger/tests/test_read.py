"""Opening logs: every format against values known by hand, and against each other."""

import gzip
import io
import os
import sys

import duckdb
import numpy as np

from backchannel.feedback import Decision, Feedback, encode
from backchannel.ledger.columns import Columns
from backchannel.ledger.log import key_of
from backchannel.ledger.read import open_log

CSV = """action,reward,propensity,time,position,context.age,context.city
red,1,0.5,2024-01-01T00:00:00,1,31,Paris
blue,,0.25,2024-01-01 02:00:01+02:00,2,,Rome
10,-2.5,1,1704067202,,40.5,
"""


def only(log):
    (batch,) = log.batches()
    return batch


def same(one, other, but=()):
    """Two logs hold the same, whatever their rows are called."""
    assert (one.actions, one.numeric, one.categorical) == (other.actions, other.numeric, other.categorical)
    assert (one.has_time, one.has_propensity) == (other.has_time, other.has_propensity)
    a, b = only(one), only(other)
    for name in ("action", "reward", "propensity", "time", "feedback_time", "position", "numbers", "categories"):
        if name not in but:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in ("offered", "option"):
        assert (getattr(a, name) is None) == (getattr(b, name) is None), name
        if getattr(a, name) is not None:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.features is None) == (b.features is None)
    if a.features is not None:
        alike = all(np.array_equal(x, y) for x, y in zip(a.features, b.features, strict=True))
        assert alike or feature_sets(a.features) == feature_sets(b.features)


def feature_sets(options):
    bounds = zip(options.start[:-1], options.start[1:], strict=True)
    return [set(zip(options.key[i:j].tolist(), options.value[i:j].tolist(), strict=True)) for i, j in bounds]


def test_known_csv_by_hand(tmp_path):
    (tmp_path / "log.csv").write_text(CSV)
    log = open_log(tmp_path / "log.csv")
    assert (log.rows, log.actions) == (3, ["10", "blue", "red"])
    assert (log.numeric, log.categorical) == (["age"], ["city"])
    assert log.has_time
    assert log.has_propensity
    batch = only(log)
    np.testing.assert_array_equal(batch.row, [1, 2, 3])
    np.testing.assert_array_equal(batch.action, [2, 1, 0])
    np.testing.assert_array_equal(batch.reward, [1, np.nan, -2.5])
    np.testing.assert_array_equal(batch.propensity, [0.5, 0.25, 1])
    np.testing.assert_array_equal(batch.time, [1704067200, 1704067201, 1704067202])
    np.testing.assert_array_equal(batch.position, [1, 2, 0])
    np.testing.assert_array_equal(batch.numbers, [[31], [np.nan], [40.5]])
    np.testing.assert_array_equal(batch.categories[:, 0], [key_of("city", "Paris"), key_of("city", "Rome"), 0])
    assert batch.offered is batch.option is batch.features is None


def test_known_sources_are_alike(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text(CSV)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    (tmp_path / "log.tsv").write_text(CSV.replace(",", "\t"))
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode())
    (tmp_path / "[odd] name*.csv").write_text(CSV)
    (tmp_path / "mixed.csv").write_bytes(CSV.replace("\n", "\r\n", 2).encode())
    (tmp_path / "old.csv").write_bytes(CSV.replace("\n", "\r").encode())
    plain = open_log(tmp_path / "log.csv")
    for name in ("log.csv.gz", "log.tsv", "bom.csv", "[odd] name*.csv", "mixed.csv", "old.csv"):
        same(plain, open_log(tmp_path / name))

    class Input:
        buffer = io.BytesIO(CSV.encode())

    monkeypatch.setattr(sys, "stdin", Input)
    same(plain, open_log("-"))


def test_known_glob_reads_all_files(tmp_path):
    lines = CSV.splitlines(keepends=True)
    (tmp_path / "a.csv").write_text("".join(lines[:2]))
    (tmp_path / "b.csv").write_text(lines[0] + "".join(lines[2:]))
    (tmp_path / "whole.txt").write_text(CSV)
    log = open_log(tmp_path / "*.csv")
    same(log, open_log(tmp_path / "whole.txt"))
    np.testing.assert_array_equal(only(log).row, [1, 1, 2])


def test_known_column_map_and_patterns(tmp_path):
    (tmp_path / "log.csv").write_text(
        'item,click,p,u_age,u_zip,s_1,s_2,offers,other\n1,0,0.5,30,01234,0.5,0,1|2,x\n2,1,0.5,31,99,7,2,"[""2""]",y\n'
    )
    columns = Columns(
        action="item",
        reward="click",
        propensity="p",
        context=("u_*",),
        categories=("u_zip",),
        options="offers",
        option_features={"score": "s_*"},
    )
    log = open_log(tmp_path / "log.csv", columns=columns)
    assert (log.numeric, log.categorical) == (["u_age"], ["u_zip"])
    assert log.notes == ["1 column is not used: 'other'"]
    batch = only(log)
    assert batch.categories[0, 0] == key_of("u_zip", "01234")
    np.testing.assert_array_equal(batch.offered, [0, 2, 3])
    np.testing.assert_array_equal(batch.option, [0, 1, 1])
    key = key_of("score")
    assert feature_sets(batch.features) == [{(key, 0.5)}, set(), {(key, 2.0)}]


def test_known_parquet_types(tmp_path):
    path = tmp_path / "log.parquet"
    duckdb.sql(
        "SELECT 3.0::DOUBLE AS action, true AS reward, TIMESTAMP '2024-01-01' AS time, 1.5::DECIMAL(4, 2) AS "
        "\"context.n\", false AS \"context.b\", ['3', 'x'] AS options, DATE '2024-01-02' AS \"context.d\" "
        "UNION ALL SELECT 3, NULL, TIMESTAMP '2024-01-02', NULL, NULL, NULL, NULL"
    ).write_parquet(str(path))
    log = open_log(path)
    batch = only(log)
    assert log.actions == ["3", "x"]
    assert (log.numeric, log.categorical) == (["n"], ["b", "d"])
    np.testing.assert_array_equal(batch.reward, [1, np.nan])
    np.testing.assert_array_equal(batch.time, [1704067200, 1704153600])
    np.testing.assert_array_equal(batch.numbers[:, 0], [1.5, np.nan])
    np.testing.assert_array_equal(batch.categories, [[key_of("b", "false"), key_of("d", "2024-01-02")], [0, 0]])
    np.testing.assert_array_equal(batch.option, [0, 1, 0, 1])


def write(path, *records):
    path.write_bytes(b"\n".join(map(encode, records)))
    return path


def test_known_native_join_by_hand(tmp_path):
    records = [
        Feedback("f1", "d1", "reward", 1.0, time=11.0),
        Decision("d2", "c", None, {"age": None, "ok": None, "city": "Rome"}, None, 5.0),
        Decision("d3", "a", ["a", "c"], {"age": None, "ok": None, "city": None}, None, 7.0, shown=False),
        Decision(
            "d1",
            "b",
            {"a": {"x": 1.0}, "b": {"x": 2, "c": "red", "z": 0}},
            {"age": 3, "ok": True, "city": None},
            0.5,
            10,
        ),
        Feedback("f2", "d1", "reward", 2.5, time=15.0),
        Feedback("f3", "d2", "reward", 7.0),
        Feedback("f4", "d2", "retraction", "f3"),
        Feedback("f5", "d2", "critique", "no"),
    ]
    (tmp_path / "log.jsonl").write_bytes(b"\n\n".join(map(encode, records)))
    log = open_log(tmp_path / "log.jsonl")
    assert (log.rows, log.actions) == (2, ["a", "b", "c"])
    assert (log.numeric, log.categorical) == (["age"], ["city", "ok"])
    batch = only(log)
    np.testing.assert_array_equal(batch.row, [3, 7])
    np.testing.assert_array_equal(batch.action, [2, 1])
    np.testing.assert_array_equal(batch.reward, [np.nan, 3.5])
    np.testing.assert_array_equal(batch.feedback_time, [np.nan, 15])
    np.testing.assert_array_equal(batch.propensity, [np.nan, 0.5])
    np.testing.assert_array_equal(batch.categories, [[key_of("city", "Rome"), 0], [0, key_of("ok", "true")]])
    np.testing.assert_array_equal(batch.offered, [0, 3, 5])
    np.testing.assert_array_equal(batch.option, [0, 1, 2, 0, 1])
    x, red = key_of("x"), key_of("c", "red")
    assert feature_sets(batch.features) == [set(), set(), set(), {(x, 1.0)}, {(x, 2.0), (red, 1.0)}]
    assert log.notes == [
        "1 feedback of kind 'critique' left out: no reward",
        "1 reward was taken back",
        "the rewards of 1 decision with more than one are added up",
        "1 decision that nobody saw left out",
        "1 row has no propensity",
    ]


def test_known_columns_that_are_never_known_are_categories(tmp_path):
    log = open_log(
        write(
            tmp_path / "log.jsonl",
            Decision("d", "a", None, {"x": None, "y": 1}),
            Decision("e", "b", None, {"y": 2, "x": None}),
        )
    )
    assert (log.numeric, log.categorical) == (["y"], ["x"])
    assert only(log).categories.tolist() == [[0], [0]]


def test_limit_batches_of_any_size_are_the_whole(tmp_path):
    rng = np.random.default_rng(5)
    lines = []
    for index in range(60):
        options = [f"o{j}" for j in rng.permutation(6)[: rng.integers(1, 6)]]
        features = {option: {"f": float(rng.integers(0, 3)), "g": f"v{rng.integers(3)}"} for option in options}
        decision = Decision(f"d{index}", options[0], features, {"x": rng.random(), "c": f"v{rng.integers(4)}"}, 0.5)
        decision.time = float(index % 20 // 2)
        lines += [encode(decision), encode(Feedback(f"f{index}", f"d{index}", "reward", rng.random()))]
    for part in range(3):  # which overlap in time, so that rows do not lie in the order of reading
        (tmp_path / f"{part}.jsonl").write_bytes(b"\n".join(lines[40 * part : 40 * part + 40]))
    log = open_log(tmp_path / "*.jsonl")
    whole = only(log)
    assert np.all(np.diff(whole.time) >= 0)
    for size in (1, 7, 59, 60):
        parts = list(log.batches(size))
        assert max(len(part.row) for part in parts) <= size
        for name in ("row", "action", "reward", "numbers", "categories", "option"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            np.testing.assert_array_equal(joined, getattr(whole, name))
        offers = np.concatenate([np.diff(part.offered) for part in parts])
        np.testing.assert_array_equal(offers, np.diff(whole.offered))
        features = [each for part in parts for each in feature_sets(part.features)]
        assert features == feature_sets(whole.features)


def test_known_vowpal_wabbit_lines(tmp_path):
    # The wiki's example of logged contextual-bandit data, with namespaces, scales, a tag and other actions.
    (tmp_path / "log.vw").write_text(
        "1:2:0.4 | a c\n3:0.5:0.2 'id7 |u:2 b:3 city=Rome |v d\n4 2:1.5 | a:0.5 a:1\n1 | test\n"
    )
    log = open_log(tmp_path / "log.vw")
    batch = only(log)
    assert (log.actions, log.numeric, log.categorical) == (
        ["1", "2", "3", "4"],
        ["a", "c", "u^b", "v^d"],
        ["u^city"],
    )
    np.testing.assert_array_equal(batch.action, [0, 2, 1])
    np.testing.assert_array_equal(batch.reward, [-2, -0.5, -1.5])
    np.testing.assert_array_equal(batch.propensity, [0.4, 0.2, np.nan])
    np.testing.assert_array_equal(batch.numbers, [[1, 1, 0, 0], [0, 0, 6, 1], [1.5, 0, 0, 0]])
    np.testing.assert_array_equal(batch.categories[:, 0], [0, key_of("u^city", "Rome"), 0])
    np.testing.assert_array_equal(batch.offered, [0, 4, 8, 10])
    np.testing.assert_array_equal(batch.option[8:], [3, 1])
    assert "1 example has no label; left out" in log.notes


def test_known_vowpal_wabbit_blocks(tmp_path):
    (tmp_path / "log.dat").write_text(
        "shared | a:0.5 b:1\n0:0.1:0.75 | x:1\n| x:2 y\n\n\nshared |\n| x\n'two|\n0:-1:0.5 'three |z:3\n\n| only\n\n"
    )
    log = open_log(tmp_path / "log.dat")
    batch = only(log)
    np.testing.assert_array_equal(batch.row, [1, 6])
    assert log.actions == ["0", "1", "three", "two"]
    assert [log.actions[i] for i in batch.option] == ["0", "1", "0", "two", "three"]
    assert [log.actions[i] for i in batch.action] == ["0", "three"]
    np.testing.assert_array_equal(batch.reward, [-0.1, 1])
    x, y = key_of("x"), key_of("y")
    assert feature_sets(batch.features) == [{(x, 1.0)}, {(x, 2.0), (y, 1.0)}, {(x, 1.0)}, set(), set()]
    assert "1 example has no label; left out" in log.notes


def test_known_progress_reaches_the_end(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(encode(Decision("d", "a")) + b"\n")
    (tmp_path / "log.csv").write_text(CSV)
    for name in ("log.jsonl", "log.csv"):
        seen = []
        open_log(tmp_path / name, progress=seen.append)
        assert seen
        assert seen == sorted(seen)
        assert seen[-1] == 1.0


def test_limit_memory_is_given_back(tmp_path):
    (tmp_path / "log.csv").write_text(CSV)
    log = open_log(tmp_path / "log.csv")
    folder = log._store.folder
    assert os.path.isdir(folder)
    log.close()
    assert not os.path.exists(folder)
