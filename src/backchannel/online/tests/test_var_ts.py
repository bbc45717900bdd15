"""VarTS: proofs and contrast."""

import math

import numpy as np
import pytest
from scipy import stats

from backchannel import play
from backchannel.base import NOTHING
from backchannel.loop import Run, copy_state
from backchannel.online.gaussian_thompson import bayes_regret_bound as known_bound
from backchannel.online.gaussian_thompson import gaussian_thompson
from backchannel.online.var_ts import bayes_regret_bound, var_ts
from backchannel.tasks.bernoulli import bernoulli
from backchannel.tasks.gaussian import gaussian, normal_gamma


def fed(learner, losses, arm=0):
    state = copy_state(learner.state)
    for loss in losses:
        learner.update(state, NOTHING, arm, math.nan, loss)
    return state


def test_step_two_answers_by_hand():
    state = fed(var_ts(2, mean=0.0, strength=1.0, shape=2.0, rate=3.0), [2.0, 4.0], arm=1)
    # first: rate 3 + 1 * 4 / 4 = 4, mean 1, strength 2; then: rate 4 + 2 * 9 / 6 = 7, mean 2, strength 3
    np.testing.assert_allclose(state.means, [0, 2], rtol=1e-15)
    np.testing.assert_allclose(state.strengths, [1, 3], rtol=1e-15)
    np.testing.assert_allclose(state.shapes, [2, 3], rtol=1e-15)
    np.testing.assert_allclose(state.rates, [3, 7], rtol=1e-15)


def test_known_posterior_of_many_answers_in_closed_form():
    x = np.random.default_rng(0).normal(0.3, 0.7, 60)
    k, m, a, b = 2.5, 0.8, 3.0, 0.4
    state = fed(var_ts(1, m, k, a, b), x)
    n, mean = 60, x.mean()
    np.testing.assert_allclose(state.means, (k * m + n * mean) / (k + n), rtol=1e-12)
    np.testing.assert_allclose(state.strengths, k + n, rtol=1e-12)
    np.testing.assert_allclose(state.shapes, a + n / 2, rtol=1e-12)
    rate = b + ((x - mean) ** 2).sum() / 2 + k * n * (mean - m) ** 2 / (2 * (k + n))
    np.testing.assert_allclose(state.rates, rate, rtol=1e-12)


def drawn_below(learner, state, threshold, draws=5000):
    """How often arm 0's draw lies below `threshold`, where arm 1 is certain to be."""
    state.means[1], state.strengths[1], state.shapes[1], state.rates[1] = threshold, 1e12, 1e6, 1e6
    rng = np.random.default_rng(1)
    return sum(learner.act(state, NOTHING, rng)[0] == 0 for _ in range(draws))


def test_known_draws_follow_student_s_distribution():
    # theta of a Normal-Gamma posterior is Student's t with 2 shape degrees of freedom and scale
    # sqrt(rate / (shape strength)). Binomial tests at 1e-5, in the middle and in the heavy tail.
    for threshold in (0.3, -1.0):
        learner = var_ts(2, mean=0.5, strength=0.7, shape=1.2, rate=0.3)
        law = stats.t(2.4, 0.5, math.sqrt(0.3 / (1.2 * 0.7)))
        below = drawn_below(learner, copy_state(learner.state), threshold)
        assert stats.binomtest(below, 5000, law.cdf(threshold)).pvalue > 1e-5


@pytest.mark.parametrize("alpha", [-1.0, -0.5, 0.0])
def test_known_flat_prior_is_honda_and_takemura(alpha):
    # Student's t with f = n + 2 alpha - 1 degrees of freedom around the sample mean with scale sqrt(S / (n f)), after
    # max(2, 2 - floor(2 alpha)) first plays of each arm. A binomial test at 1e-5.
    learner = var_ts(2, strength=0.0, shape=alpha - 0.5, rate=0.0)
    first = max(2, 2 - math.floor(2 * alpha))
    run = Run(learner, gaussian([0.0, 10.0], 1.0), 2 * first + 1).advance()
    np.testing.assert_array_equal(run.trace.actions[: 2 * first], np.repeat([0, 1], first))
    x = np.array([0.1, 0.9, 0.4, 0.35, 0.2])
    n, freedom = 5, 5 + 2 * alpha - 1
    law = stats.t(freedom, x.mean(), math.sqrt(((x - x.mean()) ** 2).sum() / (n * freedom)))
    below = drawn_below(learner, fed(learner, x), 0.2)
    assert stats.binomtest(below, 5000, law.cdf(0.2)).pvalue > 1e-5


