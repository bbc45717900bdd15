"""Speed, measured against peers in the same run: `python benchmarks/online.py` (two to four minutes).

Contenders take turns, so that a slow moment of the machine meets all of them; numbers are medians over the turns, and a
ratio is the median of the turns' ratios. Compilation is timed apart. How well each contender learns stands beside how
fast it is: a policy that never learns is easily fast.

    --json          one JSON object instead of the table
    --quick         a rehearsal of seconds: small sizes, numbers that mean little
    --write FILE    put the table between the marks of a Markdown file
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from logs import ours, vowpal, write
from marks import rewrite
from peers import load

from backchannel import play
from backchannel.base import Learner
from backchannel.feedback import Decision, encode
from backchannel.live import Live
from backchannel.online.exp3 import exp3
from backchannel.online.thompson import thompson
from backchannel.online.ucb1 import ucb1
from backchannel.tasks.bernoulli import bernoulli

LOSSES = [0.8, 0.8, 0.8, 0.8, 0.2, 0.8, 0.8, 0.8, 0.8, 0.8]
ARMS, GAP = len(LOSSES), 0.6
METHODS: dict[str, Callable[[int], Learner]] = {
    "ucb1": lambda rounds: ucb1(ARMS),
    "exp3": lambda rounds: exp3(ARMS, rounds),
    "thompson": lambda rounds: thompson(ARMS),
}
ONE, MANY = {"ucb1": 5e6, "exp3": 5e6, "thompson": 1e6}, {"ucb1": 10e6, "exp3": 10e6, "thompson": 1e6}
ROUNDS = {"River": 20_000, "MABWiser": 3_000, "SMPyBandits": 20_000, "plain Python": 20_000}
PACKAGES = ("backchannel", "numpy", "numba", "river", "mabwiser", "SMPyBandits", "vowpalwabbit")
BEGIN, END = "<!-- the table: benchmarks/online.py writes it -->", "<!-- the end of the table -->"
PLAIN = "import json, online; print(json.dumps(online.played({rounds}, 1)))"
FIRST = """
import time; start = time.perf_counter()
from backchannel import play
from backchannel.online.exp3 import exp3
from backchannel.tasks.bernoulli import bernoulli
loaded = time.perf_counter()
play(exp3(10, 1000), bernoulli([0.5] * 10), 1000)
print(loaded - start, time.perf_counter() - loaded)
"""


def played(rounds: int, replicates: int) -> dict[str, list[float]]:
    """Per method: decisions/s of `play`, meters and all, and the best arm's share of about the last fifth."""
    found = {}
    for name, factory in METHODS.items():
        start = time.perf_counter()
        result = play(factory(rounds), bernoulli(LOSSES), rounds, replicates=replicates)
        rate = rounds * replicates / (time.perf_counter() - start)
        at = int(np.searchsorted(result.rounds, 0.8 * rounds))
        curve = result.curves["regret"].mean(axis=0)
        share = 1 - (curve[-1] - curve[at]) / GAP / (rounds - result.rounds[at])
        found[name] = [rate, float(share)]
    return found


