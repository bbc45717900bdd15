"""More draws bring ever more of the reward that chooses; of the true one only as long as the chooser tells the truth.

The papers: WebGPT's best of 64 by a reward model was preferred to its tuned versions (Nakano et al. 2021); the gain
grows with the root of the divergence at first, and by a proxy it ends and turns (Stiennon et al. 2020; Gao et al.
2023); log n - (n - 1) / n bounds the divergence, which is not near it everywhere (Beirami et al. 2025). Ours, on the
tiny language model, 40 prompts with 256 answers each, chosen by the gold reward, by a proxy that was learned from 1,000
comparisons, by one from 60, and by the number of topics covered, n = 1, 2, 4 ... 64, by the unbiased estimate:

1. By the gold reward, true reward rises with each doubling of n. By the proxy of 60 comparisons the last two doublings
   bring at most half of what the first two bring, and at n = 64 the gain is at most half of that by the gold reward.
2. The divergence, that of the law of each prompt's 256 answers, is at most the bound for every n and prompt. By the
   number of topics, of which there are four values, its mean at n = 64 is at most 0.5 of the bound.
3. For the answers to a prompt as the law of a draw, the estimates from 16 draws for k = 1 ... 16 have means over 20,000
   repetitions within 5 standard errors of the exact ones; those that draw k of the 16 with replacement have not.

Beside the verdict: true reward at n = 64 by the proxy of 60 comparisons was below its best, by 0.01 to 0.10, on six
seeds of seven; and the proxy of 1,000 flattens as well. The gold reward takes so many values that it comes
within a hundredth of the bound. People and models that write summaries are out of reach.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.parts.best_of_n import divergence_bound
from backchannel.preference.best_of_n import best_law, expected
from backchannel.preference.bradley_terry import bradley_terry
from backchannel.tasks.tiny_answers import counts, gold, random_prompts, reference
from backchannel.tasks.tiny_tuning import drawn_twice, label, learn_reward

PROMPTS, DRAWS, N = 40, 256, np.array([1, 2, 4, 8, 16, 32, 64])
PROXIES, STEPS = {"proxy of 1,000": 1000, "proxy of 60": 60}, 150
SMALL, REPEATED = 16, 20_000


def claim(seed: int, full: bool) -> Evidence:
    """Two proxies and the gold reward; `full` has four times as many prompts."""
    torch.set_num_threads(1)
    scores = _scores(seed, 4 * PROMPTS if full else PROMPTS)
    true = scores["gold"]
    gained = {name: expected(each, true).mean(0)[N - 1] for name, each in scores.items()}
    proxied = {name: expected(each).mean(0)[N - 1] for name, each in scores.items()}
    found = {name: [[best_law(_even(row), row, n) for row in each] for n in N] for name, each in scores.items()}
    bound = np.array([divergence_bound(n) for n in N])
    away = {name: np.array([[law.divergence for law in row] for row in each]) for name, each in found.items()}
    wins = {name: np.array([[law.win_rate for law in row] for row in each]).mean(1) for name, each in found.items()}
    beyond = max(float((each - bound[:, None]).max()) for each in away.values())
    weak, strong = gained["proxy of 60"], gained["gold"]
    unbiased, replaced = _estimates(seed, true[0])

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name, each in gained.items():
            left.plot(np.sqrt(away[name].mean(1).clip(0)), each, "o-", label=name)
            right.plot(N, away[name].mean(1), "o-", label=name)
        right.plot(N, bound, "k:", label="log n - (n - 1) / n")
        left.set(xlabel="root of the divergence", ylabel="true reward of what was chosen")
        right.set(xscale="log", xlabel="n", ylabel="divergence")
        left.legend()
        right.legend()

    last = (weak[-1] - weak[-3]) / (weak[2] - weak[0])
    reward = [[name, *(f"{value:.2f}" for value in each)] for name, each in gained.items()]
    reward += [[f"{name}'s own", *(f"{value:.2f}" for value in proxied[name])] for name in PROXIES]
    laws = [[name, *(f"{value:.3f}" for value in each.mean(1).clip(0))] for name, each in away.items()]
    won = [[name, *(f"{value:.3f}" for value in each)] for name, each in wins.items()]
    columns = ["chosen by", *(f"n = {n}" for n in N)]
    return Evidence(
        statement="Best of n gains what its reward can tell, within a known divergence, and a proxy can tell little.",
        checks=[
            at_least("by gold: least rise of true reward with a doubling", np.diff(strong).min(), 0.0, "below 1e-4"),
            at_most("by the proxy of 60: last two doublings over the first two", last, 0.5, "1e-2, over seeds"),
            at_most(
                "n = 64: gain by the proxy of 60 over that by gold",
                (weak[-1] - weak[0]) / (strong[-1] - strong[0]),
                0.5,
                "1e-3, over seeds",
            ),
            at_most("greatest divergence less its bound", beyond, 1e-12, "exact"),
            at_most(
                "by topics covered, n = 64: mean divergence over its bound",
                away["topics covered"][-1].mean() / bound[-1],
                0.5,
                "1e-4",
            ),
            at_most("estimates of k = 1 to 16: greatest error, standard errors", unbiased, 5.0, "1e-5"),
            at_least("with replacement: greatest error, standard errors", replaced, 5.0, "below 1e-4"),
            at_most("by the proxy of 60: n = 64 less the best n", weak[-1] - weak.max(), -1e-9, "unknown", False),
        ],
        tables=[
            Table("true reward", columns, reward),
            Table("divergence", columns, [*laws, ["bound", *(f"{value:.3f}" for value in bound)]]),
            Table("wins over a draw", columns, [*won, ["n / (n + 1)", *(f"{n / (n + 1):.3f}" for n in N)]]),
        ],
        draw=draw,
    )


def _even(row: np.ndarray) -> np.ndarray:
    return np.full(len(row), 1 / len(row))


def _scores(seed: int, prompts: int) -> dict[str, np.ndarray]:
    """Of answers of the reference, [prompts, DRAWS]: by the gold reward and by each proxy."""
    start, rng = reference(seed, width=32, layers=1), torch.Generator().manual_seed(seed)
    answers = start.sample(random_prompts(prompts, rng).repeat_interleave(DRAWS, 0), rng)
    found = {"gold": gold(answers), "topics covered": counts(answers).covered}
    for name, comparisons in PROXIES.items():
        data = label(*drawn_twice(start, comparisons, rng), rng)
        proxy = learn_reward(data, bradley_terry(), STEPS, 3e-3, seed, width=32, layers=1)
        with torch.no_grad():
            found[name] = proxy(answers)
    return {name: each.reshape(prompts, DRAWS).double().numpy() for name, each in found.items()}


def _estimates(seed: int, reward: np.ndarray) -> tuple[float, float]:
    """How far means of estimates are from the exact values, at most over k, in standard errors.

    The second is of draws with replacement, whose expectation is exact for the law of the SMALL draws.
    """
    rng = np.random.default_rng(seed)
    drawn = reward[rng.integers(len(reward), size=(REPEATED, SMALL))]
    exact = np.array([best_law(_even(reward), reward, k).reward for k in range(1, SMALL + 1)])
    ours = _off(expected(drawn), exact)
    some = np.array([[best_law(_even(row), row, k).reward for k in (4, 8, 16)] for row in drawn[: REPEATED // 5]])
    return ours, _off(some, exact[[3, 7, 15]])


def _off(estimates: np.ndarray, exact: np.ndarray) -> float:
    errors = estimates.std(0, ddof=1) / len(estimates) ** 0.5
    return float((np.abs(estimates.mean(0) - exact) / errors).max())
