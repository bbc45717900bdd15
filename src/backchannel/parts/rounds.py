"""Rounds that workers close together, over a `torch.distributed` store: they may join, leave, or be killed.

In round t every worker appends its message to the key `open/t`. A worker that sees the messages of all that are waited
for closes the round: it writes what it saw to `closed/t`, if nobody has (`compare_set`). What stands there is the
round, for everybody and for ever: nobody applies anything else. So a round is whole or is not at all.

Waited for are those whose messages were in the round before, and those that announced themselves in this one, less
those that said goodbye. Whoever has waited `patience` seconds in vain closes the round with what there is; the missing
worker is not waited for again, and is back as soon as a message of it is in time. Every worker has a number of its own
that the store counts, and no number is given twice: one that was killed comes back as somebody else.

The rounds so far are the log. A late worker reads it from the store; a file (`RoundLog`) outlives the store. A process
group of gloo would not do in place of a store, because it cannot lose a member.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from torch.distributed import Store  # type: ignore[attr-defined]

from backchannel.parts.patience import within

_HEAD = struct.Struct("<IH")  # of a message: the worker, and how many bytes follow
_COMES, _LEAVES = 0xFFFF, 0xFFFE  # in the place of how many: an announcement and a goodbye
_RECORD = struct.Struct("<QH")  # of a round: its number, and how many rates follow
_ENTRY = struct.Struct("<II")  # in a file: how long a record is, and its checksum
LARGEST = _LEAVES - 1  # bytes of a message
_KEPT = 1000  # rounds for which the messages are kept, for whoever is slow; the rounds themselves are kept for ever


class Round(NamedTuple):
    """What was agreed on: the round's number, the learning rates, and (worker, bytes) of all whose message is in it."""

    step: int
    rates: tuple[float, ...]
    messages: tuple[tuple[int, bytes], ...]

    def packed(self) -> bytes:
        """As it is stored and sent."""
        head = _RECORD.pack(self.step, len(self.rates)) + struct.pack(f"<{len(self.rates)}d", *self.rates)
        return head + b"".join(_HEAD.pack(worker, len(sent)) + sent for worker, sent in self.messages)

    @staticmethod
    def unpacked(packed: bytes) -> Round:
        """`packed` undone."""
        step, count = _RECORD.unpack_from(packed)
        rates = struct.unpack_from(f"<{count}d", packed, _RECORD.size)
        return Round(step, rates, tuple(_messages(packed[_RECORD.size + 8 * count :])[0].items()))


class Rounds:
    """The rounds of one run: what a worker says and hears.

    Args:
        store: a `TCPStore`, say, or a `PrefixStore` of it for each of several runs. If its process ends, no round can
            be closed: every worker is told so by a ConnectionError, with its weights as the last round left them.
        patience: seconds to wait for a worker that was in the round before.
        workers: how many must have joined before the first round begins.
        limit: seconds within which the store must answer, and within which `workers` must have joined.
    """

    def __init__(self, store: Store, patience: float = 30.0, workers: int = 1, limit: float = 300.0):
        if patience <= 0 or limit <= 0:
            raise ValueError(f"patience and limit must be positive, not {patience} and {limit}")
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self.store, self.patience, self.workers, self.limit = store, patience, workers, limit
        self.worker = -1  # my number; -1 before `join`
        self.missed: list[tuple[int, int]] = []  # (round, worker): in the round before, and not in this one
        self._before: set[int] = set()

    def join(self, terms: dict[str, Any]) -> None:
        """Take a number. ValueError unless the run's terms are these; whoever comes first has set them."""
        own = json.dumps(terms, sort_keys=True)
        theirs = json.loads(self._ask("compare_set", "terms", "", own))
        check_terms(terms, theirs, "this worker's", "the group's")
        if self.worker < 0:
            self.worker = self._ask("add", "workers", 1) - 1

    def closed(self, first: int) -> Iterator[Round]:
        """All rounds that are closed, from number `first` on."""
        block = 1024
        while block:
            names = [f"closed/{step}" for step in range(first, first + block)]
            if not self._ask("check", names):
                block //= 2
                continue
            for packed in self._ask("multi_get", names):
                yield self._heard(Round.unpacked(packed))
            first += len(names)

    def announce(self, step: int) -> bool:
        """Ask the others to wait for me in this round; False if it is closed already. Waits for the first `workers`."""
        self._ask("append", f"open/{step}", _HEAD.pack(self.worker, _COMES))
        if self._ask("check", [f"closed/{step}"]):
            return False
        come, end = self._ask("add", "announced", 1), time.monotonic() + self.limit
        while come < self.workers:
            if time.monotonic() > end:
                raise TimeoutError(f"{come} of {self.workers} workers joined within {self.limit} seconds")
            time.sleep(0.02)
            come = self._ask("add", "announced", 0)
        return True

    def exchange(self, step: int, rates: tuple[float, ...], message: bytes) -> Round:
        """Say mine, and hear what the round is."""
        if len(message) > LARGEST:
            raise ValueError(f"a message has at most {LARGEST} bytes, not {len(message)}")
        self._ask("append", f"open/{step}", _HEAD.pack(self.worker, len(message)) + message)
        if not self._try_to_close(step, rates) and not self._wait(f"closed/{step}", self.patience):
            self._close(step, rates)
        return self._heard(Round.unpacked(self._ask("get", f"closed/{step}")))

    def offer(self, rounds: list[Round]) -> None:
        """What the store does not know of these, it is told; ValueError where it knows otherwise."""
        known = list(self.closed(rounds[0].step)) if rounds else []
        for mine, theirs in zip(rounds, known, strict=False):
            _same(mine, theirs)
        for mine in rounds[len(known) :]:
            _same(mine, Round.unpacked(self._ask("compare_set", f"closed/{mine.step}", "", mine.packed())))
            self._heard(mine)

    def leave(self, step: int, rates: tuple[float, ...]) -> None:
        """Say goodbye, so that nobody waits."""
        self._ask("append", f"open/{step}", _HEAD.pack(self.worker, _LEAVES))
        self._try_to_close(step, rates)

    def _heard(self, closed: Round) -> Round:
        present = {worker for worker, _ in closed.messages}
        self.missed += [(closed.step, worker) for worker in sorted(self._before - present)]
        self._before = present
        return closed

    def _try_to_close(self, step: int, rates: tuple[float, ...]) -> bool:
        """Close the round if nobody is waited for. Of those that speak at once, the last to append sees them all."""
        said, come, gone = _messages(self._ask("get", f"open/{step}"))
        if not said or not (self._before | come) - gone <= said.keys():
            return False
        self._close(step, rates)
        return True

    def _close(self, step: int, rates: tuple[float, ...]) -> None:
        said, _, _ = _messages(self._ask("get", f"open/{step}"))
        self._ask("compare_set", f"closed/{step}", "", Round(step, rates, tuple(sorted(said.items()))).packed())
        self._ask("delete_key", f"open/{step - _KEPT}")

    def _wait(self, key: str, seconds: float) -> bool:
        try:
            self._ask("wait", [key], timedelta(seconds=seconds), limit=seconds + self.limit)
        except TimeoutError:
            return False
        return True

    def _ask(self, what: str, *arguments: Any, limit: float = 0.0) -> Any:
        """Call the store, which may never answer if its machine is gone."""
        try:
            return within(limit or self.limit, lambda: getattr(self.store, what)(*arguments))
        except TimeoutError:
            raise ConnectionError(f"the store has not answered within {limit or self.limit} seconds") from None
        except RuntimeError as error:
            if what == "wait" and isinstance(error, dist.DistStoreError):
                raise TimeoutError(str(error)) from error
            raise ConnectionError(f"the store does not answer: {error}") from error


