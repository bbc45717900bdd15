"""UCB-V: proofs and contrast."""

import math

import numpy as np
import pytest

from backchannel import play
from backchannel.base import NOTHING
from backchannel.loop import Run, copy_state
from backchannel.online.constant_best import constant_best
from backchannel.online.ucb1 import ucb1
from backchannel.online.ucb_v import gap_bound, regret_bound, ucb_v
from backchannel.tasks.adversarial import sequence
from backchannel.tasks.bernoulli import bernoulli
from backchannel.tasks.gaussian import gaussian


def test_step_moments_and_index_by_hand():
    learner = ucb_v(arms=2, zeta=0.5, c=0.1, span=2.0)
    state, rng = copy_state(learner.state), np.random.default_rng(0)
    for action, loss in [(0, 0.2), (0, 0.6), (1, 0.5), (1, 0.5)]:
        learner.update(state, NOTHING, action, 1.0, loss)
    np.testing.assert_allclose(state.squares, [0.08, 0.0], atol=1e-15)
    assert state.range_cost[0] == pytest.approx(3 * 0.1 * 2.0)
    # E = 0.5 log 5 = 0.805; arm 0: 0.4 - sqrt(2 * 0.04 * E / 2) - 0.6 E / 2 = -0.021; arm 1: 0.5 - 0.6 E / 2 = 0.259
    assert learner.act(state, NOTHING, rng) == (0, 1.0)


def test_known_a_plain_implementation_chooses_the_same():
    rng = np.random.default_rng(1)
    table = np.clip(rng.normal([0.5, 0.45, 0.52], [0.02, 0.5, 0.1], (2000, 3)), 0, 1)
    losses, actions = [[], [], []], []
    for t in range(1, 2001):
        exploration = 1.2 * np.log(t)
        index = [
            np.mean(x) - np.sqrt(2 * np.var(x) * exploration / len(x)) - 3 * exploration / len(x) if x else -np.inf
            for x in losses
        ]
        actions.append(int(np.argmin(index)))
        losses[actions[-1]].append(table[t - 1, actions[-1]])
    run = Run(ucb_v(3), sequence(table), 2000).advance()
    np.testing.assert_array_equal(run.trace.actions, actions)


def test_known_bounds():
    assert gap_bound([0.0, 0.5], [0.1, 0.2], 1000) == pytest.approx(10 * (0.4 + 2) * math.log(1000))
    gaps = np.linspace(1e-3, 1, 5000)
    worst = max(min(1000 * d, gap_bound([0, d, d], [0, 0.25, 0.25], 1000)) for d in gaps)
    assert worst <= regret_bound(3, 1000)
    assert regret_bound(3, 1000) == math.sqrt(20_000 * math.log(1000)) + 40 * math.log(1000)


def test_known_regret_is_below_the_paper_s_bound():
    means = np.array([0.3, 0.5, 0.6])
    regret = play(ucb_v(3), bernoulli(means), 5000, replicates=64, seed=2).final()
    assert regret.mean() < gap_bound(means - 0.3, means * (1 - means), 5000)


def test_limit_without_exploration_it_follows_the_leader():
    task = bernoulli([0.5, 0.4, 0.6])
    a = Run(ucb_v(3, zeta=0.0), task, 500, seed=3).advance()
    b = Run(constant_best(3), task, 500, seed=3).advance()
    np.testing.assert_array_equal(a.trace.actions, b.trace.actions)


def test_contrast_quiet_arms_with_a_small_gap_cost_ucb1_much_more():
    # Deviations of 0.01 and a gap of 0.05: UCB-V pays about 3.6 log T, UCB1 2 log T / 0.05. Luck plays no part.
    task = gaussian([0.45, 0.5], 0.01)
    ours = play(ucb_v(2), task, 20_000, replicates=8, seed=4).final()
    other = play(ucb1(2), task, 20_000, replicates=8, seed=4).final()
    assert ours.max() < 0.3 * other.min()
