"""MetaRM: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="reward models need torch")

from torch.nn.functional import logsigmoid  # noqa: E402

from backchannel.card import Method  # noqa: E402
from backchannel.preference import meta_rm as module  # noqa: E402
from backchannel.preference.meta_rm import difference, meta_rm  # noqa: E402
from backchannel.testing.battery import check_card  # noqa: E402


def world(seed):
    """Differences of labelled pairs [20, 3] and unlabelled answers [4, 3, 3], in float64."""
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.randn(20, 3, generator=rng, dtype=torch.float64) + 0.5,
        torch.randn(4, 3, 3, generator=rng, dtype=torch.float64),
    )


def test_card():
    check_card(Method("meta_rm", "preference", module.CARD, module))


def test_step_by_hand():
    pairs, answers = world(0)
    theta = np.array([0.3, -0.2, 0.5])
    rewards = answers.numpy() @ theta
    value, up = 0.0, np.zeros(3)
    for x, r in zip(answers.numpy(), rewards, strict=True):
        for i in range(3):
            for j in range(i + 1, 3):
                s = 1 / (1 + np.exp(-abs(r[i] - r[j])))
                value += 2 / 9 * s / 4
                up += 2 / 9 * s * (1 - s) * np.sign(r[i] - r[j]) * (x[i] - x[j]) / 4
    ahead = theta + 0.7 * up
    chance = 1 / (1 + np.exp(pairs.numpy() @ ahead))
    weight = torch.tensor(theta, requires_grad=True)
    found = meta_rm(0.7)([weight], lambda: -logsigmoid(pairs @ weight).mean(), lambda: difference(answers @ weight))
    np.testing.assert_allclose(weight.grad, -(chance[:, None] * pairs.numpy()).mean(0), rtol=1e-10)
    np.testing.assert_array_equal(weight.detach(), theta)
    assert found == pytest.approx((float(np.log1p(np.exp(-pairs.numpy() @ ahead)).mean()), value), rel=1e-10)


def test_known_difference_of_equal_and_of_far_rewards():
    # All equal: 2 / k^2 times k (k - 1) / 2 halves; far apart: sigmoid is 1.
    assert difference(torch.zeros(5, 4)).item() == pytest.approx(3 / 8)
    assert difference(1e4 * torch.arange(4.0)[None]).item() == pytest.approx(3 / 4)


def test_known_fixed_point_lies_below_the_optimum_along_the_answers():
    # Where training ends, theta + eta grad J(theta) is the optimum of the labelled loss.
    pairs, answers = world(1)
    pairs = torch.cat([pairs, -0.5 * pairs[:12]])
    weight, best = (torch.zeros(3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def loss(at):
        return -logsigmoid(pairs @ at).mean()

    def ahead_loss():
        return loss(weight)

    def spread():
        return difference(answers @ weight)

    step = meta_rm(0.5)
    for _ in range(600):
        step([weight], ahead_loss, spread)
        (gradient,) = torch.autograd.grad(loss(best), best)
        with torch.no_grad():
            weight -= 2 * weight.grad
            best -= 2 * gradient
    (up,) = torch.autograd.grad(spread(), weight)
    np.testing.assert_allclose((weight + 0.5 * up).detach(), best.detach(), atol=1e-6)
    assert spread() < difference(answers @ best)


def test_limit_answers_that_are_all_the_same_change_nothing():
    pairs, answers = world(2)
    weight = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    unused = torch.ones(2, requires_grad=True)
    same = answers[:, :1].expand(-1, 3, -1)
    meta_rm(5.0)([weight, unused], lambda: -logsigmoid(pairs @ weight).mean(), lambda: difference(same @ weight))
    (plain,) = torch.autograd.grad(-logsigmoid(pairs @ weight).mean(), weight)
    torch.testing.assert_close(weight.grad, plain)
    assert unused.grad is None


def test_limit_small_rates_add_the_hessian_times_the_ascent():
    pairs, answers = world(3)
    weight = torch.tensor([0.4, -0.1, 0.2], dtype=torch.float64, requires_grad=True)
    rate = 1e-5
    meta_rm(rate)([weight], lambda: -logsigmoid(pairs @ weight).mean(), lambda: difference(answers @ weight))
    at = weight.detach()
    (plain,) = torch.autograd.grad(-logsigmoid(pairs @ weight).mean(), weight)
    (up,) = torch.autograd.grad(difference(answers @ weight), weight)
    hessian = torch.autograd.functional.hessian(lambda w: -logsigmoid(pairs @ w).mean(), at)
    torch.testing.assert_close((weight.grad - plain) / rate, hessian @ up, rtol=1e-3, atol=1e-6)


def test_parameters_come_back_where_the_loss_fails():
    weight = torch.tensor([1.0, 2.0], requires_grad=True)

    def broken():
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        meta_rm(1.0)([weight], broken, lambda: difference(weight[None] * torch.tensor([[1.0, 3.0]])))
    assert weight.tolist() == [1.0, 2.0]


def test_contrast_the_same_labels_and_other_unlabelled_answers():
    # Maximum likelihood knows labelled pairs alone. MetaRM's gradient depends on where the policy's answers vary:
    # with all of their variance along one feature, that weight is held back, and the other is as it was.
    pairs = torch.eye(2, dtype=torch.float64)
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (plain,) = torch.autograd.grad(-logsigmoid(pairs @ weight).mean(), weight)
    for axis in (0, 1):
        answers = torch.zeros(1, 2, 2, dtype=torch.float64)
        answers[0, 1, axis] = 1.0
        meta_rm(1.0)([weight], lambda: -logsigmoid(pairs @ weight).mean(), lambda a=answers: difference(a @ weight))
        assert weight.grad[axis] > plain[axis] + 0.005  # a smaller step up
        assert weight.grad[1 - axis] == plain[1 - axis]


@pytest.mark.parametrize(
    ("call", "word"), [(lambda: meta_rm(0.0), "rate"), (lambda: difference(torch.zeros(3, 1)), "k >= 2")]
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
