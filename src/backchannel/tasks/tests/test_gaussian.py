"""Gaussian and beta arms: their distributions, and purity in (seed, round, arm)."""

import math

import numpy as np
import pytest
from scipy import stats

from backchannel.tasks.beta import beta
from backchannel.tasks.gaussian import gaussian, normal_gamma


def table(task, rounds, seed):
    state = task.reseed(task.state, seed)
    return np.array([[task.loss(state, t, a) for a in range(task.arms)] for t in range(rounds)])


def test_gaussian_losses_have_their_distribution():
    # Kolmogorov-Smirnov at p = 1e-5 for each of two arms and three seeds.
    for seed in (0, 1, 2**63):
        losses = table(gaussian([0.3, -2.0], [0.1, 3.0]), 4000, seed)
        assert stats.kstest(losses[:, 0], stats.norm(0.3, 0.1).cdf).pvalue > 1e-5
        assert stats.kstest(losses[:, 1], stats.norm(-2.0, 3.0).cdf).pvalue > 1e-5
        assert abs(np.corrcoef(losses.T)[0, 1]) < 4.5 / math.sqrt(4000)


@pytest.mark.parametrize("concentration", [0.1, 1.0, 10.0])
def test_beta_losses_have_their_distribution(concentration):
    means = np.array([0.2, 0.5, 0.97])
    task = beta(means, concentration)
    losses = table(task, 4000, 5)
    assert ((losses >= 0) & (losses <= 1)).all()
    for arm, mean in enumerate(means):
        law = stats.beta(mean * concentration, (1 - mean) * concentration)

        # Within (0.001, 0.999): nearer the ends small parameters pile up mass that doubles cannot tell from 0 or 1.
        low, high = law.cdf([1e-3, 1 - 1e-3])
        inside = losses[(losses[:, arm] > 1e-3) & (losses[:, arm] < 1 - 1e-3), arm]
        assert (
            stats.kstest(inside, lambda x, law=law, low=low, high=high: (law.cdf(x) - low) / (high - low)).pvalue > 1e-5
        )
        assert stats.binomtest(int((losses[:, arm] <= 1e-3).sum()), 4000, low).pvalue > 1e-5
        assert task.mean(task.state, 0, arm) == pytest.approx(mean, abs=1e-15)
        error = math.sqrt(mean * (1 - mean) / (1 + concentration) / 4000)
        assert abs(losses[:, arm].mean() - mean) < 4.5 * error


def test_losses_do_not_depend_on_who_asks_and_when():
    for task in (gaussian([0.1, 0.9], 0.5), beta([0.1, 0.9], 0.7)):
        forward = table(task, 50, 9)
        backward = np.array([[task.loss(task.reseed(task.state, 9), t, a) for a in (1, 0)] for t in range(49, -1, -1)])
        np.testing.assert_array_equal(forward, backward[::-1, ::-1])
        assert not np.array_equal(forward, table(task, 50, 10))


def test_normal_gamma_prior_has_its_moments_and_is_pure_in_its_seed():
    prior = normal_gamma(50, 0.5, 2.0, 4.0, 0.12)
    tasks = [prior(seed).state for seed in range(400)]
    precisions = np.concatenate([task.deviations**-2.0 for task in tasks])
    assert stats.kstest(precisions, stats.gamma(4.0, scale=1 / 0.12).cdf).pvalue > 1e-5
    means = np.concatenate([task.means for task in tasks])
    assert stats.kstest((means - 0.5) * np.sqrt(2.0 * precisions), stats.norm.cdf).pvalue > 1e-5
    np.testing.assert_array_equal(prior(3).state.means, tasks[3].means)


def test_wrong_arguments_are_told():
    with pytest.raises(ValueError, match="deviations"):
        gaussian([0.1, 0.2], -1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        beta([0.0, 0.5], 1.0)
    with pytest.raises(ValueError, match="rate"):
        normal_gamma(3, 0.5, 1.0, 1.0, 0.0)
