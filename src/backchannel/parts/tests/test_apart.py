"""wrap: scripts, alone and in real processes, equal what is simulated; what fails leaves everything as it was."""

import io
from concurrent.futures import Future

import pytest

torch = pytest.importorskip("torch", reason="training apart needs torch")

import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402

from backchannel.distributed import wrap  # noqa: E402
from backchannel.distributed.diloco import diloco  # noqa: E402
from backchannel.distributed.ef21 import ef21  # noqa: E402
from backchannel.distributed.sparse_loco import sparse_loco  # noqa: E402
from backchannel.distributed.streaming_diloco import streaming_diloco  # noqa: E402
from backchannel.parts.apart import flat, put, terms  # noqa: E402
from backchannel.parts.comm import Stacked  # noqa: E402
from backchannel.parts.compressors import top_k  # noqa: E402
from backchannel.parts.local_training import train  # noqa: E402
from backchannel.parts.tests.test_group import free_address  # noqa: E402
from backchannel.testing.processes import run_processes  # noqa: E402

torch.set_num_threads(1)


def model():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in net.parameters():
            each.copy_(torch.randn(each.shape, generator=rng))
    return net


def loss(net, t, worker):
    rng = torch.Generator().manual_seed(1000 * t + worker)
    return (net(torch.randn(8, 3, generator=rng)) - torch.randn(8, 2, generator=rng)).square().mean()


def steps(net, optimizer, first, last, worker=0):
    for t in range(first, last + 1):
        optimizer.zero_grad()
        loss(net, t, worker).backward()
        optimizer.step()


def adam(parameters):
    return torch.optim.AdamW(parameters, lr=0.01)


def test_a_wrapped_script_is_what_is_simulated():
    net, method = model(), sparse_loco(steps=3, compressor=top_k(5))
    optimizer = adam(net.parameters())
    apart = wrap(net, optimizer, method, Stacked(1))
    steps(net, optimizer, 1, 7)
    other, comm = [model()], Stacked(1)
    curve = train(method, comm, other, adam, loss, 7, lambda net: 0.0, 7)
    assert torch.equal(flat(net.parameters()), flat(other[0].parameters()))
    assert all(torch.equal(a, b) for a, b in zip(apart.state, curve.state, strict=True))
    assert (apart.t, apart.comm.up) == (7, comm.up)
    assert float(apart.info.moved) > 0
    apart.settle()
    assert torch.equal(flat(net.parameters()), curve.state.x)
    steps(net, optimizer, 8, 9)
    assert apart.t == 7  # the hook is gone


@pytest.mark.parametrize("stop", [2, 5, 6, 7, 8])
def test_going_on_from_a_checkpoint_is_going_on_to_the_last_bit(stop):
    method = streaming_diloco(steps=4, fragments=2, delay=1)
    net = model()
    optimizer = adam(net.parameters())
    wrap(net, optimizer, method, Stacked(1))
    steps(net, optimizer, 1, 12)
    half = model()
    first = adam(half.parameters())
    apart, file = wrap(half, first, method, Stacked(1)), io.BytesIO()
    steps(half, first, 1, stop)
    torch.save({"model": half.state_dict(), "optimizer": first.state_dict(), "apart": apart.state_dict()}, file)
    file.seek(0)
    saved, again = torch.load(file, weights_only=True), model()
    second = adam(again.parameters())
    apart = wrap(again, second, method, Stacked(1))
    again.load_state_dict(saved["model"])
    second.load_state_dict(saved["optimizer"])
    apart.load_state_dict(saved["apart"])
    steps(again, second, stop + 1, 12)
    assert torch.equal(flat(net.parameters()), flat(again.parameters()))
    for other in (sparse_loco(2), streaming_diloco(steps=4, fragments=2, delay=2)):
        with pytest.raises(ValueError, match="this state is of another method, or of other settings"):
            wrap(model(), adam(model().parameters()), other, Stacked(1)).load_state_dict(saved["apart"])
    small = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="this state is of another method or of another model"):
        wrap(small, adam(small.parameters()), method, Stacked(1), saved["apart"])
    file.seek(0)
    saved, loaded = torch.load(file, weights_only=True), model()  # anew: optimisers change what they loaded
    third = adam(loaded.parameters())
    loaded.load_state_dict(saved["model"])
    third.load_state_dict(saved["optimizer"])
    wrap(loaded, third, method, Stacked(1), saved["apart"])  # loaded first, in the midst of a round
    steps(loaded, third, stop + 1, 12)
    assert torch.equal(flat(net.parameters()), flat(loaded.parameters()))


