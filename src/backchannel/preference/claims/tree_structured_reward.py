"""Comparing answers that grow from shared prefixes tells more than independent pairs where labels are clear, by little.

The paper (Qiu et al. 2025): with tree-structured comparisons the uncertainty of rewards is lower by a factor of up to
log n / log log n, in the best of its regimes, and tree-trained reward models win. Ours: mean posterior variance of 400
random pairs of answers, out of 2^20, after n = 64 to 1,024 comparisons, tree divided by chain; twelve draws of each.

1. Where all prefixes matter alike and comparisons are clear (s = 1 at each level, beta = 0.001) the ratio is below 1 at
   every n, and falls with n: its slope in log2 n is at least 2 standard errors below 0.
2. Where first words matter more and comparisons are noisy (s_k = 0.8^k, beta = 0.1), the ratio is above 1 at n = 1,024
   and grows, by at least 4 standard errors: a tree has one comparison at its root, where most of the variance is.

For context: at n = 1,024 the best ratio is some 0.98, far from log log n / log n = 0.28; and with s = 1 and beta = 1,
noise of the size of a prefix, the chain is better, too. The tree data set is one of several that could be meant.

That reward models of language models trained on trees win more often is not covered.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error
from backchannel.preference.tree_structured_reward import Network, chain, tree_structured_reward, uncertainty

DEPTH, TESTS, DRAWS = 20, 400, 12
SIZES = (64, 128, 256, 512, 1024)
CLEAR, NOISY, EARLY = "alike, clear", "alike, noisy", "first words, noisy"
NETWORKS = {
    CLEAR: Network(np.ones(DEPTH), 0.001),
    NOISY: Network(np.ones(DEPTH), 1.0),
    EARLY: Network(0.8 ** np.arange(1, DEPTH + 1), 0.1),
}


def claim(seed: int, full: bool) -> Evidence:
    """Ratios of mean variances in three networks; `full` goes on to n = 4,096."""
    rng = np.random.default_rng(seed)
    sizes = (*SIZES, 2048, 4096) if full else SIZES
    ratios: dict[str, np.ndarray] = {}
    rows = []
    for name, network in NETWORKS.items():
        found = np.empty((DRAWS, len(sizes)))
        for i in range(DRAWS):
            for j, n in enumerate(sizes):
                tests = rng.integers(2**DEPTH, size=(TESTS, 2))
                tree, independent = (
                    uncertainty(draw(n, DEPTH, rng), tests, network).mean() for draw in (tree_structured_reward, chain)
                )
                found[i, j] = tree / independent
        ratios[name] = found
        for j, n in enumerate(sizes):
            mean, error = mean_and_error(found[:, j])
            rows.append([name, n, f"{mean:.4f} +- {error:.4f}"])
    steep = {name: _slope(np.log2(sizes), found) for name, found in ratios.items()}
    largest = sizes[-1]

    def draw_ratios(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, found in ratios.items():
            bars = 3 * found.std(0, ddof=1) / DRAWS**0.5
            axes.errorbar(sizes, found.mean(0), bars, fmt="o-", label=name)
        axes.axhline(1, color="0.5", linestyle=":")
        axes.set(xscale="log", xlabel="comparisons n", ylabel="mean posterior variance, tree / chain")
        axes.legend()

    return Evidence(
        statement="Clear comparisons of a tree leave a little less unknown than independent pairs; noisy ones more.",
        checks=[
            at_most("alike, clear: largest mean ratio", float(ratios[CLEAR].mean(0).max()), 1.0, "1e-4"),
            at_most("alike, clear: slope of the ratio in log2 n, standard errors", steep[CLEAR], -2.0, "1e-4"),
            at_least("first words, noisy: ratio at the largest n", float(ratios[EARLY][:, -1].mean()), 1.1, "1e-4"),
            at_least("first words, noisy: slope of the ratio, standard errors", steep[EARLY], 4.0, "1e-4"),
            at_most(
                "alike, clear: ratio at the largest n, for log log n / log n",
                float(ratios[CLEAR][:, -1].mean()),
                float(np.log(np.log(largest)) / np.log(largest)),
                "exact",
                headline=False,
            ),
        ],
        tables=[Table("mean posterior variance, tree / chain", ["network", "n", "ratio"], rows)],
        draw=draw_ratios,
    )


def _slope(x: np.ndarray, found: np.ndarray) -> float:
    """The slope of the ratios in x, in standard errors from the scatter of all draws about their line."""
    away = x - x.mean()
    slope = float((found * away).sum() / (DRAWS * (away**2).sum()))
    rest = found - found.mean() - slope * away
    error = np.sqrt((rest**2).sum() / (found.size - 2) / (DRAWS * (away**2).sum()))
    return slope / float(error)
