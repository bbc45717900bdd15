"""Likelihoods of opposite signs learn from good answers, from bad answers, or from both.

The paper (Abdolmaleki et al. 2025, section 5): on bandits with standard test functions, a policy learns from accepted
actions alone, from rejected ones alone where the divergence weighs enough, and soonest from both; on language models it
is about as good as DPO. Ours:

1. Sphere, Rosenbrock and Rastrigin in 2 dimensions, 20 replicates each: a Gaussian policy; each step draws 32 actions
   from a reference that follows every 10 steps, calls the better half good and takes one step of Adam. At the best of
   three beta for each, good actions alone, bad ones alone and both bring the mean at least 95 percent of the way from
   the start's value to the optimum, in the median over replicates.
2. Both are soonest: the fewest steps to 95 percent, in the median over replicates, of all three functions together.
3. Bad actions alone without the divergence run away: further from the optimum than at the start.
4. A tiny transformer, both answers of 2,000 comparisons as a good and a bad one: how often its reviews have a higher
   true reward than DPO's, each at the better of two settings. It does not come near: the divergence is estimated from
   the very answers that carry the labels, and cancels against them.

All of the drawn actions are labelled here, so that the three are one method with weights 2 alpha + beta and
2 alpha + beta - 2: what both can do and one kind cannot is a sum below 2, where bad actions repel. Control suites and
Gemma are out of reach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Check, Evidence, Table, at_least, at_most, within
from backchannel.parts.objectives import Info, Objective, Pairs, Singles
from backchannel.parts.torch_fit import fit
from backchannel.preference.dpo import dpo
from backchannel.preference.pmpo import pmpo
from backchannel.tasks import tiny_transformer

REPLICATES, DRAWN, STEPS, FOLLOW = 20, 32, 500, 10
BETAS = {"good alone": (0.0, 0.25, 0.5), "bad alone": (2.1, 2.25, 2.5), "both": (0.25, 0.5, 1.0)}
ALPHAS = {"good alone": 1.0, "bad alone": 0.0, "both": 0.5}


def sphere(x: Tensor) -> Tensor:
    """The squared distance from (1, 1)."""
    return (x - 1).square().sum(-1)


def rosenbrock(x: Tensor) -> Tensor:
    """A curved valley that ends at (1, 1)."""
    return 100 * (x[..., 1] - x[..., 0].square()).square() + (1 - x[..., 0]).square()


def rastrigin(x: Tensor) -> Tensor:
    """A bowl about (1, 1) with a local minimum near every integer point."""
    y = x - 1
    return (10 + y.square() - 10 * torch.cos(2 * np.pi * y)).sum(-1)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"sphere": sphere, "Rosenbrock": rosenbrock, "Rastrigin": rastrigin}


def claim(seed: int, full: bool) -> Evidence:
    """Bandits and a tiny transformer; `full` trains more transformers."""
    torch.set_num_threads(1)
    best: dict[str, dict[str, np.ndarray]] = {name: {} for name in FUNCTIONS}
    rows = []
    for name, function in FUNCTIONS.items():
        for kind, betas in BETAS.items():
            tried = {beta: _bandit(function, ALPHAS[kind], beta, seed) for beta in betas}
            beta = min(tried, key=lambda b: (_soonest(tried[b]), -_end(tried[b])))
            best[name][kind] = tried[beta]
            rows.append([name, kind, beta, f"{_end(tried[beta]):.3f}", _soonest(tried[beta])])
    ends = {kind: min(_end(best[name][kind]) for name in FUNCTIONS) for kind in BETAS}
    steps = {kind: sum(_soonest(best[name][kind]) for name in FUNCTIONS) for kind in BETAS}
    away = [_end(_bandit(function, 0.0, 0.0, seed)) for function in FUNCTIONS.values()]
    text_rows, text_checks = _transformer(seed, 3 if full else 1)

    def draw(figure: Any) -> None:
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (name, each) in zip(panels, best.items(), strict=True):
            for kind, progress in each.items():
                axes.plot(np.median(progress, 1), label=kind)
            axes.axhline(0.95, color="0.5", linestyle=":")
            axes.set(title=name, xlabel="steps", ylim=(-0.5, 1.05))
        panels[0].set_ylabel("way to the optimum")
        panels[0].legend(loc="lower right")

    return Evidence(
        statement="PMPO learns from good answers, from bad ones with a large enough beta, and soonest from both.",
        checks=[
            *(
                at_least(f"{kind}: way to the optimum, least function", end, 0.95, "unknown")
                for kind, end in ends.items()
            ),
            at_most("both: steps to 95 %, over good alone's", steps["both"] / steps["good alone"], 1.0, "unknown"),
            at_most("both: steps to 95 %, over bad alone's", steps["both"] / steps["bad alone"], 1.0, "unknown"),
            at_most("bad alone, beta 0: way to the optimum, least function", min(away), -1.0, "unknown"),
            at_most("bad alone, beta 0: the same, best function", max(away), 0.95, "unknown", headline=False),
            *text_checks,
        ],
        tables=[
            Table("bandits", ["function", "learns from", "best beta", "way to the optimum", "steps to 95 %"], rows),
            Table("tiny transformer", ["model", "method", "true reward", "divergence"], text_rows),
        ],
        draw=draw,
    )


def _bandit(function: Callable[[Tensor], Tensor], alpha: float, beta: float, seed: int) -> np.ndarray:
    """How far each replicate's mean is on its way from start to optimum, after each step: [STEPS, REPLICATES]."""
    rng = torch.Generator().manual_seed(seed)
    mean = (torch.rand(REPLICATES, 2, generator=rng, dtype=torch.float64) * 2 - 2).requires_grad_()
    spread = torch.zeros(REPLICATES, 2, dtype=torch.float64, requires_grad=True)
    objective, first = pmpo(alpha, beta), function(mean.detach())
    progress, old = np.empty((STEPS, REPLICATES)), (mean.detach().clone(), spread.detach().clone())

    def logs(actions: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
        scaled = (actions - at[0][:, None]) / at[1][:, None].exp()
        return (-0.5 * scaled.square() - at[1][:, None]).sum(-1)

    def loss(step: int) -> Tensor:
        nonlocal old
        if step % FOLLOW == 0:
            old = (mean.detach().clone(), spread.detach().clone())
        noise = torch.randn(REPLICATES, DRAWN, 2, generator=rng, dtype=torch.float64)
        actions = old[0][:, None] + old[1][:, None].exp() * noise
        values = function(actions)
        good = values <= values.median(1, keepdim=True)[0]
        batch = Singles(logs(actions, (mean, spread)).flatten(), logs(actions, old).flatten(), good=good.flatten())
        progress[step] = (1 - function(mean.detach()) / first).numpy()
        return objective(batch)[0].mean() * REPLICATES

    fit([mean, spread], loss, STEPS, torch.optim.Adam, 0.03, lambda: spread.clamp_(-4, 2))
    return progress


def _end(progress: np.ndarray) -> float:
    return float(np.median(progress[-1]))


def _soonest(progress: np.ndarray) -> int:
    """The first step from which the median replicate has gone 95 percent of the way; STEPS if there is none."""
    there = np.median(progress, 1) >= 0.95
    return int(there.argmax()) if there.any() else STEPS


def _both_answers(alpha: float, beta: float) -> Objective[Pairs]:
    """PMPO on the two answers of each pair: a good one and a bad one."""
    objective = pmpo(alpha, beta)

    def loss(pairs: Pairs) -> tuple[Tensor, Info]:
        yes = torch.ones_like(pairs.policy_chosen, dtype=torch.bool)
        good, _ = objective(Singles(pairs.policy_chosen, pairs.reference_chosen, good=yes))
        bad, _ = objective(Singles(pairs.policy_rejected, pairs.reference_rejected, good=~yes))
        return 0.5 * (good + bad), Info((pairs.policy_chosen - pairs.policy_rejected).detach())

    return Objective(loss, Pairs)


def _transformer(seed: int, models: int) -> tuple[list[list[Any]], list[Check]]:
    """True rewards of both methods' reviews, and how often PMPO's are higher."""
    rows, wins = [], []
    settings = {"DPO": (dpo(0.1), dpo(0.3)), "PMPO": (_both_answers(0.5, 0.5), _both_answers(0.5, 0.9))}
    for i in range(models):
        own = int(np.random.SeedSequence([seed, i]).generate_state(1)[0])
        reference = tiny_transformer.reference_model(own)
        pairs = tiny_transformer.draw_pairs(reference, 2000, 0.0, own)
        rewards = {}
        for name, objectives in settings.items():
            models_of = [tiny_transformer.train(reference, pairs, each, 60, 3e-3, own) for each in objectives]
            stand = [tiny_transformer.reward_and_divergence(model, reference, 2000, own) for model in models_of]
            at = max(range(len(stand)), key=lambda k: stand[k][0])
            rng = torch.Generator().manual_seed(own + len(rewards))
            rewards[name] = tiny_transformer.true_reward(models_of[at].sample(2000, rng))
            rows.append([i, name, f"{stand[at][0]:.2f}", f"{stand[at][1]:.1f}"])
        ours, theirs = rewards["PMPO"], rewards["DPO"]
        wins.append(float((ours > theirs).float().mean() + 0.5 * (ours == theirs).float().mean()))
    name = "transformer: share of PMPO's reviews that beat DPO's"
    return rows, [within(name, float(np.mean(wins)), 0.47, 0.53, "unknown", headline=False)]
