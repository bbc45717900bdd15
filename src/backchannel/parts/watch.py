"""Watch: what a monitor hears of the exchanges of a group, round by round, for a message of 16 bytes.

A process times two things on its own clock: how long it computed since the exchange before, and how long it was in this
one. After a round in which something was sent all tell all, by a collective that goes on while they compute; before the
next exchange the monitor judges. Who waits for others does not compute: only the time outside of exchanges counts, also
where what was sent arrives some steps later.

A process that is in an exchange for longer than the monitor's `limit` looks into the group's store who has not come. A
thread does it, since the process itself stands still.

    watch = Watch(monitor, group)
    with watch.exchange():
        ...                                # collectives of the group, or waiting for some
    watch.close()

Every fault is a RuntimeWarning, once. Nothing is timed inside of a collective: a slow link is everybody's waiting, and
nobody is named for it (`parts/probe.py` tells links apart).
"""

from __future__ import annotations

import atexit
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from backchannel.parts.group import Group
from backchannel.parts.timings import TICK, Timings

LOOK = 0.1  # seconds between two looks whether an exchange takes too long


class Monitor(Protocol):
    """Who judges: `backchannel.distributed.c4.c4(ranks)`, say. A fault has `where`, the same in every round, and
    `reason`, a sentence."""

    ranks: int
    limit: float  # seconds after which an exchange has taken too long

    def record(self, timings: Timings) -> Sequence[Any]:
        """One more round, or one that does not end; the faults."""


class Watch:
    """The timings of this process, told to all others; all of them make it at the same time.

    Args:
        monitor: of as many ranks as the group has processes.
        group: whose store can say who has not come.
        clock: seconds, never backwards.
    """

    def __init__(self, monitor: Monitor, group: Group, clock: Callable[[], float] = time.monotonic):
        if monitor.ranks != group.size:
            raise ValueError(f"the monitor is of {monitor.ranks} ranks, and the group has {group.size}")
        group.calls()  # ValueError where nobody could be named
        self._monitor, self._group, self._clock = monitor, group, clock
        self._answers: deque[Future[Tensor]] = deque()
        self._told: set[Any] = set()
        self._judging, self._over = threading.Lock(), threading.Event()
        self._entered: float | None = None  # when the exchange that goes on began
        self._raised: BaseException | None = None  # by `isolate`, of a hang: in a thread that nobody waits for
        self.begin()
        self._thread = threading.Thread(target=self._guard, name="backchannel-watch", daemon=True)
        self._thread.start()
        atexit.register(self._end)  # of a program that ends without closing

    def begin(self) -> None:
        """A round begins now: what was before is nobody's computing."""
        self._computing, self._inside, self._since = 0.0, 0.0, self._clock()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time in which this process waits for others, outside of an exchange."""
        began = self._clock()
        yield
        self._since += self._clock() - began

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """An exchange. What was heard of those before is judged first; raises what broke in between."""
        self._computing += self._clock() - self._since
        self._since = self._clock()
        while self._answers and self._answers[0].done():
            self._hear(self._answers.popleft().result())
        asked, began = self._group.asked, self._clock()
        self._entered = began
        try:
            yield
        finally:
            self._entered, self._since = None, self._clock()
            self._inside += self._since - began
            self._raise()
        if self._group.asked > asked:
            told = torch.tensor([max(self._computing, TICK), max(self._inside, TICK)], dtype=torch.float64)
            self._answers.append(self._group.submit(self._group.all, told))
            self._computing = self._inside = 0.0

    def close(self) -> None:
        """Wait for what is on its way, and judge what of it arrives."""
        wait(self._answers)
        self._end()
        atexit.unregister(self._end)
        for answer in self._answers:
            if answer.exception() is None:
                self._hear(answer.result())
        self._answers.clear()

    def _end(self) -> None:
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(10 * LOOK)  # it may ask a store that does not answer

    def _raise(self) -> None:
        """What `isolate` raised of a hang."""
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def _hear(self, rows: Tensor) -> None:
        times, yes = rows.numpy(), np.ones(len(rows), bool)
        self._judge(Timings(times[:, 0], times[:, 1], np.full((len(rows), len(rows)), np.nan), yes, yes))

    def _judge(self, timings: Timings) -> None:
        with self._judging:
            fresh = [fault for fault in self._monitor.record(timings) if fault.where not in self._told]
            self._told.update(fault.where for fault in fresh)
        for fault in fresh:
            warnings.warn(fault.reason, RuntimeWarning, stacklevel=2)

    def _guard(self) -> None:
        """In a thread: once for each exchange that takes too long, who has not come, or has not left."""
        said: float | None = None
        while not self._over.wait(LOOK):
            entered = self._entered
            if entered is None or entered == said or self._clock() - entered < self._monitor.limit:
                continue
            said = entered
            try:
                calls = np.array(self._group.calls())
            except RuntimeError:  # the store is gone, and the exchange ends with an error that says so
                continue
            own, nothing = calls[self._group.rank], np.full(len(calls), np.nan)
            if self._entered == entered:  # else it has ended while we looked
                none = np.full((len(calls), len(calls)), np.nan)
                try:
                    self._judge(Timings(nothing, nothing, none, calls >= own, calls > own))
                except Exception as error:  # raised where the program hears of it: when the exchange has ended
                    self._raised = error
