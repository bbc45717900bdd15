"""Live: the same learner as in a run, one call for each decision."""

import numpy as np
import pytest

from backchannel.base import NOTHING
from backchannel.live import Live
from backchannel.loop import Run
from backchannel.online.banker_omd import banker_omd
from backchannel.online.exp3 import exp3
from backchannel.online.lin_ucb import lin_ucb
from backchannel.online.thompson import thompson
from backchannel.tasks.bernoulli import bernoulli


def test_fed_what_a_run_was_told_it_is_in_the_runs_state():
    run = Run(exp3(3, 200), bernoulli([0.2, 0.5, 0.7]), 200, seed=3).advance()
    losses = [run.task.loss(run.task.state, t, action) for t, action in enumerate(run.trace.actions)]
    agent = Live(exp3(3, 200), seed=9)
    for action, propensity, loss in zip(run.trace.actions, run.trace.propensities, losses, strict=True):
        agent.update(action, propensity, loss)
    for mine, theirs in zip(agent.state, run.state, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_with_a_runs_randomness_it_takes_the_runs_decisions():
    task = bernoulli([0.2, 0.5, 0.7])
    run = Run(thompson(3), task, 100, seed=3)
    agent = Live(thompson(3))
    agent.rng.bit_generator.state = run.rng.bit_generator.state
    run.advance()
    for t in range(100):
        action, propensity = agent.act()
        assert action == run.trace.actions[t]
        agent.update(action, propensity, run.task.loss(run.task.state, t, action))


def test_two_agents_of_one_learner_are_apart_and_the_learner_stays_new():
    learner = exp3(2, 100)
    one, other = Live(learner, seed=1), Live(learner, seed=1)
    one.update(0, 0.5, 1.0)
    assert one.probabilities(2)[0] < 0.5
    assert other.probabilities(2)[0] == 0.5
    assert learner.state.losses.sum() == 0
    assert [Live(learner, seed=7).act() for _ in range(3)] == [Live(learner, seed=7).act()] * 3


def test_probabilities_are_those_that_act_draws_from():
    agent = Live(exp3(3, 100, step_size=0.5), seed=0)
    for arm, loss in [(0, 1.0), (1, 0.2), (0, 1.0)]:
        agent.update(arm, 1 / 3, loss)
    p = agent.probabilities(3)
    counts = np.bincount([agent.act()[0] for _ in range(5000)], minlength=3)
    assert (abs(counts - 5000 * p) < 5 * np.sqrt(5000 * p * (1 - p)) + 1e-9).all()  # once in 10^5 seeds
    action, propensity = agent.act()
    assert propensity == p[action]


def test_without_a_closed_form_probabilities_are_shares_of_draws():
    agent = Live(thompson(2), seed=0)
    p = agent.probabilities(2)
    np.testing.assert_allclose(p * 1000, np.round(p * 1000), atol=1e-9)
    assert abs(p.sum() - 1) < 1e-9
    assert abs(p[0] - 0.5) < 5 * np.sqrt(0.25 / 1000)  # once in 10^6 seeds


def test_a_context_is_passed_on():
    # Arm 0 is bad where the first feature is 1, arm 1 where the second is: after many answers the choice follows.
    agent = Live(lin_ucb(2, dimension=4, width=0.1), seed=0)
    seen = {kind: np.kron(np.eye(2), np.eye(2)[kind]) for kind in (0, 1)}  # rows [arms, dimension], one block an arm
    for _ in range(50):
        for kind, context in seen.items():
            for arm in (0, 1):
                agent.update(arm, 1.0, float(arm == kind), context)
    assert agent.act(seen[0])[0] == 1
    assert agent.act(seen[1])[0] == 0


def test_a_learner_that_keeps_decisions_apart_asks_which_one_was_answered():
    agent = Live(banker_omd(arms=2, horizon=100), seed=0)
    action, propensity = agent.act(NOTHING)
    with pytest.raises(ValueError, match="pass `decision`, their number from 0"):
        agent.update(action, propensity, 0.5)
    agent.update(action, propensity, 0.5, decision=0)
    assert agent.state.answered[0] == 0
