"""UCB1-tuned: proofs and contrast."""

import numpy as np

from backchannel import play
from backchannel.base import NOTHING
from backchannel.loop import Run, copy_state
from backchannel.online.ucb1 import ucb1
from backchannel.online.ucb1_tuned import ucb1_tuned
from backchannel.tasks.adversarial import sequence
from backchannel.tasks.bernoulli import bernoulli
from backchannel.tasks.gaussian import gaussian


def test_step_moments_by_hand():
    learner = ucb1_tuned(arms=2)
    state = copy_state(learner.state)
    for loss in (0.2, 0.4, 0.9):
        learner.update(state, NOTHING, 1, 1.0, loss)
    np.testing.assert_allclose(state.means, [0.0, 0.5], rtol=1e-15)
    np.testing.assert_allclose(state.squares, [0.0, 0.09 + 0.01 + 0.16], rtol=1e-12)
    np.testing.assert_array_equal(state.counts, [0, 3])


def test_known_a_plain_implementation_chooses_the_same():
    # Small and large variances, so that both sides of min(1/4, V) are met.
    rng = np.random.default_rng(1)
    table = np.clip(rng.normal([0.5, 0.45, 0.52], [0.02, 0.5, 0.1], (3000, 3)), 0, 1)
    losses, actions, cut = [[], [], []], [], 0
    for t in range(3000):
        index = []
        for x in losses:
            if not x:
                index.append(-np.inf)
                continue
            v = np.mean(np.square(x)) - np.mean(x) ** 2 + np.sqrt(2 * np.log(t) / len(x))
            cut += v < 0.25
            index.append(np.mean(x) - np.sqrt(np.log(t) / len(x) * min(0.25, v)))
        actions.append(int(np.argmin(index)))
        losses[actions[-1]].append(table[t, actions[-1]])
    run = Run(ucb1_tuned(3), sequence(table), 3000).advance()
    np.testing.assert_array_equal(run.trace.actions, actions)
    assert cut > 100


def test_limit_while_little_is_known_it_is_ucb1_at_the_largest_variance():
    # V >= sqrt(2 log n / n_a) >= 1/4 as long as n_a <= 32 log n: for the first 150 rounds.
    task = bernoulli([0.3, 0.5])
    a = Run(ucb1_tuned(2), task, 150, seed=2).advance()
    b = Run(ucb1(2, exploration=0.25), task, 150, seed=2).advance()
    np.testing.assert_array_equal(a.trace.actions, b.trace.actions)


def test_contrast_quiet_arms_cost_ucb1_much_more():
    # Deviations of 0.01 and a gap of 0.1: UCB1 still believes in 1/4. Luck plays no part at these widths.
    task = gaussian([0.4, 0.5], 0.01)
    ours = play(ucb1_tuned(2), task, 10_000, replicates=8, seed=3).final()
    other = play(ucb1(2), task, 10_000, replicates=8, seed=3).final()
    assert ours.max() < 0.3 * other.min()
