"""Comm: what is counted, and that a real process group gives the same (one process; two are in test_battery)."""

import pytest

torch = pytest.importorskip("torch", reason="communication of tensors needs torch")

import torch.distributed as dist  # noqa: E402

from backchannel.parts.comm import Stacked, TorchComm  # noqa: E402
from backchannel.parts.compressors import natural, top_k  # noqa: E402
from backchannel.parts.torch_random import keys  # noqa: E402


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield TorchComm(local=3)
    dist.destroy_process_group()


def _rows():
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_counts():
    comm, x = Stacked(3), _rows()
    torch.testing.assert_close(comm.mean(x), x.mean(0))
    assert (comm.up, comm.down) == (3 * 5 * 64, 0)
    assert torch.equal(comm.broadcast(x[0]), x[0])
    assert comm.down == 3 * 5 * 64
    message = top_k(1).compress(x, comm.workers)
    assert int((comm.gather(message, top_k(1)) != 0).sum()) == 3
    assert comm.up == 3 * 5 * 64 + 3 * 72
    with pytest.raises(ValueError, match="size must be at least 1, not 0"):
        Stacked(0)


def test_a_group_of_one_process_is_stacked(alone):
    stacked, x = Stacked(3), _rows()
    assert alone.size == 3
    assert torch.equal(alone.workers, stacked.workers)
    for compressor in (top_k(2), natural()):
        message = compressor.compress(x, keys(1, torch.zeros(1, dtype=torch.int64), stacked.workers))
        assert torch.equal(alone.gather(message, compressor), stacked.gather(message, compressor))
    assert torch.equal(alone.mean(x), stacked.mean(x))
    assert torch.equal(alone.broadcast(x[0]), stacked.broadcast(x[0]))
    assert (alone.up, alone.down) == (stacked.up, stacked.down)
