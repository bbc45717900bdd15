"""LinUCB: proofs and contrast."""

import numpy as np
import pytest

from backchannel import play
from backchannel.loop import copy_state
from backchannel.meters.regret import dynamic_regret
from backchannel.online.exp3 import exp3
from backchannel.online.lin_ts import lin_ts
from backchannel.online.lin_ucb import REFRESH, _lower_bound, lin_ucb, regret_bound
from backchannel.tasks.linear import linear

RNG = np.random.default_rng(0)  # the choices of LinUCB do not depend on it


def test_step_choices_and_estimates_by_hand():
    rng = np.random.default_rng(1)
    learner = lin_ucb(arms=4, dimension=3, noise=0.3, size=0.7, regularisation=2.0, delta=0.05)
    state = copy_state(learner.state)
    v, b = 2.0 * np.eye(3), np.zeros(3)
    for _ in range(60):
        rows = rng.uniform(-1, 1, (4, 3))
        theta = np.linalg.solve(v, b)
        log_det = np.log(np.linalg.det(v) / 2.0**3)
        beta = 0.3 * np.sqrt(2 * np.log(1 / 0.05) + log_det) + np.sqrt(2.0) * 0.7
        width = np.sqrt(np.einsum("ai,ij,aj->a", rows, np.linalg.inv(v), rows))
        action, propensity = learner.act(state, rows, RNG)
        bounds = [_lower_bound(state, row, 0) for row in rows]
        np.testing.assert_allclose(bounds, rows @ theta - beta * width, rtol=1e-9)
        assert action == np.argmin(bounds)
        assert propensity == 1.0
        loss = rng.random()
        learner.update(state, rows, action, propensity, loss)
        v += np.outer(rows[action], rows[action])
        b += loss * rows[action]
    np.testing.assert_allclose(state.theta[0], np.linalg.solve(v, b), rtol=1e-9)
    np.testing.assert_allclose(state.covariance[0], v, rtol=1e-12)


def test_known_confidence_sets_hold_the_truth():
    # Theorem 2 with delta = 1e-3: the estimate leaves the ellipsoid in a run with probability at most 1e-3. Twenty
    # runs, three failures allowed: fewer than one in 10^5 would exceed it.
    task = linear(arms=5, dimension=4)
    learner = lin_ucb(arms=5, dimension=4, noise=0.1, delta=1e-3)
    failures = 0
    for state in play(learner, task, 500, replicates=20, seed=4).final_states:
        error = state.theta[0] - task.state.theta
        beta = 0.1 * np.sqrt(state.confidence[0] + state.log_det[0]) + 1.0
        failures += np.sqrt(error @ state.covariance[0] @ error) > beta
    assert failures <= 3


def test_known_regret_stays_below_its_bound():
    # The bound is on the mean and holds with a margin of more than ten standard deviations here.
    learner = lin_ucb(arms=5, dimension=4, noise=0.1)
    result = play(learner, linear(5, 4), 2000, replicates=20, seed=5, meters={"regret": dynamic_regret()})
    assert result.final().mean() < regret_bound(5, 2000, 4, noise=0.1) < 2000


def test_known_bound_by_hand():
    log_det = 2 * np.log(1 + 1000 / 2)
    beta = 0.5 * np.sqrt(2 * np.log(100) + log_det) + 1
    np.testing.assert_allclose(
        regret_bound(3, 10**6, 2),
        np.sqrt(8e6 * 2 * np.log(5e5 + 1)) * (0.5 * np.sqrt(2 * np.log(100) + 2 * np.log(5e5 + 1)) + 1) + 1e4,
    )
    assert regret_bound(3, 1000, 2) == min(np.sqrt(8000 * log_det) * beta + 10, 1000)


