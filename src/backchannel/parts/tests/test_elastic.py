"""Workers that die and come back: the others go on, who comes back catches up, and all end with the same model."""

import hashlib
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

torch = pytest.importorskip("torch", reason="training apart needs torch")
pytest.importorskip("torchft", reason="elastic training needs torchft")

from torchft.coordination import LighthouseServer  # noqa: E402

from backchannel.distributed import wrap_elastic  # noqa: E402
from backchannel.distributed.diloco import diloco  # noqa: E402
from backchannel.distributed.streaming_diloco import streaming_diloco  # noqa: E402
from backchannel.parts.apart import flat  # noqa: E402
from backchannel.parts.elastic import Elastic  # noqa: E402
from backchannel.parts.tests.test_apart import adam, model, steps  # noqa: E402
from backchannel.parts.torchft_manager import reaching  # noqa: E402
from backchannel.testing.links import Links, refusal  # noqa: E402

WORKER = """
import os, sys, time, torch
torch.set_num_threads(1)
from backchannel.distributed import wrap_elastic
from backchannel.distributed.sparse_loco import sparse_loco
from backchannel.parts.compressors import top_k
from backchannel.parts.tests.test_apart import adam, loss, model
name, lighthouse, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
net = model()
optimizer = adam(net.parameters())
apart = wrap_elastic(net, optimizer, sparse_loco(3, compressor=top_k(5)), name, lighthouse, limit=30.0)
print("ready", flush=True)
while True:
    optimizer.zero_grad()
    loss(net, apart.t + 1, number).backward()
    time.sleep(0.02)
    before = len(apart.workers)
    optimizer.step()
    if len(apart.workers) > before:
        print(apart.rounds, apart.workers[-1], apart.state.x.numpy().tobytes().hex(), flush=True)
"""


def _rounds(path):
    """What a worker wrote: (round, workers, model) for each round that it committed."""
    lines = path.read_text().splitlines()
    return [(int(a), int(b), hashlib.md5(c.encode()).hexdigest()) for a, b, c in map(str.split, lines[1:]) if c]


def _until(what, seconds, processes):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "the workers did not come so far"
        assert all(process.poll() is None for process in processes), "a worker has stopped"
        time.sleep(0.05)


@pytest.fixture
def lighthouse():
    """The address of one on loopback."""
    server = LighthouseServer(bind="127.0.0.1:0", min_replicas=1, join_timeout_ms=10_000, heartbeat_timeout_ms=5_000)
    yield re.sub(r"//.*:", "//127.0.0.1:", server.address())
    server.shutdown()


