"""INPO: proofs and contrast."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.nash import (  # noqa: E402
    bradley_terry_rewards,
    divergence,
    even,
    exploitability,
    nash,
    normalised,
    solve,
)
from backchannel.parts.objectives import Pairs, random_pairs  # noqa: E402
from backchannel.preference.inpo import inpo, regression, tabular  # noqa: E402
from backchannel.tasks.preference_matrices import games, random_game  # noqa: E402
from backchannel.tasks.tiny_answers import Answers, reference  # noqa: E402
from backchannel.tasks.tiny_tuning import gold_scores, improve  # noqa: E402


def _policy(seed, *shape):
    return normalised(np.random.default_rng(seed).standard_normal(shape))


def _minimiser(matrix, log_policy, reference, objective):
    """The policy with the least mean loss over pairs drawn from `log_policy` and their labels, by Newton's method."""
    k = len(log_policy)
    a, b = (x.flatten() for x in np.meshgrid(np.arange(k), np.arange(k), indexing="ij"))
    weight = torch.from_numpy(np.exp(log_policy)[a] * np.exp(log_policy)[b] * matrix[a, b])
    fixed = torch.from_numpy(reference)

    def loss(x):
        policy = torch.log_softmax(x, -1)
        return (weight * objective(Pairs(policy[a], policy[b], fixed[a], fixed[b]))[0]).sum()

    x = fixed.clone()
    for _ in range(20):
        leaf = x.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        x = (x - torch.linalg.pinv(torch.autograd.functional.hessian(loss, x.detach())) @ gradient).detach()
    return torch.log_softmax(x, -1).numpy()


def test_step_loss_by_hand():
    # (2) and (3) in probabilities, with the reference and the present policy apart.
    rng, tau, eta = np.random.default_rng(0), 0.2, 0.5
    new_w, new_l, ref_w, ref_l, now_w, now_l = rng.uniform(0.01, 0.3, (6, 9))
    h = np.log(new_w / new_l) - tau / eta * np.log(ref_w / ref_l) - (eta - tau) / eta * np.log(now_w / now_l)
    logs = [torch.from_numpy(np.log(x)) for x in (new_w, new_l, ref_w, ref_l, now_w, now_l)]
    share = inpo(eta, tau).share
    pairs = Pairs(logs[0], logs[1], *(share * logs[i] + (1 - share) * logs[i + 2] for i in (2, 3)))
    loss, info = inpo(eta, tau).objective(pairs)
    np.testing.assert_allclose(loss, (h - 1 / (2 * eta)) ** 2, rtol=1e-9)
    np.testing.assert_allclose(info.margin, eta * h, rtol=1e-9)


def test_step_of_the_table_by_hand():
    matrix, mu, p, tau, eta = random_game(4, 0), np.exp(_policy(0, 4)), np.exp(_policy(1, 4)), 0.2, 0.5
    expected = p ** (1 - tau / eta) * mu ** (tau / eta) * np.exp(matrix @ p / eta)
    step = tabular(tau, eta).step(matrix, np.log(mu), np.log(p), 5)
    np.testing.assert_allclose(np.exp(step), expected / expected.sum(), rtol=1e-12)
    for t, price in ((0, 0.2), (3, 0.5)):  # the default is tau (t + 2) / 2
        np.testing.assert_allclose(
            tabular(tau).step(matrix, np.log(mu), np.log(p), t),
            tabular(tau, price).step(matrix, np.log(mu), np.log(p), t),
            atol=1e-12,
        )


@pytest.mark.parametrize("seed", [0, 1])
def test_known_minimiser_of_the_mean_loss_is_the_mirror_step(seed):
    # Labels of pairs alone give what win rates give.
    matrix, mu, p, tau, eta = random_game(5, seed), _policy(2, 5), _policy(3, 5), 0.3, 0.8
    share = inpo(eta, tau).share
    found = _minimiser(matrix, p, share * mu + (1 - share) * p, regression(eta))
    np.testing.assert_allclose(found, tabular(tau, eta).step(matrix, mu, p, 0), atol=1e-8)


