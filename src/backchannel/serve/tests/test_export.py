"""What the service wrote is a log that `learn` reads, and says the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backchannel.decide import learn as job
from backchannel.feedback import Decision, Feedback, decode
from backchannel.ledger.log import Log
from backchannel.ledger.read import open_log
from backchannel.serve.export import exported
from backchannel.serve.guards import Guards
from backchannel.serve.ledger import Entry
from backchannel.serve.records import DecideRequest, FeedbackRequest, Shown
from backchannel.serve.rewards import Rules
from backchannel.serve.service import Service

Make = Callable[..., Service]
CONTEXT = {"size": 3.0, "city": "x"}


def written(service: Service, tmp_path: Path) -> Log:
    (tmp_path / "log.jsonl").write_bytes(b"".join(exported(service.apps["shop"])))
    return open_log(tmp_path / "log.jsonl")


def records(service: Service) -> tuple[list[Decision], dict[str, float]]:
    """The decisions, and the reward of each that has one."""
    found = [decode(line) for line in exported(service.apps["shop"])]
    answers = [each for each in found if isinstance(each, Feedback)]
    assert len({each.id for each in answers}) == len({each.decision for each in answers}) == len(answers)
    return [each for each in found if isinstance(each, Decision)], {each.decision: each.value for each in answers}


def shown(service: Service, decision: str) -> None:
    service.committer.append(service.apps["shop"].shown(Shown(decision))).result()


def test_learn_reads_what_the_service_wrote(make: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    service = make("epsilon_greedy", guards=Guards(floor=0.1))
    propensities, actions, rewards = [], [], []
    for i in range(400):
        answer = service.decide("shop", DecideRequest(context={"size": float(i % 7), "city": "xy"[i % 2]}, id=f"d{i}"))
        reward = float(rng.random() < {"a": 0.7, "b": 0.3, "c": 0.2}[answer.action])
        service.hear("shop", FeedbackRequest(answer.id, reward))
        propensities.append(answer.propensity)
        actions.append(answer.action)
        rewards.append(reward)
        if i % 50 == 49:
            service.learner.look()
    log = written(service, tmp_path)
    (batch,) = log.batches()
    assert log.rows == 400
    assert (log.numeric, log.categorical) == (["size"], ["city"])
    assert batch.propensity.tolist() == propensities
    assert [log.actions[i] for i in batch.action] == actions
    assert batch.reward.tolist() == rewards
    assert len(set(propensities)) > 1
    learned, _ = job.learn(log, ["uniform", "epsilon_greedy"])
    assert learned.log.propensities == "logged"
    assert learned.log.earned.value == pytest.approx(np.mean(rewards), abs=1e-12)
    assert learned.log.rows == learned.log.with_feedback == 400


def test_a_slate_is_a_decision_for_each_place(make: Make, tmp_path: Path) -> None:
    service = make("epsilon_greedy")
    slots: list[float] = []
    for i in range(30):
        answer = service.decide("shop", DecideRequest(context=CONTEXT, id=f"d{i}", slate=3))
        service.hear("shop", FeedbackRequest(answer.id, 1.0, option=answer.slots[2].action))
        slots += [slot.propensity for slot in answer.slots]
    log = written(service, tmp_path)
    (batch,) = log.batches()
    assert log.rows == 90
    assert batch.position.tolist() == [0, 1, 2] * 30
    assert np.isfinite(batch.reward).tolist() == [False, False, True] * 30
    assert batch.propensity[2::3].tolist() == [1.0] * 30  # one option was left
    assert batch.propensity.tolist() == slots
    assert np.diff(batch.offered).tolist() == [3, 2, 1] * 30


def test_deferred_decisions_that_nobody_saw_in_time_are_left_out(make: Make, tmp_path: Path) -> None:
    clock = [0.0]
    service = make("epsilon_greedy", now=lambda: clock[0], activation=50.0, reward=Rules(default=0.25, window=100.0))
    for id in ("seen", "late", "never"):
        service.decide("shop", DecideRequest(context=CONTEXT, id=id, defer=True))
        service.hear("shop", FeedbackRequest(id, 1.0))
    shown(service, "seen")
    clock[0] = 60.0
    shown(service, "late")
    clock[0] = 500.0
    service.decide("shop", DecideRequest(context=CONTEXT, id="now"))
    decisions, rewards = records(service)
    assert {each.id: each.shown for each in decisions} == {"seen": True, "late": False, "never": False, "now": True}
    assert rewards == {"seen": 1.0}
    log = written(service, tmp_path)
    assert log.rows == 2
    assert any("2 decisions that nobody saw" in note for note in log.notes)


def test_windows_defaults_and_what_came_too_late(make: Make) -> None:
    clock = [0.0]
    one, other = (
        make("epsilon_greedy", now=lambda: clock[0], reward=Rules(window=10.0, default=d)) for d in (None, 0.5)
    )
    for service in (one, other):
        for i in range(5):
            clock[0] = float(i)
            service.decide("shop", DecideRequest(context=CONTEXT, id=f"d{i}"))
        service.hear("shop", FeedbackRequest("d0", 1.0, id="f0"))
        service.hear("shop", FeedbackRequest("d1", 1.0, id="f1"))
        service.hear("shop", FeedbackRequest("d1", "f1", "retraction"))
        service.hear("shop", FeedbackRequest("d2", "too dear", "critique"))
        clock[0] = 13.5  # the windows of d0 to d3 have closed
        service.hear("shop", FeedbackRequest("d0", 0.25))
        service.hear("shop", FeedbackRequest("d1", 0.25))
        service.hear("shop", FeedbackRequest("d2", 0.25))
        service.hear("shop", FeedbackRequest("d2", 0.125))
        service.hear("shop", FeedbackRequest("d4", 1.0))  # its window is open
    assert records(one)[1] == {"d0": 1.0, "d2": 0.25, "d4": 1.0}
    assert records(other)[1] == {"d0": 1.0, "d1": 0.5, "d2": 0.5, "d3": 0.5}


@pytest.mark.parametrize("seed", range(6))
def test_the_rewards_are_those_that_were_learned_from(make: Make, seed: int) -> None:
    rng = np.random.default_rng(seed)
    clock = [1000.0]
    rules = Rules(
        window=20.0,
        default=0.0 if seed % 2 else None,
        combine=("sum", "first", "last", "mean", "max", "sum")[seed],  # type: ignore[arg-type]
        most_open=(1000, 8)[seed // 3],
        keep=(1.0, 0.7)[seed % 3 == 2],
    )
    service = make("epsilon_greedy", now=lambda: clock[0], reward=rules, activation=15.0)
    app = service.apps["shop"]
    many = 150
    for _ in range(900):
        clock[0] += rng.exponential(0.3) - 0.02  # now and then the clock goes back
        id = f"d{rng.integers(many)}"
        kind = rng.integers(6)
        if kind < 2:
            slate = int(rng.integers(1, 3))
            service.decide("shop", DecideRequest(context=CONTEXT, id=id, defer=bool(rng.integers(2)), slate=slate))
        elif kind == 2:
            shown(service, id)
        elif kind == 3 and rng.random() < 0.4:
            service.hear("shop", FeedbackRequest(id, f"{id} {rng.integers(3)}", "retraction"))
        else:
            value = float(rng.integers(1, 65)) / 64
            service.hear("shop", FeedbackRequest(id, value, id=f"{id} {rng.integers(3)}", time=rng.random() * 100))
    clock[0] += 100.0
    service.decide("shop", DecideRequest(context=CONTEXT, id="the last"))
    learned: list[float] = []
    learn, settled = app.chooser.learn, app.fold.settled

    def spy(state: Any, row: Any, place: int, propensity: float, loss: float) -> None:
        if state is settled:
            learned.append(loss)
        learn(state, row, place, propensity, loss)

    app.chooser.learn = spy  # type: ignore[method-assign]
    service.learner.look()
    decisions, rewards = records(service)
    assert app.fold.open == 1
    assert len(learned) > 40
    seen = {each.id for each in decisions if each.shown}
    assert len(seen) < len(decisions)
    assert set(rewards) <= seen
    assert sorted(learned) == sorted(rules.loss(reward) for reward in rewards.values())


def test_what_learn_would_refuse_is_not_written(make: Make, tmp_path: Path) -> None:
    clock = [100.0]
    service = make("epsilon_greedy", now=lambda: clock[0], mode="watch")
    service.decide("shop", DecideRequest(context=CONTEXT | {"more": "text"}, id="d", action="a", propensity=0.5))
    clock[0] = 90.0  # set back
    service.decide("shop", DecideRequest(context={"city": "y"}, id="d/0", action="b"))
    service.decide("shop", DecideRequest(context={}, id="e", action="new here"))
    for i, id in enumerate(("d", "d/0", "e")):
        service.hear("shop", FeedbackRequest(id, 5.0 * i, time=3.0))
    log = written(service, tmp_path)
    (batch,) = log.batches()
    assert log.actions == ["a", "b", "c", "new here"]
    assert batch.time.tolist() == [100.0] * 3
    assert batch.reward.tolist() == [0.0, 1.0, 1.0]  # a sum beyond the range counts as its bound
    assert np.array_equal(batch.propensity, [0.5, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(batch.numbers[:, 0], [3.0, np.nan, np.nan], equal_nan=True)


def test_ids_of_places_are_no_others(make: Make, tmp_path: Path) -> None:
    service = make("epsilon_greedy")
    for id, slate in (("d", 2), ("d/0", None), ("d/1", 2), ("d/1/0", None), ("d/x", None)):
        service.decide("shop", DecideRequest(context=CONTEXT, id=id, slate=slate))
    decisions, _ = records(service)
    assert len({each.id for each in decisions}) == len(decisions) == 7
    assert decisions[-1].id == "d/x"


def test_a_ledger_longer_than_a_page_is_written_whole(make: Make) -> None:
    service = make("epsilon_greedy")
    app = service.apps["shop"]
    first = app.decision(DecideRequest(context=CONTEXT, id="x0"))
    bodies = [first.body.replace(b'"x0"', b'"x%d"' % i) for i in range(2500)]
    service.ledger.append([Entry("shop", "decision", f"x{i}", f"x{i}", 1.0, body) for i, body in enumerate(bodies)])
    service.hear("shop", FeedbackRequest("x1234", 1.0))
    decisions, rewards = records(service)
    assert [each.id for each in decisions] == [f"x{i}" for i in range(2500)]
    assert rewards == {"x1234": 1.0}
