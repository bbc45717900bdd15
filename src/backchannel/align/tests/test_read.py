"""Reading and writing answers: the columns found in data sets, round trips, feedback logs, and bad rows."""

import csv
import gzip
import json
import os
import tempfile
import tracemalloc
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backchannel.align.read import read
from backchannel.align.write import write
from backchannel.feedback import Decision, Feedback, encode
from backchannel.ledger.problems import LogError
from backchannel.lm.answers import Preference, Ranked, Rated, content
from backchannel.lm.protocol import assistant, system, user

ASKED = [{"role": "user", "content": "Is the sky blue?"}]


def said(text, role="assistant"):
    return {"role": role, "content": text}


def one(row, **how):
    (record,) = read([row], **how)
    return record


def refused(row, sentence, **how):
    with pytest.raises(LogError, match=sentence):
        list(read([row], **how))


def test_pairs_as_they_are_found():
    plain = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert one(plain) == Preference("q", "a", "b")
    told = {"prompt": ASKED, "chosen": [said("yes")], "rejected": [said("no")]}
    messages = ([user("Is the sky blue?")], [assistant("yes")], [assistant("no")])
    assert one(told) == Preference(*messages)
    implicit = {"chosen": [*ASKED, said("yes")], "rejected": [*ASKED, said("no")]}
    assert one(implicit) == Preference(*messages)
    # Both at once, as a prompt that is repeated, or as a text beside conversations.
    assert one({"prompt": ASKED, **implicit}) == Preference(*messages)
    assert one({"prompt": "Is the sky blue?", **implicit}) == Preference(*messages)
    assert one({"prompt": "Is the sky blue?", "chosen": [said("yes")], "rejected": [said("no")]}) == Preference(
        *messages
    )
    refused({"prompt": "Is it?", **implicit}, "the messages that chosen and rejected share do not hold the prompt")
    rest = {"score_chosen": 8, "score_rejected": 2.5, "rationale": "why", "annotator": 7, "id": "x", "source": "s"}
    assert one(plain | rest) == Preference(
        "q",
        "a",
        "b",
        gap=5.5,
        rationale="why",
        annotator="7",
        id="x",
        meta={"score_chosen": 8.0, "score_rejected": 2.5, "source": "s"},
    )
    assert one(plain | {"rationale": float("nan"), "annotator": None, "id": ""}) == Preference("q", "a", "b")
    assert one(plain | {"gap": 1, "strength": 0.75}) == Preference("q", "a", "b", 0.75, 1.0)
    shared = {"from": "human", "value": "hi"}
    found = one(
        {"chosen": [shared, {"from": "gpt", "value": "a"}], "rejected": [shared, {"from": "gpt", "value": "b"}]}
    )
    assert found == Preference([user("hi")], [assistant("a")], [assistant("b")])


def common_characters(chosen, rejected):
    """How a peer finds the prompt of two texts."""
    end = 0
    for end in range(min(len(chosen), len(rejected))):
        if chosen[end] != rejected[end]:
            break
    return chosen[:end]


