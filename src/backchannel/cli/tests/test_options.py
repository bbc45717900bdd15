"""Options that mean nothing where they are given are refused, in one sentence and before any work."""

import json

import pytest

from backchannel.cli import act
from backchannel.cli.tests.test_commands import CSV, ROWS, call

assert act  # registers its command


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "log.csv").write_text(CSV + ROWS)
    (tmp_path / "log.vw").write_text("1:-1:0.5 | a\n2:0:0.5 | b\n" * 30)
    return tmp_path


MAP = ["--action", "action", "--reward", "reward"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["log.csv", "--logged-by", "random"], "--logged-by is for open-bandit, digits and replayed tables, not for"),
        (["log.csv", "--label", "reward"], "--label needs --replay-supervised"),
        (["digits", "--label", "digit"], "--label needs --replay-supervised"),
        (["digits", "--format", "csv"], "--format is for a log of decisions; digits is none"),
        (["digits", "--items", "items.csv"], "--items is for a log of decisions; digits is none"),
        (["digits", *MAP], "--action is for a log of decisions; digits is none"),
        (["digits", "--skip-bad-rows", "1"], "--skip-bad-rows is for a log of decisions; digits is none"),
        (
            ["--replay-supervised", "log.csv", "--label", "action", *MAP],
            "--action is for a log of decisions",
        ),
        (["log.vw", *MAP], "a column map is for tables; "),
        (["open-bandit", *MAP], "the packaged open-bandit takes no column map"),
        (["open-bandit", "--format", "csv"], "the packaged open-bandit takes no format"),
        (["log.csv", *MAP, "--category", "age"], "no column 'age' to be a category; there are none"),
        (["log.csv", "--seed", "-1"], "--seed"),
        (["log.csv", "--skip-bad-rows", "-1"], "'--skip-bad-rows'"),
        (["log.csv", "--format", "tsv"], "--format must be one of jsonl, csv, parquet, vw, vw-adf, not 'tsv'"),
        (["open-bandit", "--logged-by", "foo"], "--logged-by must be one of random, bts, not 'foo'"),
        (["digits", "--logged-by", "bts"], "--logged-by must be one of uniform, stale, not 'bts'"),
        (["log.csv", "--delay", "30m"], "--delay 30m is a time, but the log has no times: name their column with --ti"),
        (["log.csv", "--delay", "60"], "the log has no times (--time names their column), so that --delay 60 counts"),
    ],
)
def test_learn_refuses_what_does_not_apply(folder, monkeypatch, arguments, words):
    monkeypatch.chdir(folder)
    code, _, said = call("learn", *arguments, "--out", "out")
    assert code == 2
    assert words in said
    assert not list(folder.glob("out/*"))


def test_seeds_are_not_negative(folder):
    for arguments in (["act", "--policy", folder / "x.policy"], ["claim", "hedge"], ["learn", folder / "log.csv"]):
        code, _, said = call(*arguments, "--seed", -1)
        assert code == 2
        assert "--seed" in said


def test_convert_refuses_what_does_not_apply(folder):
    for arguments, words in (
        (["log.csv", "--logged-by", "bts"], "--logged-by is for open-bandit, not for"),
        (["log.vw", *MAP], "a column map is for tables"),
        (["log.csv", "--skip-bad-rows", "-1"], "'--skip-bad-rows'"),
        (["log.csv", "--from", "tsv"], "--from must be one of jsonl, csv"),
        (["log.csv", "--to", "tsv"], "--to must be one of jsonl, csv"),
    ):
        code, _, said = call("convert", folder / arguments[0], folder / "b.jsonl", *arguments[1:])
        assert code == 2
        assert words in said
        assert not (folder / "b.jsonl").exists()


def test_the_map_of_a_log_is_not_that_of_another_log_which_needs_none(folder):
    (folder / "named.csv").write_text((CSV + ROWS).replace("action,reward", "what,got"))
    (folder / "log.vw").write_text("shared |\n0:-1:0.5 'a|\n'b|\n\nshared |\n'a|\n0:0:0.5 'b|\n\n" * 30)
    columns = ["--action", "what", "--reward", "got", "--propensity", "propensity", "--policy", "uniform"]
    code, out, said = call(
        "learn", folder / "named.csv", *columns, "--against", folder / "log.vw", "--out", folder / "out", "--json"
    )
    assert code == 0, said
    assert len(json.loads(out)["against"]) == 1


def test_learn_sees_the_items_of_a_converted_log(tmp_path):
    rows = "".join(f"{'abc'[i % 3]},{int(i % 3 == 1 or i % 7 == 0)},{1 / 3},{i % 5}\n" for i in range(300))
    (tmp_path / "log.csv").write_text("action,reward,propensity,context.age\n" + rows)
    (tmp_path / "items.csv").write_text("action,size,kind\na,1.5,hat\nb,-2,shoe\nc,0.5,hat\n")
    items = ["--items", tmp_path / "items.csv"]
    code, out, said = call("convert", tmp_path / "log.csv", tmp_path / "log.vw", "--to", "vw-adf", *items, "--json")
    assert (code, json.loads(out)["notes"]) == (0, []), said
    values = []
    for arguments in ([tmp_path / "log.csv", *items], [tmp_path / "log.vw"], [tmp_path / "log.csv"]):
        code, out, said = call("learn", *arguments, "--policy", "square_cb", "--out", tmp_path / "out", "--json")
        assert code == 0, said
        values.append(json.loads(out)["policies"][0]["value"]["value"])
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert values[0] != pytest.approx(values[2], rel=1e-6)


def test_what_a_channel_means_for_the_log_is_noted(folder):
    arguments = ["learn", folder / "log.csv", "--policy", "ucb1", "--out", folder / "out", "--json"]
    notes = json.loads(call(*arguments, "--delay", 9, "--budget", 61)[1])["log"]["notes"]
    assert "the log has no times (--time names their column), so that --delay 9 counts rows" in notes
    assert "--budget 61 buys the feedback of all 60 decisions" in notes
    assert not json.loads(call(*arguments, "--budget", 60)[1])["log"]["notes"]
