"""Batched SquareCB: proofs and contrast."""

import numpy as np
import pytest

from backchannel import play
from backchannel.channels.hide import bandit
from backchannel.channels.late import delay
from backchannel.loop import Run, copy_state
from backchannel.meters.regret import dynamic_regret
from backchannel.online.batched_square_cb import batched_boltzmann, batched_epsilon_greedy, batched_square_cb
from backchannel.online.square_cb import square_cb
from backchannel.parts.adaptive_gradient import empty_table, learn_logistic
from backchannel.parts.sparse import Sparse
from backchannel.tasks.payments import in_batches, payments

METERS = {"regret": dynamic_regret()}
THREE = Sparse(np.array([0, 2, 3, 5]), np.array([0, 1, 2, 0, 3]), np.array([1.0, 0.5, 1.0, 1.0, -2.0]))


def logit(p):
    return np.log(p / (1 - p))


def test_step_probabilities_by_hand():
    y = np.array([0.3, 0.1, 0.2])
    context = Sparse(np.arange(4), np.arange(3), np.ones(3))
    gap = 1 / (3 + np.sqrt(3 * 50 / 0.5) * (y - 0.1))
    gap[1] = 1 - gap[0] - gap[2]
    soft = np.exp(-y / 0.2) / np.exp(-y / 0.2).sum()
    cases = [
        (batched_square_cb(2, oracle_regret=0.5, features=1), gap),
        (batched_epsilon_greedy(2, epsilon=0.3, features=1), np.array([0.1, 0.8, 0.1])),
        (batched_boltzmann(2, temperature=0.2, features=1), soft),
    ]
    for learner, expected in cases:
        state, out, rng = copy_state(learner.state), np.zeros(5), np.random.default_rng(0)
        state.table[:3, 0] = logit(y)
        state.fitted[0] = 50
        learner.probabilities(state, context, out)
        np.testing.assert_allclose(out, [*expected, 0, 0], rtol=1e-10)  # more arms than are offered: nothing there
        for _ in range(20):
            action, propensity = learner.act(state, context, rng)
            np.testing.assert_allclose(propensity, expected[action], rtol=1e-10)


def test_step_model_is_the_fit_of_the_last_generations_only():
    rng, learner = np.random.default_rng(1), batched_square_cb(2, generation=3, memory=2, features=2, epochs=4)
    state, log = copy_state(learner.state), []
    for i in range(10):
        action, loss = int(rng.integers(3)), rng.random()
        learner.update(state, THREE, action, 0.1, loss)
        log.append((action, loss))
        if i < 2:
            np.testing.assert_array_equal(state.table, 0.0)  # nothing before the first generation ends
    table, clock = empty_table(2), np.zeros(2)
    for _ in range(4):
        for action, loss in log[3:9]:  # the tenth is logged and not yet learned
            learn_logistic(table, clock, THREE, action, loss, 0.5)
    np.testing.assert_allclose(state.table, table, rtol=1e-12, atol=1e-15)
    assert state.fitted[0] == 6


def test_step_lost_answers_count_as_answers_and_are_not_learned():
    learner = batched_square_cb(2, generation=3, features=2)
    state = copy_state(learner.state)
    for loss in (1.0, np.nan, 0.0):
        learner.update(state, THREE, 0, 0.3, loss)
    assert state.fitted[0] == 2
    np.testing.assert_array_equal(state.loss[:2], [1.0, 0.0])


def test_known_first_generation_is_uniform():
    for learner in (batched_square_cb(6), batched_boltzmann(6)):
        out = np.empty(3)
        learner.probabilities(learner.state, THREE, out)
        np.testing.assert_allclose(out, 1 / 3)


