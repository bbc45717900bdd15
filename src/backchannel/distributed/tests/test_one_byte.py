"""Just One Byte: proofs, contrast, and the faults of real processes."""

import contextlib
import copy
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="distributed methods need torch")

from torch.distributed import TCPStore  # noqa: E402

from backchannel.distributed.mezo import mezo  # noqa: E402
from backchannel.distributed.one_byte import one_byte, replay  # noqa: E402
from backchannel.parts.rounds import Round, RoundLog, Rounds  # noqa: E402
from backchannel.parts.torch_random import keys, words  # noqa: E402


def _weights(count=40, dtype=torch.float32):
    return torch.nn.Parameter(torch.linspace(-1, 2, count, dtype=torch.float64).to(dtype))


def _closures(weights, worker, samples=2):
    """Each worker has a centre of its own, and each sample a scale."""
    return [lambda k=k: ((weights - worker) ** 2).sum() / (k + 2) for k in range(samples)]


def _together(optimizers, all_closures, steps):
    """Workers in one process: each measures, all apply. Returns the rounds."""
    rounds = []
    for optimizer in optimizers:
        optimizer.join()
    for _ in range(steps):
        said = []
        for number, (optimizer, closures) in enumerate(zip(optimizers, all_closures, strict=True)):
            optimizer.rounds.worker = number
            said.append((number, optimizer.measure(closures)[0]))
        rounds.append(Round(optimizers[0].round, (optimizers[0].param_groups[0]["lr"],), tuple(said)))
        for optimizer in optimizers:
            optimizer.apply(rounds[-1])
    return rounds


class _Named:
    """In the place of `Rounds`, for `_together`: it only has a number."""

    worker = 0

    def join(self, terms):
        pass

    def offer(self, rounds):
        pass

    def closed(self, first):
        return ()

    def announce(self, step):
        return True


def _group(count, workers, **arguments):
    own = [_weights(count) for _ in range(workers)]
    made = [one_byte([w], rounds=_Named(), **({"lr": 0.005, "clip": 60.0} | arguments)) for w in own]
    return own, made


