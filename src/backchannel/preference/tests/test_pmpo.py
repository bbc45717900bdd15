"""PMPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Singles, random_batch  # noqa: E402
from backchannel.preference.kto import kto  # noqa: E402
from backchannel.preference.pmpo import pmpo  # noqa: E402
from backchannel.preference.sft import sft  # noqa: E402

REFERENCE = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
GOOD = torch.tensor([True, False, True, False])


def _exact(logs, objective):
    """The expected loss over answers drawn from the reference."""
    return (REFERENCE * objective(Singles(logs, REFERENCE.log(), good=GOOD))[0]).sum()


def _minimiser(objective, steps=1500):
    """The policy over four answers with the least expected loss, and how far its parameters went."""
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(_exact(torch.log_softmax(logits, 0), objective), logits)
        logits = (logits - 0.3 * gradient).detach().requires_grad_()
    return torch.softmax(logits.detach(), 0)


def test_step_loss_by_hand():
    batch = random_batch(Singles, 8, seed=1)
    policy, reference, good = (np.asarray(batch[i]) for i in (0, 1, 3))
    loss, info = pmpo(0.3, 0.7, good_share=0.4)(batch)
    sign = np.where(good, -0.3 / 0.4, 0.7 / 0.6)
    np.testing.assert_allclose(loss, sign * policy - 0.7 * (policy - reference), rtol=1e-12)
    np.testing.assert_allclose(info.ratio, policy - reference, rtol=1e-12)


def test_known_mean_loss_is_the_papers_objective():
    # J of equation 10 with exact expectations, the divergence included, for a policy of four answers.
    policy = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    share = float(REFERENCE[GOOD].sum())
    good, bad = REFERENCE * GOOD / share, REFERENCE * ~GOOD / (1 - share)
    divergence = (REFERENCE * (REFERENCE / policy).log()).sum()
    expected = 0.3 * (good * policy.log()).sum() - 0.7 * (bad * policy.log()).sum() - 1.5 * divergence
    torch.testing.assert_close(_exact(policy.log(), pmpo(0.3, 1.5, share)), -expected)


def test_known_minimiser_weighs_the_reference():
    # Weights alpha / s + beta of good answers and beta - (1 - alpha) / (1 - s) of bad ones.
    share = float(REFERENCE[GOOD].sum())
    weight = REFERENCE * torch.where(GOOD, 0.5 / share + 2.0, 2.0 - 0.5 / (1 - share))
    torch.testing.assert_close(_minimiser(pmpo(0.5, 2.0, share)), weight / weight.sum(), rtol=1e-6, atol=1e-8)


def test_limit_bad_answers_alone_find_the_good_ones():
    # The paper's derivation: alpha = 0 at beta = 1 / (1 - rho) is the likelihood of the good answers. Here rho = 0.4,
    # and the divergence cancels the bad answers: what is left is good answers in the reference's proportions.
    share = float(REFERENCE[GOOD].sum())
    found = _minimiser(pmpo(0.0, 1 / (1 - share), share), steps=6000)
    torch.testing.assert_close(found, REFERENCE * GOOD / share, rtol=0, atol=2e-3)


def test_limit_with_even_shares_one_kind_or_both_is_the_same_at_another_beta():
    batch = random_batch(Singles, 8, seed=3)
    policy = batch.policy.clone().requires_grad_()
    batch = batch._replace(policy=policy)
    gradients = [
        torch.autograd.grad(pmpo(alpha, beta)(batch)[0].sum(), policy)[0]
        for alpha, beta in ((1.0, 0.5), (0.5, 1.5), (0.0, 2.5))
    ]
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


def test_limit_good_answers_alone_are_imitated():
    batch = random_batch(Singles, 6, seed=2)._replace(good=torch.ones(6, dtype=torch.bool), length=torch.ones(6))
    torch.testing.assert_close(pmpo(1.0, 0.0, good_share=0.999999)(batch)[0], sft()(batch)[0], rtol=1e-5, atol=0)


def test_contrast_kto_lets_go_of_a_bad_answer_far_below_the_reference():
    # Where saturation and a signed likelihood differ: PMPO's pull is the same everywhere.
    r = torch.tensor([-80.0, 0.0], dtype=torch.float64, requires_grad=True)
    batch = Singles(r, torch.zeros(2, dtype=torch.float64), good=torch.tensor([False, False]))
    (ours,) = torch.autograd.grad(pmpo(0.5, 0.25)(batch)[0].sum(), r)
    (theirs,) = torch.autograd.grad(kto(0.2)(batch)[0].sum(), r)
    assert ours.tolist() == [0.75, 0.75]
    assert float(theirs[0]) < 1e-7 < 0.04 < float(theirs[1])


def test_contrast_without_the_divergence_bad_answers_fall_without_end():
    # Alpha = 0, beta = 0: the loss of four answers has no minimum; at the paper's beta it does.
    spread = torch.tensor([0.0, -50, 0, 0], dtype=torch.float64)
    share = float(REFERENCE[GOOD].sum())
    for size in (1.0, 4.0):
        lower = _exact(torch.log_softmax(size * spread, 0), pmpo(0.0, 0.0, share))
        assert float(lower) < -10 * size
        higher = _exact(torch.log_softmax(size * spread, 0), pmpo(0.0, 3.0, share))
        assert float(higher) > 10 * size


@pytest.mark.parametrize(
    ("alpha", "beta", "share", "word"), [(2, 0, 0.5, "alpha"), (0, -1, 0.5, "beta"), (0, 1, 1, "good_share")]
)
def test_wrong_arguments(alpha, beta, share, word):
    with pytest.raises(ValueError, match=word):
        pmpo(alpha, beta, share)
