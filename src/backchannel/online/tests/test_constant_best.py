"""Constant best: proofs and contrast."""

import numpy as np

from backchannel import play
from backchannel.base import NOTHING
from backchannel.loop import Run, copy_state
from backchannel.online.constant_best import constant_best
from backchannel.online.epsilon_greedy import epsilon_greedy
from backchannel.online.ucb1 import ucb1
from backchannel.tasks.bernoulli import bernoulli


def fed(log, arms):
    learner = constant_best(arms)
    state = copy_state(learner.state)
    for action, propensity, loss in log:
        learner.update(state, NOTHING, action, propensity, loss)
    return learner, state


def best(log, arms):
    learner, state = fed(log, arms)
    return learner.act(state, NOTHING, np.random.default_rng(0))[0]


def confounded(rng, rounds):
    """Easy cases (loss 0.1 by arm 0, 0.0 by arm 1) mostly get arm 0, hard ones (0.9, 0.8) mostly arm 1."""
    log = []
    for hard in rng.random(rounds) < 0.5:
        p = 0.1 if hard else 0.9
        action = int(rng.random() >= p)
        log.append((action, p if action == 0 else 1 - p, 0.8 * hard + 0.1 * (action == 0)))
    return log


def test_step_weighted_means_by_hand():
    log = [(0, 0.5, 1.0), (1, 0.25, 0.4), (0, 0.1, 0.2), (2, 1.0, 0.3), (1, 0.5, 0.1)]
    learner, state = fed(log, 3)
    np.testing.assert_allclose(state.losses, [2 * 1.0 + 10 * 0.2, 4 * 0.4 + 2 * 0.1, 0.3], rtol=1e-15)
    np.testing.assert_allclose(state.weights, [12, 6, 1], rtol=1e-15)
    np.testing.assert_array_equal(state.counts, [2, 2, 1])
    out = np.empty(3)
    learner.probabilities(state, NOTHING, out)  # 4 / 12 against 1.8 / 6 and 0.3: arm 1, and ties go to the lowest index
    np.testing.assert_array_equal(out, [0, 1, 0])
    assert learner.act(state, NOTHING, np.random.default_rng(0)) == (1, 1.0)


def test_step_every_arm_is_tried_first_and_late_answers_take_turns():
    learner = constant_best(3)
    state, rng = copy_state(learner.state), np.random.default_rng(0)
    assert [learner.act(state, NOTHING, rng)[0] for _ in range(5)] == [0, 1, 2, 0, 1]
    for arm, loss in ((1, 0.9), (0, 1.0)):
        learner.update(state, NOTHING, arm, 1.0, loss)
    assert learner.act(state, NOTHING, rng)[0] == 2  # not answered yet
    learner.update(state, NOTHING, 2, 1.0, 0.95)
    assert learner.act(state, NOTHING, rng)[0] == 1


def test_known_it_finds_the_loss_of_always_one_action():
    # Always 0 loses 0.5, always 1 loses 0.4, whatever the log's averages. 20,000 rounds with weights of at most 10: the
    # standard error of a weighted mean is below sqrt(10 / 20,000) = 0.023; 0.1 is more than four of them.
    _, state = fed(confounded(np.random.default_rng(1), 20_000), 2)
    np.testing.assert_allclose(state.losses / state.weights, [0.5, 0.4], atol=0.1)


def test_limit_equal_propensities_give_plain_means_whatever_they_are():
    rng = np.random.default_rng(2)
    log = [(int(rng.integers(3)), 1 / 3, rng.random()) for _ in range(200)]
    means = [np.mean([loss for action, _, loss in log if action == arm]) for arm in range(3)]
    for propensity in (1 / 3, 1.0, np.nan):
        _, state = fed([(action, propensity, loss) for action, _, loss in log], 3)
        np.testing.assert_allclose(state.losses / state.weights, means, rtol=1e-12)


def test_limit_by_itself_it_is_epsilon_greedy_without_epsilon():
    task = bernoulli([0.5, 0.4, 0.6])
    a = Run(constant_best(3), task, 500, seed=4).advance()
    b = Run(epsilon_greedy(3, epsilon=0.0), task, 500, seed=4).advance()
    np.testing.assert_array_equal(a.trace.actions, b.trace.actions)


def test_contrast_plain_means_of_a_confounded_log_choose_the_wrong_action():
    log = confounded(np.random.default_rng(3), 20_000)
    assert best(log, 2) == 1
    assert best([(action, np.nan, loss) for action, _, loss in log], 2) == 0


def test_contrast_played_live_it_may_be_wrong_for_good():
    # Arm 0 is better (0.4 against 0.6), but loses at first while arm 1 does not with probability 0.16; then its mean
    # stays at 1. Of 400 runs fewer than 30 would do so once in 10^6; UCB1 comes back in every one.
    task = bernoulli([0.4, 0.6])
    stuck = play(constant_best(2), task, 4000, replicates=400, seed=5).final() > 0.19 * 4000
    assert stuck.sum() > 30
    assert play(ucb1(2), task, 4000, replicates=400, seed=5).final().max() < 0.1 * 4000