def bandits(quick: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Part 1. One row a contender and method."""
    peers, left_out = load(LOSSES)
    played(100, 1)  # compiles
    turns: dict[tuple[str, str], list[list[float]]] = {}
    shrink = 10 if quick else 1
    for _ in range(2 if quick else 5):
        for library, shape in (("one run", (1_000_000, 1)), ("1,000 runs", (10_000, 1000))):
            for name, told in played(shape[0], max(shape[1] // shrink, 1)).items():
                turns.setdefault((library, name), []).append(told)
        for (library, name), peer in peers.items():
            rounds = ROUNDS[library] // shrink
            start = time.perf_counter()
            hits = peer(rounds)
            rate = rounds / (time.perf_counter() - start)
            turns.setdefault((library, name), []).append([rate, float(hits[int(0.8 * rounds) :].mean())])
        plain = child(["-c", PLAIN.format(rounds=ROUNDS["plain Python"] // shrink)], NUMBA_DISABLE_JIT="1")
        for name, told in json.loads(plain).items():
            turns.setdefault(("plain Python", name), []).append(told)
    rows: list[dict[str, Any]] = []
    for (library, name), taken in turns.items():
        reference = [each[0] for each in turns["one run", name]]
        target = {"one run": ONE, "1,000 runs": MANY}.get(library, {}).get(name)
        rows.append(
            {
                "contender": library,
                "method": name,
                "decisions_per_second": median(each[0] for each in taken),
                "ours_over_it": median(a / each[0] for a, each in zip(reference, taken, strict=True)),
                "best_arm_share": median(each[1] for each in taken),
                "target": target,
            }
        )
    return sorted(rows, key=lambda row: (list(METHODS).index(row["method"]), -row["decisions_per_second"])), left_out


def live(quick: bool) -> list[dict[str, Any]]:
    """Part 2. Medians over single calls from Python, in microseconds."""
    calls = 2_000 if quick else 50_000
    agent, names = Live(exp3(ARMS, calls)), [f"option {i}" for i in range(ARMS)]
    took: dict[str, list[int]] = {"act": [], "update": [], "act, encode and append to a file": []}
    clock, rng = time.perf_counter_ns, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log.jsonl", "ab") as file:
        for i in range(calls + 100):
            a = clock()
            action, propensity = agent.act()
            b = clock()
            agent.update(action, propensity, float(rng.random() < LOSSES[action]))
            c = clock()
            action, propensity = agent.act()
            decision = Decision(f"d{i}", names[action], names, {"hour": 9, "place": "home"}, propensity, time.time())
            file.write(encode(decision) + b"\n")
            file.flush()
            d = clock()
            if i >= 100:  # the first calls compile
                for each, spent in zip(took.values(), (b - a, c - b, d - c), strict=True):
                    each.append(spent)
    targets = (15.0, 15.0, 50.0)
    return [
        {"what": what, "microseconds": median(spent) / 1e3, "p99": float(np.quantile(spent, 0.99)) / 1e3, "target": t}
        for (what, spent), t in zip(took.items(), targets, strict=True)
    ]


def logs(quick: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Part 3. Seconds over one log; loss: progressive, where the pass predicts."""
    left_out: list[str] = []
    labels = {
        "read": "backchannel: open the text file",
        "text": "backchannel square_cb: text file (open, scan, encode, predict and learn)",
        "opened": "backchannel square_cb: opened log (scan, encode, predict and learn)",
        "encoded": "backchannel square_cb: encoded arrays, predict and learn",
        "learn": "backchannel square_cb: encoded arrays, learn only",
    }
    with tempfile.TemporaryDirectory() as folder:
        path, cache = Path(folder) / "log.dat", Path(folder) / "log.cache"
        decisions = 1_000 if quick else 100_000
        write(path, decisions)
        drivers = {
            "Vowpal Wabbit --squarecb: text file": "--squarecb",
            "Vowpal Wabbit epsilon-greedy (its default): text file": "",
            "Vowpal Wabbit --squarecb: its binary cache": f"--squarecb --cache_file {cache}",
        }
        try:
            vowpal(drivers["Vowpal Wabbit --squarecb: its binary cache"], path)  # writes the cache
        except ImportError as error:
            left_out.append(f"Vowpal Wabbit is left out: {error}")
            drivers = {}
        ours(path)  # compiles
        turns: dict[str, list[Any]] = {}
        for _ in range(2 if quick else 3):
            for label, arguments in drivers.items():
                turns.setdefault(label, []).append(vowpal(arguments, path))
            for part, told in ours(path).items():
                turns.setdefault(labels[part], []).append(told)
    first = next(iter(turns)) if drivers else labels["text"]
    rows = [
        {
            "what": label,
            "decisions": decisions,
            "seconds": median(each.seconds for each in told),
            "times_the_first": median(e.seconds / f.seconds for e, f in zip(told, turns[first], strict=True)),
            "progressive_loss": None if math.isnan(told[0].loss) else median(each.loss for each in told),
        }
        for label, told in turns.items()
    ]
    return rows, left_out


def child(arguments: list[str], **environment: str) -> str:
    """What a Python of its own prints."""
    command = [sys.executable, *arguments]
    folder = Path(__file__).parent
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, check=True, capture_output=True, text=True)
    return done.stdout


