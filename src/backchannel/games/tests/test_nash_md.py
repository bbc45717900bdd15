"""Nash-MD: proofs and contrast."""

import numpy as np
import pytest

from backchannel.games.nash_md import divergence_bound, gradient_estimate, nash_md, policy_gradient
from backchannel.parts.nash import divergence, even, exploitability, geometric_mixture, nash, normalised, solve
from backchannel.rl.selfplay_spo import selfplay_spo
from backchannel.tasks.preference_matrices import games, random_game, rock_paper_scissors


def _policy(seed, *shape):
    return normalised(np.random.default_rng(seed).standard_normal(shape))


def test_step_two_by_hand():
    # In probabilities, as (1) and (2) read; tau = 0.5: eta_0 = 2, eta_1 = 4/3.
    matrix, mu, p = random_game(4, 0), np.exp(_policy(0, 4)), np.exp(_policy(1, 4))
    policies = solve(nash_md(tau=0.5), matrix, np.log(mu), 2, np.log(p))
    for t, eta in enumerate((2.0, 4 / 3)):
        m = p ** (1 - eta * 0.5) * mu ** (eta * 0.5)
        m /= m.sum()
        p = m * np.exp(eta * np.array([sum(matrix[a, b] * m[b] for b in range(4)) for a in range(4)]))
        p /= p.sum()
        np.testing.assert_allclose(np.exp(policies[t + 1]), p, rtol=1e-12)


def test_step_constant_is_the_argmax_of_the_proximal_objective():
    # (2) maximises eta P(p > m) - KL(p, m): no other policy has more.
    matrix, mu, p = random_game(5, 1), _policy(2, 5), _policy(3, 5)
    m = geometric_mixture(p, mu, 0.4 * 0.5)
    step = nash_md(tau=0.5, step_size=0.4).step(matrix, mu, p, 17)

    def objective(q):
        return 0.4 * np.exp(q) @ matrix @ np.exp(m) - divergence(q, m)

    others = [objective(normalised(step + 0.01 * _policy(seed, 5))) for seed in range(50)]
    assert max(others) < objective(step)


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
def test_known_bound_holds_for_all_steps_and_games(tau):
    # 40 games of 10 answers, any start: (3), and with it the paper's, which is 16 times larger.
    matrix, mu = games("random", 10, 40, seed=3), _policy(4, 40, 10)
    start = 10 * _policy(5, 40, 10)
    policies = solve(nash_md(tau), matrix, mu, 300, normalised(start))
    gap = divergence(nash(matrix, mu, tau), policies[1:])
    assert (gap <= divergence_bound(tau, np.arange(1, 301))[:, None]).all()
    assert divergence_bound(0.5, 9) == pytest.approx(8 / (0.25 * 10) / 16)


def test_known_one_step_inequality():
    # KL(p*, p') <= (1 - eta tau) KL(p*, p) + eta^2 / 8 from anywhere.
    matrix, mu = games("random", 6, 200, seed=4), _policy(6, 200, 6)
    p, star = normalised(3 * _policy(7, 200, 6)), nash(matrix, mu, 0.3)
    for eta in (0.1, 1.0, 3.0):
        after = divergence(star, nash_md(0.3, eta).step(matrix, mu, p, 0))
        assert (after <= (1 - 0.3 * eta) * divergence(star, p) + eta**2 / 8 + 1e-12).all()


def test_known_gradient_is_the_mean_of_its_estimates_by_enumeration():
    matrix, mu, p, q = random_game(4, 2), _policy(8, 4), _policy(9, 4), _policy(10, 4)
    mean = np.zeros(4)
    for a in range(4):
        for b in range(4):
            for won, chance in ((1.0, matrix[a, b]), (0.0, 1 - matrix[a, b])):
                mean += np.exp(p[a] + q[b]) * chance * gradient_estimate(won, a, mu, p, 0.3)
    np.testing.assert_allclose(policy_gradient(matrix, mu, p, q, 0.3), mean, rtol=1e-10)


