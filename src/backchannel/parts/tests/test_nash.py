"""Preference games: the exact quantities, against brute force, linear programming and root finding."""

import numpy as np
import pytest

from backchannel.parts.nash import (
    Solver,
    averages,
    bradley_terry_rewards,
    divergence,
    even,
    exploitability,
    geometric_mixture,
    log_span,
    nash,
    normalised,
    solve,
    win_rates,
)
from backchannel.parts.preferences import bradley_terry, von_neumann_winner
from backchannel.tasks.preference_matrices import games, random_game, rock_paper_scissors


def _policy(seed, *shape):
    return normalised(2 * np.random.default_rng(seed).standard_normal(shape))


def test_quantities_by_hand():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.1, 0.8])
    assert divergence(np.log(p), np.log(q)) == pytest.approx((p * np.log(p / q)).sum(), rel=1e-12)
    assert log_span(np.log(p), np.log(q)) == pytest.approx(np.log(5) - np.log(0.25), rel=1e-12)
    np.testing.assert_allclose(win_rates(rock_paper_scissors(), np.log(p)), [0.25 + 0.3, 0.15 + 0.2, 0.5 + 0.1])
    mixture = p**0.75 * q**0.25
    np.testing.assert_allclose(np.exp(geometric_mixture(np.log(p), np.log(q), 0.25)), mixture / mixture.sum())
    np.testing.assert_allclose(averages(np.log(np.array([p, q])))[1], (p + q) / 2)
    assert np.exp(even(2, 4)) == pytest.approx(np.full((2, 4), 0.25))


def test_divergence_keeps_its_digits_and_its_zeros():
    # Nearly equal policies: KL is half of the chi-squared distance, 1e-20 and not rounding; far ones do not overflow.
    p, tilt = _policy(0, 6), 1e-10 * np.array([1.0, -1, 0, 1, -1, 0])
    q = normalised(p + tilt)
    expected = 0.5 * (np.exp(p) * (q - p) ** 2).sum()
    assert divergence(p, q) == pytest.approx(expected, rel=1e-4)
    far = np.array([0.0, -2000.0])
    assert divergence(far, np.log([0.5, 0.5])) == pytest.approx(np.log(2), rel=1e-12)
    assert divergence(np.log([0.5, 0.5]), far) == pytest.approx(1000 - np.log(2), rel=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.1, 1.0])
def test_exploitability_is_the_best_of_all_opponents(tau):
    # On a fine grid of opponents; the grid's best is below the closed form, and near it.
    matrix, q, mu = random_game(3, 4), _policy(1, 3), _policy(2, 3)
    steps = np.linspace(1e-9, 1, 401)
    grid = np.array([(a, b, 1 - a - b) for a in steps for b in steps if a + b < 1])
    value = grid @ matrix @ np.exp(q) - tau * ((grid * (np.log(grid) - mu)).sum(1) - divergence(q, mu)) - 0.5
    exact = exploitability(matrix, q, mu, tau)
    assert value.max() <= exact + 1e-12
    assert value.max() == pytest.approx(exact, abs=5e-3)


@pytest.mark.parametrize("tau", [0.003, 0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", ["random", "cyclic", "mixture"])
def test_nash_is_what_nobody_gains_against(name, tau):
    matrix, mu = games(name, 21, 3, seed=8), _policy(3, 3, 21)
    p = nash(matrix, mu, tau)
    np.testing.assert_allclose(exploitability(matrix, p, mu, tau), 0, atol=1e-12)
    for i in range(3):
        np.testing.assert_allclose(p[i], normalised(mu[i] + matrix[i] @ np.exp(p[i]) / tau), atol=1e-9)


def test_nash_agrees_with_a_root_finder_of_another_kind():
    optimize = pytest.importorskip("scipy.optimize", reason="an independent root finder")
    matrix, mu = random_game(8, 9), _policy(4, 8)

    def gap(x):
        return exploitability(matrix, normalised(x), mu, 0.2)

    found = optimize.minimize(gap, np.zeros(8), method="BFGS", options={"gtol": 1e-12})
    np.testing.assert_allclose(normalised(found.x), nash(matrix, mu, 0.2), atol=1e-4)


def test_nash_tends_to_the_von_neumann_winner():
    # As tau falls; and that winner is the linear programme's (scipy's, of another kind).
    optimize = pytest.importorskip("scipy.optimize", reason="an independent linear programme")
    for seed in range(4):
        matrix = random_game(9, seed)
        winner = von_neumann_winner(matrix)
        found = optimize.linprog(
            np.append(np.zeros(9), 1),
            A_ub=np.hstack([matrix - 0.5, -np.ones((9, 1))]),
            b_ub=np.zeros(9),
            A_eq=[[*np.ones(9), 0]],
            b_eq=[1],
            bounds=[(0, 1)] * 9 + [(None, None)],
        )
        np.testing.assert_allclose(winner, found.x[:9], atol=1e-8)
        np.testing.assert_allclose(np.exp(nash(matrix, even(9), 1e-4)), winner, atol=5e-3)


def test_nash_of_one_judge_is_the_tilted_reference():
    # P(a > p) of a transitive game still orders the answers; with huge tau nothing moves.
    matrix, mu = bradley_terry([0.0, 1.0, 2.0]), np.log([0.5, 0.25, 0.25])
    assert np.argmax(nash(matrix, mu, 0.05)) == 2
    np.testing.assert_allclose(nash(matrix, mu, 1e6), mu, atol=1e-6)


def test_rewards_are_the_utilities_where_there_are_any():
    u = np.random.default_rng(5).standard_normal(6)
    for log_policy in (even(6), _policy(6, 6)):
        rewards = bradley_terry_rewards(bradley_terry(u), log_policy)
        np.testing.assert_allclose(rewards, u - np.exp(log_policy) @ u, atol=1e-9)


def test_rewards_maximise_the_likelihood_of_any_matrix():
    optimize = pytest.importorskip("scipy.optimize", reason="an independent optimiser")
    matrix, p = random_game(5, 11), _policy(7, 5)
    weight = np.exp(p)[:, None] * np.exp(p) * matrix

    def loss(r):
        return (weight * np.logaddexp(0, r[None, :] - r[:, None])).sum()

    found = optimize.minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-10}).x
    np.testing.assert_allclose(bradley_terry_rewards(matrix, p), found - np.exp(p) @ found, atol=1e-5)


def test_solve_begins_at_the_reference_and_counts_from_zero():
    seen = []

    def step(matrix, log_reference, log_policy, t):
        seen.append(t)
        return normalised(log_policy + t)

    policies = solve(Solver(step, 1), rock_paper_scissors(), np.log([0.2, 0.3, 0.5]), 3)
    assert seen == [0, 1, 2]
    np.testing.assert_allclose(np.exp(policies), np.tile([0.2, 0.3, 0.5], (4, 1)))


def test_a_game_without_a_price_is_refused():
    with pytest.raises(ValueError, match="von_neumann_winner"):
        nash(rock_paper_scissors(), even(3), 0.0)
