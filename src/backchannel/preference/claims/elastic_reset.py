"""With the same reward, resets give more of it within a small drift than going on, and end with less drift.

The paper (Noukhovitch et al. 2023): on a pivot translation, a mock sentiment task and a technical chatbot, resets give
more reward for less drift than policy gradients with a price of leaving the reference, in the same number of steps.
Ours, on a tiny transformer whose proxy reward likes some words and dislikes others, all by the same policy gradient
(RLOO), number of steps and learning rate, in means of five runs:

1. The frontier of Elastic Reset, reward against drift, has at least the area of training without a price, up to 5 nats.
2. At the end it has drifted at most 0.7 times as far, and repeats itself less.
3. Resets to the start instead of the average end with less reward.

For context: within 2 and 3 nats the reward is much that of training without a price, which drifts on and ends with more
of it. A price of leaving the reference that is right for 5 nats has more reward there than Elastic Reset, and a larger
area, unlike in the paper. The table shows the proxy, the true reward, repetitions and the reference's surprise. PPO's
critic, translation with self-play and large models are left out.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.preference.elastic_reset import area, elastic_reset, frontier
from backchannel.preference.rloo import leave_one_out, rloo
from backchannel.tasks.tiny_answers import BAD, FILL, VOCABULARY, WORD, AnswerLM, Answers, counts, gold, reference
from backchannel.tasks.tiny_policy_gradient import Beside, Rolled, among, policy_gradient

RUNS, ROUNDS, PROMPTS, ANSWERS, RATE = 5, 48, 16, 4, 1.5e-3
DECAY, EVERY, MOST = 0.9, 12, 5.0
PRICES = (0.0, 0.3, 0.5)
LIKED = torch.zeros(VOCABULARY)
LIKED[WORD:FILL:2], LIKED[WORD + 1 : FILL : 2], LIKED[BAD:] = 0.5, -0.5, -0.5


def claim(seed: int, full: bool) -> Evidence:
    """Resets, prices and their neighbours; `full` has three times the rounds."""
    torch.set_num_threads(1)
    start, rounds = reference(seed, width=32, layers=1, steps=150), 3 * ROUNDS if full else ROUNDS
    kinds: dict[str, tuple[float, float]] = {"Elastic Reset": (0.0, DECAY), "reset to the start": (0.0, 1 - 1e-9)}
    kinds |= {f"price {beta:g}" if beta else "no price": (beta, 0.0) for beta in PRICES}
    paths = {}
    for name, (beta, decay) in kinds.items():
        runs = [_run(start, beta, decay, rounds, 1000 * seed + each) for each in range(RUNS)]
        paths[name] = np.mean(runs, 0)
    budgets, rows = np.array([1.0, 2.0, 3.0, MOST]), []
    best = {name: frontier(path[:, 0], path[:, 1], budgets) for name, path in paths.items()}
    areas = {name: area(path[:, 0], path[:, 1], MOST) for name, path in paths.items()}
    for name, path in paths.items():
        end = path[-4:].mean(0)
        rows.append([name, *(f"{x:.2f}" for x in (*best[name], areas[name], *end))])

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, path in paths.items():
            axes.plot(path[:, 0], path[:, 1], marker=".", linewidth=0.8, label=name)
        axes.set(xlabel="drift: divergence from the start, nats", ylabel="proxy reward", title=f"means of {RUNS} runs")
        axes.legend()

    ours, plain, back, priced = "Elastic Reset", "no price", "reset to the start", [f"price {x:g}" for x in PRICES if x]
    ends, ahead = {name: path[-4:].mean(0) for name, path in paths.items()}, best[ours] - best[plain]
    short, luck = f"area to {MOST:g} nats, ahead of", "unknown"
    checks = [
        at_least("reward within 2 and 3 nats, mean, ahead of no price", ahead[1:3].mean(), 0.0, luck, headline=False),
        at_least(f"{short} no price", areas[ours] - areas[plain], 0.0, luck),
        at_most("last drift, over that of no price", ends[ours][0] / ends[plain][0], 0.7, luck),
        at_most("last repetitions, less those of no price", ends[ours][3] - ends[plain][3], 0.0, luck),
        at_least("last reward, ahead of resets to the start", ends[ours][1] - ends[back][1], 0.0, luck),
        at_least(f"{short} the best price", areas[ours] - max(areas[each] for each in priced), 0.0, luck, False),
    ]
    columns = ["method", *(f"reward within {x:g} nats" for x in budgets), f"area to {MOST:g}"]
    columns += ["last drift", "last reward", "last gold reward", "last repetitions", "last nats a token"]
    statement = "resets give more reward at a small drift than going on, and end with less drift and fewer repetitions"
    return Evidence(statement, checks, [Table(f"Means of {RUNS} runs", columns, rows)], draw)


def _liked(answers: Answers) -> Tensor:
    """The proxy: liked tokens less disliked ones."""
    return LIKED[answers.tokens].sum(1)


def _run(start: AnswerLM, beta: float, decay: float, rounds: int, seed: int) -> np.ndarray:
    """Of each round's answers: drift, proxy, gold reward, repetitions, the reference's nats a token. [rounds, 5]."""
    path = []

    def look(each: int, model: AnswerLM, rolled: Rolled) -> None:
        answers, surprise = rolled.answers, -rolled.reference.sum() / rolled.answers.length.sum()
        of_answers = (rolled.divergence, rolled.reward, gold(answers), counts(answers).repeated)
        path.append([*(float(x.mean()) for x in of_answers), float(surprise)])

    def resets(parameters: list[Tensor]) -> Beside:
        return elastic_reset(parameters, decay, EVERY)

    credit, objective = among(leave_one_out), rloo(0.2)
    tune = partial(policy_gradient, start, _liked, objective, credit, rounds, PROMPTS, ANSWERS, RATE, seed, beta)
    tune(after=look, beside=resets if decay else None)
    return np.array(path)
