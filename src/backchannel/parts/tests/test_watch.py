"""Watch: what a process tells of its time, whom a monitor names for it, and that numbers stay as they are."""

import json
import re
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exchanges are collectives of torch")

from backchannel.distributed import TorchComm, connect, wrap  # noqa: E402
from backchannel.distributed.c4 import c4  # noqa: E402
from backchannel.distributed.diloco import diloco  # noqa: E402
from backchannel.distributed.streaming_diloco import streaming_diloco  # noqa: E402
from backchannel.parts.comm import Stacked  # noqa: E402
from backchannel.parts.local_training import train  # noqa: E402
from backchannel.parts.tests.test_apart import adam, loss, model, steps  # noqa: E402
from backchannel.parts.tests.test_group import free_address  # noqa: E402
from backchannel.parts.watch import LOOK, Watch  # noqa: E402
from backchannel.testing.processes import run_processes  # noqa: E402


class _Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class _Group:
    """Process 0 of 2, whose answers come when `release` is called; process 1 says twice what process 0 says."""

    rank, size = 0, 2

    def __init__(self):
        self.asked, self.answers, self.said = 0, [], [1, 1]

    def submit(self, call, *arguments):
        self.asked += 1
        self.answers.append((Future(), arguments))
        return self.answers[-1][0]

    def all(self, x):
        raise AssertionError("the group's thread alone calls it")

    def release(self):
        for answer, (x,) in self.answers:
            answer.set_result(torch.stack([x, 2 * x]))
        self.answers = []

    def calls(self):
        return list(self.said)


class _Monitor:
    ranks, limit = 2, 1e9

    def __init__(self):
        self.heard = []

    def record(self, timings):
        self.heard.append(timings)
        return ()


def _send(group):
    group.asked += 1


def test_computing_is_what_is_outside_of_exchanges():
    clock, group, monitor = _Clock(), _Group(), _Monitor()
    clock.now = 100.0
    watch = Watch(monitor, group, clock)
    clock.now += 3.0
    with watch.exchange():  # something is posted
        _send(group)
        clock.now += 0.5
    clock.now += 1.0
    with watch.exchange():  # its answer is waited for: nothing is sent, and the round goes on
        clock.now += 4.0
    clock.now += 2.0
    with watch.waiting():
        clock.now += 7.0
    with watch.exchange():
        _send(group)
        clock.now += 0.25
    assert monitor.heard == []  # nobody is waited for
    group.release()
    clock.now += 8.0
    watch.begin()
    clock.now += 1.0
    with watch.exchange():
        _send(group)
        assert len(monitor.heard) == 2
    group.release()
    watch.close()
    first, second, third = monitor.heard
    np.testing.assert_allclose(first.computing, [3.0, 6.0])
    np.testing.assert_allclose(first.inside, [0.5, 1.0])
    np.testing.assert_allclose(second.computing, [3.0, 6.0])
    np.testing.assert_allclose(second.inside, [4.25, 8.5])
    np.testing.assert_allclose(third.computing, [1.0, 2.0])
    assert (third.inside > 0).all()  # what took no time has a logarithm, too
    assert np.isnan(first.transfer).all()
    assert first.came.all()
    assert first.left.all()


def test_the_time_in_which_a_monitor_judges_is_nobodys():
    clock, group = _Clock(), _Group()

    class Slow(_Monitor):
        def record(self, timings):
            clock.now += 50.0
            return super().record(timings)

    monitor = Slow()
    watch = Watch(monitor, group, clock)
    for _ in range(3):
        clock.now += 1.0
        with watch.exchange():
            _send(group)
            clock.now += 0.5
        group.release()
    watch.close()
    for timings in monitor.heard:
        np.testing.assert_allclose((timings.computing[0], timings.inside[0]), (1.0, 0.5))


