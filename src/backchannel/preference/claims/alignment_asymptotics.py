"""Best-of-n with n = exp(m delta) becomes the optimum within the divergence budget m delta as sequences grow.

The paper (Yang et al. 2024): for memoryless models and additive rewards, the expected rewards per symbol of best-of-n
and of the optimum agree in the limit, and so do their laws, KL(best-of-n | optimum) / m -> 0; under the optimum,
rewards obey a large deviation principle with a known rate. Ours, on three random ternary sources a seed (probabilities
at least 0.2, rewards 0, 1 and one between), delta = 0.2 and m = 4 to 200, all by exact sums over types:

1. The difference of rewards per symbol falls from each of m = 4, 8, 16, 32, 64, 128, 200 to the next, and is below 0.01
   at m = 200.
2. KL(best-of-n | optimum) / m is below 0.01 at m = 200.
3. At levels t that lie 60 and 80 % of the way from the mean to the largest reward, -log P(R >= m t) under the optimum
   grows from m = 100 to 200 as I m + log(m) / 2 + c (the form of Bahadur and Ranga Rao), with I within 5 % of the rate.
4. At m = 20 the mean reward of 20,000 simulated best-of-n is that of the law, within 5 standard errors.

For context: at delta = 0.1 the difference of rewards at m = 200 is about 0.01, above it or below: it is
lambda log(m) / (2 m) and more, and lambda is larger where the budget is small. And -log P / m itself, without the
factor 1 / sqrt(m) taken out, is further than 5 % above the rate at m = 200.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.parts.best_of_n import log_ratio
from backchannel.preference.alignment_asymptotics import alignment_asymptotics, rate, types

LENGTHS, BUDGET, SMALL, SOURCES = (4, 8, 16, 32, 64, 128, 200), 0.2, 0.1, 3
TAIL = tuple(range(100, 201, 3))


def claim(seed: int, full: bool) -> Evidence:
    """Three sources; `full` takes twelve."""
    rng = np.random.default_rng(seed)
    rows, gaps, apart, tails, raw, simulated, tail_rows, small = [], [], [], [], [], [], [], []
    for source in range(12 if full else SOURCES):
        p, r = _source(rng)
        optimum = alignment_asymptotics(p, r, BUDGET)
        curve, far = [], []
        for m in LENGTHS:
            reward, divergence = _compared(p, r, optimum.tilt, m, BUDGET)
            curve.append(abs(optimum.reward - reward))
            far.append(divergence / m)
            rows.append([source, m, f"{optimum.reward:.4f}", f"{reward:.4f}", f"{curve[-1]:.4f}", f"{far[-1]:.4f}"])
        gaps.append(curve)
        apart.append(far)
        for part in (0.6, 0.8):
            level = optimum.reward + part * (r.max() - optimum.reward)
            expected = rate(p, r, optimum.tilt, level)
            logs = np.array([_tail(optimum.law, r, level, m) for m in TAIL])
            found = float(np.polyfit(TAIL, logs - np.log(TAIL) / 2, 1)[0])
            tails.append(found / expected)
            raw.append(float(logs[-1]) / TAIL[-1] / expected)
            tail_rows.append([source, f"{level:.3f}", f"{expected:.4f}", f"{found:.4f}", f"{logs[-1] / TAIL[-1]:.4f}"])
        less = alignment_asymptotics(p, r, SMALL)
        small.append(less.reward - _compared(p, r, less.tilt, LENGTHS[-1], SMALL)[0])
        simulated.append(_simulated(rng, p, r, 20, optimum.tilt))

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for source, (curve, far) in enumerate(zip(gaps, apart, strict=True)):
            left.plot(LENGTHS, curve, "o-", label=f"source {source}")
            right.plot(LENGTHS, far, "o-", label=f"source {source}")
        for axes, title in (
            (left, "reward per symbol: optimum less best-of-n"),
            (right, "KL(best-of-n | optimum) / m"),
        ):
            axes.axhline(0.01, color="0.5", linestyle=":")
            axes.set(xscale="log", yscale="log", xlabel="symbols m", title=title)
            axes.legend()

    steps = np.diff(np.array(gaps), axis=1)
    return Evidence(
        statement="Best of exp(m delta) draws tends to the optimum within the divergence m delta, in reward and law.",
        checks=[
            at_most("largest step of the difference of rewards between lengths", steps.max(), 0.0, "exact"),
            at_most("m = 200: largest difference of rewards per symbol", max(c[-1] for c in gaps), 0.01, "exact"),
            at_most("m = 200: largest KL(best-of-n | optimum) / m", max(f[-1] for f in apart), 0.01, "exact"),
            at_least("least exponent of the tail / rate", min(tails), 0.95, "exact"),
            at_most("largest exponent of the tail / rate", max(tails), 1.05, "exact"),
            at_most("m = 20: simulated less exact reward, standard errors", max(simulated), 5.0, "1e-5"),
            at_most("delta = 0.1, m = 200: largest difference of rewards", max(small), 0.01, "exact", headline=False),
            at_most("largest -log P / m at m = 200, / rate", max(raw), 1.05, "exact", headline=False),
        ],
        tables=[
            Table("rewards per symbol", ["source", "m", "optimum", "best-of-n", "difference", "KL / m"], rows),
            Table("P(R >= m t)", ["source", "t", "rate", "fitted exponent", "-log P / m at m = 200"], tail_rows),
        ],
        draw=draw,
    )


def _source(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of at least 0.2, rewards from 0 to 1."""
    return 0.2 + 0.4 * rng.dirichlet(np.ones(3)), np.array([0.0, rng.uniform(0.2, 0.8), 1.0])


def _compared(p: np.ndarray, r: np.ndarray, tilt: float, m: int, budget: float) -> tuple[float, float]:
    """Best-of-n's reward per symbol, and its divergence from the optimum."""
    counts, logs = types(p, m)
    reward = counts @ r
    ratio = log_ratio(np.exp(logs), reward, float(np.round(np.exp(m * budget))))
    law = np.exp(logs + ratio)
    seen = law > 0
    to_optimum = ratio - tilt * reward + m * np.log(p @ np.exp(tilt * r))
    return float(law @ reward / m), float(law[seen] @ to_optimum[seen])


def _tail(law: np.ndarray, r: np.ndarray, level: float, m: int) -> float:
    """-log P(R >= m t) of m independent symbols."""
    counts, logs = types(law, m)
    chosen = logs[counts @ r >= m * level - 1e-9]
    return -float(chosen.max() + np.log(np.exp(chosen - chosen.max()).sum()))


def _simulated(rng: np.random.Generator, p: np.ndarray, r: np.ndarray, m: int, tilt: float) -> float:
    """How many standard errors 20,000 simulated best-of-n are from their law's mean."""
    n = int(np.round(np.exp(m * BUDGET)))
    best = (rng.multinomial(m, p, size=(20_000, n)) @ r).max(1) / m
    exact, _ = _compared(p, r, tilt, m, BUDGET)
    return float(abs(best.mean() - exact) / (best.std(ddof=1) / np.sqrt(len(best))))
