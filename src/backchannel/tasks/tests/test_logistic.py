"""The logistic tasks: Bernoulli losses with the mean that their features say, a pure function of the round."""

import numpy as np
import pytest

from backchannel.tasks.logistic import logistic, sparse_logistic


def dense_score(task, t, arm):
    return task.context(task.state, t)[arm] @ task.state.theta


def sparse_score(task, t, arm):
    context = task.context(task.state, t)
    own = slice(context.start[arm], context.start[arm + 1])
    return task.state.weights[context.index[own]] @ context.value[own]


CASES = [(logistic(4, 5, seed=2), dense_score), (sparse_logistic(4, 10, seed=2), sparse_score)]


@pytest.mark.parametrize(("task", "score"), CASES)
def test_means_are_the_logistic_of_linear_scores(task, score):
    for t in range(30):
        for arm in range(4):
            expected = 1 / (1 + np.exp(-score(task, t, arm)))
            np.testing.assert_allclose(task.mean(task.state, t, arm), expected, rtol=1e-12)


@pytest.mark.parametrize(("task", "score"), CASES)
def test_losses_are_bernoulli_with_that_mean(task, score):
    n = 20_000
    losses = np.array([task.loss(task.state, t, 1) for t in range(n)])
    means = np.array([task.mean(task.state, t, 1) for t in range(n)])
    assert set(losses) == {0.0, 1.0}
    # The sum of the differences has variance sum m (1 - m) <= n / 4; four standard deviations.
    assert abs((losses - means).sum()) < 4 * np.sqrt((means * (1 - means)).sum())
    # and so has their correlation with the mean, which a shared random number would show
    weights = means - means.mean()
    assert abs((losses - means) @ weights) < 4 * np.sqrt((means * (1 - means)) @ weights**2)


@pytest.mark.parametrize("task", [case[0] for case in CASES])
def test_pure_in_the_round_and_reseed_gives_own_buffers(task):
    before = [task.loss(task.state, t, arm) for t in range(40) for arm in range(4)]
    task.context(task.state, 1000)
    assert before == [task.loss(task.state, t, arm) for t in range(40) for arm in range(4)]
    other = task.reseed(task.state, 5)
    assert before != [task.loss(other, t, arm) for t in range(40) for arm in range(4)]
    for name in ("rows", "indices", "value"):
        if hasattr(other, name):
            assert not np.shares_memory(getattr(other, name), getattr(task.state, name))


def test_sparse_indices_lie_in_the_table_and_collide_in_a_small_one():
    task = sparse_logistic(arms=6, bits=3)
    seen = np.unique(np.concatenate([task.context(task.state, t).index.copy() for t in range(100)]))
    assert seen.min() >= 0
    assert seen.max() < 8


def test_wrong_arguments_are_named():
    for make, match in [
        (lambda: logistic(0, 3), "arms"),
        (lambda: logistic(2, 3, scale=0), "scale"),
        (lambda: sparse_logistic(2, 0), "bits"),
    ]:
        with pytest.raises(ValueError, match=match):
            make()


def test_offset_makes_losses_rare():
    plain, rare = sparse_logistic(3, 12, seed=1), sparse_logistic(3, 12, seed=1, offset=-4.0)
    scores = [sparse_score(task, 7, 2) for task in (plain, rare)]
    np.testing.assert_allclose(scores[0] - scores[1], 4.0, rtol=1e-12)
