"""`audit`: as a user types it, its page, and bad input."""

import json
import random
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from backchannel.align.gathered import gather
from backchannel.align.read import read
from backchannel.cli import app, audit, message
from backchannel.preference.audit_card import REQUIRED
from backchannel.report.audit_page import page
from backchannel.report.audit_words import headline, remarks, table

assert audit  # which registers the command


def call(*arguments):
    result = CliRunner().invoke(app, ["audit", *map(str, arguments)])
    error = result.exception
    if isinstance(error, (ValueError, OSError)):
        return 2, result.stdout, message(error)
    assert error is None or isinstance(error, SystemExit), repr(error)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def rows():
    """Longer answers win; two teams; shown orders; a copy, an empty answer, a name that is markup."""
    rng, made = random.Random(0), []
    for k in range(40):
        texts = [f"{side} " + "word " * rng.randint(1, 9) for side in "abc"]
        for i, j in ((0, 1), (1, 2), (0, 2)):
            for person in range(4):
                first = (len(texts[i]) >= len(texts[j])) == (rng.random() < 0.9)
                chosen, rejected = (texts[i], texts[j]) if first else (texts[j], texts[i])
                made.append(
                    {
                        "prompt": f"<b>{k}</b>",
                        "chosen": chosen,
                        "rejected": rejected,
                        "annotator": f"p{person}",
                        "team": "uv"[person % 2],
                        "order": rng.choice(["chosen", "rejected"]),
                    }
                )
    return [*made, made[0], {"prompt": "p", "chosen": "a", "rejected": " "}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    """Tables are not broken."""
    monkeypatch.setenv("COLUMNS", "120")


def test_it_says_what_to_look_at(tmp_path, rows):
    data = write(tmp_path / "prefs.jsonl", rows)
    code, out, _ = call(data, "--group", "team", "--shown-first", "order", "--draws", 39)
    assert code == 0
    assert "1 row was left out: an answer that is empty" in out
    assert "1 vote repeats an earlier one" in out
    assert re.search(r"The longer answer was chosen in [789]\d", out)
    assert "the answer shown first was chosen" in out
    assert "481 votes" in out


def test_json_and_files_hold_the_same(tmp_path, rows):
    data = write(tmp_path / "prefs.jsonl", rows)
    other = write(tmp_path / "other.jsonl", rows[:12])
    out = tmp_path / "audited"
    code, said, _ = call(data, "--against", other, "--out", out, "--draws", 39, "--json")
    told = json.loads(said)
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == ["card.md", "report.html", "result.json"]
    kept = json.loads((out / "result.json").read_text())
    assert kept == {name: value for name, value in told.items() if name != "written"}
    assert told["leakage"]["prompts"]["value"] == pytest.approx(1 / 40)
    card = (out / "card.md").read_text()
    assert all(f"\n## {title}\n" in card for title in REQUIRED.values())


def test_the_page_loads_nothing_and_escapes(tmp_path, rows):
    data, out = write(tmp_path / "prefs.jsonl", rows), tmp_path / "audited"
    other = write(tmp_path / "other.jsonl", rows[:12])
    assert call(data, "--against", other, "--out", out, "--draws", 39)[0] == 0
    html = (out / "report.html").read_text()
    assert "<b>0</b>" not in html
    assert "&lt;b&gt;0&lt;/b&gt;" in html
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "<script" not in html
    for title in ("What choices go by", "Length", "Utility and people", "Leakage", "All that was counted"):
        assert f"<h2>{title}</h2>" in html
    assert html.count('class="dot"') >= 6


def test_data_without_a_fault_say_so(tmp_path):
    from backchannel.align.audit import audit as examine
    from backchannel.align.gathered import gather
    from backchannel.align.read import read

    rng = random.Random(3)
    rows = []
    for k in range(60):
        a, b = f"left {k} {rng.random()}", f"right {k} {rng.random()}"
        rows.append({"prompt": f"{k} {rng.random()}", "chosen": a if k % 2 else b, "rejected": b if k % 2 else a})
    found = examine(gather(read(rows), "clean", None, None, None), draws=19)
    kept = [each for each in remarks(found) if not each.startswith(("The longer", "The shorter"))]
    assert kept == []
    found.length.longer.low, found.length.longer.high = 0.4, 0.6
    assert headline(found) == "Nothing stands out in 60 votes on 60 prompts."
    assert ["one reward for each answer: p", "–", "–", "no cycles"] in table(found)
    assert "No answers were compared in a circle" in page(found)
    assert "Nothing stands out" in page(found)


def test_columns_have_other_names(tmp_path, rows):
    renamed = [{"ask" if name == "prompt" else name: value for name, value in row.items()} for row in rows]
    one, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    code, _, said = call(write(other, renamed))
    assert (code, "--column" in said) == (2, True)
    same = [call(write(one, rows)), call(other, "--column", "prompt=ask")]
    texts = [said.replace("b.jsonl", "a.jsonl").split()[:-2] for _, said, _ in same]  # but for its seconds
    assert texts[0] == texts[1]
    assert same[0][0] == same[1][0] == 0


def test_rankings_alone_are_audited(tmp_path):
    rows = [{"prompt": f"{k}", "responses": ["a", "bb", "ccc"], "ratings": [1, 2, 3]} for k in range(9)]
    code, out, _ = call(write(tmp_path / "r.jsonl", rows), "--out", tmp_path / "o")
    assert code == 0
    assert "27 votes on uneven pairs" in out
    assert "rankings cannot go round" in (tmp_path / "o" / "report.html").read_text()
    assert not (tmp_path / "o" / "card.md").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"prompt": "p", "completion": "a"}\n', "holds no preference"),
        ('{"prompt": "p", "chosen": "", "rejected": "b"}\n', "holds no preference"),
        ("", "is empty"),
    ],
)
def test_nothing_to_audit_is_one_sentence(tmp_path, text, said):
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    code, _, error = call(path)
    assert code == 2
    assert said in error


def test_a_column_that_is_not_there_is_named(tmp_path, rows):
    code, _, error = call(write(tmp_path / "prefs.jsonl", rows), "--context", "mood")
    assert (code, "has a column 'mood'" in error) == (2, True)


def test_annotators_may_be_the_groups(rows):
    by_name = gather(read(rows[:12]), "rows", "annotator", None, None)
    assert sorted(set(by_name.group)) == ["p0", "p1", "p2", "p3"]


def test_the_command_is_light_to_import():
    heavy = "[m for m in ('numpy', 'numba', 'torch', 'duckdb', 'msgspec') if m in sys.modules]"
    code = f"import sys, backchannel.cli.audit; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
