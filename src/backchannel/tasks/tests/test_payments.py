"""The payment simulator: options come and go, answers come in batches, and nothing depends on who asks."""

import numpy as np
import pytest

from backchannel.tasks.payments import FEATURES, OPTIONS, in_batches, is_offered, payments


def test_positions_are_the_offered_options_in_order():
    task, counts = payments(bits=16, seed=3), []
    for t in range(200):
        offered = [option for option in range(OPTIONS) if is_offered(task.state, t, option)]
        context = task.context(task.state, t)
        assert offered[0] == 0
        assert len(context.start) == len(offered) + 1
        counts.append(len(offered) - 1)
        assert all(task.mean(task.state, t, arm) == 1.0 for arm in range(len(offered), OPTIONS))
        assert all(0 < task.mean(task.state, t, arm) < 1 for arm in range(len(offered)))
    # 9 * 200 options offered with probability 0.6: four standard deviations.
    assert abs(sum(counts) - 0.6 * 1800) < 4 * np.sqrt(1800 * 0.24)


def test_log_odds_are_linear_in_the_features_without_misfit_and_not_with_it():
    # One design matrix over many payments, wide enough that nothing collides: the residual of the log-odds is zero.
    for misfit, fits in ((0.0, True), (1.0, False)):
        task, rows, odds = payments(bits=20, misfit=misfit), [], []
        for t in range(600):
            context = task.context(task.state, t)
            for arm in range(len(context.start) - 1):
                own = slice(context.start[arm], context.start[arm + 1])
                rows.append(dict(zip(context.index[own].tolist(), context.value[own].tolist(), strict=True)))
                mean = task.mean(task.state, t, arm)
                odds.append(np.log(mean / (1 - mean)))
        names = {name: i for i, name in enumerate({name for row in rows for name in row})}
        design = np.zeros((len(rows), len(names)))
        for i, row in enumerate(rows):
            assert len(row) == FEATURES
            design[i, [names[name] for name in row]] = list(row.values())
        solution = np.linalg.lstsq(design, np.array(odds), rcond=None)[0]
        worst = abs(design @ solution - odds).max()
        assert (worst < 1e-8) == fits


def test_losses_are_bernoulli_with_their_mean():
    task, n = payments(seed=1), 20_000
    losses = np.array([task.loss(task.state, t, 0) for t in range(n)])
    means = np.array([task.mean(task.state, t, 0) for t in range(n)])
    assert set(losses) == {0.0, 1.0}
    assert abs((losses - means).sum()) < 4 * np.sqrt((means * (1 - means)).sum())  # four standard deviations


def test_pure_in_the_round_and_reseed_keeps_the_world():
    task = payments(seed=2)
    first = [task.loss(task.state, t, 1) for t in range(100)]
    task.context(task.state, 5000)
    assert first == [task.loss(task.state, t, 1) for t in range(100)]
    other = task.reseed(task.state, 7)
    assert first != [task.loss(other, t, 1) for t in range(100)]
    assert other.world is task.state.world
    assert not np.shares_memory(other.indices, task.state.indices)
    assert not np.shares_memory(other.value, task.state.value)


def test_batches_end_together():
    arrival = np.arange(10) + in_batches(4)(10, np.random.default_rng(0))
    np.testing.assert_array_equal(arrival, [3, 3, 3, 3, 7, 7, 7, 7, 11, 11])


def test_wrong_arguments_are_named():
    for make, match in [
        (lambda: payments(bits=0), "bits"),
        (lambda: payments(misfit=-1.0), "misfit"),
        (lambda: in_batches(0), "batch"),
    ]:
        with pytest.raises(ValueError, match=match):
            make()
