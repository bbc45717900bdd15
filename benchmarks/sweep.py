"""A sweep as researchers run it, and the speed of every compiled method: `python benchmarks/sweep.py` (ten minutes).

1. Twenty methods, 1,000 replicates of 10,000 rounds each, on ten Bernoulli arms; duels on ten arms that win by rank.
   SMPyBandits and MABWiser play the methods that they have: the same task, one replicate in each of as many processes
   as there are cores, again and again in turns with ours. What they would take for 1,000 replicates is computed from
   the replicates that they played.
2. Every compiled learner where the battery plays it (its card's example): decisions per second in one run.

    --quick         a rehearsal: 20 replicates, numbers that mean little
    --write FILE    put the tables between the marks of a Markdown file
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import time
import warnings
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from marks import rewrite

ARMS, ROUNDS, REPLICATES, TURNS = 10, 10_000, 1000, 3
LOSSES = [0.8, 0.8, 0.8, 0.8, 0.2, 0.8, 0.8, 0.8, 0.8, 0.8]
BEGIN, END = "<!-- the sweep: benchmarks/sweep.py writes it -->", "<!-- the end of the sweep -->"
EXAMPLES: dict[str, dict[str, Any]] = {
    "uniform": {}, "constant_best": {}, "epsilon_greedy": {}, "ucb1": {}, "ucb1_tuned": {}, "ucb_v": {},
    "thompson": {}, "gaussian_thompson": {}, "var_ts": {}, "tsallis_inf": {},
    "exp3": {"horizon": ROUNDS}, "exp3_ix": {"horizon": ROUNDS}, "banker_omd": {"horizon": ROUNDS},
    "hedge": {"horizon": ROUNDS}, "streaming_mab": {"horizon": ROUNDS},
    "weighted_tallying_se": {"horizon": ROUNDS, "memory": 5},
    "rucb": {}, "rmed1": {}, "double_thompson": {}, "savage": {"horizon": ROUNDS},
}  # fmt: skip
SMPY = {
    "uniform": ("Uniform", {}), "constant_best": ("EmpiricalMeans", {}), "epsilon_greedy": ("EpsilonGreedy", {}),
    "ucb1": ("UCB", {}), "ucb1_tuned": ("UCBVtuned", {}), "ucb_v": ("UCBV", {}), "thompson": ("Thompson", {}),
    "tsallis_inf": ("TsallisInf", {}), "exp3": ("Exp3", {}),
}  # fmt: skip
MABWISER = ("uniform", "epsilon_greedy", "ucb1", "thompson")
SHORT = {"MABWiser": 1000}  # rounds of one replicate, where ROUNDS would take minutes
Told = dict[tuple[str, str], list[float]]


def ours(key: str, replicates: int) -> float:
    """Seconds of the whole sweep of one method, meters and all."""
    from backchannel import play
    from backchannel.card import find
    from backchannel.channels.hide import bandit, full
    from backchannel.meters.duels import condorcet_regret
    from backchannel.parts.preferences import ordered
    from backchannel.tasks.bernoulli import bernoulli
    from backchannel.tasks.dueling import dueling

    method = find(key)
    needs = method.card.feedback[0]
    task = dueling(ordered(ARMS, 0.05)) if needs == "dueling" else bernoulli(LOSSES)
    meters = {"regret": condorcet_regret()} if needs == "dueling" else None
    channel = full(ARMS) if needs == "full" else bandit()
    learner = method.factory(arms=ARMS, **EXAMPLES[key])
    start = time.perf_counter()
    play(learner, task, ROUNDS, replicates=replicates, channel=channel, meters=meters)
    return time.perf_counter() - start


def peer(job: tuple[str, str, int]) -> float:
    """Seconds of one replicate of `rounds` rounds, in this process."""
    library, key, rounds = job
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        choose, tell = (_smpybandits if library == "SMPyBandits" else _mabwiser)(key)
        start = time.perf_counter()
        for _ in range(rounds):
            arm = choose()
            tell(arm, 1 if random.random() >= LOSSES[arm] else 0)
        return time.perf_counter() - start


def _smpybandits(key: str) -> tuple[Callable[[], int], Callable[[int, int], None]]:
    import scipy.special

    if not hasattr(scipy.special, "btdtri"):  # SciPy renamed it; used for quantiles, not in what is measured
        scipy.special.btdtri = scipy.special.betaincinv
    name, given = SMPY[key]
    policy = getattr(importlib.import_module(f"SMPyBandits.Policies.{name}"), name)(ARMS, **given)
    policy.startGame()
    return policy.choice, policy.getReward


def _mabwiser(key: str) -> tuple[Callable[[], int], Callable[[int, int], None]]:
    from mabwiser.mab import MAB, LearningPolicy

    policies = {
        "uniform": LearningPolicy.Random, "epsilon_greedy": LearningPolicy.EpsilonGreedy,
        "ucb1": LearningPolicy.UCB1, "thompson": LearningPolicy.ThompsonSampling,
    }  # fmt: skip
    arms = list(range(ARMS))
    mab = MAB(arms, policies[key]())
    mab.fit(arms, [0] * ARMS)  # it cannot start without one of each
    return mab.predict, lambda arm, reward: mab.partial_fit([arm], [reward])


def sweep(replicates: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Part 1: per method, seconds for 1,000 replicates of ours and of each peer that has it, medians over the turns."""
    cores = os.cpu_count() or 1
    for key in EXAMPLES:
        ours(key, 1)  # compiles
    took: Told = {}
    left_out: list[str] = []
    with get_context("spawn").Pool(cores) as pool:
        peers = {"SMPyBandits": tuple(SMPY), "MABWiser": MABWISER}
        for library in list(peers):
            try:
                pool.map(peer, [(library, "ucb1", 2)] * cores)
            except (ImportError, AttributeError) as error:
                left_out.append(f"{library} is left out: {type(error).__name__}: {error}")
                del peers[library]
        for _ in range(TURNS):
            for key in EXAMPLES:
                took.setdefault(("backchannel", key), []).append(ours(key, replicates) * REPLICATES / replicates)
                for library, keys in peers.items():
                    if key in keys:
                        rounds = SHORT.get(library, ROUNDS)
                        start = time.perf_counter()
                        pool.map(peer, [(library, key, rounds)] * cores, chunksize=1)
                        spent = (time.perf_counter() - start) * REPLICATES / cores * ROUNDS / rounds
                        took.setdefault((library, key), []).append(spent)
    rows = []
    for key in EXAMPLES:
        own = took["backchannel", key]
        row: dict[str, Any] = {"method": key, "seconds": median(own)}
        for library in peers:
            theirs = took.get((library, key))
            row[library] = None if theirs is None else median(theirs)
            row[f"{library} over ours"] = (
                None if theirs is None else median(b / a for a, b in zip(own, theirs, strict=True))
            )
        rows.append(row)
    return rows, left_out