def _signs(seed, step, worker, sample, count):
    """The direction of an id, and its luck, from the hash."""
    own = words(keys(seed, torch.tensor([step]), torch.tensor([worker])), 2 * sample, 2)[0]
    packed = words(own[:1], 0, count // 64 + 1).numpy().view(np.uint8)
    luck = (int(words(own[1:], 0, 1)) % 2**64 >> 11) * 2.0**-53
    return 2.0 * np.unpackbits(packed, bitorder="little")[:count] - 1, luck


def test_step_rounds_by_hand():
    # Two workers, two samples each, in float64, from equations (1) to (4).
    weights = [_weights(5, torch.float64) for _ in range(2)]
    x, epsilon, clip, rate = weights[0].detach().numpy().copy(), 2.0**-7, 3.0, 0.03
    optimizers = [one_byte([w], rate, clip, perturbation=0.009, seed=7, rounds=_Named()) for w in weights]
    rounds = _together(optimizers, [_closures(w, i) for i, w in enumerate(weights)], 4)
    cut = 0
    for step in range(4):
        total, found = np.zeros(5), []
        for worker in range(2):
            for sample in range(2):
                z, luck = _signs(7, step, worker, sample, 5)
                up, down = (((x + side * epsilon * z - worker) ** 2).sum() / (sample + 2) for side in (1, -1))
                b = math.floor((up - down) / (2 * epsilon) / clip * 127 + luck)  # (1), (2)
                cut += worker == 0 and abs(b) > 127
                b = max(-127, min(127, b))
                total += b * z
                found.append(b % 256)
        x = x - rate * (clip / 127) / 4 * total  # (3)
        x = np.sign(x) * ((np.abs(x) + epsilon) - epsilon)  # (4)
        assert list(b"".join(message for _, message in rounds[step].messages)) == found
    assert cut > 0
    assert optimizers[0].clipped == cut
    for each in weights:
        np.testing.assert_allclose(each.detach(), x, rtol=1e-13, atol=1e-15)


def test_known_the_mean_of_the_byte_is_the_slope():
    # A slope of 0.3 levels: bytes are 0 or 1, times the sign. 5 standard errors of 800 fail on one seed in 1.7e6.
    weights = _weights(1, torch.float64)
    optimizer, total = one_byte([weights], 0.0, clip=127.0), 0
    for step in range(800):
        optimizer.join()
        message, _ = optimizer.measure([lambda: 0.3 * weights.sum()])
        level = message[0] - 256 * (message[0] > 127)
        total += level * _signs(0, step, 0, 0, 1)[0][0]
        optimizer.apply(Round(step, (0.0,), ((0, message),)))
    assert abs(total / 800 - 0.3) < 5 * 0.5 / math.sqrt(800)


def test_known_measuring_leaves_the_weights_whatever_the_closure_does():
    weights = _weights(3000)
    optimizer = one_byte([weights], 0.01, 10.0)
    optimizer.join()
    before = weights.detach().clone()
    for bad in (lambda: float("nan"), lambda: 1 / 0, lambda: None, lambda: weights):
        with pytest.raises((ValueError, ZeroDivisionError)):
            optimizer.step(bad)
        assert torch.equal(weights.detach(), before)
        assert optimizer.round == 0
    optimizer.measure([lambda: weights.square().sum()])
    assert torch.equal(weights.detach(), before)


def test_known_both_losses_have_the_same_luck():
    # With dropout, the slope is that of one mask: for a linear loss, exactly a whole number of kept weights.
    weights = torch.nn.Parameter(torch.ones(64, dtype=torch.float64))
    optimizer = one_byte([weights], 0.0, clip=127.0)
    optimizer.join()
    for _ in range(20):
        (byte,), _ = optimizer.measure([lambda: torch.nn.functional.dropout(weights, 0.5).sum() / 2])
        assert byte - 256 * (byte > 127) in range(-64, 65)
    off = optimizer.measure([lambda: torch.rand(()) * 100])[0]
    assert off == b"\0"


def test_limit_where_bytes_lose_nothing_it_is_spall_s_method():
    # Slopes are whole numbers of levels, and all numbers dyadic: no rounding, to the last bit.
    weights = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 4.0]))
    slopes, x = torch.tensor([3.0, -5.0, 7.0, 1.0]), weights.detach().clone()
    optimizer = one_byte([weights], 0.125, clip=127.0, perturbation=0.25, seed=3)
    for step in range(10):
        optimizer.step(lambda: (slopes * weights).sum())
        z = torch.from_numpy(_signs(3, step, 0, 0, 4)[0]).float()
        x = x - 0.125 * (slopes @ z) * z
        assert torch.equal(weights.detach(), x)


def test_limit_replicas_are_equal_to_the_last_bit_in_any_order_of_messages():
    weights, optimizers = _group(2000, 3)
    rounds = _together(optimizers, [_closures(w, i, 1 + i) for i, w in enumerate(weights)], 30)
    other = _weights(2000)
    late = one_byte([other], lr=9.9, clip=60.0)
    late.join()
    for each in rounds:
        late.apply(each._replace(messages=each.messages[::-1]))
    assert all(torch.equal(each, weights[0]) for each in (*weights, other))
    assert [optimizer.clipped for optimizer in optimizers] != [0, 0, 0]
    assert not torch.equal(weights[0], _weights(2000))


def _drift(make):
    """How many of 2,000 weights are not what they were after 50 steps too small to move any of them."""
    weights = _weights(2000)
    optimizer = make(weights)
    optimizer.step(lambda: weights.square().sum())
    before = weights.detach().clone()
    for _ in range(50):
        optimizer.step(lambda: weights.square().sum())
    return int((weights.detach() != before).sum())


def test_contrast_a_machine_that_measured_has_the_same_weights_and_with_mezo_it_has_not():
    assert _drift(lambda weights: one_byte([weights], 1e-30, 60.0)) == 0
    assert _drift(lambda weights: mezo([weights], 1e-30)) > 1000


