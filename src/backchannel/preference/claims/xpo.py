"""One term makes online DPO find an answer that the reference hardly ever gives.

The paper (Xie et al. 2024): online DPO may need a number of comparisons that is exponential in 1 / beta, as it waits
for the reference to say the good answer; XPO needs a number that does not depend on what the reference says, only on
how many answers there are to be told apart; and a language model tuned by it needs fewer comparisons than with variants
of DPO that do not explore. Ours, on bandits of five answers, two of them rare and one of these the best, with policies
that are best for rewards of 0, 1 or 2 (243 of them), each round's policy the exact minimiser over all comparisons so
far, ties to the least divergence, and alpha = beta / sqrt(comparisons). Regret is in reward less its price:

1. Where the rare answers have 1 draw in 1,000 or 10,000, XPO's regret over 1,500 comparisons is at most 0.35 of that of
   DPO on pairs of the same kind (alpha = 0), and of that of DPO on pairs of the policy alone.
2. From 1 in 10 to 1 in 10,000 XPO's regret differs by a factor of 4 at most.
3. At 1 in 10,000 XPO's regret grows as the comparisons to the power of at most 0.5; DPO's, of 0.7 at least.

Beside the verdict: DPO on its own pairs with ties broken by lot; three times less and more alpha; and a tiny
transformer, 1,024 comparisons by an annotator who errs. There exploration does not pay: over six seeds XPO's true
reward ended between 0.10 below and 0.05 above that of DPO on pairs with the reference with alpha = 0.001, and 0.08 to
0.23 below it with 0.01. The paper's language models are out of reach.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error, slope
from backchannel.parts.objectives import Pairs
from backchannel.preference.oaif import oaif
from backchannel.preference.xpo import xpo
from backchannel.tasks.tiny_answers import Answers, reference, standing
from backchannel.tasks.tiny_tuning import Annotator, improve

BETA, ARMS, LEVELS = 0.1, 5, (0.0, 1.0, 2.0)
RARE, COMPARISONS, HORIZONS = (1e-1, 1e-2, 1e-3, 1e-4), 1500, (188, 375, 750, 1500)
ROUNDS, PROMPTS, STEPS, RATE, JUDGED = 8, 128, 10, 1e-3, 1000
METHODS = {"XPO": (1.0, False), "DPO, same pairs": (0.0, False), "DPO, own pairs": (0.0, True)}


def claim(seed: int, full: bool) -> Evidence:
    """Bandits and a tiny transformer; `full` has four times as many bandits."""
    torch.set_num_threads(1)
    problems = 400 if full else 100
    runs = {
        (name, rare): _bandits(seed, problems, rare, size, own, COMPARISONS)
        for name, (size, own) in METHODS.items()
        for rare in RARE
    }
    total = {key: float(each.sum(1).mean()) for key, each in runs.items()}
    xpos = [_bandits(seed + 1, problems, RARE[-1], 1.0, False, horizon).sum(1).mean() for horizon in HORIZONS]
    growth = {"XPO": slope(torch.tensor(HORIZONS).numpy(), torch.stack(xpos).numpy())}
    for name in ("DPO, same pairs", "DPO, own pairs"):
        path = runs[name, RARE[-1]].mean(0).cumsum(0)[torch.tensor(HORIZONS) - 1]
        growth[name] = slope(torch.tensor(HORIZONS).numpy(), path.numpy())
    rows = []
    for name in METHODS:
        cells = [mean_and_error(runs[name, rare].sum(1).numpy()) for rare in RARE]
        rows.append([name, *(f"{mean:.0f} +- {error:.0f}" for mean, error in cells), f"{growth[name]:.2f}"])
    others = [
        ("XPO, a third of alpha", 1 / 3, False, False),
        ("XPO, three times alpha", 3.0, False, False),
        ("DPO, own pairs, ties by lot", 0.0, True, True),
    ]
    for name, size, own, lots in others:
        mean, error = mean_and_error(
            _bandits(seed, problems, RARE[2], size, own, COMPARISONS, lots=lots).sum(1).numpy()
        )
        rows.append([name, "", "", f"{mean:.0f} +- {error:.0f}", "", ""])
    checks = [
        at_most(
            f"best answer 1 in {1 / rare:,.0f}: XPO's regret over that of {name}",
            total["XPO", rare] / total[name, rare],
            0.35,
            "below 1e-4, from the spread over bandits",
        )
        for rare in RARE[2:]
        for name in ("DPO, same pairs", "DPO, own pairs")
    ]
    mine = [total["XPO", rare] for rare in RARE]
    checks += [
        at_most(
            "XPO's greatest regret over its least, from 1 in 10 to 1 in 10,000", max(mine) / min(mine), 4.0, "1e-4"
        ),
        at_most("1 in 10,000: exponent of XPO's regret", growth["XPO"], 0.5, "1e-4"),
        at_least("1 in 10,000: exponent of DPO's regret, same pairs", growth["DPO, same pairs"], 0.7, "1e-4"),
        at_least("1 in 10,000: exponent of DPO's regret, own pairs", growth["DPO, own pairs"], 0.7, "1e-4"),
    ]

    def draw(figure: Any) -> None:
        for axes, rare in zip(figure.subplots(1, 2), (RARE[0], RARE[-1]), strict=True):
            for name in METHODS:
                axes.plot(runs[name, rare].mean(0).cumsum(0), label=name)
            axes.set(xlabel="comparisons", ylabel="regret", title=f"best answer: 1 in {1 / rare:,.0f}")
            axes.legend()

    return Evidence(
        statement="Unlearning what the reference says makes online DPO find what the reference hardly ever says.",
        checks=checks,
        tables=[
            Table(
                f"bandits: regret over {COMPARISONS:,} comparisons",
                ["method", *(f"1 in {1 / rare:,.0f}" for rare in RARE), "exponent at 1 in 10,000"],
                rows,
            ),
            Table("tiny transformer", ["method", "gold reward", "divergence", "length"], _transformer(seed)),
        ],
        draw=draw,
    )


def _bandits(seed: int, problems: int, rare: float, size: float, own: bool, rounds: int, lots: bool = False) -> Tensor:
    """What each round's policy lacks of the best, [problems, rounds]: a comparison a round.

    Args:
        seed: of rewards, answers and comparisons.
        problems: how many bandits.
        rare: how likely the reference says either rare answer.
        size: alpha in terms of beta / sqrt(rounds).
        own: whether both answers are the policy's.
        rounds: how many.
        lots: ties by lot, else to the policy that is nearest to the reference.
    """
    rng = torch.Generator().manual_seed(seed)
    ref = torch.tensor([(1 - 2 * rare) / 3] * 3 + [rare] * 2, dtype=torch.float64)
    log_policy = torch.log_softmax(ref.log() + torch.tensor(list(itertools.product(LEVELS, repeat=ARMS))) / BETA, 1)
    away = (log_policy.exp() * (log_policy - ref.log())).sum(1)
    order = away.argsort(stable=True)
    away, log_policy = away[order], log_policy[order]
    truth = torch.randint(2, (problems, ARMS), generator=rng).double()
    truth[:, 3] = LEVELS[-1]
    best = BETA * torch.logsumexp(ref.log() + truth / BETA, 1)
    losses = _losses(log_policy, ref, size * BETA / math.sqrt(rounds))
    total, found = torch.zeros(problems, len(away), dtype=torch.float64), []
    for _ in range(rounds):
        least = (total - total.min(1, keepdim=True)[0] < 1e-9).double()
        k = (least * torch.rand(least.shape, generator=rng) if lots else least).argmax(1)
        policy = log_policy[k].exp()
        found.append(best - (policy * truth).sum(1) + BETA * away[k])
        one = policy.multinomial(1, generator=rng)
        other = (policy if own else ref.expand_as(policy)).multinomial(1, generator=rng)
        ahead = torch.sigmoid(truth.gather(1, one) - truth.gather(1, other))
        won = torch.rand(ahead.shape, generator=rng) < ahead
        total += losses[(2 * (ARMS * one + other) + won)[:, 0]]
    return torch.stack(found, 1)


def _losses(log_policy: Tensor, ref: Tensor, alpha: float) -> Tensor:
    """XPO's loss of every comparison (one, other, whether one won), and every policy: [ARMS ARMS 2, policies]."""
    one, other, won = (
        each.flatten()
        for each in torch.meshgrid(torch.arange(ARMS), torch.arange(ARMS), torch.arange(2), indexing="ij")
    )
    logs = log_policy[:, one], log_policy[:, other], ref.log()[one], ref.log()[other]
    pairs = Pairs(*(each.expand(logs[0].shape) for each in logs))
    pairs = pairs._replace(strength=won.double().expand(logs[0].shape))
    return xpo(alpha, BETA).objective(pairs)[0].T.contiguous()


def _transformer(seed: int) -> list[list[Any]]:
    """How the tiny language model stands after as many comparisons."""
    start, who = reference(seed, width=32, layers=1), Annotator()

    def feedback(drawn: list[Answers], rng: torch.Generator) -> Tensor:
        first = (torch.rand(len(drawn[0].tokens), generator=rng) < who.prefers(*drawn)).float()
        return torch.stack([first, 1 - first], 1)

    recipes = {
        "DPO, own pairs": oaif(BETA),
        "DPO, pairs with the reference": replace(oaif(BETA), mixtures=((1.0, 0.0), (0.0, 1.0))),
        "XPO, alpha = 0.001": xpo(1e-3, BETA),
        "XPO, alpha = 0.01": xpo(1e-2, BETA),
    }
    rows = []
    for name, recipe in recipes.items():
        model = improve(start, recipe, feedback, ROUNDS, PROMPTS, STEPS, RATE, seed)
        now = standing(model, start, JUDGED, seed + 3)
        rows.append([name, f"{now.gold:.2f} +- {now.error:.2f}", f"{now.divergence:.1f}", f"{now.length:.1f}"])
    return rows
