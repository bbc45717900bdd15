"""EF21: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="distributed methods need torch")

from backchannel.distributed.dcgd import dcgd  # noqa: E402
from backchannel.distributed.ef21 import ef21  # noqa: E402
from backchannel.parts.comm import Stacked  # noqa: E402
from backchannel.parts.compressors import identity, natural, top_k  # noqa: E402
from backchannel.parts.error_feedback import arithmetic_step, quadratic_step, xi  # noqa: E402
from backchannel.parts.exchange import run  # noqa: E402
from backchannel.tasks.heterogeneous_logistic import heterogeneous_logistic  # noqa: E402
from backchannel.tasks.heterogeneous_quadratics import heterogeneous_quadratics  # noqa: E402


def _top_1(rows):
    out = np.zeros_like(rows)
    for i, row in enumerate(rows):
        j = np.abs(row).argmax()
        out[i, j] = row[j]
    return out


def test_step_rounds_by_hand():
    # The algorithm in NumPy, worker by worker, from equations (1) to (3).
    problem = heterogeneous_quadratics(4, 3, 1.5, seed=1)
    everyone, comm = torch.arange(4), Stacked(4)
    exchange = ef21(top_k(1), 0.2)
    state = exchange.init(comm, problem.oracle(comm), torch.ones(3, dtype=torch.float64))
    x = np.ones(3)
    estimates = _top_1(problem.gradients(torch.from_numpy(x), everyone).numpy())
    for _ in range(5):
        state, info = exchange.step(comm, problem.oracle(comm), state)
        x = x - 0.2 * estimates.mean(0)
        gradients = problem.gradients(torch.from_numpy(x), everyone).numpy()
        estimates = estimates + _top_1(gradients - estimates)
        np.testing.assert_allclose(state.x, x, rtol=1e-12)
        np.testing.assert_allclose(state.estimates, estimates, rtol=1e-12)
        np.testing.assert_allclose(state.mean, estimates.mean(0), rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(info.error, ((estimates - gradients) ** 2).sum(1), rtol=1e-10, atol=1e-20)
    assert int(state.round) == 6
    assert comm.up == 6 * 4 * 72  # the first estimates and five rounds: a float64 and 2 bits of place, in whole bytes
    assert comm.down == 5 * 4 * 3 * 64


@pytest.mark.parametrize("make", [heterogeneous_quadratics, heterogeneous_logistic])
def test_known_lyapunov_function_falls_at_the_theoretical_step(make):
    # Richtarik et al. 2021, theorem 1: with gamma at most 1 / (L + L_QM xi), Psi = f - f* + gamma / theta G never
    # rises, G the mean of |g_i - grad f_i|^2. Top-k is deterministic, so that it holds in every single round.
    problem, comm = make(6, 4, 2.0, seed=3), Stacked(6)
    alpha = top_k(1).contraction(4)
    gamma = quadratic_step(alpha, problem.smoothness, problem.worker_smoothness)
    exchange, theta = ef21(top_k(1), gamma), 1 - np.sqrt(1 - alpha)
    state = exchange.init(comm, problem.oracle(comm), torch.zeros(4, dtype=torch.float64))
    values = []
    for _ in range(200):
        state, info = exchange.step(comm, problem.oracle(comm), state)
        values.append(float(problem.loss(state.x)) + gamma / theta * float(info.error.mean()))
    assert (np.diff(values) <= 1e-12).all()
    assert values[-1] < values[0] - 1e-3


def test_known_constants_of_theory():
    alpha = 0.1
    theta, beta = 1 - np.sqrt(1 - alpha), (1 - alpha) / (1 - np.sqrt(1 - alpha))
    assert xi(alpha) == pytest.approx(np.sqrt(beta / theta), rel=1e-12)
    assert xi(1.0) == 0.0
    constants = torch.tensor([1.0, 7.0], dtype=torch.float64)
    assert quadratic_step(alpha, 2.0, constants) == pytest.approx(1 / (2 + 5 * xi(alpha)), rel=1e-12)
    assert arithmetic_step(alpha, 2.0, constants) == pytest.approx(1 / (2 + 4 * xi(alpha)), rel=1e-12)
    with pytest.raises(ValueError, match="contraction"):
        xi(0.0)


@pytest.mark.parametrize("make", [heterogeneous_quadratics, heterogeneous_logistic])
def test_known_tasks_gradients_and_constants(make):
    problem, everyone = make(5, 4, 1.8, seed=4), torch.arange(5)
    x = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(problem.loss(x), x)
    torch.testing.assert_close(problem.gradients(x, everyone).mean(0), gradient)
    constants = problem.worker_smoothness
    rng = torch.Generator().manual_seed(1)
    for _ in range(50):
        a, b = torch.randn(2, 4, generator=rng, dtype=torch.float64)
        change = (problem.gradients(a, everyone) - problem.gradients(b, everyone)).norm(dim=1)
        assert bool((change <= constants * (a - b).norm() * (1 + 1e-9)).all())
    spread = heterogeneous_quadratics(50, 3, 3.2, seed=0).worker_smoothness
    assert float(spread.mean()) == pytest.approx(1, rel=1e-9)
    assert float(spread.square().mean().sqrt()) == pytest.approx(3.2, rel=1e-9)


def test_limit_without_compression_it_is_gradient_descent():
    problem = heterogeneous_quadratics(6, 4, 1.5, seed=5)
    start, everyone = torch.ones(4, dtype=torch.float64), torch.arange(6)
    x = start
    for _ in range(20):
        x = x - 0.7 * problem.gradients(x, everyone).mean(0)
    torch.testing.assert_close(run(ef21(identity(), 0.7), problem, Stacked(6), 20, start).state.x, x)


def test_contrast_natural_compression_reaches_the_optimum_where_dcgd_hovers():
    # Unbiased and with a small variance, natural compression still leaves DCGD in a neighbourhood, since no worker's
    # gradient vanishes at the optimum. The estimates of EF21 do settle.
    problem, start = heterogeneous_quadratics(10, 5, 1.5, seed=6), torch.zeros(5, dtype=torch.float64)
    plain = run(dcgd(natural(), 0.5), problem, Stacked(10), 1500, start, every=100)
    ours = run(ef21(natural(), 0.5), problem, Stacked(10), 1500, start, every=100)
    assert min(plain.squared_gradients[-5:]) > 1e-8
    assert ours.squared_gradients[-1] < 1e-20


def test_wrong_arguments():
    with pytest.raises(ValueError, match="step_size must be positive, not -1"):
        ef21(identity(), -1)
    with pytest.raises(ValueError, match="spread must lie in"):
        heterogeneous_quadratics(4, 2, 2.0, seed=0)