def test_known_fit_finds_the_losses_of_its_log():
    # Two options apart, means 1/4 and 3/4 in the log exactly: many passes reach the maximum of the likelihood.
    context = Sparse(np.arange(3), np.arange(2), np.ones(2))
    learner = batched_square_cb(1, generation=400, features=1, epochs=50)
    state = copy_state(learner.state)
    for i in range(400):
        learner.update(state, context, i % 2, 0.5, float(i // 2 % 4 == 0) if i % 2 == 0 else float(i // 2 % 4 > 0))
    np.testing.assert_allclose(1 / (1 + np.exp(-state.table[:, 0])), [0.25, 0.75], atol=0.02)


def test_limit_answers_late_within_a_generation_change_nothing():
    def make():
        return batched_square_cb(10, generation=200, memory=2, features=6)

    soon = Run(make(), payments(10), 1000, seed=3).advance()
    late = Run(make(), payments(10), 1000, seed=3, channel=delay(bandit(), in_batches(200))).advance()
    np.testing.assert_array_equal(soon.trace.actions, late.trace.actions)
    np.testing.assert_array_equal(soon.state.table, late.state.table)


def test_limit_without_exploration_the_three_rules_are_one():
    learners = [
        batched_square_cb(10, generation=50, features=6, oracle_regret=1e-12),
        batched_boltzmann(10, generation=50, features=6, temperature=1e-9),
        batched_epsilon_greedy(10, generation=50, features=6, epsilon=0.0),
    ]
    rng, task = np.random.default_rng(4), payments(10)
    states, out = [copy_state(learner.state) for learner in learners], np.zeros((3, task.arms))
    for t in range(200):
        context = task.context(task.state, t)
        action = int(rng.integers(len(context.start) - 1))
        if t >= 50:
            out[:] = 0
            for learner, state, row in zip(learners, states, out, strict=True):
                learner.probabilities(state, context, row)
            np.testing.assert_allclose(out, np.broadcast_to(out[2], out.shape), atol=1e-3)
        for learner, state in zip(learners, states, strict=True):
            learner.update(state, context, action, 0.5, task.loss(task.state, t, action))


def test_contrast_short_memory_finds_what_has_changed():
    # After 20,000 rounds the second option, worse until then, becomes free of losses. SquareCB's gamma has grown with
    # all that it has learned, and with a small Reg it has next to stopped looking; over a short memory gamma stays what
    # it was. Over 30 seeds the shares in the last thousand of 3,000 more rounds were 0.92 +- 0.03 here and at most
    # 0.001 there. (With Reg = 0.01 SquareCB came back in time in a few of the runs.)
    context, share = Sparse(np.arange(3), np.arange(2), np.ones(2)), {}
    ours = batched_square_cb(1, generation=200, oracle_regret=0.1, features=1)
    for name, learner in {"batched": ours, "online": square_cb(1, oracle_regret=1e-4)}.items():
        rng, state, chosen = np.random.default_rng(5), copy_state(learner.state), 0
        for t in range(23_000):
            action, propensity = learner.act(state, context, rng)
            mean = 0.2 if action == 0 else 0.6 if t < 20_000 else 0.0
            learner.update(state, context, action, propensity, float(rng.random() < mean))
            chosen += t >= 22_000 and action == 1
        share[name] = chosen / 1000
    assert share["batched"] > 0.7
    assert share["online"] < 0.2


def test_contrast_uniform_exploration_pays_for_what_it_knows_to_be_bad():
    # All traffic explored evenly gives the best logs and regret for ever; weighted by gaps it is a third or less.
    total = {"gap": 0.0, "uniform": 0.0}
    for seed in range(4):
        for name, learner in {
            "gap": batched_square_cb(12, generation=1000, memory=10, oracle_regret=0.1, features=6, epochs=3),
            "uniform": batched_epsilon_greedy(12, generation=1000, memory=10, epsilon=1.0, features=6, epochs=3),
        }.items():
            total[name] += play(learner, payments(12, seed=seed), 10_000, seed=seed, meters=METERS).final()[0]
    assert total["gap"] < total["uniform"] / 2


@pytest.mark.parametrize("wrong", [{"generation": 0}, {"memory": 0}, {"epochs": 0}, {"step_size": 0.0}])
def test_wrong_arguments_are_named(wrong):
    for make in (batched_square_cb, batched_epsilon_greedy, batched_boltzmann):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            make(**wrong)


def test_wrong_exploration_is_named_and_too_many_features_are_refused():
    for make, name, value in [
        (batched_square_cb, "oracle_regret", 0.0),
        (batched_epsilon_greedy, "epsilon", 1.1),
        (batched_boltzmann, "temperature", 0.0),
    ]:
        with pytest.raises(ValueError, match=name):
            make(**{name: value})
    learner = batched_square_cb(2, features=1)
    with pytest.raises(ValueError, match="more features"):
        learner.update(learner.state, THREE, 0, 1.0, 0.0)
