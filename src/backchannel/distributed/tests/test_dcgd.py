"""DCGD: proofs and contrast."""

import pytest

torch = pytest.importorskip("torch", reason="distributed methods need torch")

from backchannel.distributed.dcgd import dcgd  # noqa: E402
from backchannel.distributed.ef21 import ef21  # noqa: E402
from backchannel.parts.comm import Stacked  # noqa: E402
from backchannel.parts.compressors import identity, rand_k, top_k  # noqa: E402
from backchannel.parts.exchange import run  # noqa: E402
from backchannel.tasks.heterogeneous_quadratics import heterogeneous_quadratics  # noqa: E402


def _tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def test_step_two_rounds_by_hand():
    centres, x = _tensor([[4.0, 1.0], [0.0, -3.0]]), _tensor([0.0, 0.0])
    exchange, comm = dcgd(top_k(1), 0.25), Stacked(2)
    state = exchange.init(comm, lambda x: x - centres, x)
    state, info = exchange.step(comm, lambda x: x - centres, state)
    # gradients (-4, -1) and (0, 3): Top-1 keeps -4 and 3; the mean is (-2, 1.5)
    torch.testing.assert_close(state.x, _tensor([0.5, -0.375]))
    torch.testing.assert_close(info.error, _tensor([1.0, 0.0]))
    state, _ = exchange.step(comm, lambda x: x - centres, state)
    # gradients (-3.5, -1.375) and (0.5, 2.625): the mean of the kept is (-1.75, 1.3125)
    torch.testing.assert_close(state.x, _tensor([0.5 + 0.4375, -0.375 - 0.328125]))
    assert (comm.up, comm.down, int(state.round)) == (2 * 2 * 72, 2 * 2 * 128, 2)


def test_known_with_equal_workers_an_unbiased_compressor_converges_linearly():
    # Without heterogeneity the gradient's estimate has variance omega |grad|^2, which vanishes at the optimum. With
    # f = |x - c|^2 / 2, gamma = 1 / (1 + omega): E |x - c|^2 falls by omega / (1 + omega) a round, here 1/2.
    centre, means = _tensor([3.0, -1.0]), []
    for seed in range(400):
        exchange, comm = dcgd(rand_k(1), 0.5, seed=seed), Stacked(1)
        state = exchange.init(comm, lambda x: (x - centre)[None], torch.zeros(2, dtype=torch.float64))
        for _ in range(3):
            state, _ = exchange.step(comm, lambda x: (x - centre)[None], state)
        means.append(float((state.x - centre).square().sum()))
    # Each round clears one coordinate: after three, |x - c|^2 is 9 or 1 with probability 1/8 each, else 0: mean 10/8,
    # standard deviation 2.95; of the mean of 400, 0.147. Five of them: error rate 1e-6.
    assert sum(means) / 400 == pytest.approx(1.25, abs=5 * 0.147)


def test_limit_without_compression_it_is_gradient_descent():
    problem = heterogeneous_quadratics(6, 4, 1.5, seed=1)
    start, everyone = torch.ones(4, dtype=torch.float64), torch.arange(6)
    state = run(dcgd(identity(), 0.7), problem, Stacked(6), 20, start).state
    x = start
    for _ in range(20):
        x = x - 0.7 * problem.gradients(x, everyone).mean(0)
    torch.testing.assert_close(state.x, x, rtol=0, atol=0)


def test_contrast_it_stalls_where_ef21_arrives():
    problem = heterogeneous_quadratics(10, 5, 1.5, seed=2)
    start = torch.zeros(5, dtype=torch.float64)
    greedy = run(dcgd(top_k(1), 0.1), problem, Stacked(10), 2000, start, every=100)
    ours = run(ef21(top_k(1), 0.1), problem, Stacked(10), 2000, start, every=100)
    assert min(greedy.squared_gradients) > 1e-4
    assert ours.squared_gradients[-1] < 1e-12


def test_wrong_arguments():
    with pytest.raises(ValueError, match="step_size must be positive, not 0"):
        dcgd(identity(), 0)
