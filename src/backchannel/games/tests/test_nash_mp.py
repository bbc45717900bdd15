"""Nash-MP: proofs and contrast."""

import numpy as np
import pytest

from backchannel.games.nash_md import nash_md
from backchannel.games.nash_mp import divergence_bound, nash_mp, sampled
from backchannel.parts.nash import (
    Solver,
    divergence,
    even,
    exploitability,
    log_span,
    nash,
    normalised,
    solve,
    win_rates,
)
from backchannel.tasks.preference_matrices import games, random_game, rock_paper_scissors


def _policy(seed, *shape):
    return normalised(np.random.default_rng(seed).standard_normal(shape))


def _ahead(beta, eta):
    """One proximal step against oneself: mirror descent."""

    def step(matrix, log_reference, log_policy, t):
        return normalised((log_policy + eta * log_reference + eta / beta * win_rates(matrix, log_policy)) / (1 + eta))

    return Solver(step, 1)


def test_step_by_hand():
    # In probabilities, as (3) reads, twice; default eta = 2 beta = 0.4.
    matrix, mu, p = random_game(4, 0), np.exp(_policy(0, 4)), np.exp(_policy(1, 4))
    opponent = p
    for _ in range(2):
        rates = np.array([sum(matrix[a, b] * opponent[b] for b in range(4)) for a in range(4)])
        opponent = (p * mu**0.4 * np.exp(0.4 / 0.2 * rates)) ** (1 / 1.4)
        opponent /= opponent.sum()
    np.testing.assert_allclose(np.exp(nash_mp(0.2).step(matrix, np.log(mu), np.log(p), 9)), opponent, rtol=1e-12)


def test_step_is_the_minimiser_of_the_proximal_objective():
    # (2), with the opponent of (1): no other policy has less.
    matrix, mu, p, beta, eta = random_game(5, 1), _policy(2, 5), _policy(3, 5), 0.2, 0.7
    half = _ahead(beta, eta).step(matrix, mu, p, 0)
    step = nash_mp(beta, eta).step(matrix, mu, p, 0)

    def objective(q):
        return np.exp(half) @ matrix @ np.exp(q) / beta + divergence(q, mu) + divergence(q, p) / eta

    assert min(objective(normalised(step + 0.01 * _policy(seed, 5))) for seed in range(50)) > objective(step)


