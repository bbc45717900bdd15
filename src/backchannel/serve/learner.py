"""The thread that learns: it follows the ledger off the request path, and publishes a new state.

One process at a time holds the ledger's lease, learns and saves snapshots; the others load what it published. Whoever
takes over starts from the last snapshot and replays the entries behind it: the same entries give the same state.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid

from backchannel.loop import copy_state
from backchannel.serve.app import App
from backchannel.serve.ledger import Ledger, LedgerError
from backchannel.serve.snapshots import pack, unpack

log = logging.getLogger("backchannel.serve")
ENTRIES = 2000  # read at a time
STATE, FOLD = "state", "fold"  # the two snapshots: what answers, and what learning goes on from


class Learner:
    """Follows the ledger for all applications of a process."""

    def __init__(self, apps: dict[str, App], ledger: Ledger, lag: float, snapshot_every: float) -> None:
        self._apps, self._ledger = apps, ledger
        self.lag, self._every = lag, snapshot_every
        self.owner = f"{uuid.uuid4().hex}"
        self.leads = False
        self.problem: str | None = None
        self.looked = 0.0  # when all applications were last brought up to date
        self._saved: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="learner", daemon=True)

    def start(self) -> None:
        """Bring everything up to date, then go on beside."""
        self.look()
        self._thread.start()

    def _work(self) -> None:
        while not self._stop.wait(self.lag):
            try:
                self.look()
            except LedgerError as error:
                self.problem = str(error)
                log.warning("learning waits: %s", error)
            except Exception as error:  # told by /readyz and the page, and tried again
                self.problem = f"learning failed: {error!r}"
                log.exception("learning failed")

    def look(self) -> None:
        """Learn from what the ledger has new."""
        led, self.leads = self.leads, self._ledger.lease(self.owner)
        for app in self._apps.values():
            if not self.leads:
                self._adopt(app)
                continue
            if not led:
                self._take_over(app)
            self._follow(app)
        self.looked, self.problem = time.monotonic(), None

    def _take_over(self, app: App) -> None:
        for seq, data in self._ledger.load_snapshots(app.name, FOLD):
            try:
                app.fold.restore(data)
                return
            except ValueError as error:
                log.warning("%s: snapshot %d is passed over: %s", app.name, seq, error)

    def _follow(self, app: App) -> None:
        before = app.fold.seq
        while entries := self._ledger.read(app.name, app.fold.seq, ENTRIES):
            for kept in entries:
                app.fold.feed(kept)
        if app.fold.seq > before or app.published.version != app.fold.seq:
            app.publish(copy_state(app.fold.catch_up()), app.fold.seq)
            if self._ledger.shared:
                self._ledger.save_snapshot(app.name, STATE, app.fold.seq, pack(app.published.state))
        now = time.monotonic()
        if now - self._saved.setdefault(app.name, now) > self._every and app.fold.seq > before:
            self.save(app)
            self._saved[app.name] = now

    def _adopt(self, app: App) -> None:
        found = self._ledger.load_snapshots(app.name, STATE)
        if found and found[0][0] > app.published.version:
            app.publish(unpack(found[0][1], app.chooser.policy.state), found[0][0])

    def save(self, app: App) -> None:
        """Keep where learning stands."""
        self._ledger.save_snapshot(app.name, FOLD, app.fold.seq, app.fold.snapshot())

    def stop(self) -> None:
        """End, with a last snapshot."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self.leads:
            for app in self._apps.values():
                self.save(app)
