"""The checkout arm: its geometry, its features, and a user who is alpha-informative and no better."""

import numpy as np
import pytest

from backchannel.engine import bind
from backchannel.parts.counter_random import uniform_at
from backchannel.tasks import checkout_arm as arm
from backchannel.tasks.checkout_arm import NEAR, OBJECTS, checkout_arm

_CALLS = """
@compiled
def trajectories(state, t):
    return rows_of(state, t)


@compiled
def correction(state, t, action):
    return loss_of(state, t, action)


@compiled
def mean(state, t, action):
    return mean_of(state, t, action)


@compiled
def hand(state, t, option, s):
    return hand_of(state, t, option, s)


@compiled
def elbow(x, y, side):
    return elbow_of(x, y, side)


@compiled
def path_length(state, t, option):
    return path_of(state, t, option)


@compiled
def side(state, t, option):
    return luck_of(state, t, option, 2)


@compiled
def uniform(seed, t, index):
    return uniform_of(seed, t, index)
"""


@pytest.fixture(scope="module")
def ask():
    """The task's functions, compiled once and kept between runs of the tests."""
    task = checkout_arm(2, 10)
    functions = {"rows_of": task.context, "loss_of": task.loss, "mean_of": task.mean, "hand_of": arm._hand}
    functions |= {"elbow_of": arm._elbow, "path_of": arm.path_length, "luck_of": arm._luck, "uniform_of": uniform_at}
    return bind(_CALLS, functions, (task.state,))


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
def test_corrections_are_alpha_informative_and_the_least_such(ask, alpha):
    task = checkout_arm(12, 14, seed=3, alpha=alpha)
    for t in range(20):
        utility = ask.trajectories(task.state, t) @ task.state.weights
        for action in range(12):
            answer = int(ask.correction(task.state, t, action))
            enough = utility[action] + alpha * (utility.max() - utility[action]) - 1e-12
            if action == utility.argmax():
                assert answer == action
            else:
                assert utility[answer] >= enough
                assert not ((utility >= enough + 2e-12) & (utility < utility[answer] - 1e-12)).any()


def test_mean_is_minus_the_utility_and_the_answer_does_not_depend_on_when_it_is_asked(ask):
    task = checkout_arm(5, 10, seed=1)
    rows = ask.trajectories(task.state, 7)
    again = [ask.correction(task.state, 7, a) for a in range(5)]
    np.testing.assert_allclose([ask.mean(task.state, 7, a) for a in range(5)], -rows @ task.state.weights, rtol=1e-12)
    assert again == [ask.correction(task.state, 7, a) for a in range(5)]
    other = task.reseed(task.state, 99)
    assert not np.array_equal(rows, ask.trajectories(other, 7))
    np.testing.assert_array_equal(task.state.weights, other.weights)


def test_features_have_their_range_and_the_arm_its_links(ask):
    task = checkout_arm(30, 16, seed=2)
    for t in range(10):
        rows = ask.trajectories(task.state, t) * 4
        assert (rows >= 0).all()
        assert (rows <= 1).all()
        fragile = (rows[:, 3:6] != 0).any()
        np.testing.assert_array_equal(rows[:, 3:6], rows[:, 0:3] if fragile else np.zeros((30, 3)))
        for s in (0.0, 0.4, 1.0):
            x, y = ask.hand(task.state, t, 0, s)
            assert np.hypot(x, y) <= 1.3 + 1e-12
            for side in (0.2, 0.8):
                ex, ey = ask.elbow(x, y, side)
                np.testing.assert_allclose([np.hypot(ex, ey), np.hypot(x - ex, y - ey)], [0.7, 0.6], rtol=1e-9)
        assert ask.path_length(task.state, t, 0) >= 1.8 - 1e-12  # scanner to bag, straight


def test_an_object_on_the_path_is_felt_and_one_far_off_is_not(ask):
    # Of many objects the feature falls with the distance from hand and elbow to the object, averaged by hand here.
    task = checkout_arm(2, 40, seed=4)
    state, rows = task.state, ask.trajectories(task.state, 5)
    for j in range(31):
        ox = 1.6 * ask.uniform(state.seed[0], 5, OBJECTS + 2 * j) - 0.8
        oy = ask.uniform(state.seed[0], 5, OBJECTS + 2 * j + 1)
        near = []
        for k in range(8):
            hand = ask.hand(state, 5, 1, (k + 0.5) / 8)
            elbow = ask.elbow(*hand, ask.side(state, 5, 1))
            distance = min(np.hypot(hand[0] - ox, hand[1] - oy), np.hypot(elbow[0] - ox, elbow[1] - oy))
            near.append(np.exp(-(distance**2) / (2 * NEAR**2)))
        np.testing.assert_allclose(rows[1, 9 + j], np.mean(near) / np.sqrt(40), rtol=1e-9)


def test_arguments_are_checked():
    for wrong in ({"options": 1, "dimension": 12}, {"options": 5, "dimension": 9}):
        with pytest.raises(ValueError, match="at least"):
            checkout_arm(**wrong)
    with pytest.raises(ValueError, match="alpha"):
        checkout_arm(5, 12, alpha=0.0)
