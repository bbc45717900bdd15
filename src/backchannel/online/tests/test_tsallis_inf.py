"""Tsallis-INF: proofs and contrast; and its solver, parts/barrier.py."""

import numpy as np
from scipy.optimize import brentq, minimize

from backchannel import play
from backchannel.live import Live
from backchannel.online.exp3 import exp3
from backchannel.online.tsallis_inf import regret_bound, tsallis_inf
from backchannel.parts.barrier import inverse_power
from backchannel.tasks.bernoulli import bernoulli


def _weights(losses, t):
    """The paper's w_t by another route: its equation in x, solved by Brent's method."""
    eta = 2 / np.sqrt(t)
    gap = lambda x: (4 * (eta * (losses - x)) ** -2.0).sum() - 1  # noqa: E731
    x = brentq(gap, losses.min() - 2 * np.sqrt(losses.size) / eta, losses.min() - 1e-9, xtol=1e-14)
    return 4 * (eta * (losses - x)) ** -2.0


def test_step_three_rounds_by_hand():
    agent, losses = Live(tsallis_inf(3)), np.zeros(3)
    for t, loss in enumerate([1.0, 0.5, 0.25], start=1):
        w = _weights(losses, t)
        np.testing.assert_allclose(agent.probabilities(3), w, rtol=1e-9)
        action, propensity = agent.act()
        np.testing.assert_allclose(propensity, w[action], rtol=1e-9)
        agent.update(action, propensity, loss)
        losses[action] += loss / w[action]
        np.testing.assert_allclose(agent.state.losses, losses, rtol=1e-9)


def test_step_late_feedback_divides_by_its_own_propensity():
    agent = Live(tsallis_inf(2))
    agent.update(0, 0.5, 1.0)
    agent.update(0, 0.25, 1.0)
    assert agent.state.losses[0] == 6.0


def test_known_weights_minimise_the_regularised_loss():
    # An independent minimiser of <w, L> - (4 / eta) sum sqrt(w) over the simplex (parametrised by a softmax).
    losses, t = np.array([3.0, 1.0, 2.5, 8.0]), 9
    eta = 2 / np.sqrt(t)

    def objective(logits):
        w = np.exp(logits - logits.max())
        w /= w.sum()
        return w @ losses - 4 / eta * np.sqrt(w).sum()

    best = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x
    w, out = np.exp(best) / np.exp(best).sum(), np.empty(4)
    inverse_power(losses / np.sqrt(t), 2.0, out)
    np.testing.assert_allclose(out, w, atol=1e-6)


def test_known_two_arms_in_closed_form():
    # Log barrier, two arms, gap g: 1 / m + 1 / (m + g) = 1, so m = (2 - g + sqrt(g^2 + 4)) / 2.
    for gap in (0.0, 0.3, 5.0, 1e6):
        out = np.empty(2)
        inverse_power(np.array([7.0 + gap, 7.0]), 1.0, out)
        margin = (2 - gap + np.sqrt(gap**2 + 4)) / 2 if gap < 100 else 1 + 1 / gap
        np.testing.assert_allclose(out, [1 / (margin + gap), 1 / margin], rtol=1e-9)


def test_known_solver_at_extremes():
    rng = np.random.default_rng(1)
    for exponent in (1.0, 2.0):
        for size in (1e-8, 1.0, 1e4, 1e12, 1e100):
            dual, out = size * rng.standard_normal(50), np.empty(50)
            inverse_power(dual, exponent, out)
            assert abs(out.sum() - 1) < 1e-12
            assert (out > 0).all()
            assert out.argmax() == dual.argmin()
            roots = out ** (-1 / exponent) - dual  # the same -lambda for every arm
            np.testing.assert_allclose(roots, roots[dual.argmin()], rtol=1e-8, atol=1e-9 * max(1.0, size))


def test_limit_of_equal_losses_is_uniform_and_one_arm_is_certain():
    agent = Live(tsallis_inf(4))
    agent.state.losses[:] = 123.0
    np.testing.assert_allclose(agent.probabilities(4), 0.25, rtol=1e-12)
    assert Live(tsallis_inf(1)).act() == (0, 1.0)


def test_contrast_stochastic_regret_is_far_below_exp3():
    # A clear gap: logarithmic against square-root regret. Over seeds the two means, about 45 and 170 with standard
    # errors below 5, are more than ten of them apart.
    arms = bernoulli([0.7, 0.7, 0.2, 0.7])
    ours = play(tsallis_inf(4), arms, 20_000, replicates=32, seed=3).final().mean()
    theirs = play(exp3(4, 20_000), arms, 20_000, replicates=32, seed=3).final().mean()
    assert ours < theirs / 2
    assert ours < regret_bound(4, 20_000)
