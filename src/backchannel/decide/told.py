"""Channels on a log: the same log, as if feedback came late, got lost, was bought or lied."""

from __future__ import annotations

import math
import re

import msgspec
import numpy as np

from backchannel.decide.streams import stream

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "": 1.0}


class Channel(msgspec.Struct, frozen=True):
    """What of a log's feedback gets through to the learners. Estimates always use the log as it is.

    Attributes:
        delay: seconds (rows, where the log has no times) between a decision and its feedback.
        drop: probability that a decision's feedback never comes.
        budget: feedback is bought for so many decisions, drawn evenly; None for all.
        flip: probability that a reward lies: low + high - reward.
    """

    delay: float = 0.0
    drop: float = 0.0
    budget: int | None = None
    flip: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.delay >= 0 and math.isfinite(self.delay)):
            raise ValueError(f"--delay must be a time of at least 0, not {self.delay}")
        if not 0 <= self.drop < 1:
            raise ValueError(f"--drop must be a probability in [0, 1), not {self.drop}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"--flip must be a probability in [0, 1], not {self.flip}")
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"--budget must buy the feedback of at least 1 decision, not {self.budget}")

    @property
    def clear(self) -> bool:
        """Whether everything gets through, at once and true."""
        return self.delay == 0 and self.drop == 0 and self.budget is None and self.flip == 0

    def words(self, timed: bool = True) -> str:
        """For tables and figures; a log without times (`timed` False) counts delays in rows."""
        parts = []
        if self.delay:
            parts.append(f"{duration(self.delay) if timed else f'{self.delay:,.0f} rows'} late")
        if self.drop:
            parts.append(f"{self.drop:.0%} lost")
        if self.budget is not None:
            parts.append(f"{self.budget:,} bought")
        if self.flip:
            parts.append(f"{self.flip:.0%} false")
        return ", ".join(parts) or "at once"

    def told(self, rows: int) -> np.ndarray:
        """bool[rows]: whose feedback ever comes."""
        rng = stream(self.seed, "lost")
        comes = rng.random(rows) >= self.drop
        if self.budget is not None:
            comes &= stream(self.seed, "bought").permutation(rows) < self.budget
        return comes

    def arrival(self, time: np.ndarray) -> np.ndarray:
        """int64[rows]: by the end of which row each decision's feedback has come; rows or more: not within these.

        `time` rises. Feedback that comes at the time of a row has come by its end.
        """
        rows = np.arange(time.size)
        if not self.delay:
            return rows
        due = time + self.delay
        last = np.maximum(np.searchsorted(time, due, side="right") - 1, rows)
        return np.where(due <= time[-1], last, time.size)

    def false(self, rows: int) -> np.ndarray:
        """bool[rows]: whose reward lies."""
        return stream(self.seed, "false").random(rows) < self.flip


def notes(channel: Channel, delay: str, rows: int, timed: bool) -> list[str]:
    """What its user should know of a channel on a log of so many rows; `delay` as it was typed.

    Raises:
        ValueError: if the delay is a time and the log has none, or is longer than such a log.
    """
    said = []
    if channel.delay and not timed:
        if delay.strip()[-1].isalpha():
            raise ValueError(
                f"--delay {delay} is a time, but the log has no times: name their column with --time, "
                "or give a number alone, which counts rows"
            )
        counts = f"the log has no times (--time names their column), so that --delay {delay} counts rows"
        if channel.delay >= rows:
            raise ValueError(f"{counts}, of which it has {rows:,}: no feedback would come before it ends")
        said.append(counts)
    if channel.budget is not None and channel.budget > rows:
        said.append(f"--budget {channel.budget} buys the feedback of all {rows:,} decisions")
    return said


def seconds(text: str) -> float:
    """`30m`, `2h`, `1.5d`, `90` (seconds, or rows where the log has no times) as a number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([smhdw]?)\s*", text)
    if match is None:
        raise ValueError(f"a delay reads like 90, 45s, 30m, 2h, 1d or 1w, not {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def duration(amount: float) -> str:
    """Seconds as people say them: in the largest unit that is not below one."""
    for unit in ("w", "d", "h", "m"):
        if amount >= _UNITS[unit]:
            return f"{amount / _UNITS[unit]:.3g}{unit}"
    return f"{amount:.3g}s"
