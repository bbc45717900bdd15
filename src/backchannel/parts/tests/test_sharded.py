"""wrap beside FSDP: two places of two processes each; shards are averaged inside, and exchanged outside."""

import json

import pytest

torch = pytest.importorskip("torch", reason="training apart needs torch")

import torch.distributed as dist  # noqa: E402
from torch.distributed.fsdp import FullyShardedDataParallel  # noqa: E402

from backchannel.distributed import wrap  # noqa: E402
from backchannel.distributed.diloco import diloco  # noqa: E402
from backchannel.parts.comm import Stacked  # noqa: E402
from backchannel.parts.local_training import train  # noqa: E402
from backchannel.parts.tests.test_apart import adam, loss, model  # noqa: E402
from backchannel.parts.tests.test_group import free_address  # noqa: E402
from backchannel.testing.processes import run_processes  # noqa: E402

WORKER = """
import json, sys, torch
torch.set_num_threads(1)
import torch.distributed as dist
from pathlib import Path
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from backchannel.distributed import TorchComm, wrap, wrap_elastic
from backchannel.distributed.diloco import diloco
from backchannel.parts.group import current
from backchannel.parts.tests.test_apart import adam, model, steps
rank, address, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
dist.init_process_group("gloo", "tcp://" + address, rank=rank, world_size=4)
mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("place", "inside"))
refused = []

def refuse(net, comm):
    try:
        wrap(net, adam(net.parameters()), diloco(2), comm)
    except ValueError as error:
        refused.append(str(error))

both = model()
fully_shard(both, mesh=mesh)
places = TorchComm(group=current(mesh.get_group("place")))
refuse(both, places)
net = model()
fully_shard(net, mesh=mesh["inside"])
refuse(net, None)
refuse(net, TorchComm(group=current(mesh.get_group("inside"))))  # whose shards are not the same
try:
    wrap_elastic(net, adam(net.parameters()), diloco(2), "worker", "http://127.0.0.1:1")
except ValueError as error:
    refused.append(str(error))
seen = torch.ones(1, 3)
optimizer = adam(net.parameters())
net(seen)  # an evaluation: the root holds whole parameters from now on
apart = wrap(net, optimizer, diloco(2), places)
steps(net, optimizer, 1, 5, rank)
net(seen)
if rank in (0, 2):  # one of the two groups has one collective more
    places.group.submit(places.group.all, torch.zeros(1)).result()
dist.barrier()
calls = places.group.calls()
apart.settle()
answer = net(seen).tolist()
for each in net.modules():
    if hasattr(each, "reshard"):
        each.reshard()
end = torch.cat([each.full_tensor().flatten() for each in net.parameters()]).tolist()
(folder / f"{rank}.json").write_text(json.dumps([refused, end, places.up, calls, answer]))
dist.barrier()
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    address = free_address()
    run_processes(WORKER, lambda rank: [str(rank), address, str(folder)], 4, folder, 120.0)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(4)]


def test_two_places_that_shard_inside_are_two_workers(places):
    def mean(net, t, place):
        return (loss(net, t, 2 * place) + loss(net, t, 2 * place + 1)) / 2

    curve = train(diloco(2), Stacked(2), [model(), model()], adam, mean, 5, lambda net: 0.0, 5)
    size = len(curve.state.x)
    for _, end, up, _, _ in places:
        torch.testing.assert_close(torch.tensor(end), curve.state.x)
        assert up == 2 * 2 * 32 * size // 2  # two rounds of two places, of half of the model
    assert places[0][1] == places[3][1]


def test_who_has_come_is_counted_for_each_group_of_places(places):
    counts = [calls for _, _, _, calls, _ in places]
    assert counts[0] == counts[2] == [count + 1 for count in counts[1]]
    assert counts[1] == counts[3]
    assert counts[1][0] == counts[1][1] > 4


def test_what_is_sharded_in_another_way_is_refused(places):
    for refused, *_ in places:
        hsdp, default, wrong, elastic = refused
        assert hsdp.startswith("the model is replicated over the first dimension of its mesh (HSDP), which sends every")
        assert default.startswith("the model is sharded: let comm be of the processes that hold the same shards, as")
        assert wrong == "the weights at the start: process 1 differs from process 0"
        assert elastic.startswith("elastic training takes no sharded model")


def test_evaluating_before_and_after_changes_nothing_and_shows_the_common_model(places):
    common = model()
    vector = torch.tensor(places[0][1])
    with torch.no_grad():
        for each, part in zip(common.parameters(), vector.split([p.numel() for p in common.parameters()]), strict=True):
            each.copy_(part.view_as(each))
    for *_, answer in places:
        torch.testing.assert_close(torch.tensor(answer), common(torch.ones(1, 3)).detach())


@pytest.mark.filterwarnings("ignore")
def test_the_older_wrapper_is_refused():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        net = FullyShardedDataParallel(model(), device_id=torch.device("cpu"))
        with pytest.raises(ValueError, match="the model is in FullyShardedDataParallel, whose parameters move: shard"):
            wrap(net, adam(net.parameters()), diloco(2), Stacked(1))
    finally:
        dist.destroy_process_group()
