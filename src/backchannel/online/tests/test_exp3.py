"""Exp3: proofs and contrast."""

import numpy as np

from backchannel import play
from backchannel.base import NOTHING
from backchannel.channels.hide import full
from backchannel.loop import Run, copy_state
from backchannel.online.exp3 import exp3, regret_bound
from backchannel.online.hedge import hedge
from backchannel.tasks.adversarial import sequence
from backchannel.tasks.bernoulli import bernoulli


def test_step_three_rounds_by_hand():
    learner = exp3(arms=3, horizon=100, step_size=0.5)
    state = copy_state(learner.state)
    estimates = np.zeros(3)
    for action, loss in [(0, 1.0), (2, 0.5), (0, 0.25)]:
        p = np.exp(-0.5 * estimates) / np.exp(-0.5 * estimates).sum()
        np.testing.assert_allclose(state.probabilities, p, rtol=1e-12)
        learner.update(state, NOTHING, action, p[action], loss)
        estimates[action] += loss / p[action]
    np.testing.assert_allclose(state.losses, estimates, rtol=1e-12)
    p = np.exp(-0.5 * estimates) / np.exp(-0.5 * estimates).sum()
    np.testing.assert_allclose(state.probabilities, p, rtol=1e-12)


def test_step_late_feedback_divides_by_its_own_propensity():
    learner = exp3(arms=2, horizon=100, step_size=1.0)
    state = copy_state(learner.state)
    learner.update(state, NOTHING, 0, 0.5, 1.0)  # moves today's probability of arm 0 to 1 / (1 + e^2)
    learner.update(state, NOTHING, 0, 0.5, 1.0)  # an old decision, taken at 1/2
    assert state.losses[0] == 4.0


def test_known_estimator_is_unbiased_by_enumeration():
    losses = np.array([0.9, 0.2, 0.4])
    learner = exp3(arms=3, horizon=100, step_size=0.7)
    start = copy_state(learner.state)
    learner.update(start, NOTHING, 1, 1 / 3, 0.8)
    expected = np.zeros(3)
    for arm in range(3):
        state = copy_state(start)
        learner.update(state, NOTHING, arm, start.probabilities[arm], losses[arm])
        expected += start.probabilities[arm] * (state.losses - start.losses)
    np.testing.assert_allclose(expected, losses, rtol=1e-12)


def test_known_default_step_size_and_bound():
    assert exp3(arms=4, horizon=1000).state.step_size[0] == np.sqrt(2 * np.log(4) / 4000)
    assert regret_bound(4, 1000) == np.sqrt(2 * 1000 * 4 * np.log(4))


def test_limit_fed_every_loss_it_is_hedge():
    # An update for each arm with propensity 1 is one update of Hedge with the whole vector.
    rng = np.random.default_rng(0)
    bandit_side, full_side = exp3(arms=4, horizon=50, step_size=0.3), hedge(arms=4, horizon=50, step_size=0.3)
    state, other = copy_state(bandit_side.state), copy_state(full_side.state)
    for losses in rng.random((50, 4)):
        for arm in range(4):
            bandit_side.update(state, NOTHING, arm, 1.0, losses[arm])
        full_side.update(other, NOTHING, 0, 1.0, losses)
    np.testing.assert_allclose(state.probabilities, other.probabilities, rtol=1e-10)


def test_contrast_learns_where_uniform_play_does_not():
    # A clear gap: uniform play (as of a bandit whose mixing is 1 or 0 by mistake) has regret T/3. Over 32 runs of
    # 5,000 rounds the mean regret of Exp3 lies below its bound, 575; uniform play's standard error is below 10.
    result = play(exp3(3, 5000), bernoulli([0.8, 0.8, 0.2]), 5000, replicates=32, seed=1)
    assert result.final().mean() < regret_bound(3, 5000) < 5000 * 0.4 / 2


def test_contrast_follow_the_leader_is_fooled_and_exp3_is_not():
    # Losses 1/2,0 then 0,1/1,0/...: whoever leads loses the next round. A leader-follower with the same bandit
    # feedback (Hedge with full feedback and a huge step is one) loses every round; Exp3 stays below its bound.
    horizon = 4000
    table = np.zeros((horizon, 2))
    table[0] = [0.5, 0.0]
    table[1::2] = [0.0, 1.0]
    table[2::2] = [1.0, 0.0]
    leader = play(hedge(2, horizon, step_size=1e6), sequence(table), horizon, channel=full(2))
    ours = play(exp3(2, horizon), sequence(table), horizon, replicates=32, seed=2)
    assert leader.final()[0] > 0.45 * horizon
    # Regret of one run has a standard deviation below sqrt(T) = 63; the mean of 32 below 12.
    assert ours.final().mean() < regret_bound(2, horizon) + 4 * 12


def test_run_is_pure_in_its_seed():
    a = Run(exp3(3, 500), bernoulli([0.1, 0.5, 0.9]), 500, seed=7).advance()
    b = Run(exp3(3, 500), bernoulli([0.1, 0.5, 0.9]), 500, seed=7).advance(100).advance()
    np.testing.assert_array_equal(a.trace.actions, b.trace.actions)
