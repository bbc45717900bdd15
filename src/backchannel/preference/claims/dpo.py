"""DPO, a classifier of pairs, finds the optimum of reward less divergence without a model of the reward.

The paper (Rafailov et al. 2023, sections 4 and 5): under Bradley and Terry's model the policy that is optimal for a
reward at the price beta, pi* proportional to ref exp(r / beta) (eq. 4), is the maximum-likelihood policy of eq. 7, so
that fitting it to comparisons is fitting a reward and solving for its best policy, in one step. Ours, on log-linear
policies with d = 10, everything known in closed form:

1. With every pair at its exact probability, DPO's minimiser is pi*: largest difference of log-probabilities 1e-5.
2. On data sets of 2,000 pairs DPO's policy is that of the two stages, a reward fitted by Newton's method and then
   eq. 4, to 1e-5.
3. Over n = 500 to 32,000 pairs the reward less beta times the divergence falls short of its optimum as 1 / n: slope -1
   +- 0.15.
4. At n = 2,000 it is higher, by at least ten standard errors, than that of the policy fitted to the preferred answers
   alone (the paper's Preferred-FT), which never learns what was worse, and than the reference's.

That DPO also beats PPO on language models, the paper's experiments, is not covered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most, mean_and_error, slope, within
from backchannel.parts.objectives import Pairs
from backchannel.parts.torch_fit import fit
from backchannel.preference.dpo import dpo
from backchannel.tasks.preferences_loglinear import (
    LogLinear,
    cell_probabilities,
    cells,
    draw_counts,
    log_policy,
    preferences_loglinear,
    regularised,
)

SIZES, COMPARED = (500, 2000, 8000, 32_000), 2000


def claim(seed: int, full: bool) -> Evidence:
    """The population, data sets of four sizes, the two stages and the preferred answers; `full` has more data sets."""
    torch.set_num_threads(1)
    replicates = 400 if full else 100
    task = preferences_loglinear(dimension=10, seed=seed)
    objective = dpo(task.beta)
    exact = _solve(task, cell_probabilities(task, 0.0)[None], lambda pairs: objective(pairs)[0], 1 / 4, 2000)
    found = float((log_policy(task, exact) - log_policy(task, task.truth)).abs().max())
    best, short = float(regularised(task, task.truth)), {}
    for n in SIZES:
        counts = draw_counts(task, n, 0.0, replicates, seed)
        theta = _solve(task, counts, lambda pairs: objective(pairs)[0], 1 / 4, 2000)
        short[n] = mean_and_error((best - regularised(task, theta)).numpy())
        if n == COMPARED:
            stages = _two_stages(task, counts)
            apart = float((log_policy(task, theta) - log_policy(task, stages)).abs().max())
            preferred = _solve(task, counts, lambda pairs: -pairs.policy_chosen, 1 / task.beta**2, 2000)
            gains = (regularised(task, theta) - regularised(task, preferred)).numpy()
            lost = mean_and_error((best - regularised(task, preferred)).numpy())
    reference = best - float(regularised(task, torch.zeros_like(task.truth)))
    rows = [[n, "DPO", f"{mean:.5f} +- {error:.5f}"] for n, (mean, error) in short.items()]
    rows += [
        [COMPARED, "preferred answers alone", f"{lost[0]:.5f} +- {lost[1]:.5f}"],
        ["", "reference", f"{reference:.5f}"],
    ]
    gain, error = mean_and_error(gains)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.errorbar(SIZES, [p[0] for p in short.values()], [3 * p[1] for p in short.values()], fmt="o-", label="DPO")
        axes.plot([COMPARED], [lost[0]], "s", label="preferred answers alone")
        axes.axhline(reference, color="0.5", linestyle=":", label="reference")
        axes.set(xscale="log", yscale="log", xlabel="pairs n", ylabel=r"optimum less (reward - $\beta$ divergence)")
        axes.legend()

    fall = slope(np.array(SIZES), np.array([short[n][0] for n in SIZES]))
    return Evidence(
        statement="DPO's minimiser is the optimum of reward less divergence; from n pairs it falls short as 1 / n.",
        checks=[
            at_most("exact probabilities: largest log pi - log pi*", found, 1e-5, "exact"),
            at_most("n = 2,000: largest log pi less that of the two stages", apart, 1e-5, "exact"),
            within("slope of the shortfall in n", fall, -1.15, -0.85, "below 1e-4"),
            at_least(
                "n = 2,000: gain over the preferred answers alone, standard errors", gain / error, 10.0, "below 1e-4"
            ),
            at_least(
                "n = 2,000: gain over the reference, standard errors",
                (reference - short[COMPARED][0]) / short[COMPARED][1],
                10.0,
                "below 1e-4",
            ),
        ],
        tables=[Table("short of the optimum", ["n", "policy", "reward less divergence"], rows)],
        draw=draw,
    )


def _solve(task: LogLinear, counts: Tensor, loss_of: Callable[[Pairs], Tensor], curvature: float, steps: int) -> Tensor:
    """theta of each data set, by gradient descent from the reference."""
    theta = torch.zeros(len(counts), task.truth.numel(), dtype=torch.float64, requires_grad=True)
    weights = counts / counts.sum(1, keepdim=True)
    fit(
        [theta],
        lambda step: (loss_of(cells(task, theta)) * weights).sum(),
        steps,
        torch.optim.SGD,
        0.75 / (curvature * task.beta**2),
    )
    return theta.detach()


def _two_stages(task: LogLinear, counts: Tensor) -> Tensor:
    """The reward w . phi of greatest likelihood under Bradley and Terry's model, by Newton; theta = w / beta (4)."""
    away = task.features[task.prompt, task.first] - task.features[task.prompt, task.second]
    signed = torch.cat([away, -away])
    rewards = []
    for row in counts:
        w = torch.zeros(task.truth.numel(), dtype=torch.float64)
        for _ in range(50):
            right = torch.sigmoid(signed @ w)
            gradient = signed.mT @ (row * (1 - right))
            hessian = signed.mT @ ((row * right * (1 - right))[:, None] * signed)
            w = w + torch.linalg.solve(hessian, gradient)
        rewards.append(w)
    return torch.stack(rewards) / task.beta
