"""A tiny model that answers and judges gets better by its own points, until it cannot tell its answers apart.

The paper (Yuan et al. 2024): Llama 2 70B, trained to answer and to give points, wins more and more often over the model
of the round before (M2 over M1 55.5 to 11.7 percent, M3 over M2 47.7 to 12.5), and agrees more with people as a judge
(78.7, 80.4 and 81.7 percent of pairs); supervised training on its best answers alone adds nothing. Ours, on a tiny
transformer trained on demonstrations and on true points for 2,000 answers, one model for both:

1. After two rounds M3 wins over M1 by gold reward, ties counting half, and its gold reward is higher by 0.15 at least.
2. On the same answers of M1 the judge agrees with gold as before, within three points: it does not get better here.
3. On its own answers it agrees less by the end, by five points at least: they come to be those that it cannot tell
   apart, and this is where such learning ends.

Shown, and not held to: each model over the one before in more than 55 percent (it is so in some rounds); a copy of M1
that stays the judge does as well; and so does supervised training on the best answers alone.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, within
from backchannel.parts.recipes import Kept, Recipe
from backchannel.preference.self_rewarding_lm import agreement, judged, self_rewarding_lm
from backchannel.preference.sft import sft
from backchannel.tasks.tiny_answers import AnswerLM, Answers, random_prompts, reference, standing, win_rate
from backchannel.tasks.tiny_judges import learn_to_answer_and_judge, points_of
from backchannel.tasks.tiny_tuning import gold_scores, improve

EXAMPLES, JOINT_STEPS, ANSWERS, PROMPTS, STEPS, RATE, BETA, SAMPLES = 2000, 700, 4, 128, 12, 1e-3, 0.1, 3
ROUNDS, JUDGED = 3, 1000


def points(model: AnswerLM, drawn: list[Answers], samples: int | None, rng: torch.Generator | None) -> Tensor:
    """What the model gives to k answers to each of n prompts: [n, k]."""
    return judged(torch.stack([points_of(model, each) for each in drawn], 1), samples, rng)


def path(first: AnswerLM, recipe: Recipe, own: bool, rounds: int, seed: int) -> list[AnswerLM]:
    """M1, M2, ...: each judged by itself, or all by M1."""
    models = [first]

    def feedback(drawn: list[Answers], rng: torch.Generator) -> Tensor:
        return points(models[-1] if own else first, drawn, SAMPLES, rng)

    def look(each: int, model: AnswerLM) -> None:
        models.append(model)

    improve(first, recipe, feedback, rounds, PROMPTS, STEPS, RATE, seed, after=look)
    return models


def best_alone() -> Recipe:
    """Supervised training on the answer with the most points, where they differ."""

    def select(scores: Tensor, rng: torch.Generator) -> Kept:
        row = (scores.max(1)[0] > scores.min(1)[0]).nonzero()[:, 0]
        return Kept(row, scores.argmax(1)[row])

    return Recipe(ANSWERS, select, sft(), anchor="last")


def claim(seed: int, full: bool) -> Evidence:
    """Three ways from one model, three rounds each; `full` has six."""
    torch.set_num_threads(1)
    rounds = 2 * ROUNDS if full else ROUNDS
    start, rng = reference(seed, width=32, layers=1, steps=250), torch.Generator().manual_seed(seed + 7)
    examples = start.sample(random_prompts(EXAMPLES, rng), rng)
    first = learn_to_answer_and_judge(start, examples, JOINT_STEPS, 3e-3, seed)
    asked = random_prompts(200, rng)
    same = [first.sample(asked, rng) for _ in range(ANSWERS)]
    recipe = self_rewarding_lm(BETA, ANSWERS)
    ways = {
        "own judge": path(first, recipe, True, rounds, seed),
        "M1 stays the judge": path(first, recipe, False, rounds, seed),
        "best answers alone": path(first, best_alone(), True, rounds, seed),
    }
    rows: list[list[Any]] = []
    gold: dict[str, list[float]] = {}
    agreed: dict[str, list[float]] = {}
    beside: dict[str, list[float]] = {name: [] for name in ways}
    for name, models in ways.items():
        standings = [standing(each, first, JUDGED, seed + 3) for each in models]
        gold[name] = [each.gold for each in standings]
        agreed[name] = [agreement(points(each, same, None, None), gold_scores(same, rng)) for each in models]
        for i, (model, now) in enumerate(zip(models, standings, strict=True)):
            if i == 0 and rows:
                continue  # the same model as in the first way
            drawn = [model.sample(asked, torch.Generator().manual_seed(seed + 11 + k)) for k in range(ANSWERS)]
            beside[name].append(agreement(points(model, drawn, None, None), gold_scores(drawn, rng)))
            numbers = [f"{now.gold:.2f}", f"{now.length:.1f}", f"{now.divergence:.1f}"]
            rows.append([name if i else "", f"M{i + 1}", *numbers, f"{agreed[name][i]:.1%}", f"{beside[name][-1]:.1%}"])
    own = ways["own judge"]
    wins = [win_rate(after, before, 2 * JUDGED, seed + 5) for before, after in itertools.pairwise(own)]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name in ways:
            left.plot(range(1, rounds + 2), gold[name], marker=".", label=name)
            right.plot(range(1, rounds + 2), agreed[name], marker=".", label=name)
        left.set(xlabel="model", ylabel="gold reward", xticks=range(1, rounds + 2))
        right.set(
            xlabel="model", title="agreement with gold on M1's answers", ylim=(0.5, 1), xticks=range(1, rounds + 2)
        )
        left.legend()

    luck, spread = f"standard error {wins[0][1]:.3f}", "not known; standard error of one model's reward 0.03"
    rise = agreed["own judge"][1] - agreed["own judge"][0]
    mine, alone = gold["own judge"], gold["best answers alone"]
    more, frozen = mine[-1] - alone[-1], mine[-1] - gold["M1 stays the judge"][-1]
    slower = (mine[1] - mine[0]) - (mine[-1] - mine[-2])
    total = win_rate(own[2], own[0], 2 * JUDGED, seed + 6)[0]
    kept = agreed["own judge"][-1] - agreed["own judge"][0]
    fall = beside["own judge"][0] - beside["own judge"][-1]
    one = "standard error of one agreement about 0.02"
    checks = [
        at_least("wins of M3 over M1", total, 0.53, luck),
        at_least("gold reward of M3 less that of M1", mine[2] - mine[0], 0.15, spread),
        within("agreement on M1's answers, the last model's less M1's", kept, -0.03, 0.03, one),
        at_least("agreement on own answers, M1's less the last model's", fall, 0.05, one),
        at_least("wins of M2 over M1: as was hoped for", wins[0][0], 0.55, luck, headline=False),
        at_least("wins of M3 over M2: as was hoped for", wins[1][0], 0.55, luck, headline=False),
        at_least("rise of the judge's agreement on M1's answers, M1 to M2", rise, 0.0, one, headline=False),
        at_least("gold reward: gain of the first round less that of the last", slower, 0.0, spread, headline=False),
        at_least("gold reward at the end less that by the best answers alone", more, 0.0, spread, headline=False),
        at_least("gold reward at the end less that with M1 as the judge", frozen, 0.0, spread, headline=False),
    ]
    columns = ["way", "model", "gold reward", "length", "divergence", "agreement, M1's answers", "its own answers"]
    shares = ", ".join(f"{share:.1%}" for share, _ in wins)
    return Evidence(
        "a model that answers and judges improves by its own points, until it cannot tell its answers apart",
        checks,
        [Table("Rounds on own points", columns, rows)],
        draw,
        f"Wins of each model over the one before: {shares}.",
    )
