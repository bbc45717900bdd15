"""`train-apart`: what it prints and writes, and what it refuses."""

import json

import pytest
import typer

pytest.importorskip("torch", reason="training needs torch")

from backchannel.cli.train_apart import _rate, _seconds, train_apart
from backchannel.compare import apart
from backchannel.testing import links

TINY = {"methods": "diloco", "workers": 2, "seconds": 1.0, "every": 5, "width": 16, "layers": 1, "seed": 0}


def test_it_prints_a_table_and_writes_a_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(links, "refusal", lambda: "not in a test")
    train_apart(None, **TINY, rate=None, delay=None, out=tmp_path / "a", as_json=False)
    out, err = capsys.readouterr()
    assert "no links can be made here (not in a test): over loopback, compare bytes, not seconds" in err
    assert "training apart" in out
    assert "diloco" in out
    assert (tmp_path / "a" / "train-apart.png").stat().st_size > 10_000
    kept = json.loads((tmp_path / "a" / "train-apart.json").read_text())
    assert kept["link"] is None
    assert kept["looks"]["diloco"][-1]["bits"] > 0


def test_what_it_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(links, "refusal", lambda: "not in a test")
    rest = {"out": tmp_path / "b", "as_json": True}
    with pytest.raises(ValueError, match="no links can be made here: not in a test"):
        train_apart(None, **TINY, rate="1mbit", delay=None, **rest)
    with pytest.raises(ValueError, match="--rate is written as 20mbit, in kbit, mbit or gbit a second, not '20'"):
        train_apart(None, **TINY, rate="20", delay=None, **rest)
    with pytest.raises(ValueError, match="nowhere is no file"):
        train_apart(tmp_path / "nowhere", **TINY, rate=None, delay=None, **rest)
    with pytest.raises(ValueError, match="--width must be a multiple of 4, not 18"):
        train_apart(None, **{**TINY, "width": 18}, rate=None, delay=None, **rest)
    with pytest.raises(ValueError, match="no such method does not train apart"):
        train_apart(None, **{**TINY, "methods": "no such method"}, rate=None, delay=None, **rest)
    assert not (tmp_path / "b").exists() or not list((tmp_path / "b").iterdir())


def test_what_fails_is_said_and_the_others_are_kept(tmp_path, capsys, monkeypatch):
    def run(about, link, method, told):
        if method == "ddp":
            raise RuntimeError("worker 1 of ddp failed: no memory")
        return [apart.Look(1, 0.5, 5.0, 0), apart.Look(2, 1.0, 4.0, 8_000_000)]

    monkeypatch.setattr(links, "refusal", lambda: "not in a test")
    monkeypatch.setattr(apart, "_run", run)
    tiny, rest = {**TINY, "methods": "ddp,none,diloco"}, {"rate": None, "delay": None, "out": tmp_path}
    with pytest.raises(typer.Exit) as stop:
        train_apart(None, **tiny, **rest, as_json=False)
    assert stop.value.exit_code == 1
    out, err = capsys.readouterr()
    assert "seconds to the loss at which none ended" in " ".join(out.split())
    assert "diloco" in out
    assert "worker 1 of ddp failed: no memory" in err
    assert err.endswith("failed: ddp\n")
    assert (tmp_path / "train-apart.png").stat().st_size > 10_000
    kept = json.loads((tmp_path / "train-apart.json").read_text())
    assert list(kept["looks"]) == ["none", "diloco"]
    assert kept["failed"] == {"ddp": "worker 1 of ddp failed: no memory"}
    with pytest.raises(typer.Exit):
        train_apart(None, **tiny, **rest, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == kept["failed"]
    assert [row["method"] for row in told["methods"]] == ["none", "diloco"]
    (tmp_path / "train-apart.png").unlink()
    with pytest.raises(typer.Exit):
        train_apart(None, **{**tiny, "methods": "ddp"}, **rest, as_json=False)
    assert not (tmp_path / "train-apart.png").exists()  # of nothing there is no picture


@pytest.mark.parametrize("text", ["20mbit", "0.5gbit", "64Kbit"])
def test_a_rate_in_words(text):
    assert _rate(text) == text.lower()


@pytest.mark.parametrize("text", ["20", "20mb", "0mbit", "-1mbit", "mbit", "20 mbit", "20mbps"])
def test_a_rate_that_is_none(text):
    with pytest.raises(ValueError, match=r"--rate is written as 20mbit, in kbit, mbit or gbit a second, not '"):
        _rate(text)


@pytest.mark.parametrize(("text", "seconds"), [("20ms", 0.02), ("0.5s", 0.5), ("0ms", 0.0)])
def test_a_delay_in_words(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize("text", ["20", "fast", "ms", "-"])
def test_a_delay_that_is_none(text):
    with pytest.raises(ValueError, match=r"--delay is written as 20ms or 0\.02s, not"):
        _seconds(text)