def speeds(least: float) -> list[dict[str, Any]]:
    """Part 2: decisions per second of every compiled learner in its arena, from a run of at least `least` seconds."""
    from backchannel.card import find, index
    from backchannel.loop import Run
    from backchannel.testing.arena import arena

    rows = []
    for entry in index():
        if entry["engine"] != "numba" or entry["protocol"] != "learner":
            continue
        method = find(entry["key"])
        task, channel = arena(method.card)
        horizon = method.card.example.get("horizon", 1000)
        Run(method.example(), task, horizon, 0, channel).advance()  # compiles
        spent, rounds = 0.0, 0
        while spent < least:  # runs of the horizon that its card names, again and again
            run = Run(method.example(), task, horizon, rounds, channel)
            start = time.perf_counter()
            run.advance()
            spent += time.perf_counter() - start
            rounds += horizon
        rows.append({"method": entry["key"], "feedback": entry["feedback"][0], "per_second": rounds / spent})
    return sorted(rows, key=lambda row: -row["per_second"])


def table(rows: list[dict[str, Any]], fast: list[dict[str, Any]], left_out: list[str], replicates: int) -> str:
    """Both parts in Markdown."""
    peers = [name for name in ("SMPyBandits", "MABWiser") if rows and name in rows[0]]
    lines = [f"{len(rows)} methods, 1,000 replicates of {ROUNDS:,} rounds, {os.cpu_count()} cores: seconds.", ""]
    if replicates < REPLICATES:
        lines += [f"A rehearsal with {replicates} replicates: these numbers mean little.", ""]
    lines += ["| method | backchannel | " + "".join(f"{name} | ratio | " for name in peers)]
    lines += ["|---|--:|" + "--:|--:|" * len(peers)]
    for row in rows:
        cells = [
            cell
            for name in peers
            for cell in (("", "") if row[name] is None else (f"{row[name]:,.0f}", f"{row[f'{name} over ours']:,.0f} x"))
        ]
        lines.append(f"| {row['method']} | {row['seconds']:.2f} | " + "".join(f"{cell} | " for cell in cells))
    lines.append(f"| **all** | **{sum(row['seconds'] for row in rows):.0f}** | " + " | " * 2 * len(peers))
    for name in peers:
        both = [row for row in rows if row[name] is not None]
        own, theirs = sum(row["seconds"] for row in both), sum(row[name] for row in both)
        lines.append(f"| the {len(both)} that {name} has | {own:.1f} | " + "".join(
            f"{theirs:,.0f} | {theirs / own:,.0f} x | " if each == name else " | | " for each in peers
        ))  # fmt: skip
    lines += ["", "| one run of the card's example | feedback | decisions/s |", "|---|---|--:|"]
    lines += [f"| {row['method']} | {row['feedback']} | {row['per_second']:,.0f} |" for row in fast]
    return "\n".join([*(line.rstrip() for line in lines), "", *left_out]).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a sweep, and every compiled method.")
    parser.add_argument("--quick", action="store_true", help="a rehearsal")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this Markdown file")
    given = parser.parse_args()
    replicates = 20 if given.quick else REPLICATES
    rows, left_out = sweep(replicates)
    fast = speeds(0.05 if given.quick else 0.5)
    text = table(rows, fast, left_out, replicates)
    if given.write:
        rewrite(given.write, text, BEGIN, END)
    print(json.dumps({"sweep": rows, "speeds": fast, "left_out": left_out}) if given.json else text)


if __name__ == "__main__":
    main()