def test_known_bayes_regret_is_below_the_bound():
    # The mean regret is about a tenth of the bound, so luck does not decide.
    prior = {"strength": 4.0, "shape": 2.0, "rate": 0.04}
    regret = play(var_ts(5, **prior), normal_gamma(5, 0.5, **prior), 1000, replicates=200, seed=2).final()
    assert 0 < regret.mean() < bayes_regret_bound(5, 1000, **prior)


def test_known_the_bound_at_one_prior_by_hand():
    # One arm: V is least at p = 1, where it is rate / (shape - 1). Two arms of shape 3, rate 2: E[l^-1] = 1 and
    # E[l^-2] = 2, so that V is at most 2, and little less.
    def by_hand(arms, variance, k):
        main = math.sqrt(100 * variance * arms * (1 / k + math.log1p(100 / (arms * k))))
        tail = 100 * arms * math.sqrt(2 / k) * math.gamma(2.5) / 2
        c = np.linspace(0, 6, 100_001)
        return (c * main + tail * (stats.norm.pdf(c) - c * stats.norm.sf(c))).min()

    assert bayes_regret_bound(1, 100, strength=0.5, shape=3.0, rate=2.0) == pytest.approx(by_hand(1, 1, 0.5), rel=1e-6)
    ours = bayes_regret_bound(2, 100, strength=1.0, shape=3.0, rate=2.0)
    assert 0.9 * by_hand(2, 2, 1.0) < ours <= by_hand(2, 2, 1.0) * (1 + 1e-9)


def test_limit_a_certain_prior_of_the_precision_is_gaussian_thompson():
    losses = np.random.default_rng(3).normal(0.2, 0.3, 40)
    learned = fed(var_ts(1, 0.6, strength=0.5, shape=1e9, rate=1e9 * 0.3**2), losses)
    known = fed(gaussian_thompson(1, 0.3, 0.6, 0.3 / math.sqrt(0.5)), losses)
    np.testing.assert_allclose(learned.means, known.means, rtol=1e-12)
    np.testing.assert_allclose(learned.strengths * learned.shapes / learned.rates, known.precisions, rtol=1e-6)
    ours = bayes_regret_bound(5, 2000, strength=0.5, shape=1e5, rate=1e5 * 0.3**2)
    assert (
        0.8 * known_bound(5, 2000, 0.3, 0.3 / math.sqrt(0.5)) < ours < known_bound(5, 2000, 0.3, 0.3 / math.sqrt(0.5))
    )


def test_limit_an_arm_that_never_varies_stops_nothing():
    run = Run(var_ts(2, strength=0.0, shape=-1.5, rate=0.0), bernoulli([0.0, 1.0]), 200).advance()
    assert (run.trace.actions[8:] == 0).all()


def test_contrast_one_bound_for_all_variances_wastes_the_quiet_arms():
    # Nine quiet arms and a noisy one: known variances not needed. The regret of one run varies by less than its mean.
    deviations = [0.02] * 9 + [1.0]
    task = gaussian(np.r_[0.4, np.full(8, 0.5), 0.6], deviations)
    ours = play(var_ts(10, shape=1.5, rate=0.01), task, 5000, replicates=32, seed=4).final()
    other = play(gaussian_thompson(10, 1.0), task, 5000, replicates=32, seed=4).final()
    assert ours.mean() < 0.5 * other.mean()


def test_wrong_priors_are_told():
    with pytest.raises(ValueError, match="rate must be at least 0"):
        var_ts(2, rate=-1.0)
    with pytest.raises(ValueError, match="flat prior"):
        var_ts(2, rate=0.0)
    with pytest.raises(ValueError, match="shapes above 1"):
        bayes_regret_bound(2, 100, 1.0, 1.0, 1.0)