class RoundLog:
    """A file of rounds: the terms in its first line, then one record after another, each with a checksum.

    A record that is torn or spoilt ends the log: what is read are the rounds before it, and writing goes on there.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.terms: dict[str, Any] | None = None  # None: nothing has been written yet
        self.rounds: list[Round] = []
        whole = self.path.read_bytes() if self.path.exists() else b""
        head, newline, body = whole.partition(b"\n")
        if newline:
            try:
                self.terms = json.loads(head)["terms"]
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{self.path} is not a log of rounds: its first line is not the terms") from None
        at = 0
        while len(body) >= at + _ENTRY.size:
            length, checksum = _ENTRY.unpack_from(body, at)
            packed = body[at + _ENTRY.size : at + _ENTRY.size + length]
            if len(packed) < length or zlib.crc32(packed) != checksum:
                break
            self.rounds.append(Round.unpacked(packed))
            at += _ENTRY.size + length
        self.length = len(head) + 1 + at if newline else 0  # the bytes that were understood

    def begin(self, terms: dict[str, Any]) -> None:
        """Cut what was not understood; write the terms, or ValueError unless they are those of the file."""
        if self.terms is not None:
            check_terms(terms, self.terms, "this worker's", f"that of {self.path}")
        with open(self.path, "ab") as file:
            file.truncate(self.length)
            if self.terms is None:
                self.terms = terms
                file.write(json.dumps({"terms": terms}).encode() + b"\n")

    def append(self, closed: Round) -> None:
        """Write one round; it is the system's when this returns, and survives the process."""
        packed = closed.packed()
        with open(self.path, "ab") as file:
            file.write(_ENTRY.pack(len(packed), zlib.crc32(packed)) + packed)


def check_terms(own: dict[str, Any], theirs: dict[str, Any], mine: str, others: str) -> None:
    """ValueError that names the first term that differs."""
    for name in own | theirs:
        if own.get(name) != theirs.get(name):
            raise ValueError(f"{mine} {name} is {own.get(name)!r}, and {others} is {theirs.get(name)!r}")


def _messages(raw: bytes) -> tuple[dict[int, bytes], set[int], set[int]]:
    """What each worker said first; who is announced; who left."""
    said: dict[int, bytes] = {}
    come, gone = set(), set()
    at = 0
    while at < len(raw):
        worker, count = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        if count == _COMES:
            come.add(worker)
        elif count == _LEAVES:
            gone.add(worker)
        else:
            said.setdefault(worker, raw[at : at + count])
            at += count
    return said, come, gone


def _same(mine: Round, theirs: Round) -> None:
    if mine != theirs:
        raise ValueError(f"round {mine.step} is not what the store says: begin again from the starting weights")
