"""Preferences over finitely many actions, of a log-linear truth: everything is known in closed form.

There are `prompts` prompts with `actions` answers each; answer a to prompt s has known features phi(s, a) in R^d. The
reference policy is uniform and the true reward is r(s, a) = beta theta* . phi(s, a), so that the optimum of reward less
beta times the Kullback-Leibler divergence to the reference lies in the log-linear class (Rafailov et al. 2023, eq. 4):

    pi*(a | s) = exp(r(s, a) / beta) / A / Z(s) = softmax_a(theta* . phi(s, a))

A prompt and two answers are drawn evenly; a is preferred to b with probability sigmoid(r(s, a) - r(s, b)) (Bradley and
Terry), and the label is then flipped with the flip rate. Features are whitened, so that their differences over
the pairs have mean square I: no direction is better covered than another.

There are only m = prompts * actions (actions - 1) / 2 distinct pairs: a data set is the table of how often each was
seen with each label, and expectations over labels are sums. Cells are ordered: first every pair with a preferred, then
every pair with b preferred: 2 m.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backchannel.parts.objectives import Pairs


class LogLinear(NamedTuple):
    """The features, the truth, and the pairs' indices."""

    features: Tensor  # float64[prompts, actions, d]
    truth: Tensor  # float64[d]: theta*
    beta: float
    prompt: Tensor  # int64[m]
    first: Tensor  # int64[m]: a
    second: Tensor  # int64[m]: b


def preferences_loglinear(
    dimension: int = 10, prompts: int = 8, actions: int = 5, beta: float = 0.5, norm: float = 3.0, seed: int = 0
) -> LogLinear:
    """A task whose true parameter has length `norm`: the true margins have a standard deviation of beta * norm."""
    if prompts * (actions - 1) < dimension:
        raise ValueError(f"{prompts} prompts with {actions} answers cannot identify {dimension} parameters")
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(prompts, actions, dimension, generator=rng, dtype=torch.float64)
    a, b = torch.triu_indices(actions, actions, offset=1)
    prompt = torch.arange(prompts).repeat_interleave(len(a))
    first, second = a.repeat(prompts), b.repeat(prompts)
    away = features[prompt, first] - features[prompt, second]
    root = torch.linalg.cholesky(away.mT @ away / len(away))
    truth = torch.randn(dimension, generator=rng, dtype=torch.float64)
    return LogLinear(features @ torch.linalg.inv(root).mT, truth * (norm / truth.norm()), beta, prompt, first, second)


def log_policy(task: LogLinear, parameter: Tensor) -> Tensor:
    """log pi_theta(a | s) for theta [..., d]: [..., prompts, actions]."""
    return torch.log_softmax(torch.einsum("sad,...d->...sa", task.features, parameter), -1)


def cells(task: LogLinear, parameter: Tensor) -> Pairs:
    """Log-probabilities of all 2 m cells under pi_theta, [..., 2 m], and under the uniform reference."""
    policy = log_policy(task, parameter)
    first, second = policy[..., task.prompt, task.first], policy[..., task.prompt, task.second]
    chosen, rejected = torch.cat([first, second], -1), torch.cat([second, first], -1)
    reference = torch.full_like(chosen, -float(np.log(task.features.shape[1])))
    return Pairs(chosen, rejected, reference, reference)


def cell_probabilities(task: LogLinear, flip_rate: float) -> Tensor:
    """How likely each cell is in one draw: float64[2 m]."""
    difference = task.features[task.prompt, task.first] - task.features[task.prompt, task.second]
    clean = torch.sigmoid(task.beta * difference @ task.truth)
    seen = (1 - flip_rate) * clean + flip_rate * (1 - clean)
    return torch.cat([seen, 1 - seen]) / len(task.prompt)


def draw_counts(task: LogLinear, n: int, flip_rate: float, replicates: int, seed: int) -> Tensor:
    """How often each cell was seen in `replicates` data sets of `n` labelled pairs: float64[replicates, 2 m]."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.multinomial(n, cell_probabilities(task, flip_rate).numpy(), replicates).astype(float))


def reward(task: LogLinear, parameter: Tensor) -> Tensor:
    """The expected true reward of pi_theta over even prompts: [...]."""
    true = task.beta * task.features @ task.truth
    return (log_policy(task, parameter).exp() * true).sum(-1).mean(-1)


def regularised(task: LogLinear, parameter: Tensor) -> Tensor:
    """`reward` less beta KL(pi_theta || reference), which theta* maximises: [...]."""
    policy = log_policy(task, parameter)
    divergence = (policy.exp() * (policy + float(np.log(policy.shape[-1])))).sum(-1).mean(-1)
    return reward(task, parameter) - task.beta * divergence
