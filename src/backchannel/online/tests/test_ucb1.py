"""UCB1: proofs and contrast."""

import math

import numpy as np

from backchannel import play
from backchannel.base import NOTHING
from backchannel.channels.hide import bandit
from backchannel.channels.late import delay, fixed
from backchannel.loop import Run, copy_state
from backchannel.online.constant_best import constant_best
from backchannel.online.epsilon_greedy import epsilon_greedy
from backchannel.online.ucb1 import gap_bound, regret_bound, ucb1
from backchannel.tasks.adversarial import sequence
from backchannel.tasks.bernoulli import bernoulli


def test_step_the_index_by_hand():
    learner = ucb1(arms=2)
    state, rng = copy_state(learner.state), np.random.default_rng(0)
    for action, loss in [(0, 0.3), (1, 0.9), (0, 0.5), (0, 0.4)]:
        learner.update(state, NOTHING, action, 1.0, loss)
    np.testing.assert_allclose(state.means, [0.4, 0.9], rtol=1e-15)
    # 0.4 - sqrt(2 log 4 / 3) = -0.561 against 0.9 - sqrt(2 log 4) = -0.765
    assert learner.act(state, NOTHING, rng) == (1, 1.0)
    learner.update(state, NOTHING, 1, 1.0, 0.9)
    # 0.4 - sqrt(2 log 5 / 3) = -0.636 against 0.9 - sqrt(2 log 5 / 2) = -0.369
    assert learner.act(state, NOTHING, rng) == (0, 1.0)


def test_known_a_plain_implementation_chooses_the_same():
    rng = np.random.default_rng(1)
    table = rng.random((600, 4)) * [1.0, 0.8, 0.95, 0.9]  # no ties
    sums, counts, actions = np.zeros(4), np.zeros(4), []
    for t in range(600):
        if t < 4:
            action = t
        else:
            action = int(np.argmax((counts - sums) / counts + np.sqrt(2 * np.log(t) / counts)))  # rewards
        sums[action] += table[t, action]
        counts[action] += 1
        actions.append(action)
    run = Run(ucb1(4), sequence(table), 600).advance()
    np.testing.assert_array_equal(run.trace.actions, actions)


def test_known_bounds():
    assert gap_bound([0.0, 0.5], 1000) == 16 * math.log(1000) + (1 + math.pi**2 / 3) * 0.5
    # The bound free of gaps is theorem 1 maximised over one common gap, with T d charged where that is less.
    gaps = np.linspace(1e-3, 1, 5000)
    worst = max(min(1000 * d, 2 * (8 * math.log(1000) / d) + 2 * (1 + math.pi**2 / 3) * d) for d in gaps)
    assert worst <= regret_bound(3, 1000)
    assert regret_bound(3, 1000) == 2 * math.sqrt(16_000 * math.log(1000)) + 2 * (1 + math.pi**2 / 3)


def test_known_regret_is_below_theorem_1():
    # 64 runs; the mean regret is far below the bound (about a third), so luck does not decide.
    means = np.array([0.3, 0.5, 0.6])
    regret = play(ucb1(3), bernoulli(means), 5000, replicates=64, seed=2).final()
    assert regret.mean() < gap_bound(means - 0.3, 5000)


def test_limit_without_width_it_follows_the_leader():
    task = bernoulli([0.5, 0.4, 0.6])
    a = Run(ucb1(3, exploration=0.0), task, 500, seed=3).advance()
    b = Run(constant_best(3), task, 500, seed=3).advance()
    np.testing.assert_array_equal(a.trace.actions, b.trace.actions)


def test_limit_late_answers_leave_no_arm_waiting():
    run = Run(ucb1(3), bernoulli([0.1, 0.5, 0.9]), 400, channel=delay(bandit(), fixed(30))).advance()
    np.testing.assert_array_equal(run.trace.actions[:30], np.arange(30) % 3)
    assert (run.trace.actions[200:] == 0).mean() > 0.5


def test_contrast_epsilon_greedy_pays_for_ever():
    # A fixed tenth of exploration costs 0.1 * 0.3 a round; UCB1 stays below theorem 1's 8 log T / 0.6 + 3.
    task = bernoulli([0.2, 0.8])
    bound = gap_bound([0.6], 20_000)
    assert play(ucb1(2), task, 20_000, replicates=16, seed=4).final().mean() < bound
    assert play(epsilon_greedy(2, 0.1), task, 20_000, replicates=16, seed=4).final().mean() > 3 * bound
