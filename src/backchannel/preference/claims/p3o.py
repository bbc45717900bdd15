"""What a prompt adds to all of its rewards does not move P3O; it moves PPO, and costs it reward.

The paper (Wu et al. 2023): a reward learned from comparisons is known up to a number for each prompt. P3O does not see
that number, PPO does; on summaries and dialogues P3O has more reward than PPO at the same divergence. Ours, on a tiny
transformer with a known gold reward, everything from scratch:

1. A number for each prompt, added to the rewards of the same answers, changes the gradients of both forms of P3O by
   less than 1e-6 of their size, and PPO's by more than 1e-2: with the critic as it is, and with one that was fitted to
   the new rewards as long as the first was to the old.
2. Over five runs each, with the same number of answers a round, steps, learning rate and price, P3O at three
   divergences has at least the gold reward of PPO on rewards with such numbers in them.

Without these numbers PPO is as good or better here (for context): its critic credits tokens, P3O whole answers. The
gain over PPO at the same divergence that the paper reports is not seen on rewards that are the same for all prompts.
Summaries, dialogues and offline DPO are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error
from backchannel.parts.torch_fit import fit
from backchannel.preference.p3o import p3o
from backchannel.preference.ppo import generalised_advantage, ppo
from backchannel.tasks.tiny_answers import ASKED, TOPIC, TOPICS, AnswerLM, Answers, gold, random_prompts, reference
from backchannel.tasks.tiny_policy_gradient import Critic, Reward, expected, measured, policy_gradient, roll

RUNS, ROUNDS, PROMPTS, RATE, EPOCHS, BETA = 5, 32, 32, 5e-3, 2, 0.05
DIVERGENCES = (1.0, 2.0, 3.0)
P3O = {"P3O, joint": p3o(0.2, "joint").objective, "P3O, separate": p3o(0.2, "separate").objective}
ADVANTAGE = partial(generalised_advantage, discount=1.0, trace=0.95)


def claim(seed: int, full: bool) -> Evidence:
    """Gradients, and runs; `full` has three times the rounds."""
    torch.set_num_threads(1)
    changed = _gradients(seed)
    start = reference(seed, width=32, layers=1, steps=150)
    rounds = 3 * ROUNDS if full else ROUNDS
    runs: dict[str, np.ndarray] = {}
    for name in (*P3O, "PPO", "PPO, numbers added"):
        runs[name] = np.stack([_run(name, start, rounds, 1000 * seed + each) for each in range(RUNS)])
    means = {name: each.mean(0) for name, each in runs.items()}
    rows = []
    for name, each in runs.items():
        ends = [f"{m:.2f} +- {e:.2f}" for m, e in (mean_and_error(each[:, -5:, k].mean(1)) for k in (0, 1))]
        rows.append([name, *(f"{_at(means[name], where):.2f}" for where in DIVERGENCES), *ends])

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name, path in means.items():
            smooth = _smooth(path)
            axes.plot(smooth[:, 0], smooth[:, 1], marker=".", label=name)
        axes.set(xlabel="divergence from the reference, nats", ylabel="gold reward", title=f"means of {RUNS} runs")
        axes.legend()

    checks = [
        at_most("P3O: change of the gradient, the larger of both forms", max(changed[n] for n in P3O), 1e-6, "exact"),
        at_least("PPO, critic as it is: change of the gradient", changed["PPO"], 1e-2, "below 1e-4"),
        at_least("PPO, critic fitted anew: change of the gradient", changed["PPO, critic fitted"], 1e-2, "below 1e-4"),
    ]
    for name in P3O:
        for other, headline in (("PPO, numbers added", True), ("PPO", False)):
            ahead = [_at(means[name], where) - _at(means[other], where) for where in DIVERGENCES]
            title = f"{name}: gold reward ahead of {other} at the same divergence, least of {len(DIVERGENCES)}"
            checks.append(at_least(title, min(ahead), 0.0, "unknown", headline))
    columns = ["method", *(f"gold reward at {where:g} nats" for where in DIVERGENCES), "last divergence", "last reward"]
    tables = [
        Table(f"Means of {RUNS} runs", columns, rows),
        Table("Change of the gradient", ["method", "of its size"], [[name, f"{x:.2g}"] for name, x in changed.items()]),
    ]
    statement = "what a prompt adds to its rewards leaves P3O as it is, changes PPO's gradient and costs it reward"
    return Evidence(statement, checks, tables, draw)


def _added(seed: int) -> Callable[[Answers], Tensor]:
    """A number for each prompt: for each topic that it asks for one of about 2."""
    of_topic = 2 * torch.randn(TOPICS, generator=torch.Generator().manual_seed(seed))
    return lambda answers: of_topic[answers.prompts[:, 1 : 1 + ASKED] - TOPIC].sum(1)


def _run(name: str, start: AnswerLM, rounds: int, seed: int) -> np.ndarray:
    """Divergence and gold reward of each round's answers: [rounds, 2]."""
    path, add = [], _added(seed)

    def look(each: int, model: AnswerLM, rolled: Any) -> None:
        path.append((float(rolled.divergence.mean()), float(gold(rolled.answers).mean())))

    def more(answers: Answers) -> Tensor:
        return gold(answers) + add(answers)

    critic = None if name in P3O else Critic(start)
    objective, credit = (P3O[name], None) if critic is None else (ppo(0.2, 0.5), expected(critic, ADVANTAGE))
    reward: Reward = more if name == "PPO, numbers added" else gold
    policy_gradient(
        start, reward, objective, credit, rounds, PROMPTS, 2, RATE, seed, BETA, EPOCHS, critic=critic, after=look
    )
    return np.array(path)


