"""Slates: a learner that chooses several arms and is told the loss of each."""

from typing import NamedTuple

import numpy as np
import pytest

from backchannel import play
from backchannel.base import Learner
from backchannel.channels.hide import semi_bandit
from backchannel.channels.late import delay, fixed, uniform
from backchannel.engine import compiled
from backchannel.loop import Run
from backchannel.tasks.adversarial import sequence
from backchannel.tasks.bernoulli import bernoulli


class State(NamedTuple):
    pulls: np.ndarray
    losses: np.ndarray
    slots: np.ndarray
    mismatches: np.ndarray


def optimist(arms: int, slots: int) -> Learner:
    """The slots arms with the least mean minus a bonus; counts feedback that does not fit the slate."""
    state = State(np.zeros(arms), np.zeros(arms), np.array([slots]), np.zeros(1, np.int64))
    return Learner(state, _act, _update)


@compiled
def _act(state, context, rng):
    tries = np.maximum(state.pulls, 1.0)
    index = state.losses / tries - np.sqrt(2.0 * np.log(1.0 + state.pulls.sum()) / tries)
    return np.argsort(index)[: state.slots[0]], 1.0


@compiled
def _update(state, context, action, propensity, losses):
    shown = 0
    for slot in range(action.shape[0]):
        if np.isnan(losses[action[slot]]):
            state.mismatches[0] += 1
            continue
        shown += 1
        state.pulls[action[slot]] += 1.0
        state.losses[action[slot]] += losses[action[slot]]
    state.mismatches[0] += (~np.isnan(losses)).sum() - shown


def test_exactly_the_slate_is_shown_also_when_it_is_late():
    for channel in (semi_bandit(5, 2), delay(semi_bandit(5, 2), uniform(30))):
        run = Run(optimist(5, 2), bernoulli([0.1, 0.3, 0.5, 0.7, 0.9]), 500, channel=channel).advance()
        assert run.state.mismatches[0] == 0
        assert run.trace.actions.shape == (500, 2)
        assert (run.trace.queries == 2).all()
        assert (run.trace.actions[:, 0] != run.trace.actions[:, 1]).all()
    assert Run(optimist(5, 2), bernoulli([0.5] * 5), 9, channel=semi_bandit(5, 2)).advance().state.pulls.sum() == 18


def test_regret_is_that_of_brute_force():
    table = np.random.default_rng(0).random((60, 4))
    run = Run(optimist(4, 2), sequence(table), 60, channel=semi_bandit(4, 2)).advance()
    result = play(optimist(4, 2), sequence(table), 60, channel=semi_bandit(4, 2))  # nothing in it is random
    own = np.cumsum([table[t][run.trace.actions[t]].sum() for t in range(60)])
    best = np.array([np.sort(table[: t + 1].sum(axis=0))[:2].sum() for t in range(60)])
    np.testing.assert_allclose(result.curves["regret"][0], (own - best)[result.rounds - 1], atol=1e-12)


def test_delay_zero_is_no_delay_and_learning_pays():
    task = bernoulli([0.2, 0.3, 0.7, 0.8, 0.9, 0.9])
    at_once = play(optimist(6, 2), task, 3000, channel=semi_bandit(6, 2), replicates=8)
    late = play(optimist(6, 2), task, 3000, channel=delay(semi_bandit(6, 2), fixed(0)), replicates=8)
    np.testing.assert_array_equal(at_once.curves["regret"], late.curves["regret"])
    assert at_once.final().mean() < 3000 * (2 * np.mean([0.2, 0.3, 0.7, 0.8, 0.9, 0.9]) - 0.5) / 4


def test_a_slate_has_room_for_its_slots():
    with pytest.raises(ValueError, match="1 to 3 slots, not 4"):
        semi_bandit(3, 4)


def test_an_arm_that_the_task_has_not_is_refused():
    from backchannel.online.exp3 import exp3

    with pytest.raises(ValueError, match="an arm that the task, with 3 arms, has not"):
        play(exp3(arms=50, horizon=100), bernoulli([0.3, 0.5, 0.7]), 100)
    with pytest.raises(ValueError, match="replicates and points"):
        play(exp3(arms=3, horizon=100), bernoulli([0.3, 0.5, 0.7]), 100, replicates=0)
