"""FastCB: proofs and contrast."""

import numpy as np
import pytest

from backchannel import play
from backchannel.loop import copy_state
from backchannel.meters.regret import dynamic_regret
from backchannel.online.fast_cb import fast_cb
from backchannel.online.square_cb import square_cb
from backchannel.parts.adaptive_gradient import empty_table, learn_logistic
from backchannel.parts.sparse import Sparse
from backchannel.tasks.logistic import sparse_logistic

METERS = {"regret": dynamic_regret()}
ONE_EACH = Sparse(np.arange(4), np.arange(3), np.ones(3))  # three options with a feature each


def logit(p):
    return np.log(p / (1 - p))


@pytest.mark.parametrize(("loss", "gamma"), [(1e6, np.sqrt(3 * 1e6 / (3 * 0.5))), (10.0, 30.0)])
def test_step_probabilities_by_hand(loss, gamma):
    learner = fast_cb(bits=2, oracle_regret=0.5)
    state = copy_state(learner.state)
    y = np.array([0.02, 0.5, 0.01])
    state.table[:3, 0] = logit(y)
    state.loss[0] = loss
    expected = y[2] / (3 * y[2] + gamma * (y - y[2]))
    expected[2] = 1 - expected[:2].sum()
    out, rng = np.empty(3), np.random.default_rng(0)
    learner.probabilities(state, ONE_EACH, out)
    np.testing.assert_allclose(out, expected, rtol=1e-10)
    for _ in range(20):
        action, propensity = learner.act(state, ONE_EACH, rng)
        np.testing.assert_allclose(propensity, expected[action], rtol=1e-10)


def test_step_learns_the_chosen_option_whatever_its_propensity():
    learner = fast_cb(bits=2, step_size=0.3)
    table, clock = empty_table(2), np.zeros(2)
    state = copy_state(learner.state)
    for action, propensity, loss in [(1, 0.5, 1.0), (0, 0.01, 0.2), (1, 0.9, 0.0)]:
        learner.update(state, ONE_EACH, action, propensity, loss)
        learn_logistic(table, clock, ONE_EACH, action, loss, 0.3)
    np.testing.assert_array_equal(state.table, table)
    assert state.loss[0] == 1.2
    learner.update(state, ONE_EACH, 0, 0.5, np.nan)  # never came
    np.testing.assert_array_equal(state.table, table)
    assert state.loss[0] == 1.2


def test_known_weights_do_not_overflow_where_predictions_vanish():
    learner, out = fast_cb(bits=2), np.empty(3)
    state = copy_state(learner.state)
    state.table[:3, 0] = [-2000.0, 2000.0, -2000.0]
    learner.probabilities(state, ONE_EACH, out)
    np.testing.assert_allclose(out.sum(), 1.0)
    np.testing.assert_allclose(out[2], 1 / 3)  # as good as the best: never weighted down
    assert 0 < out[1] < 1e-6


def test_known_no_regret_against_uniform_play():
    learner, task = fast_cb(bits=12), sparse_logistic(4, 12)
    ours = play(learner, task, 10_000, replicates=4, meters=METERS).final().mean()
    uniform = play(square_cb(bits=12, oracle_regret=1e12), task, 10_000, replicates=4, meters=METERS).final().mean()
    assert ours < uniform / 4


def test_limit_at_equal_gamma_over_best_it_is_squarecb():
    # The two rules differ by the unit of the gap alone: gamma here is y_b times gamma there.
    y = np.array([0.2, 0.5, 0.9])
    fast, square = fast_cb(bits=2, oracle_regret=0.01), square_cb(bits=2, oracle_regret=1.0)
    one, other, p, q = copy_state(fast.state), copy_state(square.state), np.empty(3), np.empty(3)
    one.table[:3, 0], other.table[:3, 0] = logit(y), y
    one.loss[0] = 1000.0  # gamma = sqrt(3 * 1000 / 0.03)
    other.clock[:] = (np.sqrt(1e5) / 0.2) ** 2 / 3
    fast.probabilities(one, ONE_EACH, p)
    square.probabilities(other, ONE_EACH, q)
    np.testing.assert_allclose(p, q, rtol=1e-9)


def test_contrast_log_odds_in_proportion_are_logistic_and_not_linear():
    # The log-odds of a loss are -3 times one number; the options have 1 and 1/4, losses 0.05 and 0.32. A linear model
    # through the origin can predict positive losses only with a positive weight: it ranks them the wrong way round.
    rng, context = np.random.default_rng(2), Sparse(np.arange(3), np.zeros(2, int), np.array([1.0, 0.25]))
    means, best = 1 / (1 + np.exp(3 * context.value)), {}
    for name, learner in {"fast": fast_cb(bits=1), "square": square_cb(bits=1)}.items():
        state, chosen = copy_state(learner.state), np.zeros(2)
        for _ in range(2000):
            action, propensity = learner.act(state, context, rng)
            learner.update(state, context, action, propensity, float(rng.random() < means[action]))
            chosen[action] += 1
        best[name] = chosen[0] / 2000
    assert best["fast"] > 0.9
    assert best["square"] < 0.2


@pytest.mark.parametrize("wrong", [{"bits": 0}, {"step_size": 0.0}, {"oracle_regret": -1.0}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        fast_cb(**wrong)