def test_prompts_alone():
    rows = [{"prompt": "p"}, {"prompt": "q", "chosen": "", "id": "7"}, {"prompt": [{"role": "user", "content": "r"}]}]
    found = list(read(rows, prompts=True))
    assert [each.prompt for each in found] == ["p", "q", [user("r")]]
    assert [each.id for each in found] == [None, "7", None]
    (pair,) = read([{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                     "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}],
                   prompts=True)  # fmt: skip
    assert pair.prompt == [user("a")]
    with pytest.raises(LogError, match="found neither chosen and rejected"):
        list(read(rows))


def test_a_shared_prompt_ends_where_a_message_ends():
    longer, shorter = said("The sky is blue"), said("The sky")
    found = one({"chosen": [*ASKED, longer], "rejected": [*ASKED, shorter]})
    assert [each.content for each in found.prompt] == ["Is the sky blue?"]
    assert (content(found.chosen), content(found.rejected)) == ("The sky is blue", "The sky")
    # What goes wrong: a prompt up to the first character that differs, or up to the last one compared.
    assert common_characters("The sky is blue", "The sky") == "The sk"
    refused({"chosen": "The sky is blue", "rejected": "The sky"}, "row 1: two plain texts without a prompt")
    refused({"chosen": [longer], "rejected": [shorter]}, "share no message, and there is no prompt")
    more = [*ASKED, said("yes"), said("And grass?", "user")]
    found = one({"chosen": [*more, said("green")], "rejected": [*more, said("blue")]})
    assert [each.role for each in found.prompt] == ["user", "assistant", "user"]
    parted = {"chosen": [*more, said("green")], "rejected": [*ASKED, said("no")]}
    refused(parted, r"chosen must be one message of the assistant, not 3 \(assistant, user, assistant\)")
    refused({"chosen": [*ASKED, longer], "rejected": [*ASKED, longer]}, "chosen and rejected are the same")
    refused({"chosen": [*more, said("green")], "rejected": [*ASKED, said("yes")]}, "chosen must be one message")


def test_plain_texts_are_split_at_a_stated_marker_alone():
    before = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Is the sky blue?\n\nAssistant:"
    row = {"chosen": before + " Yes, it is.", "rejected": before + " Yes"}
    assert one(row, split="\n\nAssistant:") == Preference(before, " Yes, it is.", " Yes")
    refused(row, "two plain texts without a prompt")
    refused(row, "there is no '###' in", split="###")
    other = row | {"rejected": before.replace("Hi", "Ho") + " No"}
    refused(other, "chosen and rejected have different texts before their last", split="\n\nAssistant:")


def test_a_marker_that_splits_nothing_is_told_of():
    found = read([{"prompt": "p", "chosen": "a", "rejected": "b"}], split="\nX")
    assert len(list(found)) == 1
    assert found.notes == ["nothing was split at '\\nX': the prompts stand by themselves"]
    found = read([{"chosen": "p\nXa", "rejected": "p\nXb"}], split="\nX")
    assert len(list(found)) == 1
    assert found.notes == []
    with pytest.raises(LogError, match="split must be a text at which others are split, not an empty one"):
        read([], split="")


def test_single_answers_as_they_are_found():
    assert one({"prompt": "q", "completion": "a", "label": True}) == Rated("q", "a", True)
    assert one({"prompt": "q", "completion": "a", "label": 0}) == Rated("q", "a", False)
    assert one({"prompt": ASKED, "completion": [said("a")], "score": 3}).score == 3.0
    assert one({"prompt": "q", "completion": [said("a")]}) == Rated([user("q")], [assistant("a")])
    told = one({"messages": [said("x", "system"), *ASKED, said("a")]})
    assert told == Rated([system("x"), user("Is the sky blue?")], [assistant("a")])
    refused({"prompt": "q", "completion": "a", "label": "good"}, "label must be true or false, not 'good'")
    refused({"prompt": "q", "completion": "a", "label": 0.5}, "label must be true or false, not 0.5")
    refused({"completion": "a"}, "there is a completion, but no prompt")
    refused({"messages": [*ASKED]}, "the prompt has no message|answer must be one message of the assistant")
    refused({"messages": "hello"}, "messages must be a list of messages")


def test_rankings_as_they_are_found():
    row = {"prompt": "q", "responses": ["a", "b", "c"]}
    assert one(row | {"ratings": [1, 5, 1]}) == Ranked("q", ["b", "a", "c"], [5.0, 1.0, 1.0])
    assert one(row | {"rankings": [3, 1, 2]}) == Ranked("q", ["b", "c", "a"])
    told = one({"prompt": "q", "responses": [[said("a")], [said("b")]], "rankings": [2, 1]})
    assert told == Ranked([user("q")], [[assistant("b")], [assistant("a")]])
    refused(row, "there are responses, but neither ratings nor rankings")
    refused(row | {"rankings": [1, 1, 2]}, r"two responses have the same rank in \[1.0, 1.0, 2.0\]")
    refused(row | {"ratings": [1, 2]}, "there are 3 responses and 2 ratings")
    refused(row | {"ratings": [1, 2, float("nan")]}, "each of the ratings must be a finite number, not nan")
    refused(row | {"ratings": [1, 2, "5"]}, "ratings must be a number, not '5'")
    refused({"responses": ["a", "b"], "rankings": [1, 2]}, "there are responses, but no prompt")


ULTRA = {
    "instruction": "q",
    "models": ["m", "n"],
    "completions": [
        {"response": "a", "overall_score": 6.5, "annotations": {"truthfulness": {"Rating": "3"}}, "model": "m"},
        {"response": "b", "overall_score": 8.0, "annotations": {"truthfulness": {"Rating": "5"}}, "model": "n"},
    ],
}
ULTRA_MAP = {"prompt": "instruction", "responses": "completions.response", "ratings": "completions.overall_score"}


def test_values_within_columns_and_lists_of_columns(tmp_path):
    assert one(ULTRA, columns=ULTRA_MAP) == Ranked("q", ["b", "a"], [8.0, 6.5], meta={"models": ["m", "n"]})
    rows = [ULTRA, ULTRA | {"instruction": "p"}]
    (tmp_path / "u.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with duckdb.connect() as db:
        table = f"(SELECT * FROM read_json('{tmp_path}/u.jsonl'))"
        db.execute(f"COPY {table} TO '{tmp_path}/u.parquet' (FORMAT parquet)")
    with open(tmp_path / "u.csv", "w", newline="") as file:
        cells = [row | {"completions": json.dumps(row["completions"]), "models": "m n"} for row in rows]
        writer = csv.DictWriter(file, cells[0])
        writer.writeheader()
        writer.writerows(cells)
    for suffix in ("jsonl", "parquet", "csv"):
        found = list(read(tmp_path / f"u.{suffix}", columns=ULTRA_MAP))
        assert [(each.prompt, each.answers, each.scores) for each in found] == [
            (prompt, ["b", "a"], [8.0, 6.5]) for prompt in "qp"
        ], suffix

    shp = {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 0, "score_A": 3, "score_B": 11}
    columns = {"prompt": "history", "responses": "human_ref_A, human_ref_B", "ratings": "score_A,score_B"}
    assert one(shp, columns=columns) == Ranked("q", ["b", "a"], [11.0, 3.0], meta={"labels": 0})
    assert (
        one({"q": "q", "a.b,c": "x", "no": "y"}, columns={"prompt": "q", "chosen": "a.b,c", "rejected": "no"}).chosen
        == "x"
    )
    inner = {"prompt": "q", "said": {"good": "a", "bad": {"text": "b"}}}
    assert one(inner, columns={"chosen": "said.good", "rejected": "said.bad.text"}) == Preference("q", "a", "b")

    for name, message in (
        ("completion.response", "the responses: there is no column 'completion'; did you mean 'completions'"),
        ("completions.respons", "the responses: there is no 'respons' in 'completions'; did you mean 'response'"),
        ("completions.annotations.truth", "there is no 'truth' in 'completions.annotations'; did you mean 'truthf"),
        ("instruction.text", "the responses: 'instruction' holds no object with 'text' in it"),
        ("instruction,modles", "the responses: there is no column 'modles'; did you mean 'models'"),
    ):
        refused(ULTRA, message, columns=ULTRA_MAP | {"responses": name})
    lost = [ULTRA["completions"][0] | {"overall_score": None}, ULTRA["completions"][1]]
    refused(ULTRA | {"completions": lost}, "overall_score must be a number, not None", columns=ULTRA_MAP)
    refused(ULTRA | {"completions": None}, "found neither chosen and rejected", columns=ULTRA_MAP)
    (tmp_path / "empty.csv").write_text("instruction,completions\nq,\n")
    with pytest.raises(LogError, match="row 1: found neither chosen and rejected"):
        list(read(tmp_path / "empty.csv", columns=ULTRA_MAP))
    refused(shp | {"score_A": None}, "the ratings: there is nothing in 'score_A'", columns=columns)
    refused(
        ULTRA,
        r"the annotator must be a text or a number, not \['m', 'n'\]",
        columns=ULTRA_MAP | {"annotator": "completions.model"},
    )
    found = read([ULTRA], columns=ULTRA_MAP)
    assert len(list(found)) == 1
    assert found.notes == [
        "kept as they are, in meta: the columns 'models'",
        "read of their columns, and no more of them: 'completions.response', 'completions.overall_score'",
    ]


def test_other_names_and_other_kinds():
    row = {"question": "q", "good": "a", "bad": "b", "prompt": "no"}
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    found = read([row], columns=columns)
    assert list(found) == [Preference("q", "a", "b", meta={"prompt": "no"})]
    assert found.notes == ["kept as they are, in meta: the columns 'prompt'"]
    refused(row, "the prompt: there is no column 'questions'; did you mean 'question", columns={"prompt": "questions"})
    with pytest.raises(LogError, match="a column map has no 'promt'; did you mean 'prompt'"):
        read([], columns={"promt": "question"})
    refused({"x": 1}, "found neither chosen and rejected, nor a completion, nor responses")
    refused({"prompt": "q", "chosen": "a"}, "there is 'chosen' alone")
    both = {"prompt": "q", "chosen": "a", "rejected": "b", "completion": "c"}
    assert one(both, kind="singles") == Rated("q", "c", meta={"chosen": "a", "rejected": "b"})
    refused(both, "expected rankings, with 'responses'; found pairs", kind="rankings")
    with pytest.raises(LogError, match="kind must be one of pairs, singles, rankings, not 'pair'"):
        read([], kind="pair")
    with pytest.raises(LogError, match=r"has parts \(train, test\): give one of them"):
        list(read({"train": [], "test": []}))
    with pytest.raises(LogError, match="the source holds no record"):
        list(read([]))
    refused("prompt", "row 1: expected a row as a dict, not 'prompt'")


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"role": "tool", "content": "x"}, "message 1 has the role 'tool'; expected system, user or assistant"),
        ({"role": "user", "content": ["x"]}, "message 1 must have a text as content"),
        ({"role": "user", "content": "x", "tool_calls": [1]}, "message 1 holds 'tool_calls', which is not read"),
        ("hello", "message 1 must have a role and a content"),
    ],
)
def test_messages_that_are_not_read(message, sentence):
    refused({"prompt": [message], "completion": "a"}, sentence)