def test_step_gradient_estimate_by_hand():
    p, mu = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.3, 0.3])
    won = gradient_estimate(1.0, 0, np.log(mu), np.log(p), 0.3)
    np.testing.assert_allclose(won, (0.5 + 0.3 * np.log(2)) * np.array([0.8, -0.3, -0.5]), rtol=1e-12)
    lost = gradient_estimate(0.0, 1, np.log(mu), np.log(p), 0.3)
    np.testing.assert_allclose(lost, -0.5 * np.array([-0.2, 0.7, -0.5]), rtol=1e-12)


def test_known_gradient_by_finite_differences():
    # Of P(p > q) - tau KL(p, mu) in the logits, with the opponent held fixed.
    matrix, mu, x, q = random_game(5, 3), _policy(11, 5), _policy(12, 5), _policy(13, 5)

    def value(logits):
        p = normalised(logits)
        return np.exp(p) @ matrix @ np.exp(q) - 0.3 * divergence(p, mu)

    numeric = [(value(x + 1e-6 * e) - value(x - 1e-6 * e)) / 2e-6 for e in np.eye(5)]
    np.testing.assert_allclose(policy_gradient(matrix, mu, x, q, 0.3), numeric, atol=1e-9)


def test_known_gradient_against_oneself_vanishes_at_the_equilibrium():
    matrix, mu = random_game(6, 4), _policy(14, 6)
    star = nash(matrix, mu, 0.2)
    np.testing.assert_allclose(policy_gradient(matrix, mu, star, star, 0.2), 0, atol=1e-12)


def test_limit_full_weight_is_the_best_answer_to_the_reference():
    # eta tau = 1: the mixture is the reference, and the step's result mu exp(P(. > mu) / tau) whatever came before.
    matrix, mu = random_game(5, 5), _policy(15, 5)
    for seed in (16, 17):
        policy = nash_md(tau=0.25, step_size=4.0).step(matrix, mu, _policy(seed, 5), 3)
        np.testing.assert_allclose(policy, normalised(mu + matrix @ np.exp(mu) / 0.25), atol=1e-12)


def test_limit_without_a_price_it_is_hedge_against_oneself():
    matrix = random_game(5, 6)
    one = solve(nash_md(tau=1e-12, step_size=0.3), matrix, even(5), 50, _policy(18, 5))
    other = solve(selfplay_spo(5, 50, step_size=0.3), matrix, even(5), 50, _policy(18, 5))
    np.testing.assert_allclose(one, other, atol=1e-8)


def test_contrast_self_play_leaves_the_equilibrium_and_nash_md_arrives():
    # Rock, paper, scissors: Hedge's last policy goes outwards from the middle, Nash-MD's comes to the equilibrium.
    start, game = np.log([0.4, 0.3, 0.3]), rock_paper_scissors()
    away = solve(selfplay_spo(3, 400, step_size=0.5), game, even(3), 400, start)
    to = divergence(nash(game, start, 0.1), solve(nash_md(tau=0.1), game, start, 400))
    assert (np.diff(divergence(even(3), away)) > 0).all()
    assert exploitability(game, away[-1]) > 0.4 > exploitability(game, away[0])
    assert to[-1] < 1e-3 * to[0]


def test_contrast_a_constant_step_stops_beside_the_equilibrium():
    # The mixture is not the policy, so that win rates are asked against another one: the bias stays.
    matrix, mu = random_game(10, 7), _policy(19, 10)
    star = nash(matrix, mu, 0.1)
    kept = solve(nash_md(0.1, step_size=2.0), matrix, mu, 3000)
    smaller = solve(nash_md(0.1), matrix, mu, 3000)
    assert divergence(star, kept[-1]) == pytest.approx(divergence(star, kept[-500]), rel=1e-6)
    assert divergence(star, smaller[-1]) < 0.02 * divergence(star, kept[-1])


@pytest.mark.parametrize(
    ("tau", "step_size", "word"), [(0, None, "tau"), (0.5, 2.1, "step_size"), (0.5, 0, "step_size")]
)
def test_wrong_arguments(tau, step_size, word):
    with pytest.raises(ValueError, match=word):
        nash_md(tau, step_size)
