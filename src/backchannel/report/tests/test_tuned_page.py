"""The page of `align`: what it says, and that what comes from data is escaped."""

import re

import pytest

from backchannel.align.result import Drawn, Entangled, HeldOut, Sample, Settings, Tuned
from backchannel.report.lines import histogram, line
from backchannel.report.tuned_page import headline, page, write_page


def _tuned(**changes):
    samples = [
        Sample("<b>prompt</b>", "before & one", "after", win=1.0, scores=(0.5, 2.0)),
        Sample("q", "x", "y", win=0.0),
    ]
    drawn = Drawn(
        samples, lengths=(10.0, 20.0), endless=(0.5, 0.0), wins=0.75, interval=(0.55, 0.95), judge="a rule",
        scores=(1, 2), divergence=3.25,
    )  # fmt: skip
    settings = {
        "model": "small", "method": "dpo", "arguments": {"beta": 0.1}, "settings": Settings(), "records": 100,
        "trained_on": 90, "before": HeldOut(10, 0.6931, 0.5, [0.0] * 10),
        "after": HeldOut(10, 0.5, 0.8, [1.0, 2, -1, 0.5, 0.1, 3, 2, -2, 1, 1]), "drawn": drawn,
        "history": [{"step": i, "loss": 0.7 - 0.01 * i, "margin": 0.1 * i, "accuracy": 0.5} for i in range(1, 20)],
        "steps": 19, "finished": True, "signal": 0, "seconds": 75.0, "memory": 2_000_000_000, "trainable": 1000,
        "parameters": 100_000, "versions": {"backchannel": "0"}, "notes": ["one <thing>"],
        "command": "backchannel align",
    }  # fmt: skip
    return Tuned(**(settings | changes))


def test_it_says_what_came_of_it():
    text = page(_tuned())
    assert "75.0 % of the answers from after training are better than those from before" in text
    assert "3.2 nats" in text or "3.3 nats" in text
    assert "Of the pairs the chosen answer gained more in 80.0 %." in text
    assert "one &lt;thing&gt;" in text
    assert "&lt;b&gt;prompt&lt;/b&gt;" in text
    assert "<b>prompt" not in text
    assert "before &amp; one" in text
    assert "75 seconds" in text
    assert "2.0 GB" in text
    assert "<script" not in text
    assert re.search(r"<strong>after</strong>", text)  # the better answer stands out


def test_how_it_was_computed_is_said_as_it_was():
    assert "rises over 10.0 % of the steps and falls to 0; " in page(_tuned())
    assert "The reference is the model as it was given." in page(_tuned())
    text = page(_tuned(settings=Settings(warmup=0.0), played={"rounds": 3, "share": 0.0}))
    assert "a learning rate of 0.0001 that falls to 0 in each round; " in text
    assert "The reference is the model of the round before." in text
    text = page(_tuned(played={"rounds": 3, "share": 0.25}))
    assert "The reference is a mixture of the model as it was given (25.0 %) and that of the round before." in text


def test_how_a_pairs_answers_pull_is_said():
    assert "cosine" not in page(_tuned())
    text = page(_tuned(entangled=Entangled(6, 0.91, 0.5, 1.0)))
    assert "a cosine of 0.91 on average (6 pairs)" in text
    assert "likelier in 50.0 % and its rejected answer less likely in 100 % of them" in text


def test_rounds_are_drawn_against_their_divergence():
    assert "round by round" not in page(_tuned())
    text = page(_tuned(rounds=[(0.5, 0.0), (1.25, 0.4), (1.5, 1.75)]))
    assert "Score 0.5 at 0 nats, 1.5 at 1.8" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "75.0 % of the answers from after training are better than those from before"),
        ({"drawn": None}, "on held-out pairs the chosen answer gained more in 80.0 %"),
        (  # a loss without a reference does not begin level
            {"drawn": None, "before": HeldOut(10, 0.9, 0.3, [-1.0] * 7 + [1.0] * 3)},
            "on held-out pairs the chosen answer is ahead in 80.0 %, and was in 30.0 %",
        ),
        (
            {"drawn": None, "before": HeldOut(10, 0.9), "after": HeldOut(10, 0.5)},
            "on held-out examples the loss went from 0.9 to 0.5",
        ),
        ({"drawn": None, "after": None, "before": None}, "tuned, and not judged"),
    ],
)
def test_headlines(changes, said):
    assert headline(_tuned(**changes)) == said
    assert page(_tuned(**changes)).startswith("<!doctype html>")


def test_chance_is_called_so_and_silence_is_told():
    tuned = _tuned()
    tuned.drawn.interval, tuned.drawn.silent = (0.4, 0.9), 3
    assert headline(tuned).endswith("which may be chance")
    for each in tuned.drawn.samples:
        each.win = 0.5
    assert headline(tuned) == "by the judge no answer from after training is better or worse than that from before"
    assert "It said nothing usable of 3; they are left out" in page(tuned)
    tuned.drawn.wins = tuned.drawn.interval = tuned.drawn.scores = None
    assert "The judge, a rule, answered none." in page(tuned)
    tuned.drawn.judge = ""
    assert "Nobody judged them" in page(tuned)


def test_it_is_written_whole(tmp_path):
    write_page(_tuned(finished=False, signal=2), tmp_path / "report.html")
    assert "stopped before the end" in (tmp_path / "report.html").read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_histogram_puts_each_value_on_its_side():
    bars = re.findall(r'class="(bar|pale)"', histogram([-1.0, -0.5, 0.4, 0.6, 2.0, 3.0], "six"))
    assert "bar" in bars
    assert "pale" in bars
    only = histogram([0.0, 0.0, 0.0], "none moved")
    assert only.count("<rect") == 1
    assert histogram([float("nan")], "nothing").count("<rect") == 0


def test_lines_have_a_dot_for_each_finite_value():
    drawn = line([1, 2, 3], [0.5, float("nan"), 0.1], "two", level=0.3)
    assert drawn.count("<circle") == 2
    assert 'class="own"' in drawn
    smooth = line(range(1, 6), [2.0] * 5, "level")
    heights = set(re.findall(r"[ML][\d.]+ ([\d.]+)", smooth))
    assert len(heights) == 1  # a constant stays where it is: the mean is not pulled to 0 at its start
