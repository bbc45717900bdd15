"""No stream of decide is one that a user's seed makes, nor one another's."""

import numpy as np
import pytest

from backchannel.decide.replay import DIGITS, ReplayedTable
from backchannel.decide.streams import stream
from backchannel.decide.told import Channel

USES = ["halves", "weigh", "watch", "act", "replay order", "replay choice", "lost", "bought", "false"]


def test_streams_differ_from_each_other_and_from_the_users():
    first = {tuple(stream(0, use).random(4)) for use in USES}
    users = {tuple(np.random.default_rng(seed).random(4)) for seed in (0, [0], [0, 0], [0, 1], [0, 2], [0, 3])}
    assert len(first) == len(USES)
    assert not first & users
    with pytest.raises(ValueError, match="at least 0"):
        stream(-1, "halves")


def test_what_gets_lost_does_not_depend_on_what_was_chosen():
    log = ReplayedTable(DIGITS, "digit", "uniform", seed=0)
    batch = next(log.batches())
    comes = Channel(drop=0.3, seed=0).told(log.rows)
    kept = np.bincount(batch.action[comes], minlength=10) / np.bincount(batch.action, minlength=10)
    # Each share of about 180 rows has a standard deviation of 0.034; 4.5 of them is once in 15,000 tests of ten shares.
    assert (np.abs(kept - 0.7) < 4.5 * 0.036).all()
