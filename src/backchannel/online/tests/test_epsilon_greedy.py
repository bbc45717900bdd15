"""Epsilon-greedy: proofs and contrast."""

import numpy as np
import pytest
from scipy import stats

from backchannel import play
from backchannel.base import NOTHING
from backchannel.loop import Run, copy_state
from backchannel.online.constant_best import constant_best
from backchannel.online.epsilon_greedy import epsilon_greedy
from backchannel.tasks.bernoulli import bernoulli


def probabilities(learner, state, arms):
    out = np.empty(arms)
    learner.probabilities(state, NOTHING, out)
    return out


def test_step_means_and_probabilities_by_hand():
    learner = epsilon_greedy(arms=3, epsilon=0.3)
    state = copy_state(learner.state)
    for action, loss in [(0, 0.5), (1, 0.2), (2, 0.4), (1, 0.8), (2, 0.3)]:
        learner.update(state, NOTHING, action, 0.5, loss)
    np.testing.assert_allclose(state.means, [0.5, 0.5, 0.35], rtol=1e-15)
    np.testing.assert_allclose(probabilities(learner, state, 3), [0.1, 0.1, 0.8], rtol=1e-15)


def test_step_the_schedule_falls_as_one_over_t():
    learner = epsilon_greedy(arms=2, epsilon=0.05, decay=4.0)
    state, rng = copy_state(learner.state), np.random.default_rng(0)
    for t in range(1, 200):
        share = min(1.0, max(0.05, 4.0 / t))
        np.testing.assert_allclose(sorted(probabilities(learner, state, 2)), [share / 2, 1 - share / 2], rtol=1e-12)
        action, propensity = learner.act(state, NOTHING, rng)
        learner.update(state, NOTHING, action, propensity, 0.5)


def test_known_frequencies_are_the_probabilities():
    # Binomial tests at 1e-5 each.
    learner = epsilon_greedy(arms=3, epsilon=0.3)
    state, rng = copy_state(learner.state), np.random.default_rng(1)
    for action, loss in [(0, 0.5), (1, 0.2), (2, 0.4)]:
        learner.update(state, NOTHING, action, 0.5, loss)
    draws = [learner.act(state, NOTHING, rng) for _ in range(5000)]
    for arm, p in enumerate([0.1, 0.8, 0.1]):
        assert stats.binomtest(sum(action == arm for action, _ in draws), 5000, p).pvalue > 1e-5
        assert all(propensity == pytest.approx(p) for action, propensity in draws if action == arm)


def test_limit_always_exploring_is_uniform_never_exploring_is_the_leader():
    task = bernoulli([0.5, 0.4, 0.6])
    run = Run(epsilon_greedy(3, epsilon=1.0), task, 300, seed=2).advance()
    np.testing.assert_allclose(run.trace.propensities, 1 / 3, rtol=1e-15)
    a = Run(epsilon_greedy(3, epsilon=0.0), task, 300, seed=2).advance()
    b = Run(constant_best(3), task, 300, seed=2).advance()
    np.testing.assert_array_equal(a.trace.actions, b.trace.actions)
    assert (a.trace.propensities == 1.0).all()


def test_contrast_it_recovers_from_bad_luck_and_the_leader_does_not():
    # Constant best is wrong for good with probability at least 0.16 (see its own tests). Exploring a tenth of 4,000
    # rounds sees each arm 200 times: their means differ by 0.2 = 4 standard deviations, long before the end.
    task = bernoulli([0.4, 0.6])
    leader = play(constant_best(2), task, 4000, replicates=400, seed=3).final()
    ours = play(epsilon_greedy(2, epsilon=0.1), task, 4000, replicates=400, seed=3).final()
    assert (leader > 0.19 * 4000).sum() > 30
    assert ours.max() < 0.1 * 4000


def test_contrast_a_falling_share_stops_paying():
    # Over the last 10,000 of 20,000 rounds a fixed tenth costs 10,000 * 0.1 * 0.3 = 300; c K / d^2 / t with c = 5
    # and d = 0.6 costs 28 log 2 * 0.3 = 6, and theorem 3 promises no more than a few times that.
    task = bernoulli([0.2, 0.8])
    cost = {}
    for name, learner in (("fixed", epsilon_greedy(2, 0.1)), ("falling", epsilon_greedy(2, 0.0, decay=5 * 2 / 0.6**2))):
        result = play(learner, task, 20_000, replicates=16, seed=4)
        cost[name] = (result.final() - result.curves["regret"][:, np.searchsorted(result.rounds, 10_000)]).mean()
    assert cost["fixed"] > 200
    assert cost["falling"] < 30