def start_up(quick: bool) -> list[dict[str, Any]]:
    """Part 4. Seconds from nothing: imports, help, the first `play` of Exp3 with a cold and a warm cache."""
    took: dict[str, list[float]] = {}

    def spent(what: str, arguments: list[str]) -> None:
        start = time.perf_counter()
        child(arguments)
        took.setdefault(what, []).append(time.perf_counter() - start)

    for _ in range(1 if quick else 3):
        spent("python -c pass", ["-c", "pass"])
        spent("import backchannel", ["-c", "import backchannel"])
        spent("backchannel --help", ["-m", "backchannel.cli", "--help"])
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "warm"):
                imports, first = map(float, child(["-c", FIRST], BACKCHANNEL_CACHE=cache).split())
                took.setdefault("imports of numba and the method", []).append(imports)
                took.setdefault(f"first play of exp3, {state} cache", []).append(first)
    targets = {"first play of exp3, cold cache": 3.0, "backchannel --help": 0.3, "import backchannel": 0.3}
    return [{"what": what, "seconds": median(each), "target": targets.get(what)} for what, each in took.items()]


def machine() -> dict[str, Any]:
    """What it ran on, in neutral words."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": platform.machine(),
        "versions": versions,
    }


def measure(quick: bool) -> dict[str, Any]:
    """All parts."""
    rows, absent = bandits(quick)
    log_rows, more = logs(quick)
    return {
        "machine": machine(),
        "quick": quick,
        "bandits": rows,
        "live": live(quick),
        "logs": log_rows,
        "start": start_up(quick),
        "left_out": absent + more,
    }


def table(found: dict[str, Any]) -> str:
    """The measurements in Markdown."""
    about, lines = found["machine"], []
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines += [
        f"{about['cores']} cores ({about['processor']}, {about['system']}), Python {about['python']}; {versions}."
    ]
    lines += ["A rehearsal (`--quick`): these numbers mean little."] if found["quick"] else []
    lines += ["", "| method | contender | decisions/s | one run of ours is | best arm, last fifth | target |"]
    lines += ["|---|---|--:|--:|--:|---|"]
    for row in found["bandits"]:
        library = row["contender"]
        who = f"**backchannel**, {library}" if library in ("one run", "1,000 runs") else library
        wanted = "" if row["target"] is None else verdict(row["decisions_per_second"] >= row["target"], row["target"])
        lines.append(
            f"| {row['method']} | {who} | {row['decisions_per_second']:,.0f} | {row['ours_over_it']:,.3g} x "
            f"| {row['best_arm_share']:.3f} | {wanted} |"
        )
    lines += ["", "| one call from Python | median us | 99 % us | target |", "|---|--:|--:|---|"]
    for row in found["live"]:
        held = verdict(row["microseconds"] < row["target"], row["target"])
        lines.append(f"| {row['what']} | {row['microseconds']:.2f} | {row['p99']:.2f} | {held} |")
    lines += [
        "",
        f"| a log of {found['logs'][0]['decisions']:,} decisions, 10 options | seconds | times the first | "
        "progressive loss |",
        "|---|--:|--:|--:|",
    ]
    for row in found["logs"]:
        loss = "" if row["progressive_loss"] is None else f"{row['progressive_loss']:.3f}"
        lines.append(f"| {row['what']} | {row['seconds']:.3f} | {row['times_the_first']:.3g} | {loss} |")
    lines += ["", "| from nothing | seconds | target |", "|---|--:|---|"]
    for row in found["start"]:
        held = "" if row["target"] is None else verdict(row["seconds"] <= row["target"], row["target"])
        lines.append(f"| {row['what']} | {row['seconds']:.2f} | {held} |")
    return "\n".join([*lines, "", *found["left_out"]]).rstrip()


def verdict(holds: bool, target: float) -> str:
    """The target, and whether it is met."""
    return (
        f"{target:,.3g}: {'met' if holds else '**missed**'}"
        if target < 1000
        else (f"{target / 1e6:g} million: {'met' if holds else '**missed**'}")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the library against its peers.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a rehearsal of seconds")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this Markdown file")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    found = measure(given.quick)
    if given.write:
        rewrite(given.write, table(found), BEGIN, END)
    print(json.dumps(found) if given.json else table(found))


if __name__ == "__main__":
    main()
