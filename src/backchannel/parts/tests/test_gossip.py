"""Peers: what is mixed, what is counted, in one process and in two; and who meets whom."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="peers exchange tensors")

from torch.distributed import TCPStore  # noqa: E402

from backchannel.parts.gossip import StackedPeers, everyone  # noqa: E402
from backchannel.parts.graphs import line, metropolis, ring  # noqa: E402
from backchannel.parts.meetings import all_meet, matching, nobody_meets, on_graph, scheduled  # noqa: E402
from backchannel.testing.processes import run_processes  # noqa: E402

T = torch.tensor([0])

PROCESS = """
import sys, torch, torch.distributed as dist
from pathlib import Path
from torch.distributed import TCPStore
from backchannel.parts.gossip import TorchPeers
rank, port, folder = sys.argv[1:]
dist.init_process_group("gloo", store=TCPStore("127.0.0.1", int(port), is_master=False), rank=int(rank), world_size=2)
peers, found = TorchPeers(local=3), {}
rows, matrices = torch.load(Path(folder) / "task.pt", weights_only=True)
for name, weights in matrices.items():
    before = peers.sent
    found[name] = (peers.mix(rows[peers.workers], weights), peers.sent - before)
peers.agree(rows[0])
said = ""
try:
    peers.agree(rows[int(rank)])
except ValueError as error:
    said = str(error)
torch.save((found, said), Path(folder) / f"{rank}.pt")
dist.destroy_process_group()
"""


def test_mixing_by_hand_and_its_bits():
    peers, rows = StackedPeers(4), torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 8.0], [-1.0, 2.0]])
    weights = torch.eye(4, dtype=torch.float64)
    weights[:2, :2] = 0.5
    found = peers.mix(rows, weights)
    assert torch.equal(found, torch.tensor([[2.0, 2.0], [2.0, 2.0], [5.0, 8.0], [-1.0, 2.0]]))
    assert peers.sent == 2 * 2 * 32  # each of two sends two float32
    assert torch.equal(peers.mix(rows, everyone(4)), torch.tensor([[2.0, 3.5]]).expand(4, 2))
    assert peers.sent == 2 * 2 * 32 + 2 * 3 * 2 * 32  # and a ring needs 2 (n - 1) vectors
    peers.mix(rows, torch.from_numpy(metropolis(ring(4), 4)))
    assert peers.sent == (2 + 6 + 8) * 2 * 32


def test_two_processes_mix_as_one_does_and_notice_different_starts(tmp_path):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    lopsided = torch.tensor(np.roll(np.eye(6), 1, 0) * 0.7 + np.eye(6) * 0.3)  # a directed ring: W is not symmetric
    matrices = {
        "pairs": matching(0.9, seed=2)(6, T),
        "ring": torch.from_numpy(metropolis(ring(6), 6)),
        "directed": lopsided,
        "all": everyone(6),
        "nobody": nobody_meets()(6, T),
    }
    torch.save((rows, matrices), tmp_path / "task.pt")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    run_processes(PROCESS, lambda rank: [str(rank), str(store.port), str(tmp_path)], 2, tmp_path, 60.0)
    for rank in range(2):
        found, said = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert said == "all processes must begin with the same vector; that of rank 1 is not rank 0's"
        for name, weights in matrices.items():
            one = StackedPeers(6)
            expected = one.mix(rows, weights)[3 * rank : 3 * rank + 3]
            torch.testing.assert_close(found[name][0], expected, rtol=1e-13, atol=1e-13)
            assert found[name][1] == one.sent


@pytest.mark.parametrize("workers", [2, 7, 16])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_random_pairs_average_and_nobody_is_in_two(workers, probability):
    rule = matching(probability, seed=6)
    for t in range(40):
        weights = rule(workers, torch.tensor([t]))
        assert torch.equal(weights, weights.T)
        assert torch.equal(weights.sum(0), torch.ones(workers, dtype=torch.float64))
        assert set(weights.unique().tolist()) <= {0.0, 0.5, 1.0}
        assert torch.equal(weights @ weights, weights)  # to average twice is to average once
        if probability in (0, 1):
            assert int((weights == 0.5).sum()) == 4 * int(probability * (workers // 2))


def test_every_pair_is_as_likely_as_every_other():
    # 3,000 rounds of 6 workers: each of 15 pairs meets with probability p / 5. The sum of squared deviations over their
    # variances is about chi-squared with 15 degrees of freedom; 70 is exceeded once in 1e8.
    met = sum((matching(0.5, seed=8)(6, torch.tensor([t])) == 0.5).double() for t in range(3000))
    pairs = met[tuple(np.triu_indices(6, 1))]
    chance = 0.5 / 5
    assert float(((pairs - 3000 * chance) ** 2 / (3000 * chance * (1 - chance))).sum()) < 70


def test_rules_are_functions_of_seed_and_round():
    one, other = matching(0.5, seed=1), matching(0.5, seed=1)
    assert torch.equal(one(8, torch.tensor([5])), other(8, torch.tensor([5])))
    assert any(not torch.equal(one(8, torch.tensor([t])), one(8, torch.tensor([t + 1]))) for t in range(10))
    rule = scheduled(nobody_meets(), all_meet(), range(2, 5, 2))
    assert [bool((rule(4, torch.tensor([t])) == 0.25).all()) for t in range(6)] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]


def test_a_graph_whose_edges_are_up_now_and_then():
    pairs = line(5)
    assert torch.equal(on_graph(pairs, 5)(5, T), torch.from_numpy(metropolis(pairs, 5)))
    assert torch.equal(on_graph(pairs, 5, 0.0)(5, T), torch.eye(5, dtype=torch.float64))
    rule, up = on_graph(pairs, 5, 0.3, seed=2), torch.zeros(5, 5)
    for t in range(2000):
        weights = rule(5, torch.tensor([t]))
        torch.testing.assert_close(weights.sum(1), torch.ones(5, dtype=torch.float64))
        up += weights > 0
    off = up / 2000 - torch.eye(5)
    torch.testing.assert_close(
        off, 0.3 * torch.from_numpy(metropolis(pairs, 5) > 0) * (1 - torch.eye(5)), atol=0.06, rtol=0
    )
    # six standard deviations


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: StackedPeers(0), "size must be at least 1, not 0"),
        (lambda: StackedPeers(3).mix(torch.zeros(2, 4), torch.eye(3)), r"rows must be 3 vectors.*not \(2, 4\)"),
        (lambda: StackedPeers(3).mix(torch.zeros(3, 4), torch.eye(2)), r"the weights of 3 workers must have the shape"),
        (lambda: StackedPeers(2).mix(torch.zeros(2, 4), torch.ones(2, 2)), "the weights must sum to 1"),
        (lambda: StackedPeers(2).mix(torch.zeros(2, 1), torch.tensor([[1.0, 0], [1, 0]])), "the weights must sum to 1"),
        (lambda: StackedPeers(2).mix(torch.zeros(2, 1), torch.full((2, 2), float("nan"))), "must sum to 1"),
        (lambda: matching(1.5), r"probability must lie in \[0, 1\], not 1.5"),
        (lambda: on_graph(ring(4), 4, float("nan")), r"probability must lie in \[0, 1\], not nan"),
        (lambda: on_graph(ring(4), 4)(5, T), "the graph joins 4 workers, but there are 5"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
