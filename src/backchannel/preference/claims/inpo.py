"""INPO reaches the regularised equilibrium of preferences without an order; DPO that iterates does not.

The paper (Zhang et al. 2025): self-play by regression on one's own judged pairs converges to the Nash policy, and beats
iterative DPO, which presumes Bradley and Terry's model. Ours, on random games of 20 answers with random references:

- after 200 rounds the regularised duality gap is at most 0.02 (with exact win rates below 1e-5), at a price of 0.1;
- iterative DPO, with exact rewards of endlessly many of its own pairs, keeps a gap that is many times INPO's (though
  below 0.02 at this price, too), at the best of 25 prices and 40 rounds and with either reference, fixed or moving;
- from 4,000 judged pairs a round, without win rates, by least squares on (3), the gap is below 0.02 as well;
- online IPO (eta = tau) does not converge at this price: the present policy in the reference is what it needs.

For context: other prices, and how far each policy is from the equilibrium. The larger the price, the less there is to
win: at 0.5 all methods have small gaps.

Not covered: language models, and the length-control ablation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.parts.nash import (
    bradley_terry_rewards,
    divergence,
    exploitability,
    geometric_mixture,
    nash,
    normalised,
    solve,
)
from backchannel.preference.inpo import tabular
from backchannel.tasks.preference_matrices import games

ANSWERS, ROUNDS, TAU = 20, 200, 0.1
PRICES = np.geomspace(0.01, 100, 25)


def claim(seed: int, full: bool) -> Evidence:
    """Random games of 20 answers; `full` takes 60 instead of 12."""
    count = 60 if full else 12
    rng = np.random.default_rng(seed)
    matrix, reference = games("random", ANSWERS, count, seed), normalised(rng.standard_normal((count, ANSWERS)))
    lines, rows, found = {}, [], {}
    for tau in (0.05, TAU, 0.5):
        star = nash(matrix, reference, tau)
        paths = {
            "INPO": solve(tabular(tau), matrix, reference, ROUNDS),
            "INPO, eta = 10 tau": solve(tabular(tau, 10 * tau), matrix, reference, ROUNDS),
            "online IPO (eta = tau)": solve(tabular(tau, tau), matrix, reference, ROUNDS),
            "iterative DPO, best": _best_dpo(matrix, reference, tau),
        }
        if tau == TAU:
            paths["INPO, 4,000 judged pairs a round"] = _from_pairs(matrix, reference, tau, 4000, rng)
        for name, path in paths.items():
            gaps = 2 * exploitability(matrix, path[-1], reference, tau)
            found[tau, name] = gaps
            away = divergence(star, path[-1]).mean()
            rows.append([tau, name, f"{gaps.mean():.1e}", f"{gaps.max():.1e}", f"{away:.1e}"])
            if tau == TAU:
                each = [2 * exploitability(matrix, policy, reference, tau).mean() for policy in path]
                lines[name] = np.maximum(each, 1e-16)
    ours, pairs = found[TAU, "INPO"], found[TAU, "INPO, 4,000 judged pairs a round"]
    theirs, ipo = found[TAU, "iterative DPO, best"], found[TAU, "online IPO (eta = tau)"]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, line in lines.items():
            axes.plot(line, label=name)
        axes.set(yscale="log", ylim=(1e-10, 3), xlabel="round", ylabel="regularised duality gap, mean over games")
        axes.set_title("random games of 20 answers, price 0.1")
        axes.legend(fontsize=8)

    return Evidence(
        statement="INPO's regularised duality gap is below 0.02 after 200 rounds, iterative DPO's at least 3 times it.",
        checks=[
            at_most("largest gap after 200 rounds, exact win rates", ours.max(), 0.02, "below 1e-4"),
            at_least("iterative DPO's mean gap / INPO's", theirs.mean() / ours.mean(), 3.0, "below 1e-4"),
            at_most("largest gap from 4,000 judged pairs a round", pairs.max(), 0.02, "unknown"),
            at_least("iterative DPO's mean gap / INPO's from pairs", theirs.mean() / pairs.mean(), 3.0, "unknown"),
            at_least("online IPO's mean gap", ipo.mean(), 0.02, "below 1e-4"),
            at_least(
                "the second, at a price of 0.5: DPO's mean gap",
                found[0.5, "iterative DPO, best"].mean(),
                0.02,
                "unknown",
                headline=False,
            ),
        ],
        tables=[
            Table(
                "after 200 rounds (DPO: its best round)",
                ["tau", "method", "gap, mean", "gap, largest", "KL(p*, p), mean"],
                rows,
            )
        ],
        draw=draw,
    )


def _best_dpo(matrix: np.ndarray, reference: np.ndarray, tau: float, rounds: int = 40) -> np.ndarray:
    """DPO on its own pairs, with a fixed or a moving reference: at the best price, up to the best round."""
    paths: list[tuple[float, np.ndarray]] = []
    for price in PRICES:
        for moving in (False, True):
            path = [reference]
            for _ in range(rounds):
                towards = bradley_terry_rewards(matrix, path[-1]) / price
                path.append(np.maximum(normalised((path[-1] if moving else reference) + towards), -30.0))
            gaps = [float(exploitability(matrix, policy, reference, tau).mean()) for policy in path]
            best = int(np.argmin(gaps))
            paths.append((gaps[best], np.stack(path[: best + 1])))
    return min(paths, key=lambda found: found[0])[1]


def _from_pairs(
    matrix: np.ndarray, reference: np.ndarray, tau: float, pairs: int, rng: np.random.Generator
) -> np.ndarray:
    """INPO as it is meant: each round its own pairs, a winner of each, and the least squares of (3)."""
    path, games_ = [reference], np.arange(len(matrix))[:, None]
    for t in range(ROUNDS):
        eta = tau * (t + 2) / 2
        edges = np.exp(path[-1]).cumsum(-1)[:, None, :]
        a, b = ((rng.random((len(matrix), pairs, 1)) * edges[..., -1:] > edges).sum(-1) for _ in range(2))
        sign = np.where(rng.random(a.shape) < matrix[games_, a, b], 1.0, -1.0) / (2 * eta)
        normal, right = np.zeros_like(matrix), np.zeros_like(reference)
        for i, j, value in (
            (a, b, sign),
            (b, a, -sign),
        ):  # of sum (f(a) - f(b) - sign)^2
            np.add.at(normal, (games_, i, i), 1.0)
            np.add.at(normal, (games_, i, j), -1.0)
            np.add.at(right, (games_, i), value)
        # an answer that was not seen has f = 0
        f = np.linalg.solve(normal + 1e-6 * np.eye(ANSWERS), right[..., None])[..., 0]
        path.append(normalised(geometric_mixture(path[-1], reference, tau / eta) + f))
    return np.stack(path)
