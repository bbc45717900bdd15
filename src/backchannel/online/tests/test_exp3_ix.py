"""Exp3-IX: proofs and contrast."""

import math

import numpy as np

from backchannel import play
from backchannel.base import NOTHING
from backchannel.loop import Run, copy_state
from backchannel.online.exp3 import exp3
from backchannel.online.exp3_ix import exp3_ix, quantile_bound, regret_bound
from backchannel.tasks.adversarial import sequence
from backchannel.tasks.bernoulli import bernoulli


def test_step_three_rounds_by_hand():
    learner = exp3_ix(arms=3, horizon=100, step_size=0.5, implicit=0.1)
    state = copy_state(learner.state)
    estimates = np.zeros(3)
    for action, loss in [(0, 1.0), (2, 0.5), (0, 0.25)]:
        p = np.exp(-0.5 * estimates) / np.exp(-0.5 * estimates).sum()
        np.testing.assert_allclose(state.probabilities, p, rtol=1e-12)
        learner.update(state, NOTHING, action, p[action], loss)
        estimates[action] += loss / (p[action] + 0.1)
    np.testing.assert_allclose(state.losses, estimates, rtol=1e-12)


def test_step_late_feedback_divides_by_its_own_propensity():
    learner = exp3_ix(arms=2, horizon=100, step_size=1.0, implicit=0.5)
    state = copy_state(learner.state)
    learner.update(state, NOTHING, 0, 0.5, 1.0)
    learner.update(state, NOTHING, 0, 0.5, 1.0)
    assert state.losses[0] == 2.0


def test_known_the_estimator_is_optimistic_by_a_known_factor():
    # By enumeration: E[estimate] = x P / (P + gamma) <= x.
    losses = np.array([0.9, 0.2, 0.4])
    learner = exp3_ix(arms=3, horizon=100, step_size=0.7, implicit=0.05)
    start = copy_state(learner.state)
    learner.update(start, NOTHING, 1, 1 / 3, 0.8)
    expected, p = np.zeros(3), start.probabilities
    for arm in range(3):
        state = copy_state(start)
        learner.update(state, NOTHING, arm, p[arm], losses[arm])
        expected += p[arm] * (state.losses - start.losses)
    np.testing.assert_allclose(expected, losses * p / (p + 0.05), rtol=1e-12)


def test_known_defaults_and_bounds():
    state = exp3_ix(arms=4, horizon=1000).state
    assert state.step_size[0] == np.sqrt(2 * np.log(4) / 4000) == 2 * state.implicit[0]
    root = math.sqrt(2 * 4 * 1000)
    expected = 2 * root * math.sqrt(math.log(4)) + (root / math.sqrt(math.log(4)) + 1) * math.log(2 / 0.05)
    np.testing.assert_allclose(quantile_bound(4, 1000, 0.05), expected, rtol=1e-12)
    deltas = (np.arange(200_000) + 0.5) / 200_000  # the expectation is at most the integral of the quantile bound
    average = np.mean([quantile_bound(4, 1000, delta) for delta in deltas])
    np.testing.assert_allclose(regret_bound(4, 1000), average, rtol=1e-4)


def test_limit_without_implicit_exploration_it_is_exp3():
    task = bernoulli([0.2, 0.5, 0.7])
    a = Run(exp3_ix(3, 500, implicit=0.0), task, 500, seed=1).advance()
    b = Run(exp3(3, 500), task, 500, seed=1).advance()
    np.testing.assert_array_equal(a.trace.actions, b.trace.actions)
    np.testing.assert_array_equal(a.state.losses, b.state.losses)


def turning(horizon):
    """Arm 0 loses 3/4 for two fifths of the time; then arm 1 loses 1. Each loses nothing in the other's time."""
    table = np.zeros((horizon, 2))
    turn = 2 * horizon // 5
    table[:turn, 0] = 0.75
    table[turn:, 1] = 1.0
    return sequence(table)


def test_contrast_exp3_may_never_look_again_and_exp3_ix_does():
    # While arm 0 is bad its probability falls; one late draw of it adds 1 / P to its estimate, which buries it for the
    # rest. Exp3-IX adds at most 1 / gamma. Losses are written down, so the regret is the realised one. About a tenth of
    # Exp3's runs end above 300: fewer than 10 of 400 do once in 10^6.
    horizon = 2000
    theirs = play(exp3(2, horizon), turning(horizon), horizon, replicates=400, seed=2).final()
    ours = play(exp3_ix(2, horizon), turning(horizon), horizon, replicates=400, seed=2).final()
    assert (theirs > 300).sum() >= 10
    assert ours.max() < 300
    assert ours.std() < 0.5 * theirs.std()
