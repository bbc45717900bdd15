"""Rejection sampling draws from the optimal policy; whether pairs of it teach more is open on our tiny model.

The paper (Liu et al. 2024, table 1): on summaries and dialogues, with DPO's loss and with a hinge, pairs drawn by
rejection sampling and labelled by a reward model (rso-sample-rank) beat pairs of the supervised model labelled by it
(sft-sample-rank), and these the pairs that people labelled (direct). Ours:

1. On 20 answers with exact probabilities, what is accepted of 64 candidates, one or 8 of them, has a divergence of at
   most 0.02 from p exp(r / beta) / Z, where a pass accepts 8 in the mean: 64 E exp((r - max r) / beta) >= 8. The first
   model's answers are more than ten times further away than the 8. With a colder beta the best answer need not be among
   the 64 and r_max falls: the divergence grows beyond all bounds.
2. The limits of beta: the best 8, and the first 8.
3. A tiny transformer with a known reward, not part of the verdict. The direct data are a crowd's answers, compared by
   an annotator who is wrong now and then (Bradley and Terry on twice the gold reward); the reward that ranks the
   model's own answers is the annotator's. With as many pairs and steps and the same gamma and learning rate,
   rso-sample-rank ends above both others on two seeds of three, with both losses, and below both on the third. Of these
   two sft-sample-rank is mostly a little ahead: our supervised model was trained on this very crowd.

Imitation of the best of as many candidates (RAFT) ends above all pairs. LOG.md tells of other settings and of a reward
model. PPO, T5-XXL and human raters are out of reach here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from backchannel.claim import Check, Evidence, Table, at_least, at_most
from backchannel.parts.recipes import Recipe
from backchannel.preference.raft import raft
from backchannel.preference.rso import Loss, rejection_sampling, rso, tournament, unified
from backchannel.tasks.tiny_answers import Answers, Standing, random_prompts, reference, standing, writer
from backchannel.tasks.tiny_tuning import Annotator, given, gold_scores, improve, label, tune

BETAS, DRAWN, OF, ACCEPTED = (4.0, 2.0, 1.0, 0.5, 0.25), 4000, 64, 8
PROMPTS, CANDIDATES, STEPS, RATE, GAMMA, BETA, SCALE, JUDGED = 160, 32, 300, 1e-3, 0.1, 4.0, 2.0, 1000
LOSSES: tuple[Loss, ...] = ("sigmoid-norm", "hinge-norm")


def claim(seed: int, full: bool) -> Evidence:
    """A table of answers and a language model; `full` draws twice as many prompts."""
    torch.set_num_threads(1)
    table, exact = _table(seed)
    prompts = 2 * PROMPTS if full else PROMPTS
    start, rng = reference(seed, width=32, layers=1), torch.Generator().manual_seed(seed + 1)
    asked = random_prompts((ACCEPTED - 1) * prompts, rng)
    human = label(writer(asked, rng), writer(asked, rng), rng, Annotator(SCALE))

    def rewards(drawn: list[Answers], rng: Generator) -> Tensor:
        return SCALE * gold_scores(drawn, rng)

    def stand(recipe: Recipe) -> Standing:
        tuned = improve(start, recipe, rewards, 2, prompts // 2, STEPS // 2, RATE, seed)
        return standing(tuned, start, JUDGED, seed + 2)

    found: dict[tuple[str, str], Standing] = {}
    for loss in LOSSES:
        objective = unified(loss, GAMMA)
        ranked = Recipe(ACCEPTED, _everyone, objective, ((0.0, 1.0),))
        found[loss, "direct"] = standing(
            tune(start, given(human, 64), objective, STEPS, RATE, seed), start, JUDGED, seed + 2
        )
        found[loss, "sft-sample-rank"] = stand(ranked)
        found[loss, "rso-sample-rank"] = stand(rso(BETA, CANDIDATES, ACCEPTED, GAMMA, loss))
    others = {
        "start": standing(start, start, JUDGED, seed + 2),
        "rso-sample-rank, beta 0.001": stand(rso(1e-3, CANDIDATES, ACCEPTED, GAMMA)),
        "RAFT, best of 32": stand(raft(CANDIDATES)),
    }
    checks = list(exact)
    for loss in LOSSES:
        direct, sft, ours = (found[loss, name].gold for name in ("direct", "sft-sample-rank", "rso-sample-rank"))
        checks += [
            at_least(f"{loss}: {one} less {other}", more, 0.0, "unknown", headline=False)
            for one, other, more in (
                ("rso-sample-rank", "sft-sample-rank", ours - sft),
                ("rso-sample-rank", "direct", ours - direct),
                ("sft-sample-rank", "direct", sft - direct),
            )
        ]
    rows = [[loss, name, f"{each.gold:.2f}", f"{each.divergence:.1f}"] for (loss, name), each in found.items()]
    rows += [["", name, f"{each.gold:.2f}", f"{each.divergence:.1f}"] for name, each in others.items()]

    def draw(figure: Any) -> None:
        one, other = figure.subplots(1, 2)
        one.plot([row[0] for row in table], [row[1] for row in table], "o-", label="1 accepted")
        one.plot([row[0] for row in table], [row[2] for row in table], "s-", label="8 accepted")
        one.axhline(0.02, color="0.5", linestyle=":")
        one.set(xscale="log", yscale="log", xlabel="beta", ylabel="divergence from the optimum", title="64 candidates")
        one.set_xticks(BETAS, [f"{beta:g}" for beta in BETAS])
        one.minorticks_off()
        one.legend(loc="center right")
        for i, loss in enumerate(LOSSES):
            names = [name for kind, name in found if kind == loss]
            other.bar([k + 0.4 * i for k in range(3)], [found[loss, name].gold for name in names], 0.4, label=loss)
        other.set_xticks([0.2, 1.2, 2.2], ["direct", "sft", "rso"])
        other.set(ylabel="gold reward", title="pairs from")
        other.legend(loc="lower right")

    return Evidence(
        "rejection sampling draws from the optimal policy wherever a pass accepts as many as are wanted",
        checks,
        [
            Table("20 answers", ["beta", "1 of 64", "8 of 64", "64 E exp((r - max) / beta)", "p itself"], table),
            Table("Tiny language model", ["loss", "pairs", "gold reward", "divergence"], rows),
        ],
        draw,
    )


def _everyone(scores: Tensor, rng: Generator) -> Any:
    """A tournament of all answers: what the supervised model says, ranked."""
    return tournament(scores, torch.arange(scores.shape[1]).repeat(len(scores), 1), rng)


def _table(seed: int) -> tuple[list[list[Any]], list[Check]]:
    """Of each beta the divergence of what is accepted from the optimum, and how many a pass accepts."""
    rng = torch.Generator().manual_seed(seed)
    law = torch.softmax(torch.randn(20, generator=rng, dtype=torch.float64), 0)
    reward = torch.randn(20, generator=rng, dtype=torch.float64)
    rows: list[list[Any]] = []
    for beta in BETAS:
        optimum = law * torch.exp(reward / beta)
        optimum = optimum / optimum.sum()
        outcome = law.repeat(DRAWN, 1).multinomial(OF, replacement=True, generator=rng)
        away = []
        for accepted in (1, ACCEPTED):
            taken = outcome.gather(1, rejection_sampling(reward[outcome], beta, accepted, rng)).flatten()
            share = taken.bincount(minlength=20) / len(taken)
            away.append(round(_divergence(share, optimum), 5))
        passed = OF * float(law @ torch.exp((reward - reward.max()) / beta))
        rows.append([beta, *away, round(passed, 1), round(_divergence(law, optimum), 3)])
    enough, cold = [row for row in rows if row[3] >= ACCEPTED], [row[2] for row in rows if row[3] < ACCEPTED / 4]
    first = rejection_sampling(reward[outcome], 1e9, ACCEPTED, rng)
    best = reward[outcome].gather(1, rejection_sampling(reward[outcome], 1e-9, ACCEPTED, rng))
    off = (best - reward[outcome].sort(1, descending=True)[0][:, :ACCEPTED]).abs().max()
    checks = [
        at_most(
            "1 of 64, where a pass accepts 8: divergence from the optimum", max(r[1] for r in enough), 0.02, "1e-4"
        ),
        at_most("8 of 64, where a pass accepts 8: the same", max(r[2] for r in enough), 0.02, "below 1e-4"),
        at_least(
            "the same: the first model's divergence over it, least", min(r[4] / r[2] for r in enough), 10.0, "1e-3"
        ),
        at_most("beta nearly 0: rewards less those of the best 8", float(off), 0.0, "exact"),
        at_most(
            "beta nearly infinite: places less 0 to 7", float((first - torch.arange(ACCEPTED)).abs().max()), 0, "1e-4"
        ),
    ]
    if cold:
        checks.append(at_least("8 of 64, where it accepts less than 2: least", min(cold), 0.02, "1e-2", headline=False))
    return rows, checks


def _divergence(one: Tensor, other: Tensor) -> float:
    return float(torch.special.xlogy(one, one / other).sum())
