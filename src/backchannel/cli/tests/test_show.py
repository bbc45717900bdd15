"""Tables of the commands: whole numbers and words at any width."""

import re

import pytest

from backchannel.cli.show import print_table

COLUMNS = ["delays", "method", "0", "100", "1000", "c", "note"]
ROWS = [
    ["fixed", "Banker-OMD, Tsallis", "157 +- 2", "3451 +- 20", "10958 +- 15", 2.18, "x"],
    ["random", "uniform play", "14381 +- 16", "14381 +- 16", "14381 +- 16", 0.96123, ""],
]


def _printed(capsys, monkeypatch, width, *arguments):
    monkeypatch.setenv("COLUMNS", str(width))
    left = print_table("regret by delay", *arguments)
    return capsys.readouterr().out, left


@pytest.mark.parametrize("width", [24, 30, 40, 50, 60, 70, 80, 120])
def test_no_number_and_no_word_is_broken_at_any_width(capsys, monkeypatch, width):
    out, left = _printed(capsys, monkeypatch, width, COLUMNS, ROWS)
    assert left == []
    assert max(len(line.rstrip()) for line in out.splitlines()) <= width
    lines = "\n".join(" ".join(line.split()) for line in out.splitlines())
    numbers = [str(cell) for row in ROWS for cell in row if "+-" in str(cell)]
    for said in [*numbers, "2.18", "0.9612"]:
        assert len(re.findall(rf"(?<!\d){re.escape(said)}(?!\d)", lines)) >= numbers.count(said)
    for word in ("Banker-OMD,", "Tsallis", "uniform", "play", "random", "fixed"):
        assert re.search(rf"(?<!\S){word}(?!\S)", lines)


def test_a_table_that_is_too_wide_is_printed_as_records(capsys, monkeypatch):
    out, _ = _printed(capsys, monkeypatch, 40, COLUMNS, ROWS)
    assert out.splitlines()[1:] == [
        "delays: fixed",
        "  method: Banker-OMD, Tsallis",
        "  0: 157 +- 2  100: 3451 +- 20",
        "  1000: 10958 +- 15  c: 2.18  note: x",
        "delays: random  method: uniform play",
        "  0: 14381 +- 16  100: 14381 +- 16",
        "  1000: 14381 +- 16  c: 0.9612",
    ]


def test_columns_go_under_others_before_any_is_left_out(capsys, monkeypatch):
    columns, rows = ["key", "value", "ends", "rest"], [["a", 0.5, "0.4..0.6", "words"], ["b", "-", "-", "more"]]
    given = (columns, rows, ["rest", "ends"], {"ends": "value"})
    out, left = _printed(capsys, monkeypatch, 80, *given)
    assert (out.splitlines()[1].split(), left) == (columns, [])
    out, left = _printed(capsys, monkeypatch, 20, *given)
    assert [line.split() for line in out.splitlines()[1:]][:2] == [["value"], ["key", "ends", "rest"]]
    assert [line.split() for line in out.splitlines()[4:]] == [["a", "0.5", "words"], ["0.4..0.6"], ["b", "-", "more"]]
    assert left == []
    assert _printed(capsys, monkeypatch, 14, *given)[1] == ["rest"]
    assert _printed(capsys, monkeypatch, 10, *given)[1] == ["rest", "ends"]
