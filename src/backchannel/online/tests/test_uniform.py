"""Uniform: proofs and contrast."""

import numpy as np

from backchannel import play
from backchannel.base import NOTHING
from backchannel.loop import Run, copy_state
from backchannel.online.constant_best import constant_best
from backchannel.online.exp3 import exp3
from backchannel.online.uniform import regret_bound, uniform
from backchannel.tasks.bernoulli import bernoulli


def test_step_an_answer_changes_nothing():
    learner = uniform(arms=4)
    state = copy_state(learner.state)
    rng = np.random.default_rng(0)
    for _ in range(5):
        action, propensity = learner.act(state, NOTHING, rng)
        assert propensity == 0.25
        learner.update(state, NOTHING, action, propensity, 1.0)
    np.testing.assert_array_equal(state.probabilities, np.full(4, 0.25))


def test_known_regret_is_the_mean_gap():
    # The regret of a round is 0, 0.3 or 0.6 with equal probability: the mean of 400 runs of 1,000 rounds has a standard
    # error of 0.245 sqrt(1000 / 400) = 0.39. Five of them: 6e-7.
    regret = play(uniform(3), bernoulli([0.2, 0.5, 0.8]), 1000, replicates=400, seed=0).final()
    assert abs(regret.mean() - 1000 * 0.3) < 5 * 0.39
    assert regret_bound(3, 1000) == 1000 * 2 / 3


def test_limit_exp3_without_learning_is_uniform():
    learner, other = exp3(arms=3, horizon=10, step_size=0.0), uniform(arms=3)
    state, out = copy_state(learner.state), np.empty(3)
    learner.update(state, NOTHING, 1, 1 / 3, 1.0)
    other.probabilities(other.state, NOTHING, out)
    np.testing.assert_allclose(state.probabilities, out, rtol=1e-15)


def test_contrast_its_log_is_unbiased_and_a_learner_s_is_not():
    # Two arms that lose half the time, 20 rounds. Whoever follows the leader stops looking after bad luck, so that its
    # averages are too high; uniform play's are not. The standard error over 2,000 runs is below 0.5 / sqrt(2000).
    task, error = bernoulli([0.5, 0.5]), 0.5 / np.sqrt(2000)
    bias = {}
    for name, learner in (("uniform", uniform(2)), ("leader", constant_best(2))):
        means = []
        for seed in range(2000):
            run = Run(learner, task, 20, seed=seed).advance()
            losses = [task.loss(run.task.state, t, 0) for t in range(20) if run.trace.actions[t] == 0]
            means += [np.mean(losses)] if losses else []
        bias[name] = np.mean(means) - 0.5
    assert abs(bias["uniform"]) < 4.5 * error
    assert bias["leader"] > 0.1
