"""Alarms: their distance by hand, their false alarms, and what they find."""

import numpy as np
import pytest

from backchannel.serve.drift import ALARM, BLOCK, Drift
from backchannel.serve.records import Decided, Slot


def feed(found: Drift, rng: np.random.Generator, rows: int, city: str = "ab", shift: float = 0.0) -> None:
    for i in range(rows):
        context = {"size": float(rng.normal() + shift), "city": str(rng.choice(list(city)))}
        reward = float(rng.random() < 0.5) if i % 2 else None
        found.add(Decided("d", [Slot("a", float(rng.uniform(0.1, 1)))], context), float(i), rng.exponential(), reward)


def test_the_distance_by_hand() -> None:
    reference = Drift(reference={"x": [1.0, 2.0, 3.0, 4.0]}, present={"x": [3.5, 5.0, 6.0, 7.0]}, blocks=1)
    tested = reference._tested("x", 9.0)
    assert tested.distance == 0.75  # at 3: three quarters of what was lie there or below, nothing of what is
    error = ALARM / (2 * 1 * 1 * 2)
    assert tested.allowed == pytest.approx(np.sqrt(np.log(2 / error) / 2) * (0.5 + 0.5))


def test_what_does_not_change_raises_no_alarm() -> None:
    """20 blocks: by the bound at most one run in a hundred; these are far below it."""
    found = Drift()
    rng = np.random.default_rng(3)
    for _ in range(20):
        feed(found, rng, BLOCK)
        assert found.alarms == []
    assert found.blocks == 20
    assert found.present == {}


@pytest.mark.parametrize(("changed", "quantity"), [({"shift": 1.0}, "context size"), ({"city": "ac"}, "context city")])
def test_a_change_raises_an_alarm_that_names_it(changed: dict[str, object], quantity: str) -> None:
    found = Drift()
    rng = np.random.default_rng(4)
    feed(found, rng, 2 * BLOCK)
    feed(found, rng, BLOCK, **changed)  # type: ignore[arg-type]
    assert [alarm.quantity for alarm in found.alarms] == [quantity]
    feed(found, rng, BLOCK)
    assert found.alarms == []  # it is again what it was
