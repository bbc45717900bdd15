"""Killed with SIGKILL at any moment under load: everything acknowledged is there, once, and learning is the same.

Twenty kills by default; `BACKCHANNEL_KILLS=300` does more, twenty to a store.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backchannel.decide.fresh import fresh
from backchannel.serve.fold import Fold
from backchannel.serve.service import Service
from backchannel.serve.tests import crash_driver

KILLS = int(os.environ.get("BACKCHANNEL_KILLS", "20"))
EACH = 20  # kills of one store


@pytest.fixture(params=["epsilon_greedy", "double_thompson"])
def policy(request: pytest.FixtureRequest, policies: dict[str, Path], tmp_path: Path) -> str:
    """A file: what learns from rewards, and what learns from duels."""
    if request.param == "epsilon_greedy":
        return str(policies[request.param])
    made = tmp_path / f"{request.param}.policy"
    fresh(request.param, ["a", "b", "c"], columns={"size": None, "city": ["x", "y"]}).save(made)
    return str(made)


@pytest.fixture
def driver(policy: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, crash_driver.__file__, policy]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def killed(driver: subprocess.Popen[str], store: Path, run: int, early: bool, after: float) -> list[tuple[str, ...]]:
    """Start a service and kill it so many seconds after its first acknowledgement, or `early`: after its process began.

    Everything that it acknowledged.
    """
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.stdin.write(f"{store} {run}\n")
    driver.stdin.flush()
    told: list[tuple[str, ...]] = []
    child, end = 0, float("inf")
    for line in driver.stdout:
        what, *words = json.loads(line)
        if what == "ended":
            assert words == [signal.SIGKILL]
            return told
        if what == "started":
            child = words[0]
            if early:
                time.sleep(after)
                os.kill(child, signal.SIGKILL)
            continue
        told.append((what, *words))
        end = min(end, time.monotonic() + after)
        if time.monotonic() >= end and not early:
            os.kill(child, signal.SIGKILL)
            early = True  # it is done
    raise AssertionError("the driver has gone")


def check(policy: str, store: Path, told: list[tuple[str, ...]]) -> Counter[str]:
    """What the store holds against what was told, and what is learned after the crash against a fold from nothing."""
    service = Service(crash_driver.config(policy, str(store)))
    ledger = service.ledger
    kept = ledger.read("shop", 0, 10**9)
    ids = [each.entry[1:3] for each in kept]
    assert len(set(ids)) == len(ids)
    assert ledger.counts("shop") == dict(Counter(kind for kind, _ in ids))
    found = {each.entry[1:3]: each for each in kept}
    for kind, id, *words in told:
        assert (kind, id) in found
        if kind == "decision":
            answer = service.apps["shop"].answer(found[kind, id])
            assert [answer.action, answer.propensity] == words
    app = service.apps["shop"]
    lesson = app.lessons[app.policy]
    snapshots = ledger.load_snapshots("shop", f"fold {app.policy}")
    restored = 0
    for _, data in snapshots:  # each of them, with the entries behind it
        lesson.restore(data)
        restored += lesson.fold.seq > 0
        service.learner.look()
        fresh = Fold(app.chooser, app.config.reward, ledger, "shop", app.config.activation)
        for each in kept:
            fresh.feed(each)
        ahead = list(zip(app.fold.catch_up(), fresh.catch_up(), strict=True))  # closes what is due, as a look does
        assert app.fold.snapshot() == fresh.snapshot()
        assert all(np.array_equal(one, other) for one, other in ahead)
    service.learner.leads = False  # no snapshot of this look: the next process starts from its own
    service.stop()
    return Counter(told=len(told), kept=len(kept), learned=app.fold.learned, restored=restored)


def test_what_was_acknowledged_survives_kills_at_any_moment(
    driver: subprocess.Popen[str], policy: str, tmp_path: Path
) -> None:
    rng = random.Random(0)
    total: Counter[str] = Counter()
    for number in range(-(-KILLS // EACH)):
        told: list[tuple[str, ...]] = []
        for run in range(min(EACH, KILLS - EACH * number)):
            early, after = run % 4 == 3, rng.choice([0.02, 0.1, 0.2]) * rng.random()
            told += killed(driver, tmp_path / f"{number}.db", run, early, after)
            if run % 5 == 4:
                total += check(policy, tmp_path / f"{number}.db", told)
        found = check(policy, tmp_path / f"{number}.db", told)
        total += found
    assert total["told"] > 5 * KILLS
    assert total["restored"] > 0
    assert found["learned"] > 0
