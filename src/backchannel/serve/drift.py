"""Alarms when the present is not what was: of contexts, propensities, delays and rewards.

The first `BLOCK` settled decisions are the reference; each later block is compared with it, quantity by quantity, by
the largest distance of their empirical distribution functions (Kolmogorov-Smirnov). By the inequality of Dvoretzky,
Kiefer, Wolfowitz and Massart a distribution function of n independent draws is off by more than sqrt(ln(2 / d) / (2
n)) with probability at most d. Block k of q quantities is allowed d = ALARM / (2 q k (k + 1)) for each of the two
functions: while nothing changes, the probability of ever raising an alarm is at most `ALARM`, whatever the
distributions are, as long as decisions are independent. A category is ordered by its hash. A policy that learns
changes its own propensities and rewards: such alarms tell that it did, or that something else has.
"""

from __future__ import annotations

import math
from typing import Any
from zlib import crc32

import msgspec
import numpy as np

from backchannel.serve.records import Decided

BLOCK = 1000
ALARM = 0.01
MOST_COLUMNS = 50


class Alarm(msgspec.Struct):
    """A quantity that is not what it was. `time`: of the last decision of the block that showed it."""

    quantity: str
    time: float
    distance: float
    allowed: float


class Drift(msgspec.Struct):
    """What was, and what is so far; plain data, so that a snapshot keeps it."""

    reference: dict[str, list[float]] = {}
    present: dict[str, list[float]] = {}
    rows: int = 0
    blocks: int = 0
    alarms: list[Alarm] = []

    def add(self, decided: Decided, time: float, delay: float | None, reward: float | None) -> None:
        """One settled decision; None where there is no feedback."""
        found: dict[str, Any] = {"propensity": decided.slots[0].propensity, "delay": delay, "reward": reward}
        for name, value in list(decided.context.items())[:MOST_COLUMNS]:
            found[f"context {name}"] = value
        for quantity, value in found.items():
            if value is not None:
                self.present.setdefault(quantity, []).append(_number(value))
        self.rows += 1
        if self.rows == BLOCK:
            self._compare(time)

    def _compare(self, time: float) -> None:
        if not self.blocks:
            self.reference = {quantity: sorted(values) for quantity, values in self.present.items()}
        else:
            self.alarms = [self._tested(quantity, time) for quantity in self.reference]
            self.alarms = [alarm for alarm in self.alarms if alarm.distance > alarm.allowed]
        self.blocks, self.rows, self.present = self.blocks + 1, 0, {}

    def _tested(self, quantity: str, time: float) -> Alarm:
        was, now = np.array(self.reference[quantity]), np.sort(self.present.get(quantity, []))
        if not now.size:
            return Alarm(quantity, time, 0.0, 1.0)
        error = ALARM / (2 * len(self.reference) * self.blocks * (self.blocks + 1))
        allowed = math.sqrt(math.log(2 / error) / 2) * (1 / math.sqrt(was.size) + 1 / math.sqrt(now.size))
        points = np.concatenate([was, now])
        apart = np.searchsorted(was, points, "right") / was.size - np.searchsorted(now, points, "right") / now.size
        return Alarm(quantity, time, float(np.abs(apart).max()), allowed)


def _number(value: Any) -> float:
    return crc32(value.encode()) / 2**32 if isinstance(value, str) else float(value)