def test_contrast_one_wild_batch_moves_the_weights_by_a_bounded_step():
    def farthest(make):
        weights = _weights(100)
        start, optimizer = weights.detach().clone(), make(weights)
        optimizer.step(lambda: 1e9 * weights.sum())
        return float((weights.detach() - start).abs().max())

    assert farthest(lambda weights: one_byte([weights], 0.001, 60.0)) < 0.0601
    assert farthest(lambda weights: mezo([weights], 0.001)) > 1e4


def test_wrong_arguments_and_rounds():
    weights = _weights()
    for name, value in (("clip", 0.0), ("perturbation", math.inf)):
        with pytest.raises(ValueError, match=f"{name} must be positive, not {value}"):
            one_byte([weights], **({"lr": 0.1, "clip": 1.0} | {name: value}))
    frozen = one_byte([torch.ones(3)], lr=0.1, clip=1.0)
    for use in (lambda: frozen.step(lambda: torch.tensor(1.0)), frozen.join, lambda: frozen.round):
        with pytest.raises(ValueError, match="there is no parameter that requires a gradient: all are frozen"):
            use()
    with pytest.raises(ValueError, match=r"seed must lie in \[0, 2\^63\), not -1"):
        one_byte([weights], 0.1, 1.0, seed=-1)
    optimizer = one_byte([weights], 0.1, 1.0)
    with pytest.raises(ValueError, match="takes a function that returns the loss, or a list of them"):
        optimizer.step([1.0])
    for early in (lambda fresh: fresh.apply(Round(0, (0.1,), ())), lambda fresh: fresh.measure([float])):
        with pytest.raises(ValueError, match=r"join\(\) comes first"):
            early(one_byte([weights], 0.1, 1.0))
    with pytest.raises(ValueError, match="round 3 cannot follow on 0 rounds"):
        optimizer.apply(Round(3, (0.1,), ()))
    with pytest.raises(ValueError, match="round 0 has 2 learning rates, and here are 1 groups"):
        optimizer.apply(Round(0, (0.1, 0.2), ()))
    with pytest.raises(ValueError, match="the closure must return one number, not a tensor of shape"):
        optimizer.step(lambda: torch.zeros(3))


# ---- logs