def test_known_inverse_is_made_anew():
    learner = lin_ucb(arms=1, dimension=3)
    state = copy_state(learner.state)
    rows = np.random.default_rng(6).uniform(-1, 1, (REFRESH, 1, 3))
    for i, row in enumerate(rows):
        if i == REFRESH - 1:
            state.inverse[0] += 0.1 * np.eye(3)  # what rounding would do, given time
        learner.update(state, row, 0, 1.0, 0.5)
    np.testing.assert_allclose(state.inverse[0], np.linalg.inv(state.covariance[0]), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(state.theta[0], np.linalg.solve(state.covariance[0], state.moment[0]), rtol=1e-9)


def test_limit_disjoint_models_are_one_model_with_a_block_for_each_arm():
    rng = np.random.default_rng(7)
    split = lin_ucb(arms=3, dimension=2, disjoint=True, width=0.6)
    joint = lin_ucb(arms=3, dimension=6, width=0.6)
    one, other = copy_state(split.state), copy_state(joint.state)
    for _ in range(100):
        rows = rng.uniform(-1, 1, (3, 2))
        blocks = np.zeros((3, 6))
        for arm in range(3):
            blocks[arm, 2 * arm : 2 * arm + 2] = rows[arm]
        action, _ = split.act(one, rows, RNG)
        assert action == joint.act(other, blocks, RNG)[0]
        loss = rng.random()
        split.update(one, rows, action, 1.0, loss)
        joint.update(other, blocks, action, 1.0, loss)
    np.testing.assert_allclose(one.theta.ravel(), other.theta[0], rtol=1e-9)


def test_limit_without_width_it_is_thompson_sampling_without_variance():
    greedy = play(lin_ucb(4, 3, width=0.0), linear(4, 3), 500, seed=8)
    still = play(lin_ts(4, 3, scale=0.0), linear(4, 3), 500, seed=8)
    np.testing.assert_allclose(greedy.curves["regret"], still.curves["regret"], rtol=1e-9)


def test_limit_feedback_that_never_comes_changes_nothing():
    learner = lin_ucb(arms=2, dimension=3)
    state = copy_state(learner.state)
    learner.update(state, np.ones((2, 3)), 0, 1.0, np.nan)
    for name, value in state._asdict().items():
        np.testing.assert_array_equal(value, getattr(learner.state, name))


def test_probabilities_are_all_on_the_choice():
    learner, rows, out = lin_ucb(arms=3, dimension=2), np.array([[0.1, 0.0], [0.5, 0.5], [0.0, 0.2]]), np.empty(3)
    learner.probabilities(learner.state, rows, out)
    np.testing.assert_array_equal(out, [0.0, 1.0, 0.0])  # the widest


def test_contrast_without_noise_linucb_still_looks_where_thompson_does_not():
    # Two fixed options. The first tells nothing of the second feature; going by estimates alone one never learns that
    # it helps. Thompson sampling with the true noise, none, draws the mean itself and stays; LinUCB's sqrt(lambda) S
    # makes it look, since theta could be that large.
    rows, theta = np.array([[1.0, 0.0], [1.1, 0.5]]), np.array([0.5, -0.6])
    counts = {}
    for name, learner in {"ucb": lin_ucb(2, 2, noise=0.0), "ts": lin_ts(2, 2, noise=0.0)}.items():
        state, chosen = copy_state(learner.state), np.zeros(2, int)
        for _ in range(300):
            action, propensity = learner.act(state, rows, RNG)
            learner.update(state, rows, action, propensity, rows[action] @ theta)
            chosen[action] += 1
        counts[name] = chosen
    assert counts["ts"][1] == 0
    assert counts["ucb"][1] > 250


def test_contrast_features_matter():
    # Every arm is as good as any other on average: who ignores the rows has regret linear in T, about 0.19 a round.
    # Over 8 runs the means differ by more than a hundred standard errors.
    meters = {"regret": dynamic_regret()}
    ours = play(lin_ucb(5, 4, noise=0.1), linear(5, 4), 3000, replicates=8, meters=meters).final()
    blind = play(exp3(5, 3000), linear(5, 4), 3000, replicates=8, meters=meters).final()
    assert ours.mean() < 0.15 * blind.mean()


@pytest.mark.parametrize("wrong", [{"arms": 0}, {"dimension": 0}, {"delta": 1.0}, {"regularisation": 0.0}])
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        lin_ucb(**{"arms": 2, "dimension": 2} | wrong)
