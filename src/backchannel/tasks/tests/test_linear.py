"""The linear task: its losses are what it says, and a pure function of the round."""

import numpy as np
import pytest

from backchannel.loop import play
from backchannel.online.lin_ts import lin_ts
from backchannel.tasks.linear import linear


def test_rows_have_norm_one_and_means_are_linear_in_them():
    task = linear(arms=4, dimension=5, seed=3)
    for t in range(50):
        rows = task.context(task.state, t).copy()
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-12)
        means = [task.mean(task.state, t, arm) for arm in range(4)]
        np.testing.assert_allclose(means, rows @ task.state.theta, rtol=1e-12)
        assert min(means) >= 0.1 - 1e-12
        assert max(means) <= 0.9 + 1e-12
    assert np.linalg.norm(task.state.theta) <= 1


def test_signal_is_how_far_means_reach():
    task = linear(arms=3, dimension=2, signal=0.02)  # in two dimensions u is 1 or -1
    means = {round(task.mean(task.state, t, arm), 12) for t in range(50) for arm in range(3)}
    assert means == {0.48, 0.52}


def test_losses_are_the_mean_plus_bounded_noise_without_bias():
    task = linear(arms=2, dimension=3, noise=0.2)
    n = 20_000
    noise = np.array([task.loss(task.state, t, 1) - task.mean(task.state, t, 1) for t in range(n)])
    assert abs(noise).max() <= 0.2
    # Uniform on [-0.2, 0.2]: standard deviation 0.2 / sqrt(3); four standard errors are exceeded once in 15,000.
    assert abs(noise.mean()) < 4 * 0.2 / np.sqrt(3 * n)
    assert abs(noise.std() - 0.2 / np.sqrt(3)) < 0.003


def test_pure_in_the_round_whatever_was_asked_before():
    task = linear(arms=3, dimension=4)
    late = task.context(task.state, 17).copy()
    loss = task.loss(task.state, 17, 2)
    for t in (90, 3, 17):
        task.context(task.state, t)
        task.loss(task.state, t, 0)
    np.testing.assert_array_equal(task.context(task.state, 17), late)
    assert task.loss(task.state, 17, 2) == loss


def test_reseed_changes_luck_not_theta_and_shares_no_buffer():
    task = linear(arms=3, dimension=4, seed=1)
    other = task.reseed(task.state, 9)
    np.testing.assert_array_equal(other.theta, task.state.theta)
    assert not np.shares_memory(other.rows, task.state.rows)
    assert not np.array_equal(task.context(other, 0), task.context(task.state, 0))
    assert not np.array_equal(linear(3, 4, seed=2).state.theta, task.state.theta)


def test_threads_do_not_disturb_one_another():
    alone = play(lin_ts(3, 4), linear(3, 4), 300, replicates=6, workers=1)
    threads = play(lin_ts(3, 4), linear(3, 4), 300, replicates=6, workers=4)
    np.testing.assert_array_equal(alone.curves["regret"], threads.curves["regret"])


@pytest.mark.parametrize("wrong", [{"arms": 0}, {"dimension": 1}, {"noise": 0.5}, {"signal": 0.41}, {"signal": 0.0}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        linear(**{"arms": 2, "dimension": 3} | wrong)
