"""Trajectory Preference Perceptron: proofs and contrast."""

import numpy as np
import pytest

from backchannel import play
from backchannel.channels.hide import bandit
from backchannel.channels.late import delay, fixed
from backchannel.engine import bind
from backchannel.live import Live
from backchannel.loop import Run
from backchannel.meters.regret import dynamic_regret
from backchannel.online.exp3 import exp3
from backchannel.online.trajectory_preference_perceptron import regret_bound, trajectory_preference_perceptron
from backchannel.tasks.checkout_arm import checkout_arm

REGRET = {"regret": dynamic_regret()}
_CALLS = """
@compiled
def trajectories(state, t):
    return rows_of(state, t)


@compiled
def correction(state, t, action):
    return loss_of(state, t, action)
"""


@pytest.fixture(scope="module")
def ask():
    """The user and what is shown to the learner, compiled once and kept between runs of the tests."""
    task = checkout_arm(2, 10)
    return bind(_CALLS, {"rows_of": task.context, "loss_of": task.loss}, (task.state,))


def test_step_two_corrections_by_hand():
    agent = Live(trajectory_preference_perceptron(2))
    first = np.array([[0.5, 0.0], [0.0, 1.0], [1.0, 0.5]])
    assert agent.act(first) == (0, 1.0)  # all score 0: the first
    agent.update(0, 1.0, 2.0, first)
    np.testing.assert_array_equal(agent.state.weights, [0.5, 0.5])
    second = np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 0.0]])
    assert agent.act(second) == (1, 1.0)
    agent.update(1, 1.0, 0.0, second)
    np.testing.assert_array_equal(agent.state.weights, [-0.5, 0.5])
    np.testing.assert_array_equal(agent.probabilities(3, second), [1.0, 0.0, 0.0])


def test_step_a_satisfied_or_silent_user_changes_nothing():
    agent = Live(trajectory_preference_perceptron(2))
    rows = np.array([[0.5, 0.0], [0.0, 1.0]])
    agent.update(1, 1.0, 1.0, rows)
    agent.update(1, 1.0, np.nan, rows)
    np.testing.assert_array_equal(agent.state.weights, 0.0)
    for wrong in (2.0, -1.0, 0.5):
        with pytest.raises(ValueError, match="index"):
            agent.update(1, 1.0, wrong, rows)


def test_known_weights_are_the_sum_of_the_corrections(ask):
    # The whole run again in NumPy: proposals, the user's answers, weights.
    user = checkout_arm(15, 12, seed=5)
    run = Run(trajectory_preference_perceptron(12), user, 200, seed=6).advance()
    weights = np.zeros(12)
    for t in range(200):
        rows = ask.trajectories(run.task.state, t)
        proposed = int(np.argmax(rows @ weights))
        assert proposed == run.trace.actions[t]
        weights += rows[int(ask.correction(run.task.state, t, proposed))] - rows[proposed]
    np.testing.assert_allclose(run.state.weights, weights, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0])
def test_known_regret_lies_below_the_theorem_in_every_run(alpha):
    # Not a statistical statement: without slack the bound holds run by run, at every horizon.
    for user in range(5):
        task = checkout_arm(10, 12, seed=user, alpha=alpha)
        result = play(trajectory_preference_perceptron(12), task, 500, seed=user, meters=REGRET)
        bounds = [regret_bound(int(t), alpha=alpha) for t in result.rounds]
        assert (result.curves["regret"] <= bounds).all()
    assert regret_bound(100, radius=2.0, norm=3.0, alpha=0.5) == 2 * 2 * 3 * 10 / 0.5


def test_limit_of_two_options_is_rosenblatts_perceptron(ask):
    # With two options a correction is the label of a pair: on a mistake, add the difference; else nothing.
    run = Run(trajectory_preference_perceptron(12), checkout_arm(2, 12, seed=8), 300, seed=9).advance()
    weights, mistakes = np.zeros(12), 0
    for t in range(300):
        pair = ask.trajectories(run.task.state, t)
        difference = pair[1] - pair[0]
        label = 1.0 if difference @ run.task.state.weights > 0 else -1.0
        guess = 1.0 if difference @ weights > 0 else -1.0
        if guess != label:
            weights += label * difference
            mistakes += 1
    assert 0 < mistakes < 300
    np.testing.assert_allclose(run.state.weights, weights, atol=1e-12)


def test_limit_late_corrections_reach_their_own_round(ask):
    # All 50 answers come after the last proposal: every proposal is the first row, and the sum is over those.
    task = checkout_arm(6, 12, seed=1)
    late = delay(bandit(), fixed(49))
    run = Run(trajectory_preference_perceptron(12), task, 50, seed=2, channel=late).advance()
    assert (run.trace.actions == 0).all()
    rows, user = ask.trajectories(run.task.state, 0), ask.correction(run.task.state, 0, 0)
    np.testing.assert_array_equal(run.state.weights, rows[int(user)] - rows[0])


def test_contrast_no_single_option_is_good_and_the_features_are():
    # Exp3 without contexts can only prefer a row number; rows are drawn anew each round. Its regret (it reads the
    # index as a loss, and any option is as good as another) is that of random play; the perceptron's is lower for each
    # of 20 users, and about a tenth on average.
    ours, theirs = [], []
    for user in range(20):
        task = checkout_arm(10, 12, seed=user)
        ours.append(play(trajectory_preference_perceptron(12), task, 500, seed=user, meters=REGRET).final()[0])
        theirs.append(play(exp3(10, 500), task, 500, seed=user, meters=REGRET).final()[0])
    assert np.mean(ours) < np.mean(theirs) / 4
    assert (np.array(ours) < np.array(theirs)).all()
