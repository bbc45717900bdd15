"""Methods that train apart, side by side, on real processes over loopback."""

import msgspec
import pytest

pytest.importorskip("torch", reason="training needs torch")

from backchannel.compare import apart
from backchannel.compare.apart import Link, Look, Training, contest, methods, reached, read, write
from backchannel.compare.apart_picture import draw
from backchannel.tasks import character_lm as lm
from backchannel.testing.links import refusal

TINY = Training(workers=2, steps=6, every=3, look=3, width=16, layers=1, heads=2, context=16, batch=2, limit=60.0)


def test_a_contest_over_loopback(tmp_path):
    told = []
    looks = contest(TINY, None, ["none", "sparse_loco"], lambda key, look: told.append((key, look.step)))
    assert told == [(key, step) for key in ("none", "sparse_loco") for step in (0, 3, 6)]
    assert all(4 < look.loss < 6 for seen in looks.values() for look in seen)
    for start, first, second in looks.values():
        assert (start.seconds, start.bits, start.loss) == (0.0, 0, looks["none"][0].loss)  # the same weights
        assert 0 < first.seconds < second.seconds
    size = 2 * 256 * 16  # tokens; of the rest at least as much again is not there
    assert looks["none"][-1].bits == 0
    assert 0 < looks["sparse_loco"][-1].bits < 2 * 32 * size / 50  # two rounds
    assert looks["sparse_loco"][2].bits == 2 * looks["sparse_loco"][1].bits
    file, picture = write(tmp_path, TINY, None, looks, {"ddp": "worker 1 of ddp failed: so it is"})
    kept = msgspec.json.decode(file.read_bytes())
    assert kept["looks"]["none"][1]["step"] == 3
    assert kept["failed"] == {"ddp": "worker 1 of ddp failed: so it is"}
    assert picture.stat().st_size > 10_000


def test_it_ends_within_a_step_of_the_time_that_is_given():
    endless = msgspec.structs.replace(TINY, steps=10**9, every=10**9, look=10**9)
    looks = contest(msgspec.structs.replace(endless, workers=1, seconds=1e-9), None, ["diloco"], lambda *_: None)
    assert [look.step for look in looks["diloco"]] == [0, 1]
    # The others wait in a collective of every step, or are anywhere in a round that does not end.
    looks = contest(msgspec.structs.replace(endless, seconds=0.5), None, ["ddp_powersgd", "diloco"], lambda *_: None)
    for key, (_, look) in looks.items():
        assert look.step > 1, key
        assert 0.5 < look.seconds < 5.0, key  # a step takes milliseconds, on a busy machine more
    untrained = lm.validation_loss(lm.fresh(0, 16, 1, 2, 16), read(TINY)[1], 16, most=64)
    assert looks["diloco"][1].loss == pytest.approx(untrained)  # of what all have in common, before the first round


def test_a_method_that_fails_does_not_lose_the_others(monkeypatch):
    def run(about, link, method, told):
        if method == "ddp":
            raise RuntimeError("worker 1 of ddp failed: no memory")
        return [Look(1, 2.0, 3.0, 4)]

    monkeypatch.setattr(apart, "_run", run)
    failed = []
    looks = contest(TINY, None, ["none", "ddp", "diloco"], lambda *_: None, lambda *what: failed.append(what))
    assert list(looks) == ["none", "diloco"]
    assert failed == [("ddp", "worker 1 of ddp failed: no memory")]
    with pytest.raises(RuntimeError, match="worker 1 of ddp failed: no memory"):
        contest(TINY, None, ["none", "ddp", "diloco"], lambda *_: None)


def test_who_fails_says_why(monkeypatch):
    start = apart._start
    monkeypatch.setattr(apart.sys, "executable", "false")
    with pytest.raises(RuntimeError, match=r"^worker 0 of none failed: it wrote nothing$"):
        contest(TINY, None, ["none"], lambda *_: None)
    monkeypatch.setattr(
        apart, "_start", lambda rank, command: start(rank, ["sh", "-c", f"echo {rank // 2} >&2; false"])
    )
    with pytest.raises(RuntimeError, match=r"^worker 0 of none failed: 0; worker 2: 1$"):
        contest(msgspec.structs.replace(TINY, workers=6), None, ["none"], lambda *_: None)


def test_what_cannot_be_compared(tmp_path):
    assert {"ddp", "none", "diloco", "sparse_loco", "streaming_diloco", "co2"} <= set(methods())
    with pytest.raises(ValueError, match="ef21 does not train apart; these do: ddp, "):
        contest(TINY, None, ["ef21"], lambda key, look: None)
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(ValueError, match="the text has 9 bytes; a context of 16 asks for 170"):
        contest(msgspec.structs.replace(TINY, text=str(short)), None, ["none"], lambda key, look: None)
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        contest(msgspec.structs.replace(TINY, every=0), None, ["diloco"], lambda key, look: None)


def test_when_a_loss_was_reached():
    looks = [Look(1, 2.0, 5.0, 0), Look(2, 4.0, 3.0, 8_000_000)]
    assert reached(looks, 4.0) == 4.0
    assert reached(looks, 1.0) is None
    assert looks[1].megabytes == 1.0


@pytest.mark.parametrize("sent", [0, 8_000_000])
def test_a_picture_of_whatever_there_is(tmp_path, sent):
    looks = {name: [Look(0, 0.0, 5.5, 0), Look(3, 2.0, 5.0, sent)] for name in ("none", *(f"m{i}" for i in range(9)))}
    for some, link in (({"none": looks["none"]}, None), (looks, Link("20mbit", 0.02)), (looks, Link())):
        draw(tmp_path / "a.png", some, link)
        assert (tmp_path / "a.png").stat().st_size > 10_000


@pytest.mark.links
def test_over_slow_links_bytes_are_those_of_the_interface():
    if why := refusal():
        pytest.skip(why)  # `make test-links` is for machines that let one make namespaces; `make test` leaves it out
    looks = contest(msgspec.structs.replace(TINY, width=64), Link("20mbit", 0.01), ["ddp", "diloco"], lambda *_: None)
    parameters = 256 * 64 + 16 * 64 + 12 * 64**2 + 13 * 64 + 2 * 64
    payload = 2 * 4 * parameters / 1e6  # of two rounds, in megabytes
    assert looks["diloco"][-1].bits == 2 * 32 * parameters
    assert payload < looks["diloco"][-1].megabytes < 1.1 * payload + 0.02
    assert looks["ddp"][-1].seconds > 3 * looks["diloco"][-1].seconds / 2  # six exchanges against two


def test_diloco_as_torchft_has_it_is_ours():
    pytest.importorskip("torchft", reason="a contestant of its own")
    looks = contest(TINY, None, ["diloco", "torchft_diloco"], lambda key, look: None)
    ours, theirs = ([(look.step, look.loss) for look in looks[key]] for key in ("diloco", "torchft_diloco"))
    assert [step for step, _ in ours] == [step for step, _ in theirs] == [0, 3, 6]
    assert [loss for _, loss in theirs] == pytest.approx([loss for _, loss in ours], rel=1e-5)
