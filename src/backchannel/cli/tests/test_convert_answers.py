"""`convert --answers`: files of preferences, ratings and rankings, there and back."""

import itertools
import json
import subprocess
import sys

from backchannel.align.read import read
from backchannel.align.write import write
from backchannel.lm.answers import Preference, Ranked, Rated
from backchannel.lm.protocol import assistant, user


def run(*arguments, code=0):
    command = [sys.executable, "-m", "backchannel.cli", "convert", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done


PAIRS = [
    Preference([user("q1")], [assistant("a")], [assistant("b")], id="p1", annotator="Ada"),
    Preference([user("q2")], [assistant("c")], [assistant("d")], 0.5, id="p2"),
]


def test_pairs_go_through_every_format_and_come_back(tmp_path):
    write(PAIRS, tmp_path / "a.jsonl")
    steps = ["a.jsonl", "b.csv", "c.parquet", "d.json", "e.jsonl", "f.jsonl"]
    for before, after in itertools.pairwise(steps):
        more = ["--to", "log"] if after == "e.jsonl" else []
        done = run(tmp_path / before, tmp_path / after, "--answers", "same", *more)
        assert done.stdout.splitlines() == ["2 records written", f"wrote {tmp_path / after}"]
    assert (tmp_path / "f.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert '"record":"decision"' in (tmp_path / "e.jsonl").read_text()


def test_one_kind_becomes_another(tmp_path):
    write(PAIRS, tmp_path / "pairs.jsonl")
    done = run(tmp_path / "pairs.jsonl", tmp_path / "kto.jsonl", "--answers", "singles", "--json")
    assert json.loads(done.stdout)["notes"] == ["left out: ties (1)", "2 records written"]
    assert list(read(tmp_path / "kto.jsonl")) == [
        Rated([user("q1")], [assistant("a")], True, id="p1/chosen", annotator="Ada"),
        Rated([user("q1")], [assistant("b")], False, id="p1/rejected", annotator="Ada"),
    ]
    write(
        [Ranked("q", ["a", "b", "c"], [3, 1, 1]), Rated("q", "x", score=2), Rated("q", "y", score=1)],
        tmp_path / "r.csv",
    )
    done = run(tmp_path / "r.csv", tmp_path / "pairs.csv", "--answers", "pairs")
    assert done.stdout.splitlines()[:2] == ["left out: ties (1)", "3 records written"]
    assert list(read(tmp_path / "pairs.csv")) == [
        Preference("q", "a", "b", gap=2),
        Preference("q", "a", "c", gap=2),
        Preference("q", "x", "y", gap=1),
    ]


def test_a_log_counts_what_it_holds(tmp_path):
    write([*PAIRS, Rated("q", "a")], tmp_path / "a.jsonl")
    done = run(tmp_path / "a.jsonl", tmp_path / "log.jsonl", "--answers", "same", "--to", "log")
    said = ["left out: demonstrations, which a log cannot hold (1)", "2 records written"]
    assert done.stdout.splitlines()[:2] == said


def test_other_columns_and_markers(tmp_path):
    (tmp_path / "a.csv").write_text("question,good,bad,by\nq,a,b,Ada\nq,a,a,Bob\n")
    names = ["--column", "prompt=question", "--column", "chosen=good", "--column", "rejected=bad"]
    done = run(tmp_path / "a.csv", tmp_path / "b.jsonl", "--answers", "same", *names, "--skip-bad-rows", 1)
    assert "1 bad row was skipped" in done.stdout
    assert "kept as they are, in meta: the columns 'by'" in done.stdout
    assert list(read(tmp_path / "b.jsonl")) == [Preference("q", "a", "b", meta={"by": "Ada"})]
    hh = {"chosen": "\n\nHuman: q\n\nAssistant: The sky is blue", "rejected": "\n\nHuman: q\n\nAssistant: The sky"}
    (tmp_path / "hh.jsonl").write_text(json.dumps(hh))
    run(tmp_path / "hh.jsonl", tmp_path / "c.jsonl", "--answers", "pairs", "--split", r"\n\nAssistant:")
    assert list(read(tmp_path / "c.jsonl")) == [
        Preference("\n\nHuman: q\n\nAssistant:", " The sky is blue", " The sky")
    ]


def test_what_is_wrong_is_one_sentence_and_no_file(tmp_path):
    write(PAIRS, tmp_path / "a.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "a"}\n')
    write([Rated("q", "a", score=1)], tmp_path / "one.jsonl")
    out = tmp_path / "out.jsonl"
    for arguments, words in (
        (["bad.jsonl", "--answers", "same"], "row 1: chosen and rejected are the same: 'a'"),
        (["one.jsonl", "--answers", "pairs"], "would hold no pairs; left out: ratings without another of the same"),
        (["a.jsonl", "--answers", "pair"], "--answers must be one of pairs, singles, rankings, demonstrations, same"),
        (["a.jsonl", "--answers", "same", "--to", "vw"], "--to must be one of jsonl, json, csv, parquet, log"),
        (["a.jsonl", "--answers", "same", "--column", "prompt"], "--column must be MEANING=NAME"),
        (["a.jsonl", "--answers", "same", "--items", "x"], "--items is for logs of decisions, not for --answers"),
        (["a.jsonl", "--answers", "same", "--action", "x"], "--action and what goes with it are for logs of decisions"),
        (["a.jsonl", "--split", "x"], "--split is for --answers"),
        (["a.jsonl", "--column", "prompt=x"], "--column is for --answers"),
    ):
        done = run(tmp_path / arguments[0], out, *arguments[1:], code=2)
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
        assert not out.exists()