def test_a_log_brings_starting_weights_to_the_last_ones_and_a_torn_one_to_its_tear(tmp_path):
    path, weights = tmp_path / "run.log", _weights()
    optimizer = one_byte([weights], 0.01, 60.0, log=path)
    seen = []
    for step in range(12):
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
        optimizer.step(_closures(weights, 3))
        seen.append(weights.detach().clone())
    other = _weights()
    again = replay([other], path)
    assert again.round == 12
    assert torch.equal(other, weights)

    whole = path.read_bytes()
    last = len(RoundLog(path).rounds[-1].packed()) + 8
    for torn in (whole[:-1], whole[: 1 - last], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(torn)
        other = _weights()
        again = replay([other], path)
        assert again.round == 11
        assert torch.equal(other.detach(), seen[10])
    again.param_groups[0]["lr"] = 0.01 / 12
    again.step(_closures(other, 3))  # goes on where the tear was
    assert torch.equal(other, weights)
    assert path.read_bytes() == whole

    with pytest.raises(ValueError, match=r"this worker's weights at the start is '.*', and that of .*run\.log is"):
        replay([torch.nn.Parameter(torch.zeros(40))], path)
    with pytest.raises(ValueError, match=r"this worker's seed is 1, and that of .* is 0"):
        one_byte([_weights()], 0.01, 60.0, seed=1, log=path).join()
    path.write_bytes(whole.replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(ValueError, match=r"this library's version is 1, and that of .* is 9"):
        replay([_weights()], path)
    path.write_bytes(b"not a log\n")
    with pytest.raises(ValueError, match="is not a log of rounds"):
        replay([_weights()], path)
    with pytest.raises(ValueError, match="it has no terms"):
        replay([_weights()], tmp_path / "none.log")


def test_a_checkpoint_goes_on_and_catches_up():
    store, weights = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False), _weights()
    optimizer = one_byte([weights], 0.01, 60.0, rounds=Rounds(store))
    for _ in range(3):
        optimizer.step(_closures(weights, 1))
    kept = weights.detach().clone(), copy.deepcopy(optimizer.state_dict())
    for _ in range(4):
        optimizer.step(_closures(weights, 1))
    optimizer.leave()
    other = torch.nn.Parameter(kept[0])
    resumed = one_byte([other], 0.01, 60.0, rounds=Rounds(store, patience=0.2))
    resumed.load_state_dict(kept[1])
    assert resumed.join() == 4
    assert (resumed.round, resumed.rounds.worker) == (7, 1)
    assert torch.equal(other, weights)
    unlike = one_byte([_weights()], 0.02, 60.0, rounds=Rounds(store, patience=0.2))
    with pytest.raises(ValueError, match=r"lr is \(0\.02,\) here, and round 7 was closed with \(0\.01,\)"):
        _meanwhile(lambda: resumed.step(_closures(other, 1)), unlike)


def _meanwhile(first, optimizer):
    """One worker closes the round while the other measures."""

    def closure():
        if not done:
            done.append(first())
        return 0.0

    done = []
    optimizer.step(closure)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 5}, "this worker's seed is 5, and the group's is 0"),
        ({"clip": 1.0}, "this worker's clip is 1.0, and the group's is 60.0"),
        ({"perturbation": 0.5}, "this worker's perturbation is 0.5, and the group's is 0.0009765625"),
        ({"count": 41}, "this worker's (shapes|weights at the start) is"),
        ({"start": 9.0}, "this worker's weights at the start is"),
    ],
)
def test_a_worker_of_another_run_is_refused(change, says):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    one_byte([_weights()], 0.01, 60.0, rounds=Rounds(store)).join()
    weights = _weights(change.pop("count", 40))
    with torch.no_grad():
        weights[0] = change.pop("start", -1.0)
    with pytest.raises(ValueError, match=says):
        one_byte([weights], **({"lr": 0.01, "clip": 60.0} | change), rounds=Rounds(store)).join()


# ---- real processes: one imports torch, and the workers are its forks

WORKERS = """
import json, os, signal, sys, time
import torch
from datetime import timedelta
from torch.distributed import TCPStore
from backchannel.distributed.one_byte import one_byte
from backchannel.parts.rounds import Rounds
torch.set_num_threads(1)

def work(name, port, folder, steps, pause, workers, bad):
    store = TCPStore("127.0.0.1", port, is_master=False, timeout=timedelta(seconds=20))
    weights = torch.nn.Parameter(torch.linspace(-1, 2, 3000))
    rounds = Rounds(store, patience=2.0, workers=workers, limit=30.0)
    optimizer = one_byte([weights], 0.005, 60.0, rounds=rounds, log=f"{folder}/{name}.log")
    caught = optimizer.join()
    while optimizer.round < steps:
        try:
            factor = float("nan") if optimizer.round == bad else 1.0
            optimizer.step([lambda k=k: factor * (weights - k - rounds.worker).square().sum() for k in range(2)])
        except ValueError as error:
            assert "the loss is not finite" in str(error)
            optimizer.step([])
        time.sleep(pause)
    optimizer.leave()
    torch.save({"weights": weights.detach(), "worker": rounds.worker, "caught": caught,
                "missed": torch.tensor(rounds.missed), "sent": optimizer.sent}, f"{folder}/{name}.pt")

def host(folder):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    open(f"{folder}/port.new", "w").write(str(store.port))
    os.rename(f"{folder}/port.new", f"{folder}/port")
    time.sleep(60)

def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)  # until all its threads stand still: one that is on its way out answers yet
    return pid

torch.optim.SGD([torch.zeros(1)], 0.1)  # what torch imports at the first optimizer, it imports here

for line in sys.stdin:
    what = json.loads(line)
    child = stop(what["pid"]) if "pid" in what else os.fork()
    if child == 0:
        code = 1
        try:
            {"work": work, "host": host}[what.pop("do")](**what)
            code = 0
        except Exception as error:
            print(error, file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
"""


