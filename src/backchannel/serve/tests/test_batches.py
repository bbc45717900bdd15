"""Policies that switch rarely: one draw for a batch of decisions, one look in it, and estimates of one draw each."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backchannel.base import NOTHING
from backchannel.decide.fresh import fresh
from backchannel.loop import copy_state
from backchannel.online.batched_omd_switching import batched_omd_switching
from backchannel.serve.chooser import Chooser, draw
from backchannel.serve.fold import Fold
from backchannel.serve.records import DecideRequest, FeedbackRequest
from backchannel.serve.rewards import Rules
from backchannel.serve.service import Service
from backchannel.serve.tests.test_fold import same

NAMES = ["a", "b", "c"]
Make = Callable[..., Service]
HORIZON, BATCHES = 300, 30
SIZES: dict[str, Any] = {"horizon": HORIZON, "budget": BATCHES}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `make` of the service's tests serves."""
    folder = tmp_path_factory.mktemp("fresh")
    for key, arguments in {"batched_omd_switching": SIZES, "uniform": {}}.items():
        fresh(key, NAMES, arguments).save(folder / f"{key}.policy")
    return {key: folder / f"{key}.policy" for key in ("batched_omd_switching", "uniform")}


def test_a_service_that_began_from_nothing_plays_batches_looks_once_in_each_and_learns(
    policies: dict[str, Path], make: Make
) -> None:
    service = make("batched_omd_switching", reward=Rules(window=1e9), candidates=[str(policies["uniform"])])
    lessons = service.apps["shop"].lessons
    chooser = lessons["batched_omd_switching"].chooser
    learner = batched_omd_switching(3, **SIZES)
    own, rng, actions, looks = copy_state(learner.state), random.Random(0), [], 0
    for t in range(HORIZON):
        decided = service.decide("shop", DecideRequest(id=f"d{t}"))
        actions.append(decided.action)
        learner.act(own, NOTHING, chooser._rng(f"act d{t}/0"))
        place = NAMES.index(decided.action)
        assert decided.propensity == own.probabilities[place] / sum(own.probabilities.tolist())
        reward = float(rng.random() < [0.1, 0.9, 0.2][place])
        service.hear("shop", FeedbackRequest(f"d{t}", reward))
        if own.asked.any():
            looks += 1
            told = np.full(3, np.nan)
            told[place] = 1 - reward
            learner.update(own, NOTHING, place, decided.propensity, told)
        service.learner.look()
    for b in range(BATCHES):
        assert len(set(actions[b * HORIZON // BATCHES : (b + 1) * HORIZON // BATCHES])) == 1
    assert looks == BATCHES
    assert np.array_equal(service.apps["shop"].published.state.losses, own.losses)
    assert actions[HORIZON // 2 :].count("b") > HORIZON / 4
    assert len(set(actions)) > 1
    fold = service.apps["shop"].fold
    fold.clock = 1e12  # all windows close
    fold.catch_up()
    assert (fold.learned, fold.counts["not asked"]) == (BATCHES, HORIZON - BATCHES)
    assert lessons["batched_omd_switching"].estimates()[0].decisions == BATCHES  # one draw, one decision


def test_a_batch_is_drawn_from_its_distribution_and_by_its_number() -> None:
    probability = np.array([0.5, 0.3, 0.2])
    drawn = [draw(probability, NAMES, 1, seed, "x, batch 7")[0].action for seed in range(4000)]
    for name, share in zip(NAMES, probability, strict=True):  # Hoeffding: off by 0.04 with probability 6e-6
        assert abs(drawn.count(name) / 4000 - share) < 0.04
    chooser = Chooser(fresh("batched_omd_switching", NAMES, {"horizon": 12, "budget": 4}), "x")
    state, numbers = chooser.fresh(), []
    for t in range(14):
        numbers.append(chooser.batch(state))
        chooser.act(state, f"d{t}/0")
    assert numbers == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4]


def test_the_order_of_feedback_restarts_and_late_answers_change_nothing(make: Make) -> None:
    found = []
    for order in range(3):
        clock = [0.0]
        rules = Rules(window=100)
        service = make("batched_omd_switching", now=lambda clock=clock: clock[0], reward=rules)
        for i in range(40):  # four batches, of which what answers knows nothing
            clock[0] = float(i)
            service.decide("shop", DecideRequest(id=f"d{i}"))
        said = [FeedbackRequest(f"d{i}", i % 4 / 3, id=f"f{i}", time=i + 3.5 * (i % 7)) for i in range(40) if i != 11]
        random.Random(order).shuffle(said)
        for each in said:
            clock[0] += 0.1
            service.hear("shop", each)
            if order == 1:
                service.learner.look()
                fold = service.apps["shop"].fold
                fold.restore(fold.snapshot())
        clock[0] = 500.0
        service.hear("shop", FeedbackRequest("d11", 0.5, id="late", time=499.0))
        service.decide("shop", DecideRequest(id="last"))
        clock[0] = 1000.0
        service.decide("shop", DecideRequest(id="very last"))
        service.learner.look()
        fold = service.apps["shop"].fold
        assert fold.counts["late"] == 1
        found.append(fold.settled)
        again = Fold(fold._chooser, rules, service.ledger, "shop", 600.0)
        again.restore(fold.snapshot())
        assert same(again.catch_up(), fold.catch_up())
        assert fold.rounds.begun == 41
        assert fold.learned == 4  # four looks among these rounds, all answered
    assert all(same(state, found[0]) for state in found)


def test_looks_at_other_options_cannot_be_served(tmp_path: Path, make: Make) -> None:
    fresh("batched_omd_switching", NAMES, {"horizon": 100, "feedback": "full"}).save(tmp_path / "full.policy")
    with pytest.raises(ValueError, match="full: it looks at options that it did not choose"):
        make("uniform", candidates=[str(tmp_path / "full.policy")])
