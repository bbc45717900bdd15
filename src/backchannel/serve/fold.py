"""Learning as a fold over the ledger: the same entries give the same state, to the last bit.

A decision is *open* until its window closes: `window` seconds after it by the ledger's own clock (the largest time of
any entry so far), or once `most_open` newer decisions stand behind it. Then it *settles*: its feedback is joined into
one reward for each slot, and the learner is updated, decision after decision in the order of the ledger. So feedback
may come in any order within the window, and more than once, and the settled state is the same. Feedback that comes
later is learned where it comes if its decision settled unanswered; else it is kept and counted as too late.

Nobody waits for the window: the state that answers (`ahead`) is the settled one, updated with all open decisions that
have feedback so far, in their order again. When feedback comes to a decision that lies behind others already learned,
`ahead` is computed anew from the last mark before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from backchannel.base import State
from backchannel.loop import copy_state
from backchannel.serve.chooser import Chooser, Row
from backchannel.serve.ledger import Kept, Ledger
from backchannel.serve.records import Decided, Given
from backchannel.serve.rewards import Rules, joined
from backchannel.serve.snapshots import pack, unpack

MARK_EVERY = 512  # answered open decisions between two marks
MOST_MARKS = 32
FORMAT = 1
_decided = msgspec.json.Decoder(Decided)
_given = msgspec.json.Decoder(Given)


class Open(msgspec.Struct):
    """A decision that has not settled."""

    seq: int
    time: float
    decided: Decided
    counts: bool  # False while it is deferred and nobody has seen it
    feedback: dict[str, Given] = {}


class Fold:
    """The state of one learner, from the entries of one application in their order."""

    def __init__(
        self,
        chooser: Chooser,
        rules: Rules,
        ledger: Ledger,
        app: str,
        on_settle: Callable[[Open], None] = lambda settled: None,
    ) -> None:
        self._chooser, self._rules, self._ledger, self._app = chooser, rules, ledger, app
        self._on_settle = on_settle  # told of a decision that settles, before it is learned from
        self.settled: State = copy_state(chooser.policy.state)
        self.ahead: State = copy_state(self.settled)
        self.seq = 0  # entries up to here are in
        self.clock = 0.0
        self.learned = 0  # decisions in `settled`
        self.counts: Counter[str] = Counter()
        self._open: dict[str, Open] = {}  # in the order of the ledger
        self._orphans: dict[str, list[Given]] = {}
        self._marks: list[tuple[int, State]] = []  # (seq, `ahead` with every answered open decision up to it)
        self._rows: dict[str, Row] = {}  # of open decisions that were learned from
        self._changed: int | None = None  # the lowest seq whose joined feedback changed since `catch_up`

    @property
    def open(self) -> int:
        """How many decisions have not settled."""
        return len(self._open)

    @property
    def orphans(self) -> int:
        """How much feedback waits for its decision."""
        return sum(map(len, list(self._orphans.values())))

    def feed(self, kept: Kept) -> None:
        """The next entry of the application."""
        self.seq = kept.seq
        entry = kept.entry
        self.clock = max(self.clock, entry.time)
        self._close()
        self.counts[entry.kind] += 1
        if entry.kind == "decision":
            decided = _decided.decode(entry.body)
            here = Open(kept.seq, self.clock, decided, not decided.deferred)
            self._open[entry.id] = here
            for given in self._orphans.pop(entry.id, ()):
                self._hear(here, given)
        elif entry.kind == "shown":
            if (found := self._open.get(entry.about)) and not found.counts:
                found.counts = True
                self._touch(found)
        elif entry.kind == "feedback":
            given = _given.decode(entry.body)
            if found := self._open.get(entry.about):
                self._hear(found, given)
            else:
                self._late(entry.about, given, kept.seq)

    def catch_up(self) -> State:
        """`ahead`, brought up to date: the settled state and what open decisions have heard so far."""
        self._close()
        if self._changed is not None:
            while self._marks and self._marks[-1][0] >= self._changed:
                self._marks.pop()
            after, state = self._marks[-1] if self._marks else (-1, self.settled)
            self.ahead = copy_state(state)
            for number, each in enumerate(o for o in self._open.values() if o.seq > after and o.counts):
                self._learn(self.ahead, each)
                if number % self._every() == self._every() - 1:
                    self._marks.append((each.seq, copy_state(self.ahead)))
            self._changed = None
        return self.ahead

    def _touch(self, changed: Open) -> None:
        self._changed = changed.seq if self._changed is None else min(self._changed, changed.seq)

    def _hear(self, here: Open, given: Given) -> None:
        if given.id not in here.feedback:
            here.feedback[given.id] = given
            self._touch(here)

    def _close(self) -> None:
        """Settle what is due, in the order of the ledger."""
        while self._open:
            oldest = next(iter(self._open.values()))
            if oldest.time + self._rules.window > self.clock and len(self._open) <= self._rules.most_open:
                break
            del self._open[oldest.decided.id]
            if oldest.counts:
                self._on_settle(oldest)
                before = self.learned
                self._learn(self.settled, oldest, self._rules.default)
                if not oldest.feedback and self.learned > before:
                    self._touch(oldest)  # `ahead` had nothing of it yet
            self._rows.pop(oldest.decided.id, None)

    def _late(self, decision: str, given: Given, seq: int) -> None:
        """Feedback to a decision that is not open: it came too soon, or too late."""
        kept = self._ledger.get(self._app, "decision", decision)
        if kept is None or kept.seq > seq:
            self._orphans.setdefault(decision, []).append(given)
            while len(self._orphans) > self._rules.most_open:
                del self._orphans[next(iter(self._orphans))]
                self.counts["orphans given up"] += 1
            return
        decided = _decided.decode(kept.entry.body)
        about = [each for each in self._ledger.about(self._app, [decision]) if each.seq <= seq]
        before = [_given.decode(each.entry.body) for each in about if each.entry.kind == "feedback" and each.seq < seq]
        seen = not decided.deferred or any(each.entry.kind == "shown" for each in about)
        if self._rules.default is not None or not seen or joined(decided, before, self._rules):
            self.counts["too late"] += 1
            return
        self.counts["late"] += 1
        late = Open(kept.seq, kept.entry.time, decided, True, {each.id: each for each in [*before, given]})
        self._learn(self.settled, late)
        self._marks.clear()
        self._changed = -1

    def _learn(self, state: State, each: Open, default: float | None = None) -> None:
        """Update the state with a decision's slots that have a reward; one without a word has the default, if any."""
        if not self._rules.kept(each.decided.id):
            return
        rewards = joined(each.decided, each.feedback.values(), self._rules)
        if default is not None:
            rewards = {slot: rewards.get(slot, default) for slot in range(len(each.decided.slots))}
        if not rewards:
            return
        row = self._rows.get(each.decided.id)
        if row is None:
            try:
                row = self._chooser.row(each.decided.context, each.decided.options)
            except ValueError:  # a decision of a product's own, which this policy could not have made
                self.counts["not learnable"] += state is self.settled
                return
            self._rows[each.decided.id] = row
        for slot, reward in sorted(rewards.items()):
            chosen = each.decided.slots[slot]
            if chosen.action in row.place and chosen.propensity > 0:
                propensity = chosen.propensity * self._rules.keep
                self._chooser.learn(state, row, row.place[chosen.action], propensity, self._rules.loss(reward))
        self.learned += state is self.settled

    def _every(self) -> int:
        return max(MARK_EVERY, len(self._open) // MOST_MARKS)

    def snapshot(self) -> bytes:
        """All that is needed to go on from `seq`, but for `ahead`, which follows from the rest."""
        kept = Snapshot(
            FORMAT, self.seq, self.clock, self.learned, dict(self.counts), list(self._open.values()), self._orphans,
            pack(self.settled),
        )  # fmt: skip
        return msgspec.msgpack.encode(kept)

    def restore(self, data: bytes) -> None:
        """Go on from a snapshot; ValueError if it is of another version or policy."""
        try:
            kept = msgspec.msgpack.decode(data, type=Snapshot)
        except msgspec.DecodeError as error:
            raise ValueError(f"the snapshot cannot be read: {error}") from None
        if kept.format != FORMAT:
            raise ValueError(f"the snapshot has format {kept.format}; this version reads {FORMAT}")
        self.settled = unpack(kept.settled, self.settled)
        self.seq, self.clock, self.learned = kept.seq, kept.clock, kept.learned
        self.counts = Counter(kept.counts)
        self._open = {each.decided.id: each for each in kept.open}
        self._orphans = kept.orphans
        self._marks, self._rows, self._changed = [], {}, -1


class Snapshot(msgspec.Struct):
    """Where a fold stands."""

    format: int
    seq: int
    clock: float
    learned: int
    counts: dict[str, int]
    open: list[Open]
    orphans: dict[str, list[Given]]
    settled: bytes
