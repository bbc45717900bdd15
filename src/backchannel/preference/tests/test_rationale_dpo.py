"""Rationale DPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, swapped  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.orpo import orpo  # noqa: E402
from backchannel.preference.rationale_dpo import rationale_dpo  # noqa: E402
from backchannel.preference.simpo import simpo  # noqa: E402


def test_step_loss_by_hand():
    # Independently, in NumPy, as equation (2) reads.
    pairs, beta, gamma = random_batch(Pairs, 11, seed=1), 0.2, 0.03
    w, v, rw, rv, why = (np.asarray(x) for x in (*pairs[:4], pairs.rationale))
    h = beta * ((w - rw) - (v - rv))
    loss, info = rationale_dpo(gamma, beta)(pairs)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-h)) - gamma * why, rtol=1e-9)
    np.testing.assert_allclose(info.margin, h, rtol=1e-9)


def test_known_it_is_the_likelihood_of_label_and_rationale():
    # Equation (1), with gamma = 1: exp(-loss) over both labels of a pair and all rationales of each sums to one.
    pairs = random_batch(Pairs, 5, seed=2)
    logs = torch.log_softmax(torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)).double(), 2)
    total = torch.zeros(5, dtype=torch.float64)
    for label, both in enumerate((pairs, swapped(pairs))):
        for k in range(3):
            total += torch.exp(-rationale_dpo(1.0, 0.1)(both._replace(rationale=logs[:, label, k]))[0])
    torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64))


def test_known_the_gradient_of_a_rationale_is_gamma():
    pairs = random_batch(Pairs, 6, seed=3)
    why = pairs.rationale.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rationale_dpo(0.25, 0.1)(pairs._replace(rationale=why))[0].sum(), why)
    torch.testing.assert_close(gradient, torch.full_like(why, -0.25))


@pytest.mark.parametrize("other", [dpo(0.3), orpo(0.2), simpo(2.0, 0.5)], ids=["dpo", "orpo", "simpo"])
def test_limit_gamma_zero_and_certain_rationales_are_the_loss_without(other):
    pairs = random_batch(Pairs, 9, seed=4)
    plain = other(pairs)[0]
    found = rationale_dpo(0.0, objective=other)
    torch.testing.assert_close(found(pairs)[0], plain, rtol=0, atol=0)
    assert found.reference == other.reference
    assert found.weight is other.weight
    certain = pairs._replace(rationale=torch.zeros(9, dtype=torch.float64))
    torch.testing.assert_close(rationale_dpo(2.0, objective=other)(certain)[0], plain, rtol=0, atol=0)
    torch.testing.assert_close(rationale_dpo(0.0, 0.3)(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)


def test_contrast_dpo_cannot_tell_what_a_rationale_says():
    # Chosen answers have two attributes, a and b, and rejected ones neither; only a is why. With the linear policy
    # log pi(y) = theta . y and a rationale named by the same weights, DPO learns both alike; with rationales a.
    answers = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)

    def learned(objective):
        theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        for _ in range(100):
            chosen, rejected = answers @ theta
            zero, why = torch.zeros(1, dtype=torch.float64), torch.log_softmax(theta, 0)[:1]
            batch = Pairs(chosen[None], rejected[None], zero, zero, rationale=why)
            (gradient,) = torch.autograd.grad(objective(batch)[0].sum(), theta)
            theta = (theta - 0.5 * gradient).detach().requires_grad_()
        return theta.detach()

    plain, explained = learned(dpo(1.0)), learned(rationale_dpo(0.5, 1.0))
    assert float((plain[0] - plain[1]).abs()) < 1e-12
    assert float(explained[0] - explained[1]) > 2.0


@pytest.mark.parametrize(("gamma", "beta", "word"), [(-0.1, 0.1, "gamma"), (np.inf, 0.1, "gamma"), (0.1, 0.0, "beta")])
def test_wrong_arguments(gamma, beta, word):
    with pytest.raises(ValueError, match=word):
        rationale_dpo(gamma, beta)


def test_a_rationale_must_be_there():
    with pytest.raises(ValueError, match="needs the rationale of each example"):
        rationale_dpo(0.1)(random_batch(Pairs, 3, seed=0)._replace(rationale=None))
