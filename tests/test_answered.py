"""A learner with a field `answered` is told which decision an answer belongs to."""

from typing import NamedTuple

import numpy as np
import pytest

from backchannel.base import Learner
from backchannel.channels.hide import bandit
from backchannel.channels.late import delay, listed
from backchannel.engine import compiled
from backchannel.live import Live
from backchannel.loop import Run
from backchannel.tasks.bernoulli import bernoulli


class Diary(NamedTuple):
    answered: np.ndarray  # int64[1]
    order: np.ndarray  # int64[rounds]: the rounds answered, in order
    count: np.ndarray  # int64[1]


@compiled
def _act(state, context, rng):
    return 0, 1.0


@compiled
def _update(state, context, action, propensity, feedback):
    state.order[state.count[0]] = state.answered[0]
    state.count[0] += 1


def _diary() -> Learner:
    return Learner(Diary(np.full(1, -1), np.full(6, -1), np.zeros(1, np.int64)), _act, _update)


def test_at_once_each_round_answers_itself():
    run = Run(_diary(), bernoulli([0.5]), 6).advance()
    np.testing.assert_array_equal(run.state.order, np.arange(6))


def test_late_answers_come_with_their_own_round():
    # Round t is answered at the end of t + delay: 1 and 2 at once at the end of 2, then 0, 4, 3; 5 never.
    channel = delay(bandit(), listed(np.array([3, 1, 0, 2, 0, 9])))
    run = Run(_diary(), bernoulli([0.5]), 6, channel=channel).advance()
    np.testing.assert_array_equal(run.state.order, [1, 2, 0, 4, 3, -1])


def test_live_wants_the_decision():
    agent = Live(_diary())
    agent.act()
    agent.act()
    with pytest.raises(ValueError, match="decision"):
        agent.update(0, 1.0, 0.5)
    agent.update(0, 1.0, 0.5, decision=1)
    assert agent.state.order[0] == 1
