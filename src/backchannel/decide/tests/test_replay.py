"""A table replayed as a log: its policies by hand, and the same log however much of it is made at a time."""

import tracemalloc

import duckdb
import numpy as np
import pytest

from backchannel.decide import replay
from backchannel.decide.replay import DIGITS, ReplayedTable


def columns(log):
    batch = next(log.batches(10**6))
    return batch.action, batch.propensity, batch.reward, log.right(batch), batch.numbers


@pytest.mark.parametrize("logged_by", ["uniform", "stale"])
def test_the_log_does_not_depend_on_how_much_is_made_at_a_time(logged_by, monkeypatch):
    whole = columns(ReplayedTable(DIGITS, "digit", logged_by, seed=3))
    for most in (700, 1):
        monkeypatch.setattr(replay, "MOST_NUMBERS", most)
        for a, b in zip(whole, columns(ReplayedTable(DIGITS, "digit", logged_by, seed=3)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_stale_policy_by_hand():
    log = ReplayedTable(DIGITS, "digit", "stale", seed=1)
    action, propensity, reward, right, numbers = columns(log)
    x = numbers / np.where(numbers.std(axis=0) > 0, numbers.std(axis=0), 1)
    means = np.array([x[:100][right[:100] == digit].mean(axis=0) for digit in range(10)])
    near = ((x[:, None, :] - means[None]) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(propensity, np.where(action == near, 0.55, 0.05))
    np.testing.assert_array_equal(reward, action == right)
    share, n = (action == near).mean(), action.size
    assert abs(share - 0.55) < 4 * np.sqrt(0.55 * 0.45 / n)  # 6e-5


def test_the_uniform_policy_chooses_evenly_and_apart_from_the_answers():
    action, propensity, reward, _, _ = columns(ReplayedTable(DIGITS, "digit", "uniform", seed=2))
    assert (propensity == 0.1).all()
    n = action.size
    assert (np.abs(np.bincount(action, minlength=10) - n / 10) < 5 * np.sqrt(n * 0.09)).all()  # ten looks: 6e-6
    assert abs(reward.mean() - 0.1) < 4 * np.sqrt(0.09 / n)


def test_memory_does_not_grow_with_rows_times_labels(tmp_path):
    """200,000 rows by 100 labels would be 160 MB for each array; everything together stays below one of them."""
    duckdb.sql(f"COPY (SELECT i % 7 AS x, i % 100 AS y FROM range(200000) t(i)) TO '{tmp_path / 't.parquet'}'")
    tracemalloc.start()
    log = ReplayedTable(tmp_path / "t.parquet", "y")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(log.actions) == 100
    assert peak < 140e6