def test_kill_9_and_come_back(tmp_path, lighthouse):
    def start(number, again=""):
        out, errors = tmp_path / f"{number}{again}.out", tmp_path / f"{number}{again}.err"
        command = [sys.executable, "-u", "-c", WORKER, f"worker-{number}{again}", lighthouse, str(number)]
        with open(out, "w") as wrote, open(errors, "w") as erred:
            return subprocess.Popen(command, stdout=wrote, stderr=erred), out

    started = [start(number) for number in range(3)]
    processes, files = [each for each, _ in started], [path for _, path in started]
    try:
        _until(lambda: all(len(_rounds(path)) > 2 and _rounds(path)[-1][1] == 3 for path in files), 60, processes)
        processes[2].kill()
        processes[2].wait()
        alone = len(_rounds(files[0])) + 3
        _until(lambda: len(_rounds(files[0])) > alone and _rounds(files[0])[-1][1] == 2, 60, processes[:2])
        processes[2], back = start(2, "b")
        _until(lambda: len(_rounds(back)) > 2 and _rounds(back)[-1][1] == 3, 60, processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    seen = [{r: model for r, _, model in _rounds(path)} for path in (files[0], files[1], back)]
    for one in seen[1:]:
        common = sorted(seen[0].keys() & one.keys())
        assert len(common) > 2
        assert all(seen[0][r] == one[r] for r in common), "workers committed different models in one round"
    assert min(seen[2]) > alone  # it did not begin anew


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")  # torchft's own
def test_after_close_nothing_is_exchanged_and_the_store_is_gone(lighthouse):
    net = model()
    optimizer = adam(net.parameters())
    elastic = wrap_elastic(net, optimizer, diloco(2), "alone", lighthouse, limit=20.0)
    port = elastic._store.port
    steps(net, optimizer, 1, 5)
    assert (elastic.t, elastic.rounds, elastic.lost, elastic.workers) == (5, 2, 0, [1, 1])
    socket.create_connection(("127.0.0.1", port), 5).close()
    elastic.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    before = flat(net.parameters())
    steps(net, optimizer, 6, 7)
    assert elastic.t == 5
    assert not torch.equal(flat(net.parameters()), before)
    elastic.close()  # a second time: nothing


def test_what_cannot_be_elastic():
    net = model()
    with pytest.raises(ValueError, match="elastic training needs a method that waits for its exchanges"):
        wrap_elastic(net, adam(net.parameters()), streaming_diloco(4, 2, 1), "a", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"diloco is what makes the method: call it: diloco\(steps=\.\.\.\)"):
        wrap_elastic(net, adam(net.parameters()), diloco, "a", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match="the model is in DataParallel: wrap the plain module"):
        wrap_elastic(torch.nn.DataParallel(net), adam(net.parameters()), diloco(2), "a", "http://127.0.0.1:1")
    for wrong in ("127.0.0.1:29510", "http://127.0.0.1", "http://:29510", "http://127.0.0.1:many"):
        with pytest.raises(ValueError, match="a lighthouse is at http://host:port, not at "):
            wrap_elastic(net, adam(net.parameters()), diloco(2), "a", wrong)
    with pytest.raises(RuntimeError, match=r"the lighthouse at http://no\.such\.host\.invalid:1 cannot be reached"):
        reaching("http://no.such.host.invalid:1")
    assert reaching("http://127.0.0.1:1") == "127.0.0.1"


LIGHTHOUSE = """
import sys, time
from torchft.coordination import LighthouseServer
server = LighthouseServer(bind=sys.argv[1], min_replicas=2, join_timeout_ms=10_000, heartbeat_timeout_ms=5_000)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.links
def test_workers_on_two_machines_meet_and_one_catches_up():
    if why := refusal():
        pytest.skip(why)  # `make test-links` is for machines that let one make namespaces; `make test` leaves it out
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with Links(2) as links:
        address = f"{links.address(0)}:29510"
        started = [links.start(0, [sys.executable, "-u", "-c", LIGHTHOUSE, address], **pipes)]
        late = threading.Timer(120, lambda: [process.kill() for process in started])  # reading has no limit of its own
        late.start()
        try:
            assert started[0].stdout.readline() == "up\n"
            for number in range(2):
                given = [f"worker-{number}", f"http://{address}", str(number)]
                started.append(links.start(number, [sys.executable, "-u", "-c", WORKER, *given], **pipes))
            wrote = [[process.stdout.readline().split() for _ in range(6)][1:] for process in started[1:]]
        finally:
            late.cancel()
            for process in started:
                process.kill()
                process.communicate()
    rounds = [{int(r): model for r, workers, model in lines if workers == "2"} for lines in wrote]
    common = rounds[0].keys() & rounds[1].keys()
    assert len(common) > 2
    assert all(rounds[0][r] == rounds[1][r] for r in common)


def test_who_trains_otherwise_does_not_catch_up():
    worker = object.__new__(Elastic)  # as it is before it has met anybody
    worker._begun = {"method or its settings": "diloco(step_size=0.2)"}
    with pytest.raises(
        ValueError, match=r"must be the same in all workers: others have diloco\(0.7\), this one diloco"
    ):
        worker._catch_up({"begun": {"method or its settings": "diloco(0.7)"}})
    assert not hasattr(worker, "state")