def test_accumulated_gradients_are_one_step():
    net = model()
    optimizer = adam(net.parameters())
    apart = wrap(net, optimizer, diloco(steps=2), Stacked(1))
    for t in range(4):
        loss(net, t, 0).backward()
        if t % 2:
            optimizer.step()
            optimizer.zero_grad()
    assert apart.t == 2
    assert apart.comm.up > 0


def test_a_round_that_fails_changes_nothing():
    net = model()
    optimizer = adam(net.parameters())
    apart = wrap(net, optimizer, diloco(steps=2), Stacked(1))
    steps(net, optimizer, 1, 3)
    state = [each.clone() for each in apart.state]
    with torch.no_grad():
        net[0].weight[0, 0] = torch.inf
    before = flat(net.parameters())
    with pytest.raises(ValueError, match="worker 0 has numbers that are not finite"):
        apart._stepped()
    assert torch.equal(flat(net.parameters()), before)
    assert all(torch.equal(a, b) for a, b in zip(state, apart.state, strict=True))


@pytest.mark.parametrize("gradient", [None, 0.0])
def test_a_worker_that_trained_on_nothing_is_refused(gradient):
    net = model()
    optimizer = adam(net.parameters())
    wrap(net, optimizer, diloco(steps=2), Stacked(1))
    for each in net.parameters():
        each.grad = None if gradient is None else torch.zeros_like(each)
    optimizer.step()
    with pytest.raises(ValueError, match="worker 0 trained on nothing: its gradients are all zero or absent"):
        optimizer.step()


def test_a_lost_answer_is_forgotten_in_the_end():
    net = model()
    optimizer = adam(net.parameters())
    apart = wrap(net, optimizer, streaming_diloco(steps=4, fragments=2, delay=1), Stacked(1))
    steps(net, optimizer, 1, 2)
    broken = Future()
    broken.set_exception(RuntimeError("exchange 1 failed: process 1 did not come"))
    apart.comm._slots[1] = broken
    with pytest.raises(RuntimeError, match="process 1 did not come"):
        steps(net, optimizer, 3, 3)
    apart.comm._slots[0] = broken
    with pytest.raises(RuntimeError, match="process 1 did not come"):
        apart.state_dict()
    apart.settle()
    assert torch.equal(flat(net.parameters()), apart.state.x)


def test_settings_are_compared_in_words():
    same = [terms(sparse_loco(3, decay=0.9, compressor=top_k(5))) for _ in range(2)]
    assert same[0] == same[1]
    others = [sparse_loco(3, decay=0.8, compressor=top_k(5)), sparse_loco(3, decay=0.9, compressor=top_k(6)), diloco(3)]
    assert len({same[0], *map(terms, others)}) == 4


def test_models_that_cannot_be_wrapped():
    twice = model()
    apart = wrap(twice, adam(twice.parameters()), diloco(2), Stacked(1))
    with pytest.raises(ValueError, match=r"the model is wrapped already: settle\(\) ends that"):
        wrap(twice, adam(twice.parameters()), diloco(2), Stacked(1))
    apart.settle()
    wrap(twice, adam(twice.parameters()), diloco(2), Stacked(1)).settle()
    with pytest.raises(ValueError, match="complex parameters cannot be exchanged"):
        flat([torch.zeros(2, dtype=torch.complex64)])
    net = model()
    with pytest.raises(RuntimeError, match="there is no process group"):
        wrap(net, adam(net.parameters()), diloco(2))
    with pytest.raises(ValueError, match="one worker lives in a process that trains one model, not 2"):
        wrap(net, adam(net.parameters()), diloco(2), Stacked(2))
    for each in net.parameters():
        each.requires_grad_(False)
    with pytest.raises(ValueError, match="the model has no parameters that are trained"):
        wrap(net, adam(net.parameters()), diloco(2), Stacked(1))
    with pytest.raises(ValueError, match=r"diloco is what makes the method: call it: diloco\(steps=\.\.\.\)"):
        wrap(net, adam(net.parameters()), diloco, Stacked(1))
    with pytest.raises(ValueError, match=r"method must be an outer one, as diloco.* makes it, not of type Exchange"):
        wrap(net, adam(net.parameters()), ef21(top_k(1), 0.1), Stacked(1))
    with pytest.raises(ValueError, match="the model is in DataParallel: wrap the plain module, in one process"):
        wrap(nn.DataParallel(net), adam(net.parameters()), diloco(2), Stacked(1))
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match="all parameters must be on one device; these are on cpu, meta"):
        wrap(mixed, adam(mixed.parameters()), diloco(2), Stacked(1))
    with pytest.raises(ValueError, match=r"the parameters have 3 entries now and had 4: did one change its shape\?"):
        put([torch.zeros(3)], torch.zeros(4))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(model())
        with pytest.raises(ValueError, match="the model is in DistributedDataParallel, which sends every gradient"):
            wrap(parallel, adam(parallel.parameters()), diloco(2))
    finally:
        dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_a_sharded_model_exchanges_its_own_shards():
    plain = model()
    first = adam(plain.parameters())
    wrap(plain, first, sparse_loco(steps=2, compressor=top_k(5)), Stacked(1))
    steps(plain, first, 1, 5)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        sharded = model()
        fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
        second = adam(sharded.parameters())
        apart = wrap(sharded, second, sparse_loco(steps=2, compressor=top_k(5)), Stacked(1))
        steps(sharded, second, 1, 5)
        assert apart.t == 5
        torch.testing.assert_close(flat(sharded.parameters()), flat(plain.parameters()))
    finally:
        dist.destroy_process_group()


