"""Gaussian Thompson sampling: proofs and contrast."""

import math

import numpy as np
import pytest
from scipy import stats

from backchannel import play
from backchannel.base import NOTHING
from backchannel.loop import copy_state
from backchannel.online.gaussian_thompson import bayes_regret_bound, gaussian_thompson
from backchannel.online.thompson import thompson
from backchannel.parts.gaussian_tail import tail_split
from backchannel.tasks.gaussian import gaussian


def fed(learner, answers):
    state = copy_state(learner.state)
    for action, loss in answers:
        learner.update(state, NOTHING, action, math.nan, loss)
    return state


def test_step_one_answer_by_hand():
    learner = gaussian_thompson(arms=2, deviation=[0.5, 2.0], prior_mean=[0.0, 1.0], prior_deviation=1.0)
    state = fed(learner, [(0, 1.0), (1, 2.0)])
    # arm 0: precision 1 + 4, mean 4/5; arm 1: precision 1 + 1/4, mean (1 + 2/4) / 1.25
    np.testing.assert_allclose(state.precisions, [5.0, 1.25], rtol=1e-15)
    np.testing.assert_allclose(state.means, [0.8, 1.2], rtol=1e-15)


def test_known_posterior_of_many_answers_in_closed_form():
    losses = np.random.default_rng(0).normal(0.3, 0.7, 50)
    state = fed(gaussian_thompson(1, 0.7, 0.9, 0.4), [(0, loss) for loss in losses])
    q = 1 / 0.4**2 + 50 / 0.7**2
    np.testing.assert_allclose(state.precisions, q, rtol=1e-12)
    np.testing.assert_allclose(state.means, (0.9 / 0.4**2 + losses.sum() / 0.7**2) / q, rtol=1e-12)


def test_known_arms_are_chosen_with_the_probability_of_being_best():
    # A binomial test at 1e-5.
    learner = gaussian_thompson(2)
    state = learner.state._replace(means=np.array([0.4, 0.6]), precisions=np.array([4.0, 25.0]))
    rng = np.random.default_rng(1)
    first = sum(learner.act(state, NOTHING, rng)[0] == 0 for _ in range(5000))
    assert stats.binomtest(first, 5000, stats.norm.cdf(0.2 / math.sqrt(1 / 4 + 1 / 25))).pvalue > 1e-5


def test_known_the_split_is_the_least_over_c():
    for main, tail in ((1.0, 50.0), (3.0, 4.0), (0.01, 1e6)):
        c = np.linspace(0, 10, 200_001)
        expected = (c * main + tail * (stats.norm.pdf(c) - c * stats.norm.sf(c))).min()
        assert tail_split(main, tail) == pytest.approx(expected, rel=1e-6)


def test_known_the_bound_at_one_prior_by_hand():
    # Posterior variances after n answers are v / (v / s^2 + n).
    s2, v, c = 0.09, np.array([0.04, 1.0]), np.linspace(0, 6, 100_001)
    main = math.sqrt(50 * (2 * s2 + (v * np.log(1 + 50 * s2 / v)).sum()))
    expected = (c * main + 50 * 2 * 0.3 * (stats.norm.pdf(c) - c * stats.norm.sf(c))).min()
    assert bayes_regret_bound(2, 50, np.sqrt(v), 0.3) == pytest.approx(expected, rel=1e-6)


def test_known_bayes_regret_is_below_the_bound():
    # The mean regret is a small part of the bound, so luck does not decide.
    deviations = np.array([0.1, 0.3, 0.5, 0.7])

    def prior(seed):
        return gaussian(np.random.default_rng(seed).normal(0.5, 0.2, 4), deviations)

    learner = gaussian_thompson(4, deviations, 0.5, 0.2)
    regret = play(learner, prior, 1000, replicates=200, seed=2).final()
    assert 0 < regret.mean() < bayes_regret_bound(4, 1000, deviations, 0.2)


def test_limit_a_wide_prior_leaves_the_sample_mean():
    losses = [0.2, 0.9, 0.4]
    state = fed(gaussian_thompson(1, 0.3, 7.0, 1e8), [(0, loss) for loss in losses])
    np.testing.assert_allclose(state.means, np.mean(losses), rtol=1e-12)
    np.testing.assert_allclose(state.precisions, 3 / 0.3**2, rtol=1e-12)


def test_contrast_beta_posteriors_cannot_know_that_losses_hardly_vary():
    # Losses in [0, 1] with deviation 0.02 and a gap of 0.1: one answer from each arm settles it, a beta posterior
    # believes in the Bernoulli variance, 1/4. The regret of one run varies by less than its mean.
    task = gaussian([0.45, 0.55], 0.02)
    ours = play(gaussian_thompson(2, 0.02), task, 5000, replicates=32, seed=3).final()
    other = play(thompson(2), task, 5000, replicates=32, seed=3).final()
    assert ours.mean() < 0.2 * other.mean()


def test_contrast_one_bound_for_all_variances_wastes_the_quiet_arms():
    deviations = [0.02] * 9 + [1.0]
    means = np.r_[0.4, np.full(8, 0.5), 0.6]
    ours = play(gaussian_thompson(10, deviations), gaussian(means, deviations), 5000, replicates=32, seed=4).final()
    other = play(gaussian_thompson(10, 1.0), gaussian(means, deviations), 5000, replicates=32, seed=4).final()
    assert ours.mean() < 0.5 * other.mean()