def test_known_equilibrium_is_a_fixed_point_and_is_reached():
    matrix, mu, tau = games("random", 8, 5, seed=2), _policy(4, 5, 8), 0.3
    star = nash(matrix, mu, tau)
    np.testing.assert_allclose(tabular(tau, 0.7).step(matrix, mu, star, 0), star, atol=1e-11)
    assert divergence(star, solve(tabular(tau, 1.0), matrix, mu, 400)[-1]).max() < 1e-12
    falling = divergence(star, solve(tabular(tau), matrix, mu, 400))
    assert (falling[1:] * np.arange(2, 402)[:, None] < 1 / tau**2).all()


def test_known_rounds_are_regressions_to_what_lies_between_start_and_last():
    start, asked = reference(5, width=16, layers=1, steps=20), []

    def feedback(drawn, rng):
        asked.append(drawn)
        return gold_scores(drawn, rng)

    found = improve(start, inpo(0.5, 0.2, 3), feedback, 2, 16, 2, 1e-2, seed=4)
    now = start
    for drawn in asked:
        score = gold_scores(drawn, None)
        row = (score.max(1)[0] > score.min(1)[0]).nonzero()[:, 0]
        tokens = torch.stack([answers.tokens for answers in drawn], 1)
        sides = [Answers(drawn[0].prompts[row], tokens[row, at[row]]) for at in (score.argmax(1), score.argmin(1))]
        before = [0.4 * start.log_probability(one) + 0.6 * now.log_probability(one) for one in sides]
        model = copy.deepcopy(now).requires_grad_(True)
        adam = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(2):
            won, lost = (model.log_probability(one) - then for one, then in zip(sides, before, strict=True))
            adam.zero_grad()
            (won - lost - 1 / (2 * 0.5)).square().mean().backward()
            adam.step()
        now = model.requires_grad_(False)
    # What is computed, not parameters: Adam makes steps of the rounding of gradients that are 0.
    for some in asked[0]:
        torch.testing.assert_close(found.log_probability(some), now.log_probability(some), rtol=0, atol=2e-3)
        assert (found.log_probability(some) - start.log_probability(some)).abs().max() > 0.1


def test_limit_eta_equal_to_tau_forgets_the_present_policy():
    assert inpo(0.5, 0.5).share == 1
    assert inpo(0.5, 0.0).share == 0


def test_limit_it_is_the_regression_of_ipo():
    # Azar et al. 2024, eq. 17: (log-ratio margin - 1 / (2 beta))^2 with beta = eta.
    pairs = random_pairs(7, seed=9)
    h = (pairs.policy_chosen - pairs.reference_chosen) - (pairs.policy_rejected - pairs.reference_rejected)
    torch.testing.assert_close(regression(0.3)(pairs)[0], (h - 1 / 0.6) ** 2)


def test_contrast_rewards_of_bradley_and_terry_do_not_find_what_nobody_beats():
    # 20 answers without an order: DPO that iterates, with exact rewards of endlessly many pairs from its own policy and
    # the best of these prices, against the same number of rounds.
    matrix, mu, tau = games("random", 20, 5, seed=3), even(5, 20), 0.1
    ours = exploitability(matrix, solve(tabular(tau), matrix, mu, 100)[-1], mu, tau)
    theirs = []
    for beta in (0.05, 0.1, 0.2, 0.4, 0.8):
        policy = mu
        for _ in range(100):
            policy = normalised(mu + bradley_terry_rewards(matrix, policy) / beta)
        theirs.append(exploitability(matrix, policy, mu, tau).mean())
    assert ours.max() < 1e-3
    assert min(theirs) > 3 * ours.mean()


@pytest.mark.parametrize(("tau", "eta", "word"), [(0.6, 0.5, "tau"), (-0.1, 0.5, "tau"), (0.1, 0, "eta")])
def test_wrong_arguments(tau, eta, word):
    with pytest.raises(ValueError, match=word):
        tabular(tau, eta)
    with pytest.raises(ValueError, match=word):
        inpo(eta, tau)
    with pytest.raises(ValueError, match="answers must be 2 or more"):
        inpo(0.5, 0.1, answers=1)
    with pytest.raises(ValueError, match="eta"):
        regression(0.0)
