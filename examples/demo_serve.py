"""The demo of the service: a policy goes on learning from a simulated crowd, and nothing is lost.

    make demo-serve

1. `backchannel learn open-bandit` makes the policies; `backchannel serve` answers with one, two more learn beside it.
2. For a minute a simulated crowd with the features of real users asks, and clicks some seconds later. Some clicks are
   sent twice.
3. The page is saved (and its picture, where Chromium is installed), the ledger is exported, and the state of the
   service is compared, number by number, with learning offline from the exported log.
"""

from __future__ import annotations

import heapq
import json
import shutil
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from zlib import crc32

import duckdb
import numpy as np

from backchannel.feedback import Decision, Feedback, decode
from backchannel.ledger.open_bandit import packaged
from backchannel.serve.config import read_config
from backchannel.serve.service import Service

OUT = Path("demo/serve")
PORT = 8424
SECONDS = 60.0
PER_SECOND = 100
POLICIES = ["epsilon_greedy", "thompson", "lin_ucb"]
APP = f"""[service]
store = "sqlite:{OUT}/decisions.db"
port = {PORT}

[app.shop]
policy = "policies/{POLICIES[0]}.policy"
candidates = ["policies/{POLICIES[1]}.policy", "policies/{POLICIES[2]}.policy"]
reward = {{window = 30, combine = "max", default = 0}}
guards = {{floor = 0.001}}
"""


def main() -> None:
    """Learn, serve, drive, look, compare."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    cli = [sys.executable, "-m", "backchannel.cli"]
    wanted = [part for key in POLICIES for part in ("--policy", key)]
    subprocess.run([*cli, "learn", "open-bandit", *wanted, "--out", str(OUT / "policies")], check=True)
    (OUT / "app.toml").write_text(APP)
    server = subprocess.Popen([*cli, "serve", "--app", str(OUT / "app.toml")])
    try:
        wait_until_ready()
        print(
            f"\n== {SECONDS:.0f} seconds of a crowd: {PER_SECOND} decisions a second, page on http://127.0.0.1:{PORT}/"
        )
        drive()
        look()
        export = get("/v1/shop/export")
        (OUT / "log.jsonl").write_bytes(export)
        state = json.loads(get("/v1/shop/state"))
    finally:
        server.terminate()
        server.wait()
    for name, value in state["values"].items():
        shown = value["policy"]
        print(f"{name}: {shown['value']:.4f} a decision, {shown['low']:.4f} to {shown['high']:.4f} at all times")
    compare(export)
    subprocess.run(
        [*cli, "learn", str(OUT / "log.jsonl"), "--policy", "thompson", "--out", str(OUT / "again")], check=True
    )


def click(user: dict[str, str], item: str) -> float:
    """How likely this user clicks on this item: unknown to the service, the same for ever."""
    return 0.02 + 0.3 * (crc32(f"{user['user_feature_0']} {int(item) // 8}".encode()) / 2**32) ** 4


def drive() -> None:
    """Ask at a steady rate; send each click when its time has come."""
    path, _ = packaged("random")
    users = duckdb.execute(
        f"SELECT user_feature_0, user_feature_1, user_feature_2, user_feature_3 FROM '{path}'"
    ).fetchall()
    rng, start = np.random.default_rng(0), time.monotonic()
    late: list[tuple[float, str]] = []
    asked = clicks = 0
    while (now := time.monotonic() - start) < SECONDS:
        while asked < now * PER_SECOND:
            row = users[rng.integers(len(users))]
            user = {f"user_feature_{i}": str(value) for i, value in enumerate(row)}
            answer = post("/v1/shop/decide", {"id": f"visit-{asked}", "context": user})
            if rng.random() < click(user, answer["action"]):
                heapq.heappush(late, (now + rng.exponential(3.0), answer["id"]))
            asked += 1
        while late and late[0][0] <= now:
            id = heapq.heappop(late)[1]
            for _ in range(1 + (rng.random() < 0.1)):  # a client that is not sure sends it again
                post("/v1/shop/feedback", {"id": f"click of {id}", "decision": id, "value": 1})
            clicks += 1
        time.sleep(0.005)
    print(f"{asked:,} decisions, {clicks:,} clicks came, {len(late)} still under way")
    time.sleep(2.0)  # more than the service's lag


def look() -> None:
    """Save the page, and its picture."""
    (OUT / "page.html").write_bytes(get("/"))
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    print(f"page: {(OUT / 'page.html').resolve()}")
    if browser:
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--window-size=1400,2600"]
        picture = f"--screenshot={OUT / 'page.png'}"
        subprocess.run([browser, *options, picture, f"http://127.0.0.1:{PORT}/"], check=True, capture_output=True)
        print(f"its picture: {(OUT / 'page.png').resolve()}")


def compare(export: bytes) -> None:
    """The state of the service against learning from the exported log, decision after decision."""
    service = Service(read_config(OUT / "app.toml"))
    service.learner.look()
    app = service.apps["shop"]
    online = app.fold.settled
    records = [decode(line) for line in export.splitlines()]
    rewards = {each.decision: each.value for each in records if isinstance(each, Feedback)}
    decisions = [each for each in records if isinstance(each, Decision)]
    offline, rules = app.chooser.fresh(), app.config.reward
    for decision in decisions[: len(decisions) - app.fold.open]:
        row = app.chooser.row(decision.context)
        reward = rewards.get(decision.id, rules.default)
        place = row.place[str(decision.action)]
        app.chooser.learn(offline, row, place, decision.propensity or 0.0, rules.loss(reward or 0.0))
    same = all(np.array_equal(one, other) for one, other in zip(online, offline, strict=True))
    service.stop()
    print(
        f"the service's state and offline learning from the exported log are {'the same' if same else 'NOT the same'}"
    )
    if not same:
        sys.exit(1)


def wait_until_ready() -> None:
    """Until /readyz says so; at most 30 seconds."""
    for _ in range(300):
        try:
            get("/readyz")
            return
        except (ConnectionError, RuntimeError):
            time.sleep(0.1)
    sys.exit("the service does not answer")


_connection = HTTPConnection("127.0.0.1", PORT, timeout=10)


def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One request."""
    found: dict[str, Any] = json.loads(_ask("POST", path, json.dumps(body)))
    return found


def get(path: str) -> bytes:
    """One page."""
    return _ask("GET", path, None)


def _ask(method: str, path: str, body: str | None) -> bytes:
    try:
        _connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = _connection.getresponse()
        found = answer.read()
    except OSError:
        _connection.close()
        raise
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {found.decode()}")
    return found


if __name__ == "__main__":
    main()
