"""Judged by itself, a model learns with the strength of its judgements what hard labels overfit.

The paper (Zhai et al. 2024): on dialogues and summaries, OSP wins over DPO, IPO, SLiC and RLHF with PPO; without the
strength it overfits; and it stands with a quarter of the preference data. Ours, on a tiny transformer that a head turns
into a judge of pairs, trained on 500 comparisons of its own answers by an annotator of known reward; then the model
draws, judges and learns in rounds, and sees no comparison again. Every method at three beta, with equal steps:

1. At beta = 1, where hard labels are about at their best, OSP's margins on the pairs that it was trained on exceed
   those on fresh ones by less than with hard labels, and it ends at most half as far from the start.
2. On average over beta, the excess is at most half of that of DPO on the comparisons: own answers do not run out.
3. It gets better than where it started.

Shown, and not held to: at too small a beta hard labels lose more, so that strengths spare some of the search for it;
each at its best one, the two are level, and OSP does not win over DPO on the comparisons. A judge that is right in two
of three cases is what a head makes of 500 comparisons; the paper's judge is a large model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.parts.objectives import Objective, Pairs, margin
from backchannel.parts.recipes import Compared
from backchannel.preference.dpo import dpo
from backchannel.preference.osp import osp
from backchannel.tasks.tiny_answers import AnswerLM, Answers, Standing, reference, standing
from backchannel.tasks.tiny_judges import PairJudge, learn_to_judge
from backchannel.tasks.tiny_tuning import (
    Labelled,
    drawn_twice,
    given,
    improve,
    label,
    measured,
    rows,
    selected,
    tune,
)

PAIRS, ANSWERS, ROUNDS, PROMPTS, STEPS, RATE, JUDGED = 500, 4, 8, 24, 12, 2e-3, 1000
JUDGE_STEPS, JUDGE_RATE = 50, 3e-3  # a quarter of the comparisons takes half as many steps
BETAS = (0.1, 0.3, 1.0)
COLUMNS = ["method", "beta", "gold reward", "divergence", "length", "margin, trained on", "less that of fresh pairs"]


class Run(NamedTuple):
    """A tuned model, and how far its margins are on pairs that it was trained on and on others of the same kind."""

    now: Standing
    trained: float  # mean of h / beta, in nats
    fresh: float

    @property
    def overfit(self) -> float:
        """By how much the trained pairs' margin exceeds the others'."""
        return self.trained - self.fresh


def online(start: AnswerLM, judge: PairJudge, objective: Objective[Pairs], seed: int, rounds: int) -> Run:
    """Rounds on own judgements; of each, as many prompts again are drawn and judged, but not learned from."""
    recipe = osp(1.0, ANSWERS)
    last: list[list[Answers]] = []
    kept: tuple[list[Labelled], list[Labelled]] = ([], [])

    def feedback(drawn: list[Answers], rng: torch.Generator) -> Tensor:
        last.append(drawn)
        return judge.table(drawn)

    def select(scores: Tensor, rng: torch.Generator) -> Compared:
        found = recipe.select(scores, rng)
        assert isinstance(found, Compared)
        learned = found.row < PROMPTS
        parts: list[Compared] = [_part(found, which) for which in (learned, ~learned)]
        for some, part in zip(kept, parts, strict=True):
            data = selected(last[-1], part)
            assert isinstance(data, Labelled)
            some.append(data)
        return parts[0]

    own = replace(recipe, select=select, objective=objective)
    model = improve(start, own, feedback, rounds, 2 * PROMPTS, STEPS, RATE, seed)
    trained, fresh = (torch.cat([_margins(model, start, data) for data in some]) for some in kept)
    return Run(standing(model, start, JUDGED, seed + 3), float(trained.mean()), float(fresh.mean()))


def offline(start: AnswerLM, data: Labelled, fresh: Labelled, beta: float, seed: int, rounds: int) -> Run:
    """DPO on the comparisons themselves, with as many steps."""
    model = tune(start, given(data, 64), dpo(beta), rounds * STEPS, RATE, seed)
    trained, other = (float(_margins(model, start, each).mean()) for each in (data, fresh))
    return Run(standing(model, start, JUDGED, seed + 3), trained, other)


def claim(seed: int, full: bool) -> Evidence:
    """OSP, the same with hard labels, and DPO on the comparisons; `full` has twice the rounds."""
    torch.set_num_threads(1)
    rounds = 2 * ROUNDS if full else ROUNDS
    start, rng = reference(seed, width=32, layers=1, steps=250), torch.Generator().manual_seed(seed + 7)
    data, fresh = (label(*drawn_twice(start, n, rng), rng) for n in (PAIRS, 1000))
    runs: dict[tuple[str, float], Run] = {}
    judge = learn_to_judge(start, data, JUDGE_STEPS, JUDGE_RATE, seed)
    for beta in BETAS:
        runs["OSP", beta] = online(start, judge, osp(beta).objective, seed, rounds)
        runs["hard labels", beta] = online(start, judge, dpo(beta), seed, rounds)
        runs["DPO", beta] = offline(start, data, fresh, beta, seed, rounds)
    less = learn_to_judge(start, rows(data, torch.arange(PAIRS // 4)), JUDGE_STEPS // 2, JUDGE_RATE, seed)
    quarter = online(start, less, osp(BETAS[-1]).objective, seed, rounds)
    first = standing(start, start, JUDGED, seed + 3)
    table: list[list[Any]] = [["start", "", f"{first.gold:.2f}", "", f"{first.length:.1f}", "", ""]]
    for (name, beta), run in [*runs.items(), (("OSP, a quarter of the comparisons", BETAS[-1]), quarter)]:
        now = run.now
        standings = [f"{now.gold:.2f}", f"{now.divergence:.1f}", f"{now.length:.1f}"]
        table.append([name, beta, *standings, f"{run.trained:.2f}", f"{run.overfit:.2f}"])

    names = ("OSP", "hard labels", "DPO")
    gold = {name: torch.tensor([runs[name, beta].now.gold for beta in BETAS]) for name in names}
    gap = {name: sum(runs[name, beta].overfit for beta in BETAS) / len(BETAS) for name in names}
    best = {name: float(each.max()) for name, each in gold.items()}

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name in names:
            left.plot(BETAS, gold[name], marker=".", label=name)
            right.plot(BETAS, [runs[name, beta].overfit for beta in BETAS], marker=".", label=name)
        left.axhline(first.gold, color="0.5", linestyle=":", label="start")
        left.set(xlabel="beta", xscale="log", ylabel="gold reward", title=f"{PAIRS} comparisons")
        right.set(xlabel="beta", xscale="log", ylabel="nats", title="margin: trained less fresh pairs")
        left.legend()

    heard = [judge(fresh.chosen, fresh.rejected), -judge(fresh.rejected, fresh.chosen)]
    right_of = float(((heard[0] + heard[1]) > 0).float().mean())
    spread = "not known; standard error of one model's reward 0.04"
    later = quarter.now.gold - first.gold
    ahead = float((gold["OSP"] - gold["hard labels"]).mean())
    most = BETAS[-1]
    ours, theirs = runs["OSP", most], runs["hard labels", most]
    nearer = ours.now.divergence / theirs.now.divergence
    checks = [
        at_most("beta 1: overfit margin of OSP as a share of hard labels'", ours.overfit / theirs.overfit, 0.8, spread),
        at_most("beta 1: divergence of OSP as a share of hard labels'", nearer, 0.5, spread),
        at_most("overfit margin of OSP as a share of DPO's, means over beta", gap["OSP"] / gap["DPO"], 0.5, spread),
        at_least("gold reward of OSP at its best beta less the start's", best["OSP"] - first.gold, 0.2, spread),
        at_least("gold reward of OSP less that of hard labels, mean over beta", ahead, 0.0, spread, False),
        at_least("OSP less hard labels, each at its best beta", best["OSP"] - best["hard labels"], 0.0, spread, False),
        at_least("OSP less DPO, each at its best beta", best["OSP"] - best["DPO"], 0.0, spread, False),
        at_least("OSP from a quarter of the comparisons less the start", later, 0.0, spread, False),
    ]  # fmt: skip
    statement = "a model that learns with the strength of its own judgements improves, overfits less and stays nearer"
    note = f"The judge agrees with {right_of:.1%} of 1,000 fresh comparisons."
    return Evidence(statement, checks, [Table("Judged by itself", COLUMNS, table)], draw, note)


def _part(found: Compared, which: Tensor) -> Compared:
    assert found.strength is not None
    return Compared(found.row[which], found.better[which], found.worse[which], strength=found.strength[which])


def _margins(model: AnswerLM, start: AnswerLM, data: Labelled) -> Tensor:
    with torch.no_grad():
        return margin(measured(model, start, data), 1.0)
