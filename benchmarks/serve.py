"""The decision service against a service of the usual make: FastAPI with River, in memory.

    python benchmarks/serve.py [--write docs/benchmarks.md] [--json] [--seconds 10] [--store 1000000]

Needs `backchannel[serve]`, fastapi, river and wrk. Both learn Thompson sampling over ten options and run as one process
on loopback; one client (wrk, 32 connections) sends half decisions and half rewards, in turns to the one and the other.
Ours answers when the entry is on the disk (SQLite, WAL, synchronous=FULL); the peer keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from marks import rewrite

HERE = Path(__file__).parent
BEGIN = "<!-- the table of the service: benchmarks/serve.py writes it -->"
END = "<!-- the end of the service -->"
PORTS = {"backchannel": 8497, "FastAPI and River": 8498}
SCRIPT = """
local n, base = 0, tostring({}):sub(8)
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
function request()
  n = n + 1
  local id = base .. "-" .. math.floor((n + 1) / 2)
  if n % 2 == 1 then return wrk.format(nil, "/v1/default/decide", nil, '{"id":"' .. id .. '","context":{"x":0.5}}') end
  return wrk.format(nil, "/v1/default/feedback", nil, '{"decision":"' .. id .. '","id":"f' .. id .. '","value":1}')
end
"""


def policy(folder: Path) -> Path:
    """A Thompson policy of ten options, taught by a small log."""
    from backchannel.decide import learn as job
    from backchannel.ledger.read import open_log

    rng = np.random.default_rng(0)
    rows = [f"{rng.integers(10)},{int(rng.random() < 0.3)},0.1,{rng.random():.3f}" for _ in range(2000)]
    (folder / "log.csv").write_text("action,reward,propensity,context.x\n" + "\n".join(rows) + "\n")
    _, learned = job.learn(open_log(folder / "log.csv"), ["thompson"])
    learned[0].save(folder / "thompson.policy")
    return folder / "thompson.policy"


@contextmanager
def running(name: str, folder: Path) -> Iterator[int]:
    """A server of its own process; its port."""
    port = PORTS[name]
    if name == "backchannel":
        store = f"sqlite:{folder / f'{time.time_ns()}.db'}"
        command = [sys.executable, "-m", "backchannel.cli", "serve", "--policy", str(policy(folder))]
        command += ["--store", store, "--port", str(port)]
    else:
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "serve_peer:app", "--port", str(port)]
        command += ["--log-level", "error", "--no-access-log"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                urlopen(f"http://127.0.0.1:{port}/{'readyz' if name == 'backchannel' else 'docs'}").close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def wrk(port: int, seconds: int, script: Path) -> dict[str, float]:
    """Requests a second, and the 99th percentile of their latency in ms, at 32 connections."""
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", "-s", str(script), f"http://127.0.0.1:{port}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text:
        raise RuntimeError(text)
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0])
    number, unit = re.findall(r"99%\s+([\d.]+)(us|ms|s)", text)[0]
    return {"requests": rate, "p99": float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]}


async def paced(port: int, pairs: int, seconds: float) -> float:
    """The 99th percentile of latency in ms at so many pairs a second, over 32 connections."""
    took: list[float] = []

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        gap, start, n = 32 / (2 * pairs), time.perf_counter() + number / (2 * pairs), 0
        while n * gap < seconds:
            await asyncio.sleep(max(start + n * gap - time.perf_counter(), 0))
            id = f"p{number}-{n // 2}"
            route, body = "decide", f'{{"id":"{id}","context":{{"x":0.5}}}}'
            if n % 2:
                route, body = "feedback", f'{{"decision":"{id}","id":"f{id}","value":1}}'
            head = f"POST /v1/default/{route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            sent = time.perf_counter()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(re.findall(rb"(?i)content-length: (\d+)", answer)[0])
            await reader.readexactly(length)
            took.append(time.perf_counter() - sent)
            n += 1
        writer.close()

    await asyncio.gather(*(client(number) for number in range(32)))
    return float(np.percentile(took, 99) * 1e3)


def in_process(folder: Path) -> dict[str, float]:
    """Microseconds of one decision and its way into the queue of the ledger; seconds to open a store; of its page."""
    from backchannel.serve.config import AppConfig, Config, ServiceConfig
    from backchannel.serve.records import DecideRequest
    from backchannel.serve.service import Service

    store = f"sqlite:{folder / 'inside.db'}"
    config = Config({"default": AppConfig(str(policy(folder)))}, ServiceConfig(store=store))
    service = Service(config)
    request, took = DecideRequest(context={"x": 0.5}), []
    for _ in range(5000):
        start = time.perf_counter()
        waiting = service.committer.append(service.apps["default"].decision(request))
        took.append(time.perf_counter() - start)
        waiting.result()
    service.stop()
    return {"decide": statistics.median(took) * 1e6}


def big_store(folder: Path, decisions: int) -> dict[str, float]:
    """Seconds to open a store of so many decisions that was closed well, and to answer its page."""
    from backchannel.serve.config import AppConfig, Config, ServiceConfig
    from backchannel.serve.ledger import Entry
    from backchannel.serve.page import page
    from backchannel.serve.records import DecideRequest
    from backchannel.serve.service import Service

    config = Config({"default": AppConfig(str(policy(folder)))}, ServiceConfig(store=f"sqlite:{folder / 'big.db'}"))
    service = Service(config)
    app = service.apps["default"]
    one = app.decision(DecideRequest(context={"x": 0.5}))
    start = time.time() - decisions
    for first in range(0, decisions, 10_000):
        part = range(first, min(first + 10_000, decisions))
        service.ledger.append(
            [
                Entry("default", "decision", id, id, start + int(id), one.body.replace(one.id.encode(), id.encode()))
                for id in (f"{i:012d}" for i in part)
            ]
        )
        service.learner.look()
    service.stop()
    begin = time.perf_counter()
    service = Service(config)
    service.learner.look()
    opened = time.perf_counter()
    page(service)
    shown = time.perf_counter()
    service.stop()
    return {"decisions": decisions, "open": opened - begin, "page": shown - opened}


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--store", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "pairs.lua"
        script.write_text(SCRIPT)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in PORTS}
        slow: dict[str, list[float]] = {name: [] for name in PORTS}
        for _ in range(given.turns):
            for name in PORTS:
                with running(name, folder) as port:
                    wrk(port, 1, script)
                    runs[name].append(wrk(port, given.seconds, script))
                    slow[name].append(asyncio.run(paced(port, 1000, given.seconds / 2)))
        found: dict[str, Any] = {
            "cores": os.cpu_count(),
            "services": {
                name: {
                    "pairs": statistics.median(run["requests"] for run in each) / 2,
                    "p99_ms": statistics.median(run["p99"] for run in each),
                    "p99_ms_at_1000_pairs": statistics.median(slow[name]),
                }
                for name, each in runs.items()
            },
            "in_process": in_process(folder),
            "store": big_store(folder, given.store),
        }
    ours, peer = (found["services"][name] for name in PORTS)
    found["ratio"] = ours["pairs"] / peer["pairs"]
    text = json.dumps(found) if given.json else table(found)
    print(text)
    if given.write:
        rewrite(given.write, table(found), BEGIN, END)


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| service | pairs/s | 99 % ms, 32 connections | 99 % ms at 1,000 pairs/s |", "|---|--:|--:|--:|"]
    for name, each in found["services"].items():
        lines.append(f"| {name} | {each['pairs']:,.0f} | {each['p99_ms']:.1f} | {each['p99_ms_at_1000_pairs']:.1f} |")
    store = found["store"]
    targets = [
        ("decide and feedback pairs a second, durable", found["services"]["backchannel"]["pairs"], 4000, ">="),
        ("times FastAPI and River", found["ratio"], 2, ">="),
        ("99 % ms at 1,000 pairs/s", found["services"]["backchannel"]["p99_ms_at_1000_pairs"], 10, "<="),
        ("in process: a decision and its entry, median us", found["in_process"]["decide"], 50, "<="),
        (f"seconds to open a store of {store['decisions']:,} decisions", store["open"], 5, "<="),
        ("seconds of its page", store["page"], 1, "<="),
    ]
    lines += ["", "| what | measured | target |", "|---|--:|---|"]
    for what, value, target, sign in targets:
        met = value >= target if sign == ">=" else value <= target
        lines.append(f"| {what} | {value:,.4g} | {sign} {target:,}: {'met' if met else '**missed**'} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
