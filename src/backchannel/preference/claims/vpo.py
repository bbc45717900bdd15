"""Optimism explores where online DPO does not, and pessimism stays where old data are: both by one term of the loss.

The paper (Cen et al. 2025, sections 3 to 5): online regret of the order sqrt(T), offline suboptimality of the order
1 / sqrt(n) where the data cover the best policy, and on language models less overoptimisation late in training. Ours,
on linear contextual bandits with d = 10, where all but the labels is known in closed form:

1. Online, 1,200 comparisons; the best answer to each prompt is alone in its direction, and rare under the reference
   (one draw in 200). The regret of optimistic VPO grows with an exponent of at most 0.6, and is lower by four standard
   errors than that of online DPO, whose exponent is above 0.7; by two, than that of DPO on pairs made as VPO's are.
   Each DPO has the better of two ridges.
2. Offline, from people who answer well (reward / 0.3 in the exponent): with 100, 300, 1,000 and 3,000 comparisons the
   mean suboptimality of pessimistic VPO is below DPO's at the best of three ridges. Calibration is by the answers in
   the data. With more data the lead shrinks: at 3,000 it is about three standard errors over 240 problems.
3. A tiny transformer on 200 comparisons, 120 steps of either at the same price and rate: that VPO ends with the higher
   true reward was hoped for, and is so on some seeds only. One model says little, and this stands beside the verdict.

Regret is in the goal, reward less its price. Pairs online are of the policy and of the reference, as in the theory; the
reference's answer is not counted. Summaries by PaLM 2 and Llama 2 are out of reach.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Check, Evidence, Table, at_least, at_most, mean_and_error, slope
from backchannel.parts.objectives import Objective, Pairs
from backchannel.preference.dpo import dpo
from backchannel.preference.vpo import linear_vpo, value, vpo
from backchannel.tasks.tiny_answers import reference, standing
from backchannel.tasks.tiny_tuning import drawn_twice, given, label, tune

BETA, DIMENSION = 0.1, 10
BATCHES, SIZE, ONLINE_ALPHA, RARE = 60, 20, 1.0, 0.005
SAMPLES, OFFLINE_ALPHA, RIDGES = (100, 300, 1000, 3000), 1.0, (0.3, 1.0, 3.0)


class Bandit(NamedTuple):
    """Problems apart: their features, true rewards and reference."""

    features: Tensor  # [problems, prompts, answers, d]
    truth: Tensor  # [problems, prompts, answers]
    log_reference: Tensor  # [problems, prompts, answers]


def claim(seed: int, full: bool) -> Evidence:
    """Bandits online and offline, a tiny transformer; `full` has more problems and longer training."""
    torch.set_num_threads(1)
    problems = 100 if full else 40
    hard = _hard(seed, problems)
    runs = {
        "VPO, optimistic": [_online(hard, seed, ONLINE_ALPHA, own=False)],
        "DPO, own pairs": [_online(hard, seed, 0.0, own=True, ridge=ridge) for ridge in (0.1, 1.0)],
        "DPO, policy and reference": [_online(hard, seed, 0.0, own=False, ridge=ridge) for ridge in (0.1, 1.0)],
    }
    regret = {name: min(some, key=lambda each: float(each[:, -1].mean())) for name, some in runs.items()}
    seen = SIZE * np.arange(1, BATCHES + 1)
    exponent = {name: slope(seen[15:], each.mean(0).numpy()[15:]) for name, each in regret.items()}
    ahead = {name: _errors(regret[name][:, -1] - regret["VPO, optimistic"][:, -1]) for name in regret}
    rows = []
    for name, each in regret.items():
        mean, error = mean_and_error(each[:, -1].numpy())
        rows.append([name, f"{mean:.0f} +- {error:.0f}", f"{exponent[name]:.2f}"])
    lost = {n: _offline(seed + 1, n, 6 * problems) for n in SAMPLES}
    leads = [_errors(min(found["DPO"], key=_mean) - found["VPO"][0]) for found in lost.values()]
    offline = [
        [n, f"{_mean(found['VPO'][0]):.4f}", *(f"{_mean(each):.4f}" for each in found["DPO"]), f"{lead:.1f}"]
        for (n, found), lead in zip(lost.items(), leads, strict=True)
    ]
    trained, text = _transformer(seed, 12 if full else 3)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for name, each in regret.items():
            left.plot(seen, each.mean(0), label=name)
        left.set(xlabel="comparisons", ylabel="regret", title="online")
        left.legend()
        right.plot(SAMPLES, [_mean(found["VPO"][0]) for found in lost.values()], "o-", label="VPO, pessimistic")
        best = [_mean(min(found["DPO"], key=_mean)) for found in lost.values()]
        right.plot(SAMPLES, best, "o-", label="DPO, best ridge")
        right.set(xscale="log", yscale="log", xlabel="comparisons", ylabel="suboptimality", title="offline")
        right.legend()

    luck = "below 1e-4, from the spread over problems"
    crossed = ahead["DPO, policy and reference"]
    return Evidence(
        statement="One term makes DPO explore online, and stay near its data offline.",
        checks=[
            at_most("online: exponent of VPO's regret, 300 to 1,200", exponent["VPO, optimistic"], 0.6, luck),
            at_least("online: exponent of DPO's regret on its own pairs", exponent["DPO, own pairs"], 0.7, luck),
            at_least("online: lead over DPO on its own pairs, standard errors", ahead["DPO, own pairs"], 4.0, luck),
            at_least("online: lead over DPO with the reference's answers, standard errors", crossed, 2.0, luck),
            at_least("offline: lead over DPO at 100 comparisons, standard errors", leads[0], 4.0, luck),
            at_least(
                "offline: least lead over DPO of four sizes, standard errors", min(leads), 0.0, "about 1 in 1,000"
            ),
            text,
        ],
        tables=[
            Table("online, 1,200 comparisons", ["method", "regret", "exponent"], rows),
            Table(
                "offline: mean suboptimality",
                ["comparisons", "VPO", *(f"DPO, ridge {ridge}" for ridge in RIDGES), "lead, standard errors"],
                offline,
            ),
            Table(
                "tiny transformer, gold reward by steps",
                ["method", *(str(40 * (k + 1)) for k in range(len(trained[0]) - 1))],
                trained,
            ),
        ],
        draw=draw,
    )


def _mean(values: Tensor) -> float:
    return float(values.mean())


def _errors(lead: Tensor) -> float:
    """The mean over problems in standard errors; 0 where it is 0 throughout."""
    mean, error = mean_and_error(lead.numpy())
    return mean / error if error else 0.0


def _hard(seed: int, problems: int, prompts: int = 2, answers: int = 10) -> Bandit:
    """The last answer is the best, shares no direction with the others, and is rare under the reference."""
    rng = torch.Generator().manual_seed(seed)
    phi = torch.randn(problems, prompts, answers, DIMENSION, generator=rng, dtype=torch.float64)
    phi[..., -1] = 0
    phi = phi / phi.norm(dim=-1, keepdim=True)
    phi[..., -1, :] = torch.eye(DIMENSION, dtype=torch.float64)[-1]
    theta = torch.randn(problems, DIMENSION, generator=rng, dtype=torch.float64)
    theta[:, -1] = 0
    theta = theta / (2 * theta.norm(dim=1, keepdim=True))
    theta[:, -1] = 1
    ref = torch.full((problems, prompts, answers), (1 - RARE) / (answers - 1), dtype=torch.float64)
    ref[..., -1] = RARE
    return Bandit(phi, torch.einsum("rsad,rd->rsa", phi, theta), ref.log())


def _missing(bandit: Bandit, log_policy: Tensor) -> Tensor:
    """What a policy lacks of the best in the goal, mean over prompts: [problems]."""
    worth = (log_policy.exp() * (bandit.truth - BETA * (log_policy - bandit.log_reference))).sum(-1)
    return (value(bandit.truth, bandit.log_reference, BETA) - worth).mean(-1)


def _compare(bandit: Bandit, wins: Tensor, first: Tensor, second: Tensor, n: int, rng: torch.Generator) -> None:
    """Add n comparisons of an answer from `first` with one from `second`, by Bradley and Terry, to `wins`."""
    problems, prompts, answers = bandit.truth.shape
    own, prompt = torch.arange(problems)[:, None], torch.randint(prompts, (problems, n), generator=rng)
    one, other = (
        each[own, prompt].reshape(-1, answers).multinomial(1, generator=rng).reshape(problems, n)
        for each in (first, second)
    )
    ahead = bandit.truth[own, prompt, one] - bandit.truth[own, prompt, other]
    won = torch.rand(problems, n, generator=rng, dtype=torch.float64) < torch.sigmoid(ahead)
    better, worse = torch.where(won, one, other), torch.where(won, other, one)
    wins.index_put_((own.expand_as(prompt), prompt, better, worse), torch.ones_like(ahead), accumulate=True)


def _online(bandit: Bandit, seed: int, alpha: float, own: bool, ridge: float = 1.0) -> Tensor:
    """Regret after each batch, [problems, BATCHES]. Pairs are of the policy alone, or of it and the reference."""
    rng = torch.Generator().manual_seed(seed + 2)
    reference, log_policy, found = bandit.log_reference.exp(), bandit.log_reference, []
    problems, prompts, answers, d = bandit.features.shape
    wins = torch.zeros(problems, prompts, answers, answers, dtype=torch.float64)
    theta = torch.zeros(problems, 1, d, dtype=torch.float64)
    centred = bandit.features - (reference[..., None] * bandit.features).sum(-2, keepdim=True)
    praised = 2 * centred.reshape(problems, prompts * answers, d)  # starts: each answer alone is good
    for t in range(BATCHES):
        found.append(_missing(bandit, log_policy))
        now = log_policy.exp()
        _compare(bandit, wins, now, now if own else reference, SIZE, rng)
        starts = torch.cat([theta, praised], 1) if alpha else theta
        weight = alpha * math.sqrt((t + 1) * SIZE)
        fitted = linear_vpo(
            bandit.features, wins, bandit.log_reference, reference, weight, BETA, True, starts, ridge, steps=5
        )
        theta, log_policy = fitted.parameter[:, None], fitted.log_policy
    return SIZE * torch.stack(found, 1).cumsum(1)


def _offline(seed: int, n: int, problems: int, prompts: int = 6, answers: int = 8) -> dict[str, list[Tensor]]:
    """Suboptimality of each problem: of VPO, and of DPO with each ridge."""
    rng = torch.Generator().manual_seed(seed)
    phi = torch.randn(problems, prompts, answers, DIMENSION, generator=rng, dtype=torch.float64)
    theta = torch.randn(problems, DIMENSION, generator=rng, dtype=torch.float64)
    truth = torch.einsum("rsad,rd->rsa", phi, theta / theta.norm(dim=1, keepdim=True))
    bandit = Bandit(phi, truth, torch.full_like(truth, -math.log(answers)))
    crowd = torch.softmax(truth / 0.3, -1)
    wins = torch.zeros(problems, prompts, answers, answers, dtype=torch.float64)
    _compare(bandit, wins, crowd, crowd, n, rng)
    given = wins.sum(-1) + wins.sum(-2) + 1e-9  # evenly where a prompt was never asked
    calibration = given / given.sum(-1, keepdim=True)

    def lost(alpha: float, ridge: float) -> Tensor:
        fitted = linear_vpo(phi, wins, bandit.log_reference, calibration, alpha, BETA, ridge=ridge, steps=10)
        return _missing(bandit, fitted.log_policy)

    return {"VPO": [lost(OFFLINE_ALPHA * math.sqrt(n), 1.0)], "DPO": [lost(0.0, ridge) for ridge in RIDGES]}


def _transformer(seed: int, looks: int) -> tuple[list[list[str]], Check]:
    """Gold reward after every 40 steps, and how much more VPO has in the end."""
    start, rng = reference(seed), torch.Generator().manual_seed(seed)
    data, rows, last = label(*drawn_twice(start, 200, rng), rng), [], []
    losses: dict[str, Objective[Pairs]] = {"DPO": dpo(0.1), "VPO, pessimistic": vpo(0.2, 0.1)}
    for name, objective in losses.items():
        model, gold = start, []
        for k in range(looks):
            model = tune(model, given(data, 64), objective, 40, 2e-3, seed + k, anchor=start)
            gold.append(standing(model, start, 400, seed + 3).gold)
        rows.append([name, *(f"{each:.2f}" for each in gold)])
        last.append(gold[-1])
    words = "tiny transformer: VPO's true reward less DPO's, in the end"
    return rows, at_least(words, last[1] - last[0], 0.0, "unknown", headline=False)