def test_a_fault_is_a_warning_once_and_what_broke_is_raised():
    clock, group, told = _Clock(), _Group(), []
    watch = Watch(c4(2, isolate=told.append), group, clock)
    for _ in range(4):
        clock.now += 1.0
        with watch.exchange():
            _send(group)
        group.release()
    named = r"rank 1 computes 2\.0 times as long as its peers, in 4 of 4 rounds"
    with pytest.warns(RuntimeWarning, match=named), watch.exchange():
        _send(group)
    assert [fault.where for fault in told] == [("slow rank", 1, -1)]
    group.release()
    with watch.exchange():  # again, and nothing is said
        _send(group)
    group.answers.pop()[0].set_exception(RuntimeError("exchange 7 failed: process 1 did not come"))
    with pytest.raises(RuntimeError, match="exchange 7 failed: process 1 did not come"), watch.exchange():
        raise AssertionError("no exchange is begun")
    watch.close()


def _stand_still(watch, over):
    with watch.exchange():
        while not over():
            time.sleep(LOOK)
        time.sleep(5 * LOOK)  # what is said again would be said now
    watch.close()


def test_who_does_not_come_is_named_while_the_others_wait():
    group, monitor, heard = _Group(), c4(2, first=0.05), []
    record, monitor.record = monitor.record, lambda timings: heard.append(timings) or record(timings)
    group.said = [3, 2]  # process 0 is in its third collective
    with pytest.warns(RuntimeWarning, match="rank 1 did not come to the collective") as seen:
        _stand_still(Watch(monitor, group), lambda: monitor.faults)
    assert len(seen) == len(heard) == 1
    assert [fault.where for fault in monitor.faults] == [("absent", 1, -1)]
    group.said = [3, 4]  # both came, and process 1 has left
    other = c4(2, first=0.05)
    with pytest.warns(RuntimeWarning, match="rank 0 came, and has not left the collective"):
        _stand_still(Watch(other, group), lambda: other.faults)


def test_what_cannot_be_watched():
    with pytest.raises(ValueError, match="the monitor is of 3 ranks, and the group has 2"):
        Watch(c4(3), _Group())
    net = model()
    with pytest.raises(ValueError, match="a monitor hears processes of a group: comm must be a TorchComm"):
        wrap(net, adam(net.parameters()), diloco(2), Stacked(2), monitor=c4(2))


def test_a_monitor_changes_no_number():
    plain, watched = model(), model()
    group = connect(free_address(), 0, 1)

    class One(_Monitor):
        ranks = 1

    first, second, monitor = adam(plain.parameters()), adam(watched.parameters()), One()
    method = streaming_diloco(steps=4, fragments=2, delay=1)
    alone = wrap(plain, first, method, Stacked(1))
    apart = wrap(watched, second, method, TorchComm(group=group), monitor=monitor)
    steps(plain, first, 1, 9)
    steps(watched, second, 1, 9)
    alone.settle()
    apart.settle()
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert alone.comm.up == apart.comm.up  # of which a monitor's messages are no part
    assert len(monitor.heard) == 4  # fragments were sent after steps 2, 4, 6, 8, and nothing after 3, 5, 7, 9
    for each in threading.enumerate():
        if each.name == "backchannel-watch":
            each.join(60)
            assert not each.is_alive()
    group.close()