@pytest.mark.parametrize("beta", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("actions", [10, 80])
def test_known_every_step_contracts_by_the_rate(beta, actions):
    matrix, mu = games("random", actions, 2, seed=2), _policy(4, 2, actions)
    star = nash(matrix, mu, beta)
    gaps = divergence(star, solve(nash_mp(beta), matrix, mu, 60, normalised(2 * _policy(5, 2, actions))))
    clear = gaps[:-1] > 1e-22
    assert clear[0].all()
    assert (gaps[1:][clear] <= gaps[:-1][clear] / (1 + 2 * beta)).all()
    assert (gaps[10] <= divergence_bound(beta, 20, gaps[0])).all()
    assert divergence_bound(0.5, 4, 3.0) == pytest.approx(3 / 2 / 2)


def test_known_bound_holds_on_the_hardest_game():
    # Rock, paper, scissors for certain: the margins are as large as they can be.
    star = nash(rock_paper_scissors(), np.log([0.6, 0.3, 0.1]), 0.05)
    gaps = divergence(star, solve(nash_mp(0.05), rock_paper_scissors(), np.log([0.6, 0.3, 0.1]), 200))
    clear = gaps[1:] > 1e-22
    assert clear[:80].all()
    assert (gaps[1:][clear] <= gaps[:-1][clear] / 1.1).all()


def test_known_span_and_exploitability_fall_at_a_linear_rate_as_well():
    matrix, mu, beta = random_game(20, 3), even(20), 0.1
    policies = solve(nash_mp(beta), matrix, mu, 240)
    star = nash(matrix, mu, beta)
    spans = log_span(policies, star)
    gains = np.array([exploitability(matrix, each, mu, beta) for each in policies])
    assert spans[200] < spans[0] * 1.2 ** (-200 / 2) * 10  # a norm, not a squared distance: half of the exponent
    assert gains[100] < gains[0] * 1.2**-100 * 10


def test_limit_of_small_steps_is_mirror_descent():
    # The step ahead moves by O(eta), so that the two differ by O(eta^2).
    matrix, mu, p = random_game(5, 4), _policy(6, 5), _policy(7, 5)
    distances = [
        np.abs(nash_mp(0.2, eta).step(matrix, mu, p, 0) - _ahead(0.2, eta).step(matrix, mu, p, 0)).max()
        for eta in (1e-3, 1e-4)
    ]
    assert distances[0] / distances[1] == pytest.approx(100, rel=0.02)


def test_limit_equilibrium_is_a_fixed_point_for_every_step_size():
    matrix, mu = random_game(7, 5), _policy(8, 7)
    star = nash(matrix, mu, 0.05)
    for eta in (0.01, 0.1, 5.0):
        np.testing.assert_allclose(nash_mp(0.05, eta).step(matrix, mu, star, 0), star, atol=1e-11)


def test_contrast_one_step_against_oneself_goes_in_circles():
    # Rock, paper, scissors, eta = 2 beta = 0.1: mirror descent is repelled, for |(1 + i eta s / beta) / (1 + eta)| > 1
    # with s = 1 / (2 sqrt 3), the frequency at the middle; Nash-MP arrives.
    game, start, beta = rock_paper_scissors(), np.log([0.34, 0.33, 0.33]), 0.05
    around = solve(_ahead(beta, 2 * beta), game, even(3), 400, start)
    ours = solve(nash_mp(beta), game, even(3), 200, start)
    assert divergence(even(3), around[-1]) > 10 * divergence(even(3), start)
    assert divergence(even(3), ours[-1]) < 1e-10


def test_contrast_nash_md_needs_many_more_queries():
    # Ten answers, a small price: after 600 queries the gap is below 1e-5, Nash-MD's after 2,000 above it.
    matrix, mu, beta = games("random", 10, 5, seed=6), even(5, 10), 0.01
    ours = solve(nash_mp(beta), matrix, mu, 300)[-1]
    theirs = solve(nash_md(beta), matrix, mu, 2000)[-1]
    assert (exploitability(matrix, ours, mu, beta) < 1e-5).all()
    assert (exploitability(matrix, theirs, mu, beta) > 1e-5).all()


def test_sampled_steps_come_near_the_exact_ones():
    # 6 answers, 10,000 comparisons for each of 40 inner steps. Over 40 seeds the largest difference of a
    # log-probability was 0.015 +- 0.005, never above 0.025; one proximal step alone, without the second, is 0.28 away.
    matrix, mu, beta = random_game(6, 7), even(6), 0.3
    solver = sampled(beta, inner=40, batch=10_000, learning_rate=0.2, seed=1, step_size=2.0)
    exact, drawn = (solve(each, matrix, mu, 1, _policy(9, 6)) for each in (nash_mp(beta, 2.0), solver))
    assert np.abs(drawn[1] - exact[1]).max() < 0.06
    assert np.abs(exact[1] - _ahead(beta, 2.0).step(matrix, mu, exact[0], 0)).max() > 0.2
    assert solver.queries == 800_000


def test_sampled_is_a_function_of_its_seed_and_takes_several_games():
    matrix, mu = games("random", 4, 3, seed=8), even(3, 4)
    one, same, other = (solve(sampled(0.5, 3, 50, 0.3, seed), matrix, mu, 2) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.shape == (3, 3, 4)


@pytest.mark.parametrize(("beta", "step_size", "word"), [(0, None, "beta"), (0.1, -1, "step_size")])
def test_wrong_arguments(beta, step_size, word):
    with pytest.raises(ValueError, match=word):
        nash_mp(beta, step_size)