@pytest.fixture(scope="module")
def fork():
    command = [sys.executable, "-c", WORKERS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def start(**what):
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            children.append(int(process.stdout.readline()))
            return children[-1]

        children = []
        yield start
        process.kill()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _until(condition, seconds=100.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_of_real_processes_one_is_killed_one_comes_late_and_all_end_equal(fork, tmp_path):
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {"do": "work", "port": store.port, "folder": str(tmp_path), "steps": 40}
    # "b" once has a loss that is not finite: it sits that round out.
    began = [fork(name=n, pause=0.005, workers=3, bad=7 if n == "b" else -1, **common) for n in "abc"]
    log = tmp_path / "a.log"
    _until(lambda: log.exists() and len(RoundLog(log).rounds) >= 10)
    os.kill(began[2], signal.SIGKILL)
    fork(name="late", pause=0.005, workers=1, bad=-1, **common)
    ends = [tmp_path / f"{name}.pt" for name in ("a", "b", "late")]
    _until(lambda: all(each.exists() for each in ends))
    time.sleep(0.1)
    a, b, late = (torch.load(each, weights_only=True) for each in ends)
    assert torch.equal(a["weights"], b["weights"])
    assert torch.equal(a["weights"], late["weights"])
    assert late["worker"] == 3
    assert late["caught"] >= 10

    rounds = RoundLog(log).rounds
    assert len(rounds) == 40
    present = [{worker for worker, _ in each.messages} for each in rounds]
    (dead,) = {0, 1, 2} - {a["worker"], b["worker"]}
    last = max(step for step in range(40) if dead in present[step])
    assert all(dead in each for each in present[: last + 1])  # missed from one round on, and by nobody before
    assert [last + 1, dead] in a["missed"].tolist()
    assert {a["worker"], b["worker"], 3} in present
    sizes = {(worker, len(message)) for each in rounds for worker, message in each.messages}
    assert {size for worker, size in sizes if worker != b["worker"]} == {2}  # one byte for each of two samples
    assert dict(rounds[7].messages)[b["worker"]] == b""
    assert a["sent"] == 2 * sum(a["worker"] in each for each in present)
    weights = torch.nn.Parameter(torch.linspace(-1, 2, 3000))
    replay([weights], tmp_path / "b.log")
    assert torch.equal(weights.detach(), a["weights"])


def test_when_the_store_dies_the_worker_is_told_and_goes_on_with_another_from_its_log(fork, tmp_path):
    log, weights = tmp_path / "run.log", _weights()
    hosts, stores = [], []
    for _ in range(2):
        hosts.append(fork(do="host", folder=str(tmp_path)))
        _until((tmp_path / "port").exists)
        stores.append(TCPStore("127.0.0.1", int((tmp_path / "port").read_text()), is_master=False))
        (tmp_path / "port").unlink()
    optimizer = one_byte([weights], 0.01, 60.0, rounds=Rounds(stores[0], limit=2.0), log=log)
    for _ in range(5):
        optimizer.step(_closures(weights, 1))
    kept = weights.detach().clone()
    os.kill(hosts[0], signal.SIGKILL)
    with pytest.raises(ConnectionError, match="the store does not answer"):
        optimizer.step(_closures(weights, 1))
    assert optimizer.round == 5
    assert torch.equal(weights.detach(), kept)

    again = _weights()
    resumed = one_byte([again], 0.01, 60.0, rounds=Rounds(stores[1]), log=log)
    assert resumed.join() == 5
    assert torch.equal(again.detach(), kept)
    fresh = _weights()
    assert one_byte([fresh], 0.01, 60.0, rounds=Rounds(stores[1])).join() == 5  # from what the other told the store
    assert torch.equal(fresh.detach(), kept)
    fork(pid=hosts[1])  # stops it: a machine that is gone answers nothing at all
    resumed.rounds.limit = 0.3
    began = time.monotonic()
    with pytest.raises(ConnectionError, match=r"the store has not answered within 0\.3 seconds"):
        resumed.step(_closures(again, 1))
    assert time.monotonic() - began < 5
    assert torch.equal(again.detach(), kept)
