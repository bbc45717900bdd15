"""The task fitted to a log."""

import numpy as np
import pytest

from backchannel import play
from backchannel.decide.fitted import fitted
from backchannel.decide.replay import DIGITS, ReplayedTable
from backchannel.ledger.read import open_log
from backchannel.loop import Run
from backchannel.online.lin_ucb import lin_ucb
from backchannel.online.uniform import uniform


def test_means_without_contexts_are_the_logs_own(tmp_path):
    rng = np.random.default_rng(0)
    action = rng.integers(0, 3, 6000)
    reward = (rng.random(6000) < np.array([0.2, 0.5, 0.8])[action]).astype(int)
    rows = [f"{'abc'[a]},{r},0.3333\n" for a, r in zip(action, reward, strict=True)]
    (tmp_path / "log.csv").write_text("action,reward,propensity\n" + "".join(rows))
    task, encoder = fitted(open_log(tmp_path / "log.csv"))
    assert encoder.dimension == 1
    run = Run(uniform(3), task, 10)
    for arm in range(3):
        seen = reward[action == arm].mean()
        assert abs(1 - task.mean(run.task.state, 0, arm) - seen) < 2e-3  # the ridge of 1 among 2,000 rows


def test_losses_are_coins_with_the_models_mean_and_learning_pays():
    task, encoder = fitted(ReplayedTable(DIGITS, "digit", "uniform"))
    run = Run(uniform(task.arms), task, 4000, seed=1).advance()
    means = np.array([task.mean(run.task.state, t, a) for t, a in enumerate(run.trace.actions)])
    losses = np.array([task.loss(run.task.state, t, a) for t, a in enumerate(run.trace.actions)])
    spread = np.sqrt((means * (1 - means)).sum())
    assert abs((losses - means).sum()) < 4 * spread  # fails once in 15,000 seeds; the seed is fixed
    learner = lin_ucb(task.arms, encoder.dimension, disjoint=True, width=0.1, regularisation=1 / encoder.dimension)
    ours = play(learner, task, 4000, seed=1).final("regret")
    theirs = play(uniform(task.arms), task, 4000, seed=1).final("regret")
    assert ours[0] < theirs[0] - 400


def test_a_log_without_a_difference_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("action,reward,propensity\na,3,0.5\nb,3,0.5\n")
    with pytest.raises(ValueError, match=r"every reward of .* is 3"):
        fitted(open_log(tmp_path / "log.csv"))
