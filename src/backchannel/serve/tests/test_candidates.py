"""Candidates beside the policy that answers: estimates, promotion, roll back, freezing, imitation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backchannel.serve.lesson import Tally
from backchannel.serve.records import Control, DecideRequest, FeedbackRequest
from backchannel.serve.rewards import Rules
from backchannel.serve.service import Service

Make = Callable[..., Service]
REWARDS = {"a": 0.2, "b": 0.5, "c": 0.9}


def live(service: Service, many: int, seed: int = 0, **request: object) -> None:
    """Decisions, each with its reward; windows of a second close as time goes on."""
    rng, app = np.random.default_rng(seed), service.apps["shop"]
    for i in range(many):
        now = 10.0 * (i + 1) + 10.0 * many * seed
        app.now = lambda now=now: now  # type: ignore[misc]
        asked = DecideRequest(context={"size": 1.0, "city": "x"}, id=f"{seed}/{i}", **request)  # type: ignore[arg-type]
        chosen = service.decide("shop", asked).action
        service.hear("shop", FeedbackRequest(f"{seed}/{i}", float(rng.random() < REWARDS[chosen]), id=f"f{seed}/{i}"))
    service.learner.look()


def order(service: Service, request: Control) -> None:
    service.committer.append(service.apps["shop"].control(request)).result()
    service.learner.look()


def test_a_tally_is_the_mean_of_weighted_rewards_inside_its_interval() -> None:
    tally = Tally(Rules(low=-1.0, high=1.0))
    rng = np.random.default_rng(1)
    weight, reward = rng.exponential(size=1000), rng.uniform(-1.5, 1.0, 1000)
    for w, r in zip(weight, reward, strict=True):
        tally.add(float(w), float(r))
    found = tally.estimate()
    assert found.decisions == 1000
    assert found.value == pytest.approx(-1 + weight @ (np.maximum(reward, -1) + 1) / weight.sum())
    assert -1 <= found.low < found.value < found.high <= 1
    again = Tally(Rules(low=-1.0, high=1.0))
    again.restore(tally.kept())
    assert again.estimate() == found


def bets(x: np.ndarray, error: float) -> np.ndarray:
    """The weights of the lower bound's mean, from their equation."""
    found, total, spread = np.empty(x.size), 0.0, 0.0
    for i, each in enumerate(x):
        t = i + 1.0
        found[i] = min(0.5, np.sqrt(2 * np.log(1 / error) / ((0.25 + spread) / t * t * np.log(1 + t))))
        total += each
        spread += (each - min(1.0, (0.5 + total) / (t + 1))) ** 2
    return found


def test_the_interval_holds_while_the_value_moves() -> None:
    """The mean rises from 0.1 to 0.9. Of 300 runs at most 5 % may miss; 40 would have a probability below 1e-6."""
    missed = 0
    means = np.linspace(0.1, 0.9, 600)
    for seed in range(300):
        rng, tally = np.random.default_rng(seed), Tally(Rules())
        rewards = (rng.random(600) < means).astype(float)
        for reward in rewards:
            tally.add(1.0, float(reward))
        found = tally.estimate()
        least, most = bets(rewards, 0.025), bets(1 - rewards, 0.025)
        missed += not (found.low <= least @ means / least.sum() and most @ means / most.sum() <= found.high)
        assert found.value == pytest.approx(rewards.mean())
    assert missed < 40


def test_candidates_learn_and_are_estimated(make: Make, policies: dict[str, Path]) -> None:
    service = make("epsilon_greedy", candidates=[str(policies["thompson"])], reward=Rules(window=1.0))
    live(service, 400)
    facts = service.apps["shop"].facts()
    assert set(facts["values"]) == {"epsilon_greedy", "thompson"}
    for each in facts["values"].values():
        assert each["policy"]["decisions"] == 399  # the last one is open
        assert 0 <= each["policy"]["low"] <= each["policy"]["high"] <= 1
    assert facts["values"]["thompson"]["own"] == facts["values"]["epsilon_greedy"]["own"]
    fold = service.apps["shop"].lessons["thompson"].fold
    assert fold.learned == 399


def test_promote_roll_back_and_freeze_hold_across_a_restart(make: Make, policies: dict[str, Path]) -> None:
    service = make("epsilon_greedy", candidates=[str(policies["thompson"])])
    app = service.apps["shop"]
    for wrong in (Control("promote", "why", "nobody"), Control("promote", "why"), Control("roll back", "why")):
        with pytest.raises(ValueError, match=r"promote|roll back"):
            app.control(wrong)
    order(service, Control("promote", "it was tried elsewhere", "thompson"))
    live(service, 3)
    assert service.ledger.latest("shop", "decision", 1)[0].entry.body.count(b'"policy":"thompson"') == 1
    order(service, Control("freeze", "a sale"))
    version = app.published.version
    live(service, 3, seed=1)
    assert app.published.version == version
    assert app.fold.seq > version  # learning goes on
    service.stop()
    again = Service(service.config)
    again.learner.look()
    assert (again.apps["shop"].policy, again.apps["shop"].frozen) == ("thompson", True)
    order(again, Control("roll back", "complaints"))
    assert again.apps["shop"].policy == "epsilon_greedy"
    order(again, Control("unfreeze", "the sale is over"))
    assert again.apps["shop"].published.version == again.apps["shop"].fold.seq
    again.stop()


def test_imitation_ends_when_the_policy_is_better_for_certain(make: Make) -> None:
    with pytest.raises(ValueError, match=r"guards.floor above 0"):
        make("epsilon_greedy", mode="imitate")
    from backchannel.serve.guards import Guards

    service = make("epsilon_greedy", mode="imitate", guards=Guards(floor=0.2), reward=Rules(window=1.0))
    app = service.apps["shop"]
    with pytest.raises(ValueError, match="baseline"):
        app.decision(DecideRequest(context={"size": 1.0}))
    live(service, 50, baseline="a")
    assert app.imitates
    for seed in range(1, 12):
        live(service, 200, seed=seed, baseline="a")
        if not app.imitates:
            break
    service.learner.look()
    assert not app.imitates
    (act,) = service.ledger.latest("shop", "control", 9)
    assert b"at all times with probability" in act.entry.body


def test_watching_learns_from_what_the_product_did(make: Make) -> None:
    service = make("epsilon_greedy", mode="watch", reward=Rules(window=1.0))
    with pytest.raises(ValueError, match="watches"):
        service.decide("shop", DecideRequest())
    live(service, 30, action="c", propensity=0.5)
    assert service.apps["shop"].fold.learned == 29
    assert service.apps["shop"].lessons["epsilon_greedy"].own.estimate().decisions == 29