def test_bad_rows_are_told_with_their_numbers_and_skipped_as_allowed(tmp_path):
    path = tmp_path / "pairs.jsonl"
    good = json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"})
    same = json.dumps({"prompt": "q", "chosen": "a", "rejected": "a"})
    nan = json.dumps({"prompt": "q", "chosen": "a", "rejected": "b", "gap": float("nan")})
    path.write_text("\n".join([good, "", same, nan, "[1]", "{", good]))
    with pytest.raises(LogError, match=rf"{path}, row 3: chosen and rejected are the same: 'a'$"):
        list(read(path))
    found = read(path, skip_bad_rows=4)
    assert len(list(found)) == 2
    assert found.notes == [f"4 bad rows were skipped; the first: {path}, row 3: chosen and rejected are the same: 'a'"]
    with pytest.raises(LogError, match=r"row 6: expected a JSON object, but .* \(bad row 4; 3 may be skipped\)"):
        list(read(path, skip_bad_rows=3))
    with pytest.raises(LogError, match=r"row 4: expected a JSON object, but .*; JSON has no NaN"):
        list(read(path, skip_bad_rows=1))


def test_other_files(tmp_path):
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    for name, text in (
        ("array.json", json.dumps([row, row], indent=1)),
        ("held.json", json.dumps({"version": 1, "data": [row, row]}, indent=1)),
        ("line.json", json.dumps({"data": [row, row]})),
        ("lines.json", f"{json.dumps(row)}\n{json.dumps(row)}\n"),
        ("bom.jsonl", f"\ufeff{json.dumps(row)}\n{json.dumps(row)}"),
    ):
        (tmp_path / name).write_text(text)
        assert list(read(tmp_path / name)) == [Preference("q", "a", "b")] * 2
    (tmp_path / "one.json").write_text(json.dumps({"prompt": ASKED, "completion": "a"}, indent=1))
    assert list(read(tmp_path / "one.json")) == [Rated([user("Is the sky blue?")], "a")]
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    assert len(list(read(str(tmp_path / "*.jsonl.gz")))) == 1
    (tmp_path / "x.vw").write_text("1:0:0.5 | a\n")
    with pytest.raises(LogError, match="is vw, which holds no answers"):
        list(read(tmp_path / "x.vw"))
    (tmp_path / "x.csv").write_text("prompt,chosen,rejected\nq,a\n")
    with pytest.raises(LogError, match="row 1: expected 3 cells, found 2"):
        list(read(tmp_path / "x.csv"))
    (tmp_path / "x.csv").write_text("prompt,chosen,rejected\nq,\"[{'role': 'assistant', 'content': 'a'}]\",b\n")
    with pytest.raises(LogError, match="row 1: messages in a cell must be JSON"):
        list(read(tmp_path / "x.csv"))
    (tmp_path / "x.csv").write_text("prompt,completion,score,note\nq,a,x,\nq,a,3,why\n")
    found = read(tmp_path / "x.csv", skip_bad_rows=1)
    assert list(found) == [Rated("q", "a", score=3.0, meta={"note": "why"})]
    assert "row 1: score must be a number, not 'x'" in found.notes[0]
    long = "a" * 200_000
    write([Rated("q", long)], tmp_path / "long.csv")
    assert list(read(tmp_path / "long.csv")) == [Rated("q", long)]


