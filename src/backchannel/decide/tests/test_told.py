"""Channels on a log, by hand: which feedback a learner hears, when, and what it says."""

import numpy as np
import pytest

from backchannel.decide import watch
from backchannel.decide.learn import learn
from backchannel.decide.told import Channel, duration, seconds
from backchannel.ledger.read import open_log

ROWS = 400


@pytest.fixture
def log(tmp_path):
    """A row a second; rewards from 2 to 6; some feedback is missing."""
    rng = np.random.default_rng(5)
    action, reward = rng.integers(0, 2, ROWS), rng.integers(2, 7, ROWS)
    missing = rng.random(ROWS) < 0.1
    rows = [
        f"{'ab'[a]},{'' if gone else r},{0.25 if a else 0.75},{1.6e9 + t}\n"
        for t, (a, r, gone) in enumerate(zip(action, reward, missing, strict=True))
    ]
    (tmp_path / "log.csv").write_text("action,reward,propensity,time\n" + "".join(rows))
    return open_log(tmp_path / "log.csv"), action, reward, ~missing


def heard(log, channel, names=("constant_best",)):
    """The state of Constant best after the log: how often each option was answered, and its weighted losses."""
    learned, policies = learn(log, list(names), channel=channel, reward_range=(1.0, 9.0))
    return learned, next(policy.state for policy in policies if policy.key == "constant_best")


def sums(action, loss, use):
    weight = np.where(action == 0, 1 / 0.75, 1 / 0.25)
    counts = np.bincount(action[use], minlength=2)
    return counts, np.bincount(action[use], (weight * loss)[use], minlength=2)


def test_late_feedback_that_has_not_come_by_the_end_is_not_learned(log):
    opened, action, reward, there = log
    _, state = heard(opened, Channel(delay=100.0))
    in_time = np.arange(ROWS) + 100 <= ROWS - 1
    counts, losses = sums(action, (9.0 - reward) / 8, there & in_time)
    np.testing.assert_array_equal(state.counts, counts)
    np.testing.assert_allclose(state.losses, losses)
    with pytest.raises(ValueError, match=r"no feedback of .*log.csv gets through .* \(6.67m late\)"):
        heard(opened, Channel(delay=400.0))


def test_arrivals_by_hand():
    time = np.array([0.0, 10, 10, 20, 35])
    assert Channel().arrival(time).tolist() == [0, 1, 2, 3, 4]
    assert Channel(delay=10).arrival(time).tolist() == [2, 3, 3, 3, 5]  # the last one's comes after the end
    assert Channel(delay=5).arrival(time).tolist() == [0, 2, 2, 3, 5]
    assert Channel(delay=35).arrival(time).tolist() == [4, 5, 5, 5, 5]
    assert Channel(delay=1).arrival(np.full(3, 7.0)).tolist() == [3, 3, 3]


def test_what_is_lost_is_a_share_of_what_came(log):
    opened, action, reward, there = log
    channel = Channel(drop=0.3, seed=4)
    comes = channel.told(ROWS)
    _, state = heard(opened, channel)
    counts, losses = sums(action, (9.0 - reward) / 8, there & comes)
    np.testing.assert_array_equal(state.counts, counts)
    np.testing.assert_allclose(state.losses, losses)
    share = Channel(drop=0.3, seed=4).told(100_000).mean()
    assert abs(share - 0.7) < 4 * np.sqrt(0.21 / 100_000)  # 6e-5


def test_a_budget_buys_so_many_decisions_evenly_over_the_log(log):
    opened, action, _, there = log
    channel = Channel(budget=100, seed=1)
    bought = channel.told(ROWS)
    assert bought.sum() == 100
    _, state = heard(opened, channel)
    np.testing.assert_array_equal(state.counts, np.bincount(action[bought & there], minlength=2))
    assert Channel(budget=ROWS).told(ROWS).all()
    bought = Channel(budget=10_000, seed=2).told(100_000)
    tenths = bought.reshape(10, -1).sum(axis=1)
    # Each tenth of the log has 1,000 of them, hypergeometric: deviation sqrt(1000 * 0.9 * 0.9) = 28.5; ten looks: 7e-5.
    assert (np.abs(tenths - 1000) < 4.5 * 28.5).all()
    both = Channel(budget=1000, drop=0.5, seed=2).told(100_000)
    assert not (both & ~Channel(budget=1000, seed=2).told(100_000)).any()  # what was bought may yet get lost
    assert abs(both.sum() - 500) < 4 * np.sqrt(250)


