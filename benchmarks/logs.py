"""Learning from a log of hashed features: Vowpal Wabbit's file driver and this library on one and the same file.

The log: 10 options with 5 features each, a shared namespace of 7, uniform propensities, 0/1 costs; each row has one
good option, known by one pair of a shared and an option's feature. Both cross every option's feature with every shared
one into 2^18 weights and, row by row, predict all options, weigh the logged choice by what the policy would have done,
and learn from it. That mean is the progressive loss; uniform play has 0.74, the best policy 0.2.

Vowpal Wabbit parses in a thread beside the one that learns; here all runs in one, but for what DuckDB does.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backchannel.card import find
from backchannel.decide import policies
from backchannel.decide.features import encode
from backchannel.decide.fold import Passes
from backchannel.decide.scan import Scan
from backchannel.ledger.read import open_log
from backchannel.loop import copy_state

ARMS = 10
VW = "--cb_explore_adf --quiet -b 18 -q sa"


class Pass(NamedTuple):
    """One way through the log: what it took and how well it went (nan where nothing is predicted)."""

    seconds: float
    loss: float


def write(path: Path, decisions: int, seed: int = 0) -> None:
    """Write the log."""
    rng = np.random.default_rng(seed)
    with open(path, "w") as file:
        for _ in range(decisions):
            shared, own = rng.integers(0, 20, 6), rng.integers(0, 50, (ARMS, 3))
            action, u, ages = rng.integers(ARMS), rng.random(), rng.random(ARMS + 1)
            words = [f"c{j}={value}" for j, value in enumerate(shared)]
            file.write(f"shared |s {' '.join(words)} age:{ages[ARMS]:.3f}\n")
            for option in range(ARMS):
                good = (shared[0] + option) % ARMS == 0
                label = f"0:{int(u < (0.2 if good else 0.8))}:{1 / ARMS} " if option == action else ""
                words = [f"f{j}={value}" for j, value in enumerate(own[option])]
                file.write(f"{label}|a id=o{option} {' '.join(words)} p:{ages[option]:.3f}\n")
            file.write("\n")


def vowpal(arguments: str, path: Path) -> Pass:
    """Vowpal Wabbit's own driver over the file, in native code."""
    import vowpalwabbit

    start = time.perf_counter()
    workspace = vowpalwabbit.Workspace(f"{VW} {arguments} -d {path}")
    seconds = time.perf_counter() - start
    loss = workspace.get_sum_loss() / workspace.get_weighted_examples()
    workspace.finish()
    return Pass(seconds, loss)


def ours(path: Path) -> dict[str, Pass]:
    """`square_cb` as `backchannel learn` teaches it, each part by the clock."""
    method = find("square_cb")
    start = time.perf_counter()
    log = open_log(path, format="vw-adf")
    opened = time.perf_counter()
    scan = Scan(log)
    learner = policies.make(method, policies.arguments(method, scan.encoder, scan.rows))
    passes = Passes(learner, method.card.context)
    (batch,) = log.batches(scan.rows)
    block = encode(scan.encoder, batch)
    loss = (scan.high - batch.reward) / (scan.high - scan.low)
    propensity, use, at_once = scan.propensity(batch), np.isfinite(batch.reward), np.arange(scan.rows)
    encoded = time.perf_counter()
    probability = passes.progress(copy_state(learner.state), block, at_once, propensity, loss, np.random.default_rng(0))
    progressed = time.perf_counter()
    passes.learn(copy_state(learner.state), block, use, propensity, loss)
    learned = time.perf_counter()
    progressive = float(np.mean(probability / propensity * loss))
    return {
        "read": Pass(opened - start, np.nan),
        "text": Pass(progressed - start, progressive),
        "opened": Pass(progressed - opened, progressive),
        "encoded": Pass(progressed - encoded, progressive),
        "learn": Pass(learned - progressed, np.nan),
    }