def test_a_data_set_of_datasets():
    datasets = pytest.importorskip("datasets", reason="a data set of datasets")
    rows = [{"prompt": ASKED, "chosen": [said("yes")], "rejected": [said("no")], "gap": None}] * 3
    assert list(read(datasets.Dataset.from_list(rows))) == [one(rows[0])] * 3


# Round trips. Texts have everything that quoting may stumble over; a column of a table holds no NUL in CSV, and no text
# that is messages in JSON.
PIECES = st.text(st.sampled_from("ab 0.,;|:='\"%{}[]\\/\n\r\té😀"), min_size=1, max_size=6).filter(str.strip)
META = st.dictionaries(
    st.text(st.sampled_from("abc."), min_size=1, max_size=3),
    st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), PIECES),
    max_size=2,
)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def records(draw):
    plain = draw(st.booleans())
    continues = not plain and draw(st.booleans())
    prompt = draw(PIECES) if plain else [user(draw(PIECES)), *([assistant(draw(PIECES))] if continues else [])]
    if not plain and draw(st.booleans()):
        prompt = [system(draw(PIECES)), *prompt]

    def framed(text):
        return text if plain else [assistant(text)] if draw(st.booleans()) else text

    details = {name: draw(st.one_of(st.none(), PIECES)) for name in ("rationale", "annotator", "id")}
    details |= {"continues": continues, "meta": draw(META)}
    texts = draw(st.lists(PIECES, min_size=2, max_size=4, unique=True))
    kind = draw(st.sampled_from([Preference, Rated, Ranked]))
    if kind is Preference:
        strength = draw(st.one_of(st.none(), st.floats(0, 1)))
        return Preference(
            prompt, framed(texts[0]), framed(texts[1]), strength, draw(st.one_of(st.none(), NUMBERS)), **details
        )
    if kind is Rated:
        good, score = draw(st.one_of(st.none(), st.booleans())), draw(st.one_of(st.none(), NUMBERS))
        return Rated(prompt, framed(texts[0]), good, score, **details)
    scores = sorted(draw(st.lists(NUMBERS, min_size=len(texts), max_size=len(texts))), reverse=True)
    return Ranked(prompt, [framed(text) for text in texts], draw(st.sampled_from([None, scores])), **details)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.csv.gz"])
