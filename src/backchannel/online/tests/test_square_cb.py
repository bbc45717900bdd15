"""SquareCB: proofs and contrast."""

import numpy as np
import pytest

from backchannel import play
from backchannel.loop import copy_state
from backchannel.meters.regret import dynamic_regret
from backchannel.online.fast_cb import fast_cb
from backchannel.online.square_cb import square_cb
from backchannel.parts.adaptive_gradient import empty_table, learn_squared
from backchannel.parts.sparse import Sparse
from backchannel.tasks.logistic import sparse_logistic

METERS = {"regret": dynamic_regret()}


def dense(rows):
    """Rows of numbers as sparse options."""
    rows = np.asarray(rows, float)
    arms, d = rows.shape
    return Sparse(np.arange(arms + 1) * d, np.tile(np.arange(d), arms), rows.ravel())


def test_step_probabilities_by_hand():
    learner = square_cb(bits=2, oracle_regret=0.5)
    state = copy_state(learner.state)
    state.table[:, 0] = [0.2, 0.6, -0.3, 2.0]
    state.clock[:] = [50.0, 60.0]
    context = dense(np.eye(4))
    y = np.array([0.2, 0.6, 0.0, 1.0])  # clipped to [0, 1]
    gamma = np.sqrt(4 * 50 / 0.5)
    expected = 1 / (4 + gamma * (y - y[2]))
    expected[2] = 1 - expected[[0, 1, 3]].sum()
    out = np.empty(4)
    learner.probabilities(state, context, out)
    np.testing.assert_allclose(out, expected, rtol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(20):
        action, propensity = learner.act(state, context, rng)
        np.testing.assert_allclose(propensity, expected[action], rtol=1e-12)


def test_step_learns_the_chosen_option_whatever_its_propensity():
    learner, context = square_cb(bits=2, step_size=0.3), dense([[1.0, 0, 2.0, 0], [0, 1.0, 0, 3.0]])
    table, clock = empty_table(2), np.zeros(2)
    state = copy_state(learner.state)
    for action, propensity, loss in [(1, 0.5, 1.0), (0, 0.01, 0.2), (1, 0.9, 0.4)]:
        learner.update(state, context, action, propensity, loss)
        learn_squared(table, clock, context, action, loss, 0.3)
    np.testing.assert_array_equal(state.table, table)
    np.testing.assert_array_equal(state.clock, clock)
    learner.update(state, context, 0, 0.5, np.nan)  # never came
    np.testing.assert_array_equal(state.table, table)


def test_known_no_regret_against_uniform_play():
    # The first draw is uniform; regret in 10,000 rounds is below a quarter of uniform play's (thousands of standard
    # errors of 10 or so).
    learner, task = square_cb(bits=12), sparse_logistic(4, 12)
    out = np.empty(4)
    learner.probabilities(learner.state, task.context(task.state, 0), out)
    np.testing.assert_allclose(out, 0.25)
    ours = play(learner, task, 10_000, replicates=4, meters=METERS).final().mean()
    uniform = play(square_cb(bits=12, oracle_regret=1e12), task, 10_000, replicates=4, meters=METERS).final().mean()
    assert ours < uniform / 4


def test_limit_enormous_oracle_regret_is_uniform_and_a_tiny_one_is_greedy():
    context = dense(np.eye(3))
    for oracle_regret, expected in [(1e15, [1 / 3, 1 / 3, 1 / 3]), (1e-15, [0, 1, 0])]:
        learner, out = square_cb(bits=2, oracle_regret=oracle_regret), np.empty(3)
        state = copy_state(learner.state)
        state.table[:, 0] = [0.5, 0.1, 0.9, 0.0]
        state.clock[:] = 100.0
        learner.probabilities(state, context, out)
        np.testing.assert_allclose(out, expected, atol=1e-5)


def test_limit_options_may_come_and_go():
    learner, out = square_cb(bits=3), np.empty(8)
    state = copy_state(learner.state)
    rng = np.random.default_rng(1)
    for options in (2, 8, 1, 5):
        context = dense(rng.random((options, 8)))
        action, propensity = learner.act(state, context, rng)
        learner.update(state, context, action, propensity, 0.5)
        learner.probabilities(state, context, out[:options])
        np.testing.assert_allclose(out[:options].sum(), 1.0)


def test_contrast_a_loss_in_proportion_is_linear_and_not_logistic():
    # The loss is 0.4 times one number; the options have 1 and 1/4. A logistic model through the origin can put losses
    # below 1/2 only with a negative weight, and so ranks them the wrong way round; a linear one is exact.
    rng, context, means = np.random.default_rng(2), dense([[1.0], [0.25]]), np.array([0.4, 0.1])
    best = {}
    for name, learner in {"square": square_cb(bits=1), "fast": fast_cb(bits=1)}.items():
        state, chosen = copy_state(learner.state), np.zeros(2)
        for _ in range(2000):
            action, propensity = learner.act(state, context, rng)
            learner.update(state, context, action, propensity, float(rng.random() < means[action]))
            chosen[action] += 1
        best[name] = chosen[1] / 2000
    assert best["square"] > 0.9
    assert best["fast"] < 0.2


@pytest.mark.parametrize("wrong", [{"bits": 0}, {"step_size": 0.0}, {"oracle_regret": -1.0}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        square_cb(**wrong)
