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

Reward models of a tiny language model: to each of 100 prompts, either 8 answers that part where a tree of three levels
parts, at the start and after 1 and 3 tokens, and their 7 comparisons by the method, or 7 pairs of independent answers.
A reward model is trained on either; each picks from the same 16 answers of the reference to fresh prompts.

3. That the tree's picks win 55 % or more by gold, ties as half, was asked, and does not hold: over 5 pairs of models
   they win less, mostly less than half.

For context: labels are noisy, twice the difference of gold is their logit. Trees that part after 3 and 6 tokens did no
better.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error
from backchannel.preference.bradley_terry import bradley_terry
from backchannel.preference.tree_structured_reward import Network, chain, tree_structured_reward, uncertainty
from backchannel.tasks.tiny_answers import END, LENGTH, AnswerLM, Answers, gold, random_prompts, reference
from backchannel.tasks.tiny_tuning import label, learn_reward

DEPTH, TESTS, DRAWS = 20, 400, 12
SIZES = (64, 128, 256, 512, 1024)
CLEAR, NOISY, EARLY = "alike, clear", "alike, noisy", "first words, noisy"
NETWORKS = {
    CLEAR: Network(np.ones(DEPTH), 0.001),
    NOISY: Network(np.ones(DEPTH), 1.0),
    EARLY: Network(0.8 ** np.arange(1, DEPTH + 1), 0.1),
}
PARTS = (1, 3, LENGTH)  # tokens: where answers of a tree have parted
PROMPTS, STEPS, RATE, WIDTH, JUDGED, OF, MODELS = 100, 200, 3e-3, 32, 500, 16, 5


def claim(seed: int, full: bool) -> Evidence:
    """Ratios of mean variances in three networks, then reward models; `full` goes on to n = 4,096 and 20 models."""
    torch.set_num_threads(1)
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
    start = reference(seed, WIDTH, layers=1, steps=300)
    duels = np.array([_duel(start, 1000 * seed + i) for i in range(4 * MODELS if full else MODELS)])
    wins, wins_error = mean_and_error(duels[:, 0])
    wins_luck = f"standard error {wins_error:.3f}"
    names = ["gold wins, tree over chain", "gold, picked by tree", "by chain", "the first of the 16", "the best"]
    picks = [
        [name, "{:.3f} +- {:.3f}".format(*mean_and_error(each))] for name, each in zip(names, duels.T, strict=True)
    ]

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
            at_most("best of 16: wins of the tree's reward model over the chain's", wins, 0.55, wins_luck),
            at_most("the same, against even", wins, 0.5, wins_luck, headline=False),
            at_most(
                "alike, clear: ratio at the largest n, for log log n / log n",
                float(ratios[CLEAR][:, -1].mean()),
                float(np.log(np.log(largest)) / np.log(largest)),
                "exact",
                headline=False,
            ),
        ],
        tables=[
            Table("mean posterior variance, tree / chain", ["network", "n", "ratio"], rows),
            Table(f"best of {OF}, {len(duels)} pairs of reward models", ["of", "mean"], picks),
        ],
        draw=draw_ratios,
    )


def _slope(x: np.ndarray, found: np.ndarray) -> float:
    """The slope of the ratios in x, in standard errors from the scatter of all draws about their line."""
    away = x - x.mean()
    slope = float((found * away).sum() / (DRAWS * (away**2).sum()))
    rest = found - found.mean() - slope * away
    error = np.sqrt((rest**2).sum() / (found.size - 2) / (DRAWS * (away**2).sum()))
    return slope / float(error)


def _duel(start: AnswerLM, seed: int) -> list[float]:
    """One reward model of each kind: the tree's wins, gold of both picks, of the first answer and of the best."""
    torch_rng, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    prompts, depth = random_prompts(PROMPTS, torch_rng), len(PARTS)
    leaves = _grown(start, prompts, torch_rng)
    pairs = torch.as_tensor(np.stack([tree_structured_reward(2**depth - 1, depth, rng) for _ in prompts]))
    each, asked = torch.arange(PROMPTS)[:, None], prompts.repeat_interleave(pairs.shape[1], 0)
    tree = [Answers(asked, leaves[each, pairs[:, :, side]].view(-1, LENGTH)) for side in (0, 1)]
    independent = [start.sample(asked, torch_rng) for _ in (0, 1)]
    models = [
        learn_reward(label(one, other, torch_rng), bradley_terry(), STEPS, RATE, seed, 64, WIDTH, 1)
        for one, other in (tree, independent)
    ]
    fresh = random_prompts(JUDGED, torch_rng)
    drawn = [start.sample(fresh, torch_rng) for _ in range(OF)]
    golds = torch.stack([gold(answers) for answers in drawn], 1)
    with torch.no_grad():
        chosen = [torch.stack([model(answers) for answers in drawn], 1).argmax(1, keepdim=True) for model in models]
    first, second = (golds.gather(1, pick)[:, 0] for pick in chosen)
    wins = (first > second).float() + 0.5 * (first == second)
    return [float(x.mean()) for x in (wins, first, second, golds[:, 0], golds.max(1)[0])]


@torch.no_grad()
def _grown(model: AnswerLM, prompts: Tensor, rng: torch.Generator) -> Tensor:
    """Answers of trees, each part drawn once for all answers that share it: int64[prompts, 2^levels, LENGTH]."""
    tokens = torch.empty(len(prompts), 0, dtype=torch.int64)
    for until in PARTS:
        prompts, tokens = prompts.repeat_interleave(2, 0), tokens.repeat_interleave(2, 0)
        while tokens.shape[1] < until:
            logits = model.head(model.hidden(torch.cat([prompts, tokens], 1))[:, -1])
            drawn = torch.softmax(logits, -1).multinomial(1, generator=rng)
            drawn = drawn.masked_fill((tokens == END).any(1, keepdim=True), END)
            tokens = torch.cat([tokens, drawn], 1)
    return tokens.view(-1, 2 ** len(PARTS), LENGTH)
