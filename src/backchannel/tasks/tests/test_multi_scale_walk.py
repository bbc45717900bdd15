"""The multi-scale random walk: its definition, its purity and what it hides."""

import numpy as np
import pytest

from backchannel.parts.counter_random import normal_at
from backchannel.tasks.multi_scale_walk import best_arm, multi_scale_walk, walk


def test_the_walk_is_the_recursion_of_the_paper():
    seed = np.uint64(7)
    values = [0.0]
    for t in range(1, 200):
        d = 0
        while t % 2 ** (d + 1) == 0:
            d += 1
        values.append(values[t - 2**d] + 0.3 * normal_at(seed, t, 0))
        assert abs(walk(seed, 0.3, t) - values[t]) < 1e-12


def test_losses_are_the_walk_less_the_gap():
    task = multi_scale_walk(3, 1000, gap=0.1, deviation=0.01)
    state = task.reseed(task.state, 11)
    best = best_arm(state)
    for t in (0, 3, 900):
        level = 0.5 + walk(state.seed[0], 0.01, t + 1)
        for arm in range(3):
            assert abs(task.loss(state, t, arm) - (level - 0.1 * (arm == best))) < 1e-12
            assert task.mean(state, t, arm) == task.loss(state, t, arm)


def test_own_noise_is_fair_and_stays_within_the_unit_interval():
    task = multi_scale_walk(2, 1000, gap=0.3, deviation=0.2, spread=0.25)
    state = task.reseed(task.state, 5)
    noise = []
    for t in range(3000):
        for arm in range(2):
            loss, mean = task.loss(state, t, arm), task.mean(state, t, arm)
            assert 0.25 <= mean <= 0.75
            assert 0 <= loss <= 1
            noise.append(loss - mean)
    # 6,000 uniform numbers in [-1/4, 1/4]: the mean's standard error is 0.0019, and theirs differ arm by arm.
    assert abs(np.mean(noise)) < 4.5 * 0.0019
    assert abs(np.corrcoef(noise[::2], noise[1::2])[0, 1]) < 4.5 / np.sqrt(3000)


def test_every_arm_is_the_best_one_for_some_seed():
    task = multi_scale_walk(4, 10)
    assert {best_arm(task.reseed(task.state, seed)) for seed in range(100)} == {0, 1, 2, 3}  # fails at 4 (3/4)^100


def test_defaults_are_the_papers():
    state = multi_scale_walk(2, 1024).state
    np.testing.assert_allclose([state.gap[0], state.deviation[0]], [0.125 / 90, 1 / 90])


def test_arguments_that_make_no_sense_are_refused():
    for arguments in ({"gap": -1.0}, {"deviation": -1.0}, {"spread": 0.5}):
        with pytest.raises(ValueError, match="must"):
            multi_scale_walk(2, 10, **arguments)