@settings(max_examples=20, deadline=None)
@given(st.lists(records(), min_size=1, max_size=4))
def test_what_is_written_is_read(name, made):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        assert write(made, path) == len(made)
        assert list(read(path)) == made
        assert os.listdir(folder) == [name]


def test_ten_thousand_rows_come_back_in_their_order(tmp_path):
    made = [Preference(f"q{i}", f"a{i}", f"b{i}", gap=i / 7, meta={"i": i}) for i in range(10_000)]
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        write(made, tmp_path / name)
        assert list(read(tmp_path / name)) == made


def test_what_a_table_cannot_hold_is_refused_and_nothing_written(tmp_path):
    framed = json.dumps([said("x")])
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(LogError, match="completion of record 2 is a text that a table would hold as messages"):
            write([Rated("q", "a"), Rated("q", framed)], tmp_path / name)
    with pytest.raises(LogError, match="CSV cannot hold the NUL character in completion of record 1"):
        write([Rated("q", "a\0b")], tmp_path / "a.csv")
    with pytest.raises(LogError, match="cannot be told from its name"):
        write([], tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())
    write([Rated("q", framed), Rated("q", "a\0b")], tmp_path / "a.jsonl")
    assert [each.answer for each in read(tmp_path / "a.jsonl")] == [framed, "a\0b"]