def _gradients(seed: int) -> dict[str, float]:
    """How much the gradient on the same answers changes with numbers added, as a share of its size; in float64."""
    start = reference(seed, width=16, layers=1, steps=100).double()
    model = reference(seed + 1, width=16, layers=1, steps=100).double().requires_grad_(True)
    every, add = torch.arange(PROMPTS), _added(seed)
    rng = torch.Generator().manual_seed(seed)
    rolled = roll(model, start, lambda answers: gold(answers).double(), random_prompts(PROMPTS, rng), 2, BETA, rng)
    moved = rolled._replace(reward=rolled.reward + add(rolled.answers).double())
    critics = []
    for each in (rolled, moved):
        critic = Critic(start).double()
        _, returns = ADVANTAGE(each.rewards, torch.zeros_like(each.price), each.answers.mask, trace=1.0)
        _fitted(critic, each.answers, returns)
        critics.append(critic)

    def gradient(objective: Any, each: Any, critic: Critic | None) -> Tensor:
        credited = None if critic is None else expected(critic, ADVANTAGE)(each)
        data = measured(model, critic, each, credited, every)
        found = torch.autograd.grad(objective(data)[0].mean(), [*model.parameters()])
        return torch.cat([g.flatten() for g in found])

    pairs = {name: (gradient(p3o_, rolled, None), gradient(p3o_, moved, None)) for name, p3o_ in P3O.items()}
    first = gradient(ppo(0.2, 0.5), rolled, critics[0])
    pairs["PPO"] = (first, gradient(ppo(0.2, 0.5), moved, critics[0]))
    pairs["PPO, critic fitted"] = (first, gradient(ppo(0.2, 0.5), moved, critics[1]))
    return {name: float((after - before).norm() / before.norm()) for name, (before, after) in pairs.items()}


def _fitted(critic: Critic, answers: Answers, returns: Tensor) -> None:
    learned = [each for each in critic.parameters() if each.requires_grad]
    fit(learned, lambda step: (critic(answers) - returns)[answers.mask].square().mean(), 100, torch.optim.Adam, 3e-3)


def _smooth(path: np.ndarray) -> np.ndarray:
    """Means of five rounds each."""
    return np.stack([np.convolve(each, np.ones(5) / 5, "valid") for each in path.T], 1)


def _at(path: np.ndarray, divergence: float) -> float:
    """The reward where the smoothed path first gets to a divergence; nan if it does not."""
    smooth = _smooth(path)
    past = smooth[:, 0] >= divergence
    if not past.any():
        return float("nan")
    i = max(1, int(past.argmax()))
    return float(np.interp(divergence, smooth[i - 1 : i + 1, 0], smooth[i - 1 : i + 1, 1]))
