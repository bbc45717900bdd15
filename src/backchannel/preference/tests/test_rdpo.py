"""rDPO: proofs and contrast."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_pairs, swapped  # noqa: E402
from backchannel.preference.cdpo import cdpo  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.rdpo import estimate_flip_rate, rdpo  # noqa: E402
from backchannel.tasks.preferences_loglinear import cell_probabilities, cells, preferences_loglinear  # noqa: E402


def _at(h):
    return Pairs(h, *torch.zeros(3, *h.shape, dtype=torch.float64))


def test_step_loss_by_hand():
    # Independently, in NumPy, as equation (1) reads. TRL's loss type "robust" is the same formula.
    pairs, rate, beta = random_pairs(11, seed=1), 0.3, 0.2
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    h = beta * (np.log(np.exp(w) / np.exp(rw)) - np.log(np.exp(v) / np.exp(rv)))
    kept, flipped = -np.log(1 / (1 + np.exp(-h))), -np.log(1 / (1 + np.exp(h)))
    loss, info = rdpo(rate, beta)(pairs)
    np.testing.assert_allclose(loss, ((1 - rate) * kept - rate * flipped) / (1 - 2 * rate), rtol=1e-9)
    np.testing.assert_allclose(info.margin, h, rtol=1e-9)


def test_step_it_is_dpo_tilted_along_the_margin():
    pairs = random_pairs(11, seed=2)
    loss, info = rdpo(0.4, 0.2)(pairs)
    torch.testing.assert_close(loss, dpo(0.2)(pairs)[0] - 0.4 / (1 - 0.8) * info.margin)


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.4, 0.49])
def test_known_mean_over_all_flips_is_the_clean_loss(rate):
    # Every pattern of flips of four pairs, with its probability: the mean is the loss of DPO on the clean labels.
    pairs = random_pairs(4, seed=3)
    other, mean = swapped(pairs), torch.zeros(4, dtype=torch.float64)
    for pattern in itertools.product([False, True], repeat=4):
        flip = torch.tensor(pattern)
        seen = Pairs(*(torch.where(flip, b, a) for a, b in zip(pairs[:4], other[:4], strict=True)))
        mean += rate ** sum(pattern) * (1 - rate) ** (4 - sum(pattern)) * rdpo(rate, 0.3)(seen)[0]
    torch.testing.assert_close(mean, dpo(0.3)(pairs)[0], rtol=1e-10, atol=1e-10)


def test_known_truth_is_the_minimiser_on_flipped_preferences():
    task = preferences_loglinear(dimension=4, prompts=3, actions=3, seed=3)
    theta = task.truth.clone().requires_grad_()
    for rate in (0.1, 0.4):
        loss = (rdpo(rate, task.beta)(cells(task, theta))[0] * cell_probabilities(task, rate)).sum()
        (gradient,) = torch.autograd.grad(loss, theta)
        torch.testing.assert_close(gradient, torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)


def test_known_variance_of_the_gradient_grows_as_the_square():
    # At h = 0 the derivative is -1/2 - eps / (1 - 2 eps) = -1 / (2 (1 - 2 eps)) towards the label, so with labels that
    # are even the variance is 1 / (4 (1 - 2 eps)^2).
    for rate in (0.0, 0.2, 0.4):
        h = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(rdpo(rate, 1.0)(_at(h))[0].sum(), h)
        assert float(gradient) == pytest.approx(-1 / (2 * (1 - 2 * rate)), rel=1e-12)


def test_limit_rate_zero_is_dpo():
    pairs = random_pairs(9, seed=4)
    torch.testing.assert_close(rdpo(0.0, 0.3)(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)


def test_contrast_dpo_and_cdpo_shrink_what_rdpo_recovers():
    # One pair is preferred with p = 0.9, and labels flip at 0.3: seen with 0.66. Population minimisers: rDPO's is p,
    # DPO's is what was seen, cDPO's is smoothed once more.
    seen = 0.7 * 0.9 + 0.3 * 0.1

    def minimiser(objective):
        h = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        for _ in range(300):
            loss = seen * objective(_at(h))[0] + (1 - seen) * objective(swapped(_at(h)))[0]
            (gradient,) = torch.autograd.grad(loss.sum(), h)
            h = (h - 2 * gradient).detach().requires_grad_()
        return float(torch.sigmoid(h.detach()))

    assert minimiser(rdpo(0.3, 1.0)) == pytest.approx(0.9, abs=1e-6)
    assert minimiser(dpo(1.0)) == pytest.approx(0.66, abs=1e-6)
    assert minimiser(cdpo(0.3, 1.0)) == pytest.approx(0.7 * 0.66 + 0.3 * 0.34, abs=1e-6)


def test_flip_rate_is_found_where_margins_are_clear_and_scores_are_likelihoods():
    # A coin for each example, h free: two kinds of pair, certain (h = +-4 learned from counts) and even. The fit is the
    # minimiser for each kind, clipped. 20,000 labels: a wrong choice on the coarse grid would need a
    # deviation of the share of flips by more than 10 standard errors.
    rng = np.random.default_rng(0)
    kind = torch.from_numpy(rng.integers(0, 2, 20_000))
    clean = np.where(kind == 0, rng.random(20_000) < 0.99, rng.random(20_000) < 0.5)
    agrees = torch.from_numpy(clean != (rng.random(20_000) < 0.2))

    def fit(objective, train, held):
        h = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        share = torch.stack([agrees[train][kind[train] == k].double().mean() for k in (0, 1)])
        for _ in range(200):
            loss = share * objective(_at(h))[0] + (1 - share) * objective(swapped(_at(h)))[0]
            (gradient,) = torch.autograd.grad(loss.sum(), h)
            h = (h - 2 * gradient).clamp(-6, 6).detach().requires_grad_()
        return torch.where(agrees[held], h[kind[held]], -h[kind[held]]).detach()

    found = estimate_flip_rate(fit, 20_000, beta=1.0, candidates=(0.3, 0.4), folds=2)
    assert found.rate == 0.3  # above the truth, 0.2, the certain pairs cannot be explained: the nearest is best
    assert found.scores[0.3] > found.scores[0.4]
    entropy = -(0.5 * np.log(2) + 0.5 * -(0.794 * np.log(0.794) + 0.206 * np.log(0.206)))
    best = estimate_flip_rate(fit, 20_000, beta=1.0, candidates=(0.2, 0.45), folds=2)
    assert best.rate == 0.2
    # The likelihood of the truth is minus the labels' entropy; its standard error is below 0.5 / sqrt(20,000) = 0.0035.
    assert best.scores[0.2] == pytest.approx(entropy, abs=0.02)


def test_flip_rate_never_scores_what_it_was_trained_on():
    seen, objectives = [], []

    def fit(objective, train, held):
        seen.append((train, held))
        objectives.append(objective)
        return torch.zeros(len(held), dtype=torch.float64)

    found = estimate_flip_rate(fit, 11, beta=1.0, candidates=(0.0, 0.4), folds=3)
    assert found.scores == pytest.approx({0.0: -np.log(2), 0.4: -np.log(2)})
    for train, held in seen:
        assert sorted([*train.tolist(), *held.tolist()]) == list(range(11))
    assert sorted(i for _, held in seen[:3] for i in held.tolist()) == list(range(11))
    h = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(objectives[0](_at(h))[0], dpo(1.0)(_at(h))[0])
    torch.testing.assert_close(objectives[-1](_at(h))[0], rdpo(0.4, 1.0)(_at(h))[0])


@pytest.mark.parametrize(("rate", "beta", "word"), [(0.5, 1, "flip_rate"), (-0.1, 1, "flip_rate"), (0.1, 0, "beta")])
def test_wrong_arguments(rate, beta, word):
    with pytest.raises(ValueError, match=word):
        rdpo(rate, beta)
    with pytest.raises(ValueError, match="folds"):
        estimate_flip_rate(lambda *_: torch.zeros(1), 3, beta=0.1, folds=4)