WORKER = """
import json, sys, time, warnings, torch
torch.set_num_threads(1)
from pathlib import Path
from backchannel.distributed import TorchComm, connect, wrap
from backchannel.distributed.c4 import c4
from backchannel.distributed.diloco import diloco
from backchannel.distributed.streaming_diloco import streaming_diloco
from backchannel.parts.apart import flat
from backchannel.parts.tests.test_apart import adam, model, steps
rank, folder, trials = int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])

def train(net, optimizer, apart, what, told, first, last):
    for now in range(first, last + 1):  # an exchange each
        told["now"] = now
        time.sleep(0.05 + 0.3 * (rank == 1 and what in ("slow", "streaming", "resumed")))
        if rank == 1 and what == "hang" and now == 4:
            end = time.monotonic() + 60
            while not all((folder / f"{what}{other}").exists() for other in (0, 2)) and time.monotonic() < end:
                time.sleep(0.02)
        steps(net, optimizer, 2 * now - 1, 2 * now, rank)

def trial(what, address):
    told = {"faults": []}
    def isolate(fault):
        told["faults"].append((told["now"], fault.where))
        (folder / f"{what}{rank}").touch()
    method = streaming_diloco(steps=4, fragments=2, delay=1) if what == "streaming" else diloco(2)
    comm, net = TorchComm(group=connect(address, rank, 3, limit=60.0)), model()
    optimizer = adam(net.parameters())
    monitor = c4(3, least=0.1, patience=30.0, isolate=isolate)
    apart = wrap(net, optimizer, method, comm, monitor=monitor)
    if what == "resumed":
        train(net, optimizer, apart, what, told, 1, 2)
        file = folder / f"{rank}.pt"
        torch.save((net.state_dict(), optimizer.state_dict(), apart.state_dict()), file)
        apart.settle()
        weights, inner, saved = torch.load(file, weights_only=True)
        net = model()
        net.load_state_dict(weights)
        optimizer = adam(net.parameters())
        optimizer.load_state_dict(inner)
        monitor = c4(3, least=0.1, patience=30.0, isolate=isolate)
        apart = wrap(net, optimizer, method, comm, saved, monitor)
    train(net, optimizer, apart, what, told, *((3, 7) if what == "resumed" else (1, 5)))
    apart.settle()
    comm.group.close()
    return told["faults"], flat(net.parameters()).tolist()

found = {}
for what, address in trials:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        faults, end = trial(what, address)
    found[what] = faults, [str(each.message) for each in seen], end
(folder / f"{rank}.json").write_text(json.dumps(found))
"""
TRIALS = ("healthy", "slow", "streaming", "hang", "resumed")


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """By trial, for each of three processes: its faults with the round, its warnings, and the weights at the end."""
    folder = tmp_path_factory.mktemp("watch")
    told = json.dumps([(what, free_address()) for what in TRIALS])
    run_processes(WORKER, lambda rank: [str(rank), str(folder), told], 3, folder, 180.0)
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]
    return {what: [each[what] for each in found] for what in TRIALS}


@pytest.mark.parametrize(("what", "last"), [("slow", 5), ("streaming", 5), ("resumed", 7)])
def test_a_slow_process_is_named_by_all_within_five_rounds(trials, what, last):
    for faults, warned, end in trials[what]:
        assert faults == [[last, ["slow rank", 1, -1]]]  # as the fifth exchange begins
        (said,) = warned
        assert re.fullmatch(r"rank 1 computes \d+\.\d times as long as its peers, in [45] of [45] rounds", said)
        assert end == trials[what][0][2]


def test_nobody_is_named_where_nobody_is_slow(trials):
    for faults, warned, end in trials["healthy"]:
        assert faults == warned == []
        assert end == trials["slow"][0][2]


def test_who_hangs_is_named_by_the_others(trials):
    for rank, (faults, warned, end) in enumerate(trials["hang"]):
        assert faults == ([] if rank == 1 else [[4, ["absent", 1, -1]]])
        assert warned == ([] if rank == 1 else ["rank 1 did not come to the collective"])
        assert end == trials["healthy"][0][2]


def test_a_resumed_run_that_is_watched_ends_where_it_would_have_ended(trials):
    curve = train(diloco(2), Stacked(3), [model() for _ in range(3)], adam, loss, 14, lambda net: 0.0, 14)
    assert trials["resumed"][0][2] == curve.state.x.tolist()


def test_what_isolate_raises_of_a_hang_is_raised_when_the_exchange_has_ended():
    class Raising(_Monitor):
        limit = 0.0

        def record(self, timings):
            raise RuntimeError("isolated")

    watch = Watch(Raising(), _Group())
    with pytest.raises(RuntimeError, match="isolated"), watch.exchange():
        time.sleep(5 * LOOK)
    with watch.exchange():  # and once
        pass
    watch.close()
