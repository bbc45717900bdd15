"""Group commit: order, waiting, errors, the end."""

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from backchannel.serve import committer as module
from backchannel.serve.committer import Committer
from backchannel.serve.ledger import Entry, Kept, LedgerError


class Slow:
    """A ledger that commits when it is let, and fails as told."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Event()
        self.commits: list[list[str]] = []
        self.fault: Exception | None = None

    def append(self, entries: Sequence[Entry]) -> list[Kept]:
        self.started.set()
        assert self.go.wait(10)
        if self.fault is not None:
            raise self.fault
        if any(entry.id == "poison" for entry in entries):
            raise TypeError("poison")
        self.commits.append([entry.id for entry in entries])
        return [Kept(number, entry) for number, entry in enumerate(entries)]


def entry(id: str) -> Entry:
    return Entry("shop", "decision", id, id, 0.0, b"{}")


@pytest.fixture
def ledger() -> Slow:
    return Slow()


@pytest.fixture
def committer(ledger: Slow) -> Iterator[Committer]:
    made = Committer(ledger)  # type: ignore[arg-type]
    yield made
    ledger.go.set()
    made.close()


def held(ledger: Slow, committer: Committer) -> None:
    """One commit is under way; what comes now waits for it."""
    ledger.go.clear()
    committer.append(entry("first"))
    assert ledger.started.wait(10)


def test_what_waits_goes_together_in_order_and_each_is_told_its_own(ledger: Slow, committer: Committer) -> None:
    held(ledger, committer)
    waiters = [committer.append(entry(f"e{i}")) for i in range(3000)]
    ledger.go.set()
    assert [waiter.result(10).entry.id for waiter in waiters] == [f"e{i}" for i in range(3000)]
    assert [len(commit) for commit in ledger.commits] == [1, module.MOST, module.MOST, 3000 - 2 * module.MOST]
    assert [id for commit in ledger.commits for id in commit] == ["first", *(f"e{i}" for i in range(3000))]


def test_a_fault_is_told_to_all_who_wait_and_passes(ledger: Slow, committer: Committer) -> None:
    held(ledger, committer)
    ledger.fault = LedgerError("the disk is full")
    waiters = [committer.append(entry(f"e{i}")) for i in range(5)]
    ledger.go.set()
    found = [waiter.exception(10) for waiter in waiters]
    assert [str(error) for error in found] == ["the disk is full"] * 5
    assert all(isinstance(error, LedgerError) for error in found)
    assert len(set(map(id, found))) == 5  # each its own: threads raise them
    ledger.fault = None
    assert committer.append(entry("after")).result(10).entry.id == "after"


def test_one_bad_entry_spoils_no_others(ledger: Slow, committer: Committer) -> None:
    held(ledger, committer)
    waiters = [committer.append(entry(id)) for id in ("a", "poison", "b")]
    ledger.go.set()
    assert [waiters[i].result(10).entry.id for i in (0, 2)] == ["a", "b"]
    with pytest.raises(TypeError, match="poison"):
        waiters[1].result(10)
    assert ledger.commits == [["first"], ["a"], ["b"]]


def test_beyond_the_limit_requests_are_turned_away_at_once(
    ledger: Slow, committer: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 10)
    held(ledger, committer)
    waiters = [committer.append(entry(f"e{i}")) for i in range(10)]
    with pytest.raises(LedgerError, match="10 entries wait for the disk; try again"):
        committer.append(entry("too many"))
    ledger.go.set()
    assert [waiter.result(10).entry.id for waiter in waiters] == [f"e{i}" for i in range(10)]


def test_close_commits_what_waits_and_refuses_what_comes(ledger: Slow) -> None:
    committer = Committer(ledger)  # type: ignore[arg-type]
    held(ledger, committer)
    waiters = [committer.append(entry(f"e{i}")) for i in range(50)]
    closing = threading.Thread(target=committer.close)
    closing.start()
    ledger.go.set()
    closing.join(10)
    assert not closing.is_alive()
    assert [waiter.result(0).entry.id for waiter in waiters] == [f"e{i}" for i in range(50)]
    with pytest.raises(LedgerError, match="the service is stopping"):
        committer.append(entry("late"))


def test_who_waits_in_a_loop_is_told_there_and_may_go(ledger: Slow, committer: Committer) -> None:
    async def wait() -> list[str]:
        held(ledger, committer)
        gone = committer.append_async(entry("gone"))
        waiters = [committer.append_async(entry(f"e{i}")) for i in range(5)]
        gone.cancel()
        ledger.go.set()
        return [kept.entry.id for kept in await asyncio.wait_for(asyncio.gather(*waiters), 10)]

    assert asyncio.run(wait()) == [f"e{i}" for i in range(5)]
    assert ledger.commits[1][0] == "gone"  # on its way already: it is kept


def test_a_closed_loop_and_a_waiter_called_off_stop_nothing(ledger: Slow, committer: Committer) -> None:
    async def leave() -> None:
        held(ledger, committer)
        committer.append_async(entry("left")).cancel()

    asyncio.run(leave())
    there = committer.append(entry("there"))
    assert not there.cancel()
    ledger.go.set()
    assert there.result(10).entry.id == "there"
    assert committer.append(entry("after")).result(10).entry.id == "after"
