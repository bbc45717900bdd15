"""Thompson sampling with beta posteriors: proofs and contrast."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from backchannel import play
from backchannel.base import NOTHING
from backchannel.loop import copy_state
from backchannel.online.thompson import bayes_regret_bound, least_slope, thompson
from backchannel.online.ucb1 import ucb1
from backchannel.tasks.bernoulli import bernoulli


def test_step_counts_by_hand_and_fractions_are_shared():
    learner = thompson(arms=2, prior=(2.0, 3.0))
    state = copy_state(learner.state)
    for action, loss in [(0, 1.0), (1, 0.0), (0, 0.25), (0, 1.0)]:
        learner.update(state, NOTHING, action, math.nan, loss)
    np.testing.assert_allclose(state.losses, [4.25, 2.0], rtol=1e-15)
    np.testing.assert_allclose(state.rest, [3.75, 4.0], rtol=1e-15)


def test_known_arms_are_chosen_with_the_probability_of_being_best():
    # Three posteriors; the probability that each is least, by quadrature. Binomial tests at 1e-5.
    a, b = np.array([3.0, 5.0, 1.5]), np.array([4.0, 5.0, 3.0])
    learner = thompson(arms=3)
    state = learner.state._replace(losses=a, rest=b)
    rng = np.random.default_rng(0)
    draws = [learner.act(state, NOTHING, rng) for _ in range(5000)]
    assert all(math.isnan(propensity) for _, propensity in draws)
    laws = [stats.beta(x, y) for x, y in zip(a, b, strict=True)]
    for arm in range(3):
        others = [laws[other] for other in range(3) if other != arm]
        least = integrate.quad(lambda x, arm=arm, o=others: laws[arm].pdf(x) * o[0].sf(x) * o[1].sf(x), 0, 1)[0]
        assert stats.binomtest(sum(action == arm for action, _ in draws), 5000, least).pvalue > 1e-5


def test_known_bayes_regret_is_below_russo_and_van_roy():
    # Tasks drawn from the uniform prior; the mean regret is far below the bound, so luck does not decide.
    def prior(seed):
        return bernoulli(np.random.default_rng(seed).random(5))

    regret = play(thompson(5), prior, 1000, replicates=200, seed=1).final()
    assert bayes_regret_bound(5, 1000) == math.sqrt(1000 * 5 * math.log(5) / 2)
    assert regret.mean() < bayes_regret_bound(5, 1000)


def test_known_lai_and_robbins_constant():
    kl = 0.8 * math.log(4) + 0.2 * math.log(0.2 / 0.8)
    assert least_slope([0.2, 0.8, 0.2]) == pytest.approx(0.6 / kl, rel=1e-12)


def test_limit_a_prior_that_nothing_moves_plays_uniformly():
    # 500 rounds, three arms: counts within 4.9 standard deviations (1e-6) of a third, whatever was seen.
    learner = thompson(arms=3, prior=(1e12, 1e12))
    state, rng = copy_state(learner.state), np.random.default_rng(2)
    counts = np.zeros(3)
    for _ in range(500):
        action, propensity = learner.act(state, NOTHING, rng)
        learner.update(state, NOTHING, action, propensity, float(action == 0))
        counts[action] += 1
    assert np.abs(counts - 500 / 3).max() < 4.9 * math.sqrt(500 * 2 / 9)


def test_contrast_ucb1_explores_several_times_as_much():
    # The regret of one run varies by less than its mean; a factor of 2.5 between means of 64 is far from luck.
    task = bernoulli([0.1, 0.2, 0.2, 0.2, 0.3])
    ours = play(thompson(5), task, 10_000, replicates=64, seed=3).final()
    other = play(ucb1(5), task, 10_000, replicates=64, seed=3).final()
    assert ours.mean() < 0.4 * other.mean()
