"""A service under load for long: its memory stays what it is.

The clock is moved, so that decisions settle and are forgotten; each round has feedback at once and late, for decisions
that never were, and deferred decisions that are never shown. `BACKCHANNEL_SOAK=100` goes on a hundred times as long.
"""

import gc
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from backchannel.serve.drift import BLOCK
from backchannel.serve.page import page
from backchannel.serve.records import DecideRequest, FeedbackRequest
from backchannel.serve.rewards import Rules
from backchannel.serve.service import Service

EACH, WINDOW = 250, 60.0
CYCLE = BLOCK // (EACH * 4 // 5)  # rounds until what is gathered for the alarms is let go: 4 of 5 decisions count
CYCLES = 6 * int(os.environ.get("BACKCHANNEL_SOAK", "1"))
BLOCKS = 8000  # of memory that come and go, however long it lasts; an open decision has about 20


@pytest.mark.parametrize("default", [None, 0.0])
def test_memory_is_flat_under_load(make: Callable[..., Service], default: float | None) -> None:
    clock = [1e9]
    service = make("lin_ucb", now=lambda: clock[0], reward=Rules(window=WINDOW, default=default))
    blocks: list[int] = []
    old: list[str] = []
    for number in range(CYCLE * CYCLES + 1):
        waiting: list[Any] = []
        app, keep = service.apps["shop"], service.committer.append
        fresh = [f"{number}-{i}" for i in range(EACH)]
        for i, id in enumerate(fresh):
            clock[0] += WINDOW / EACH
            request = DecideRequest(context={"size": i % 7, "city": "xy"[i % 2]}, id=id, defer=i % 5 == 0)
            waiting.append(keep(app.decision(request)))
            if i % 3:
                waiting.append(keep(app.feedback(FeedbackRequest(id, i % 2))))
        for i, id in enumerate(old):  # from the round before: some of it settled by now
            if i % 3 == 0:
                waiting.append(keep(app.feedback(FeedbackRequest(id, 1.0))))
        waiting.append(keep(app.feedback(FeedbackRequest(f"never-{number}", 1.0))))
        for each in waiting:
            each.result()
        old = fresh
        service.learner.look()
        page(service)
        service.learner.save(app)
        del waiting, fresh, id, request, app, each
        if number % CYCLE == 0:
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    # What comes and goes with threads only ever adds: the least of three has little of it, and a leak has all of it.
    assert min(blocks[-3:]) - min(blocks[1:4]) < BLOCKS, f"memory grows every {EACH * CYCLE} decisions: {blocks}"
    assert service.apps["shop"].fold.open < 3 * EACH