def test_lies_mirror_the_reward_within_its_range(log):
    opened, action, reward, there = log
    told, state = heard(opened, Channel(flip=1.0))
    _, losses = sums(action, (reward - 1.0) / 8, there)  # 1 + 9 - reward, as a loss
    np.testing.assert_allclose(state.losses, losses)
    channel = Channel(flip=0.25, seed=3)
    lies = channel.false(ROWS)
    _, state = heard(opened, channel)
    _, losses = sums(action, np.where(lies, reward - 1.0, 9.0 - reward) / 8, there)
    np.testing.assert_allclose(state.losses, losses)
    assert abs(Channel(flip=0.25).false(100_000).mean() - 0.25) < 4 * np.sqrt(0.1875 / 100_000)  # 6e-5
    true, _ = heard(opened, Channel())
    assert told.log.earned == true.log.earned  # estimates use the log as it is
    assert told.log.earned.value == pytest.approx(reward[there].mean())


def test_what_is_told_does_not_depend_on_who_listens(log):
    opened, *_ = log
    for channel in (Channel(drop=0.5, seed=7), Channel(budget=50, seed=7), Channel(flip=0.3, seed=7)):
        alone, others = heard(opened, channel)[1], heard(opened, channel, ["thompson", "constant_best", "exp3"])[1]
        for a, b in zip(alone, others, strict=True):
            np.testing.assert_array_equal(a, b)
    for one, other in ((Channel(drop=0.5, seed=7), Channel(drop=0.5, seed=8)),
                       (Channel(budget=200, seed=7), Channel(budget=200, seed=8))):  # fmt: skip
        assert (one.told(ROWS) != other.told(ROWS)).any()
        np.testing.assert_array_equal(one.told(ROWS), one.told(ROWS))
    assert (Channel(flip=0.5, seed=7).false(ROWS) != Channel(flip=0.5, seed=8).false(ROWS)).any()


def test_the_price_of_a_channel_counts_what_was_heard(log):
    opened, _, _, there = log
    told = {each.channel: each.told for each in heard(opened, Channel(delay=100.0, drop=0.2, seed=4))[0].told}
    clear, lost = there, Channel(drop=0.5).told(ROWS) & there
    assert told["at once"] == clear.sum()
    assert told["50% lost"] == lost.sum()
    assert told["40 bought"] == (Channel(budget=40).told(ROWS) & there).sum()
    in_time = np.arange(ROWS) + 100 <= ROWS - 1
    assert told["1.67m late, 20% lost"] == (Channel(drop=0.2, seed=4).told(ROWS) & there & in_time).sum()
    assert len(told) == 6


def test_a_budget_is_spread_over_the_log_and_not_over_the_rows_of_the_curve(log, monkeypatch):
    opened, _, _, there = log
    monkeypatch.setattr(watch, "CURVE_ROWS", 100)
    told = {each.channel: each.told for each in heard(opened, Channel(budget=60, seed=2))[0].told}
    assert told["60 bought"] == (Channel(budget=60, seed=2).told(ROWS) & there)[:100].sum()
    assert told["10 bought"] == (Channel(budget=10).told(100) & there[:100]).sum()


def test_a_channel_that_is_compared_anyway_is_told_once(log):
    labels = [each.channel for each in heard(log[0], Channel(drop=0.5, seed=9))[0].told]
    assert labels.count("50% lost") == 1


@pytest.mark.parametrize(
    ("text", "amount"), [("90", 90), ("45s", 45), (" 1.5 h ", 5400), ("2d", 172800), ("1w", 604800)]
)
def test_amounts_of_time(text, amount):
    assert seconds(text) == amount


@pytest.mark.parametrize(("given", "said"), [
    ({"delay": -1.0}, "--delay must be a time"), ({"delay": float("inf")}, "--delay must be a time"),
    ({"drop": 1.0}, "--drop must be a probability"), ({"flip": 1.1}, "--flip must be a probability"),
    ({"budget": 0}, "--budget must buy"),
])  # fmt: skip
def test_channels_that_cannot_be_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Channel(**given)


def test_delays_as_people_say_them():
    assert [duration(x) for x in (5, 90, 5400, 86400, 604800)] == ["5s", "1.5m", "1.5h", "1d", "1w"]
    for text in ("soon", "5x", "-3", "1e3"):
        with pytest.raises(ValueError, match="a delay reads like"):
            seconds(text)
