"""Pessimistic MLE: proofs and contrast."""

import itertools

import numpy as np
import pytest
from scipy import optimize, special

from backchannel.card import Method
from backchannel.preference import pessimistic_mle as module
from backchannel.preference.pessimistic_mle import (
    Estimate,
    first,
    lower_bound,
    pairs,
    pessimistic_mle,
    pessimistic_policy,
    radius,
    ranking,
)
from backchannel.testing.battery import check_card


def rankings(n, k, d, seed, length=1.0):
    """Features best first, of a true reward of the given length."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=d)
    truth *= length / np.linalg.norm(truth)
    phi = rng.normal(size=(n, k, d))
    order = np.argsort(-(phi @ truth + rng.gumbel(size=(n, k))))
    return np.take_along_axis(phi, order[:, :, None], 1), truth


def log_likelihood(theta, ranked, kind):
    """(1) written out, ranking by ranking."""
    total = 0.0
    for phi in ranked:
        scores = phi @ theta
        if kind == "first":
            total += scores[0] - special.logsumexp(scores)
        for k in range(len(scores) - 1):
            if kind == "ranking":
                total += scores[k] - special.logsumexp(scores[k:])
            if kind == "pairs":
                total += sum(special.log_expit(scores[k] - scores[j]) for j in range(k + 1, len(scores)))
    return total


def test_card():
    check_card(Method("pessimistic_mle", "preference", module.CARD, module))


@pytest.mark.parametrize("choices", [ranking, pairs, first])
def test_step_gradient_and_hessian_are_those_of_the_likelihood(choices):
    ranked, _ = rankings(6, 4, 3, seed=1)
    theta = np.array([0.3, -0.7, 0.2])
    sets = [(x, np.ones(len(x))) for x in choices(ranked)]
    count = sum(len(x) for x, _ in sets)

    def loss(at):
        return -log_likelihood(at, ranked, choices.__name__) / count + 0.1 * at @ at / 2

    value, gradient, hessian = module._likelihood(sets, theta, 0.1)
    assert value == pytest.approx(loss(theta), rel=1e-12)
    numeric = optimize.approx_fprime(theta, loss, 1e-7)
    np.testing.assert_allclose(gradient, numeric, atol=1e-5)
    columns = [
        (module._likelihood(sets, theta + h, 0.1)[1] - module._likelihood(sets, theta - h, 0.1)[1]) / 2e-5
        for h in 1e-5 * np.eye(3)
    ]
    np.testing.assert_allclose(hessian, np.array(columns), atol=1e-8)


def test_step_covariance_radius_and_lower_bound_by_hand():
    ranked, _ = rankings(5, 3, 2, seed=2)
    estimate = pessimistic_mle(ranked, bound=2.0, ridge=0.25)
    sigma = np.zeros((2, 2))
    for phi in ranked:
        for j, k in itertools.combinations(range(3), 2):
            sigma += np.outer(phi[j] - phi[k], phi[j] - phi[k])
    np.testing.assert_allclose(estimate.covariance, 2 * sigma / (3 * 2 * 5) + 0.25 * np.eye(2), rtol=1e-12)
    np.testing.assert_allclose(estimate.reference, ranked.reshape(-1, 2).mean(0), rtol=1e-12)
    gamma = 1 / (2 + np.exp(-1.5 * 2) + np.exp(1.5 * 2))
    expected = np.sqrt((2 + np.log(20)) / (gamma**2 * 5) + 0.25 * 4)
    assert radius(5, 2, bound=2.0, features=1.5, ridge=0.25) == pytest.approx(expected, rel=1e-12)
    x = np.array([[1.0, -2.0], [0.5, 0.5]]) - estimate.reference
    inverse = np.linalg.inv(estimate.covariance)
    hand = [e @ estimate.parameter - 0.7 * np.sqrt(e @ inverse @ e) for e in x]
    np.testing.assert_allclose(lower_bound(estimate, x + estimate.reference, 0.7), hand, rtol=1e-12)


@pytest.mark.parametrize("choices", [ranking, pairs, first])
@pytest.mark.parametrize("bound", [50.0, 0.4])
def test_known_maximum_of_the_likelihood_in_the_ball(choices, bound):
    ranked, _ = rankings(15, 4, 3, seed=3)
    found = pessimistic_mle(ranked, bound, choices).parameter
    best = optimize.minimize(
        lambda theta: -log_likelihood(theta, ranked, choices.__name__) / len(ranked),
        np.zeros(3),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda theta: bound**2 - theta @ theta},
        options={"ftol": 1e-12, "maxiter": 100},
    ).x
    np.testing.assert_allclose(found, best, atol=2e-5)
    assert np.linalg.norm(found) <= bound * (1 + 1e-12)
    assert (np.linalg.norm(found) > bound - 1e-9) == (bound == 0.4)


def test_known_separable_comparisons_lie_on_the_ball():
    # One comparison, always won: the likelihood has no maximum but on the ball, in the direction of the difference.
    ranked = np.array([[[3.0, 4.0], [0.0, 0.0]]])
    found = pessimistic_mle(ranked, bound=2.0).parameter
    np.testing.assert_allclose(found, [1.2, 1.6], rtol=1e-9)
    assert np.linalg.norm(found) == pytest.approx(2, rel=1e-14)


def test_known_bound_is_the_least_value_in_the_ellipsoid():
    ranked, _ = rankings(30, 3, 3, seed=4)
    estimate = pessimistic_mle(ranked, bound=3.0)
    x = np.array([0.4, -1.0, 2.0])
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(5000, 3))
    directions /= np.sqrt(np.einsum("ni,ij,nj->n", directions, estimate.covariance, directions))[:, None]
    values = (estimate.parameter + 0.8 * directions) @ (x - estimate.reference)
    bound = lower_bound(estimate, x, 0.8)
    assert (values >= bound - 1e-12).all()
    assert values.min() < bound + 0.05


def test_known_policy_is_the_best_of_a_fine_grid():
    # Two prompts with two answers: every policy is a point of a square.
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(12):
        estimate = Estimate(rng.normal(size=2), np.diag(rng.uniform(0.2, 2, 2)), rng.normal(size=2))
        phi, rho = rng.normal(size=(2, 2, 2)), np.array([0.3, 0.7])
        policy = pessimistic_policy(estimate, phi, 0.7, rho, tolerance=1e-9)
        grid = np.linspace(0, 1, 201)
        p, q = (x[..., None] for x in np.meshgrid(grid, grid))
        mean = 0.3 * (p * phi[0, 0] + (1 - p) * phi[0, 1]) + 0.7 * (q * phi[1, 0] + (1 - q) * phi[1, 1])
        best = lower_bound(estimate, mean, 0.7).max()
        found = lower_bound(estimate, np.einsum("s,sa,sad->d", rho, policy, phi), 0.7)
        assert best - 1e-8 <= found <= best + 4e-4
        np.testing.assert_allclose(policy.sum(1), 1, rtol=1e-12)
        inside += ((policy > 1e-6) & (policy < 1 - 1e-6)).any()
    assert inside >= 2  # among them policies that must randomise


def test_limit_two_answers_make_all_three_likelihoods_one():
    ranked, _ = rankings(50, 2, 3, seed=6)
    for choices in (pairs, first):
        assert np.array_equal(pessimistic_mle(ranked, 5.0).parameter, pessimistic_mle(ranked, 5.0, choices).parameter)


def test_limit_trajectories_are_sums_of_their_steps():
    rng = np.random.default_rng(7)
    steps = rng.normal(size=(30, 2, 6, 3))
    for one, other in zip(pessimistic_mle(steps, 3.0), pessimistic_mle(steps.sum(2), 3.0), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("choices", [ranking, pairs, first])
def test_limit_counts_are_repetitions(choices):
    ranked, _ = rankings(8, 3, 2, seed=10)
    counts = np.array([2, 0, 1, 3, 1, 1, 5, 1])
    counted = pessimistic_mle(ranked, 3.0, choices, counts=counts)
    repeated = pessimistic_mle(np.repeat(ranked, counts, axis=0), 3.0, choices)
    for one, other in zip(counted, repeated, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_limit_no_width_is_greedy():
    ranked, _ = rankings(60, 3, 4, seed=8)
    estimate = pessimistic_mle(ranked, 3.0)
    phi = np.random.default_rng(8).normal(size=(5, 7, 4))
    policy = pessimistic_policy(estimate, phi, 0.0)
    np.testing.assert_array_equal(policy.argmax(1), (phi @ estimate.parameter).argmax(1))
    assert set(policy.ravel()) == {0.0, 1.0}


def test_limit_demonstrations_of_maximum_entropy_match_expected_features():
    # All 8 trajectories of three binary steps; at the maximum of the likelihood, expected features are those seen.
    steps = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    phi = np.stack([steps.sum(1), steps[:, 0] * steps[:, 2]], 1)
    truth = np.array([0.5, -1.0])
    chance = special.softmax(phi @ truth)
    shown = np.random.default_rng(9).choice(8, 500, p=chance)
    sets = np.stack([phi[np.r_[i, np.delete(np.arange(8), i)]] for i in shown])
    theta = pessimistic_mle(sets, 10.0, first).parameter
    np.testing.assert_allclose(special.softmax(phi @ theta) @ phi, phi[shown].mean(0), atol=1e-7)


@pytest.mark.parametrize("n", [1000, 10_000])
def test_contrast_greedy_trusts_one_comparison(n):
    # Answers 0 and 1 are worth 1 and 0 and were compared n times, as often won as expected. Answer 2, worth -1, was
    # compared once with the first and won by luck. Greed takes it, however large n is; pessimism does not.
    phi, value = np.eye(3), np.array([1.0, 0.0, -1.0])
    wins = round(n * special.expit(1.0))
    estimate = pessimistic_mle(phi[[[0, 1], [1, 0], [2, 0]]], 2.0, ridge=1e-4, counts=np.array([wins, n - wins, 1]))
    greedy = pessimistic_policy(estimate, phi[None], 0.0)[0]
    careful = pessimistic_policy(estimate, phi[None], radius(n, 3, 2.0, 1.0, 1e-4))[0]
    assert greedy @ value == -1
    assert careful @ value > (0.45 if n == 1000 else 0.99)
    assert careful[2] < 0.01


PLAIN = Estimate(np.ones(2), np.eye(2), np.zeros(2))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: pessimistic_mle(np.zeros((3, 1, 2)), 1.0), "K >= 2"),
        (lambda: pessimistic_mle(np.full((3, 2, 2), np.nan), 1.0), "finite"),
        (lambda: pessimistic_mle(np.zeros((3, 2, 2)), 0.0), "bound"),
        (lambda: pessimistic_mle(np.zeros((3, 2, 2)), 1.0, ridge=0.0), "ridge"),
        (lambda: pessimistic_mle(np.zeros((3, 2, 2)), 1.0, counts=np.zeros(3)), "counts"),
        (lambda: radius(10, 2, 1.0, 1.0, 0.1, delta=1.0), "delta"),
        (
            lambda: pessimistic_policy(Estimate(np.zeros(2), np.eye(2), np.zeros(2)), np.zeros((1, 2, 3)), 1.0),
            "answers",
        ),
        (
            lambda: pessimistic_policy(Estimate(np.ones(2), np.eye(2), np.zeros(2)), np.eye(2)[None], 1.0, steps=1),
            "more",
        ),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