WORKER = """
import sys, torch
torch.set_num_threads(1)
import backchannel
from backchannel.distributed import TorchComm, connect, wrap
from backchannel.distributed.ef21 import ef21  # noqa: E402
from backchannel.distributed.sparse_loco import sparse_loco
from backchannel.parts.apart import flat
from backchannel.parts.compressors import top_k
from backchannel.parts.tests.test_apart import adam, model, steps


def run(address, rank, what):
    net = model()
    if what == "other" and rank == 1:
        net[0].weight.data += 1
    backchannel.__version__ = "0.0.1" if what == "version" and rank == 1 else version
    optimizer = adam(net.parameters())
    group = connect(address, rank, 2, limit=100.0)
    try:
        comm = TorchComm(group=group)
        apart = wrap(net, optimizer, sparse_loco(steps=3 + (what == "rounds") * rank, compressor=top_k(5)), comm)
        steps(net, optimizer, 1, 7, rank)
        if what == "die" and rank == 1:
            sys.exit()
        if what == "saved":
            apart.load_state_dict(apart.state_dict() | {"t": 7 + rank})
        if what == "nan" and rank == 1:
            net[0].weight.data[0, 0] = torch.nan
        steps(net, optimizer, 8, 9, rank)
        return " ".join(map(str, [comm.up, *apart.state.x.tolist()]))
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__} {error} {comm.up}"


version, rank = backchannel.__version__, int(sys.argv[1])
for each in sys.argv[2:]:
    what, address = each.split("=")
    print(run(address, rank, what))
"""


def _two(folder, *whats):
    """What two processes wrote of each case."""
    cases = [f"{what}={free_address()}" for what in whats]
    wrote = run_processes(WORKER, lambda rank: [str(rank), *cases], 2, folder, 240.0)
    return [dict(zip(whats, each.splitlines(), strict=False)) for each in wrote]


def test_a_schedule_is_a_factor_of_each_groups_step_size():
    net, other = model(), model()

    def groups(parameters, factor=1.0):
        weights = list(parameters)
        rates = [(weights[:2], 0.1 * factor), (weights[2:], 0.2 * factor)]
        return torch.optim.SGD([{"params": some, "lr": lr} for some, lr in rates])

    for t in range(1, 5):
        steps(net, groups(net.parameters(), 1 / t), t, t)
    train(diloco(5), Stacked(1), [other], groups, loss, 4, lambda net: 0.0, 4, schedule=lambda t: 1 / t)
    torch.testing.assert_close(flat(other.parameters()), flat(net.parameters()))


def test_two_processes_are_what_is_simulated_and_refuse_together_what_cannot_be(tmp_path):
    comm = Stacked(2)
    curve = train(sparse_loco(3, compressor=top_k(5)), comm, [model(), model()], adam, loss, 9, lambda net: 0.0, 9)
    sentences = {
        "other": "ValueError the weights at the start: process 1 differs from process 0",
        "rounds": "ValueError the method or its settings: process 1 differs from process 0",
        "version": "ValueError the version of backchannel: process 1 differs from process 0",
        "saved": "ValueError the checkpoint's steps or model: process 1 differs from process 0",
        "nan": "ValueError worker 1 has numbers that are not finite",
        "train": " ".join(str(each) for each in [comm.up, *curve.state.x.tolist()]),
    }
    for wrote in _two(tmp_path, *sentences):
        for what, sentence in sentences.items():
            assert wrote[what].startswith(sentence), what


def test_a_process_that_is_gone_is_named(tmp_path):
    assert "process 1 did not come" in _two(tmp_path, "die")[0]["die"]