def test_a_feedback_log():
    prompt = [{"role": "user", "content": "q"}]
    lines = [
        Decision("d1", "a", ["a", "b", "c"], {"prompt": "q", "shop": 3}),
        Feedback("f1", "d1", "comparison", {"better": "b", "worse": "a"}, source="Ada"),
        Feedback("f2", "d1", "critique", "a is rude", source="Ada"),
        Feedback("f3", "d1", "comparison", {"tie": ["a", "c"]}),
        Feedback("f4", "d1", "ranking", ["b", "a", "c"]),
        Feedback("f5", "d1", "rating", 4, source="Bob"),
        Feedback("f6", "d1", "reaction", "👎", source="Bob"),
        Feedback("f7", "d1", "correction", "better", source="Bob"),
        Feedback("f8", "d1", "rating", 1, source="Eve"),
        Feedback("f9", "d1", "retraction", "f8"),
        Feedback("g1", "d2", "reward", 0.5),
        Decision("d2", "x", None, {"prompt": prompt}),
        Feedback("g2", "d2", "violation", {"length": 1.0}),
        Feedback("g3", "d2", "reaction", "hm"),
        Feedback("g4", "d2", "correction", "x"),
        Decision("d3", "x", None, {"prompt": "q"}),
        Decision("d4", "x", None, {"age": 1}),
        Feedback("h1", "d9", "reward", 1.0),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log.jsonl")
        path.write_bytes(b"\n".join(map(encode, lines)))
        found = read(path)
        more = {"id": "d1", "meta": {"shop": 3}}
        assert list(found) == [
            Preference("q", "b", "a", annotator="Ada", rationale="a is rude", **more),
            Preference("q", "a", "c", strength=0.5, **more),
            Ranked("q", ["b", "a", "c"], **more),
            Preference("q", "better", "a", annotator="Bob", **more),
            Rated("q", "a", False, 4.0, annotator="Bob", **more),
            Rated([user("q")], [assistant("x")], score=0.5, id="d2"),
        ]
        assert found.notes == [
            "left out: feedback of kind 'violation' (1)",
            "left out: reactions that say neither good nor bad (1)",
            "left out: corrections that change nothing (1)",
            "left out: decisions of which nothing was said (1)",
            "left out: decisions whose context has no 'prompt' (1)",
            "left out: feedback on decisions that are not there (1)",
        ]
        found = read(path, kind="rankings")
        assert [type(each) for each in found] == [Ranked]
        assert found.notes[-2:] == ["left out: pairs (3)", "left out: singles (2)"]
        with pytest.raises(LogError, match=r"holds no record: left out: .*no 'question'"):
            list(read(path, columns={"prompt": "question"}))
        path.write_bytes(
            encode(lines[0]) + b"\n" + encode(Feedback("f", "d1", "comparison", {"better": "a"})) + b"\nx\n"
        )
        with pytest.raises(LogError, match="row 3: expected a decision or a feedback as JSON"):
            list(read(path))
        with pytest.raises(LogError, match="row 1: a comparison names a better and a worse option, or a tie"):
            list(read(path, skip_bad_rows=1))


def test_records_become_a_log_and_what_it_cannot_hold_is_said(tmp_path):
    asked, more = [user("q")], {"rationale": "why", "annotator": "Ada", "meta": {"x": 1}}
    kept = [
        Preference("q", "a", "b", id="p1", **more),
        Preference("q", "a", "b", 0.5, id="p2"),
        Preference(asked, [assistant("a")], [assistant("b")], id="p3"),
        Rated("q", "a", True, 3.0, id="r1", **more),
        Rated([*asked, assistant("It")], [assistant(" is")], False, id="r2", continues=True),
        Ranked("q", ["a", "b", "c"], id="k1", **more),
    ]
    notes = []
    assert write(kept, tmp_path / "log.jsonl", "log", notes) == 6
    assert notes == []
    assert list(read(tmp_path / "log.jsonl")) == kept
    lost = [
        Preference("q", "a", "b", 0.9, 2.0),
        Ranked("q", ["a", "b"], [2.0, 1.0], id="k"),
        Ranked("q", ["a", "b"], id="k"),
        Rated("q", "a"),
    ]
    write(lost, tmp_path / "log.jsonl", "log", notes)
    assert notes == [
        "a log cannot hold missing ids, in whose place are numbers (1)",
        "a log cannot hold strengths (1)",
        "a log cannot hold gaps (1)",
        "a log cannot hold scores of rankings (1)",
        "a log cannot hold ids that repeat, behind which is a number (1)",
        "a log cannot hold demonstrations (1)",
    ]
    assert [each.id for each in read(tmp_path / "log.jsonl")] == ["1", "k", "k/2"]
    turned = [Preference("q", "a", "b", 0.2, 1.0, id="p"), Preference("q", "a", "b", 0.0, id="r")]
    write(turned, tmp_path / "log.jsonl", "log")
    assert list(read(tmp_path / "log.jsonl")) == [Preference("q", "b", "a", id=each.id) for each in turned]
    with pytest.raises(LogError, match="a log cannot hold 'prompt' in meta"):
        write([Rated("q", "a", True, meta={"prompt": "x"})], tmp_path / "x.jsonl", "log")


def test_rows_that_hold_lists_of_objects_stream_and_may_be_alone(tmp_path, monkeypatch):
    file = tmp_path / "u.jsonl"
    for many in (1, 3):
        file.write_text("\n" + "".join(json.dumps(ULTRA) + "\n\n" for _ in range(many)))
        assert [each.answers for each in read(file, columns=ULTRA_MAP)] == [["b", "a"]] * many
    file.write_text(json.dumps({"version": 1, "data": [ULTRA, ULTRA]}))
    assert len(list(read(file, columns=ULTRA_MAP))) == 2
    named = {"prompt": "q", "chosen": "a", "rejected": "b", "annotator": "name"}
    file.write_text(json.dumps({"name": "set", "data": [{"name": "Ada", "q": "x", "a": "y", "b": "z"}]}))
    assert [each.annotator for each in read(file, columns=named)] == ["Ada"]
    talk = {"messages": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}
    file.write_text(json.dumps(talk))
    assert list(read(file)) == [one(talk)]
    file.write_text(json.dumps({"version": 1, "data": [ULTRA, ULTRA]}, indent=1))
    assert len(list(read(file, columns=ULTRA_MAP))) == 2

    padded = ULTRA | {"instruction": "q" * 10_000}
    file.write_text("".join(json.dumps(padded) + "\n" for _ in range(500)))
    rows = iter(read(file, columns=ULTRA_MAP))
    tracemalloc.start()
    assert sum(1 for _ in rows) == 500
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < file.stat().st_size / 10


def test_a_table_of_pandas_is_told_how_to_give_its_rows():
    class Table:
        def iterrows(self):
            raise AssertionError

        def __iter__(self):
            return iter(["prompt"])

    with pytest.raises(LogError, match=r"of a table of pandas, give the rows: table\.to_dict\('records'\)"):
        list(read(Table()))
