"""Preference strength: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.card import Method  # noqa: E402
from backchannel.parts.objectives import Scores, random_batch, rows  # noqa: E402
from backchannel.preference import preference_strength as module  # noqa: E402
from backchannel.preference.bradley_terry import bradley_terry  # noqa: E402
from backchannel.preference.preference_strength import (  # noqa: E402
    adaptive_margin,
    contrast,
    flip,
    preference_strength,
    soft_labels,
)
from backchannel.testing.battery import check_card  # noqa: E402


def test_card():
    check_card(Method("preference_strength", "preference", module.CARD, module))


def test_step_strength_and_flips_by_hand():
    margins = np.random.default_rng(0).normal(size=(4, 10))
    found = preference_strength(torch.tensor(margins))
    np.testing.assert_allclose(found.mean, margins.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, margins.std(0), rtol=1e-12)
    lowest = np.argsort(margins.mean(0))[:3]
    assert sorted(found.weakest(0.3).nonzero().ravel().tolist()) == sorted(lowest.tolist())
    w, v = torch.arange(20.0).reshape(10, 2), -torch.arange(20.0).reshape(10, 2)
    chosen, rejected = flip(w, v, found.weakest(0.3))
    for i in range(10):
        swapped = i in lowest
        assert torch.equal(chosen[i], v[i] if swapped else w[i])
        assert torch.equal(rejected[i], w[i] if swapped else v[i])


def test_step_losses_by_hand():
    scores = random_batch(Scores, 9, seed=1)
    d, p, u = (np.asarray(x) for x in (scores.chosen - scores.rejected, scores.strength, scores.gap))
    soft, info = soft_labels()(scores)
    np.testing.assert_allclose(soft, p * np.log1p(np.exp(-d)) + (1 - p) * np.log1p(np.exp(d)), rtol=1e-10)
    np.testing.assert_allclose(info.margin, d, rtol=1e-12)
    wide, info = adaptive_margin()(scores)
    np.testing.assert_allclose(wide, np.log1p(np.exp(-(d - u))), rtol=1e-10)
    np.testing.assert_allclose(info.margin, d, rtol=1e-12)


def test_step_contrast_by_hand():
    rng = np.random.default_rng(2)
    h, g = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    cos = h @ g.T / np.outer(np.linalg.norm(h, axis=1), np.linalg.norm(g, axis=1)) / 0.3
    expected = -np.log(np.exp(np.diag(cos)) / np.exp(cos).sum(1))
    np.testing.assert_allclose(contrast(torch.tensor(h), torch.tensor(g), 0.3), expected, rtol=1e-10)


@pytest.mark.parametrize("objective", [soft_labels(), adaptive_margin()])
def test_losses_are_of_each_example_and_their_gradients_are_right(objective):
    scores = random_batch(Scores, 8, seed=3)
    loss = objective(scores)[0]
    torch.testing.assert_close(torch.cat([objective(rows(scores, slice(i, i + 4)))[0] for i in (0, 4)]), loss)
    chosen, rejected = (x.clone().requires_grad_() for x in scores[:2])
    assert torch.autograd.gradcheck(
        lambda a, b: objective(scores._replace(chosen=a, rejected=b))[0], (chosen, rejected)
    )
    far = scores._replace(chosen=1e4 * torch.ones(8), rejected=-1e4 * torch.ones(8))
    assert bool(torch.isfinite(objective(far)[0]).all())
    with pytest.raises(ValueError, match="objective needs the"):
        objective(Scores(scores.chosen, scores.rejected))


def test_known_soft_labels_are_least_at_the_log_odds():
    p = torch.tensor([0.6, 0.75, 0.99], dtype=torch.float64)
    at = torch.log(p / (1 - p)).requires_grad_()
    (gradient,) = torch.autograd.grad(soft_labels()(Scores(at, torch.zeros(3), strength=p))[0].sum(), at)
    assert float(gradient.abs().max()) < 1e-14


def test_limit_certain_labels_without_a_margin_are_bradley_terry():
    scores = random_batch(Scores, 6, seed=4)._replace(
        strength=torch.ones(6, dtype=torch.float64), gap=torch.zeros(6, dtype=torch.float64), tie=None
    )
    plain = bradley_terry()(scores)[0]
    torch.testing.assert_close(soft_labels()(scores)[0], plain)
    torch.testing.assert_close(adaptive_margin()(scores)[0], plain)


def test_limit_one_model_has_no_deviation_and_no_share_flips_nothing():
    found = preference_strength(torch.tensor([[1.0, -2.0]]))
    assert found.deviation.tolist() == [0.0, 0.0]
    assert not found.weakest(0.0).any()
    assert found.weakest(1.0).all()
    assert contrast(torch.ones(1, 3), torch.ones(1, 3)).item() == 0.0


def test_contrast_bradley_terry_believes_a_label_that_the_vote_rejects():
    # Eight labels along one direction and two against it. Bradley and Terry's reward ends at log 4, pulled by the two;
    # flipped by the vote of models, all ten agree, and the reward goes on growing.
    chosen = torch.cat([torch.ones(8, 1), -torch.ones(2, 1)])
    rejected = torch.zeros(10, 1)

    def fit(c, r):
        weight = torch.zeros(1, requires_grad=True)
        for _ in range(150):
            loss = bradley_terry()(Scores(c @ weight, r @ weight))[0].mean()
            (gradient,) = torch.autograd.grad(loss, weight)
            weight = (weight - 3 * gradient).detach().requires_grad_()
        return weight.detach()

    plain = fit(chosen, rejected)
    assert plain.item() == pytest.approx(np.log(4), abs=1e-4)
    strength = preference_strength(((chosen - rejected) @ plain)[None])
    assert strength.weakest(0.2).tolist() == [False] * 8 + [True] * 2
    assert fit(*flip(chosen, rejected, strength.weakest(0.2))).item() > 4


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: preference_strength(torch.ones(3)), "margins"),
        (lambda: preference_strength(torch.full((2, 3), float("nan"))), "finite"),
        (lambda: preference_strength(torch.ones(1, 3)).weakest(1.5), "share"),
        (lambda: contrast(torch.ones(2, 3), torch.ones(2, 3), 0.0), "temperature"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
