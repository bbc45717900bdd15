"""Overoptimisation laws: how true reward rises and falls as direct alignment leaves its reference.

Classical tuning against a learned reward gains true reward at first and loses it later: the policy goes where the
learned reward errs. Direct alignment (DPO, IPO, SLiC) learns no reward, and does the same: its policy is a reward, and
comparisons leave it free on answers that nobody compared. The same law fits both.

Equations (Rafailov et al. 2024; Gao, Schulman and Hilton 2023; the numbers are ours). With KL the divergence from the
reference, d = sqrt(KL), and R the gain of true reward, or of win rate, over the reference:

    R(d) = d (alpha - beta log d)                                                                                (1)
    R(d) = d (alpha - beta d)                                               (2), as best of n has it against a reward
    R(d) = d^2 (alpha - beta d^2)                                           (3), quadratic in KL: no law of anything

All are linear in (alpha, beta): least squares are exact. For beta > 0 they have one peak, at

    d = exp(alpha / beta - 1);    d = alpha / (2 beta);    d^2 = alpha / (2 beta)                                (4)

beyond which more divergence loses. Best of n has the divergence log n - (n - 1) / n at most (parts/best_of_n.py). (5)

Why there is a peak, on a tree that can be computed whole: answers are paths of `depth` choices out of `arms`, and a
policy is softmax(features theta) at each node. A loss of pairs knows the paths that were compared,

    loss( log pi(w), log pi(l) ),    log pi(path) = sum over its nodes of log softmax(features theta)[choice]    (6)

and says nothing of others. With features of its own for each node, probability that is taken from rejected paths goes
to chosen ones. Where nodes share features, as in every language model, it goes to paths that nobody compared.

Steps: `daa_overoptimisation_laws` fits (1), (2) or (3) to points along training runs; `Law.peak` is (4). `tree_run`
takes steps of gradient descent on (6) down any objective of pairs from a uniform reference, and says where probability
goes.

Deviations: the paper fits win rates, judged by a model; ours takes any gain. Its tree's policy is a recurrent network;
ours is linear in features, so that tables, shared features and everything between are one number: their rank.

    >>> import numpy as np
    >>> d = np.linspace(0.5, 4, 20)
    >>> law = daa_overoptimisation_laws(d**2, d * (1.0 - 0.8 * np.log(d)))
    >>> round(law.alpha, 6), round(law.beta, 6), [round(float(each), 3) for each in law.peak]
    (1.0, 0.8, [1.284, 1.027])

References: rafailov2024scaling, gao2023scaling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Objective, Pairs

CARD = Card(
    name="Overoptimisation laws",
    summary="Fits how true reward rises and falls with divergence in direct alignment; a tree that shows why.",
    paper="rafailov2024scaling",
    row=127,
    topics=("overoptimisation", "preference optimisation", "theory"),
    feedback=("comparison",),
    protocol="artefact",
    engine="torch",
    neighbour="",
    example={"divergence": [0.2, 1.0, 4.0, 9.0], "gain": [0.5, 0.9, 1.0, 0.6]},
    extras=("torch",),
)

Form = Literal["log", "linear", "quadratic"]


class Peak(NamedTuple):
    """Where a law is highest; inf where it never falls."""

    distance: float  # d
    gain: float  # R(d)


class Law(NamedTuple):
    """A fitted law."""

    form: Form
    alpha: float
    beta: float
    rmse: float
    r2: float  # 1 less the squared error by that of the mean

    def at(self, divergence: Sequence[float] | np.ndarray) -> np.ndarray:
        """R at divergences KL."""
        alpha, beta = _basis(np.sqrt(np.asarray(divergence, float)), self.form).T
        found: np.ndarray = self.alpha * alpha + self.beta * beta
        return found

    @property
    def peak(self) -> Peak:
        """(4)."""
        if self.beta <= 0:
            return Peak(math.inf, math.inf)
        if self.form == "log":
            d = math.exp(self.alpha / self.beta - 1)
        else:
            most = max(0.0, self.alpha / (2 * self.beta))
            d = most if self.form == "linear" else math.sqrt(most)
        return Peak(d, float(self.at([d * d])[0]))


class Masses(NamedTuple):
    """Probability of paths before each step and after the last; [steps + 1] each."""

    chosen: Tensor
    rejected: Tensor
    others: Tensor  # neither: what nobody compared


def daa_overoptimisation_laws(
    divergence: Sequence[float] | np.ndarray, gain: Sequence[float] | np.ndarray, form: Form = "log"
) -> Law:
    """(1), (2) or (3), by least squares.

    Args:
        divergence: KL of each point from the reference, in nats, at least 0; estimates below 0 count as 0.
        gain: true reward, or win rate, less the reference's.
        form: "log" for (1), "linear" for (2), "quadratic" for (3).
    """
    kl, r = np.asarray(divergence, float), np.asarray(gain, float)
    if kl.ndim != 1 or kl.shape != r.shape or len(kl) < 3:
        raise ValueError(f"divergence and gain must be 3 numbers each or more, not {kl.shape} and {r.shape}")
    if not (np.isfinite(kl).all() and np.isfinite(r).all()):
        raise ValueError("divergence and gain must be finite")
    if form not in ("log", "linear", "quadratic"):
        raise ValueError(f"form must be 'log', 'linear' or 'quadratic', not {form!r}")
    basis = _basis(np.sqrt(np.maximum(kl, 0)), form)
    (alpha, beta), *_ = np.linalg.lstsq(basis, r, rcond=None)
    error = r - basis @ [alpha, beta]
    spread = float(((r - r.mean()) ** 2).sum())
    r2 = 1 - float(error @ error) / spread if spread else math.nan
    return Law(form, float(alpha), float(beta), float(np.sqrt((error**2).mean())), r2)


def nodes(depth: int, arms: int) -> int:
    """How many choices a tree holds."""
    return sum(arms**level for level in range(depth))


def tree_logs(logits: Tensor, depth: int) -> Tensor:
    """(6) of every path: [arms^depth], in the order of their choices as digits.

    Args:
        logits: [nodes, arms], level by level, each level in the order of its paths.
        depth: choices in a path.
    """
    arms, first = logits.shape[1], 0
    logs = logits.new_zeros(1)
    for level in range(depth):
        here = torch.log_softmax(logits[first : first + arms**level], 1)
        logs = (logs[:, None] + here).reshape(-1)
        first += arms**level
    return logs


def tree_run(
    objective: Objective[Pairs],
    chosen: Sequence[int],
    rejected: Sequence[int],
    features: Tensor,
    arms: int,
    depth: int,
    steps: int,
    rate: float,
) -> Masses:
    """Gradient descent on theta from 0, where all paths are equally likely: the reference.

    Args:
        objective: a loss of pairs.
        chosen: the preferred path of each comparison.
        rejected: and the other.
        features: [nodes, rank]; the identity is a table.
        arms: choices at a node.
        depth: choices in a path.
        steps: how many.
        rate: of a step.
    """
    if features.dim() != 2 or len(features) != nodes(depth, arms):
        raise ValueError(f"features must have a row for each of {nodes(depth, arms)} nodes, not {len(features)}")
    theta = torch.zeros(features.shape[1], arms, dtype=features.dtype, requires_grad=True)
    better, worse = torch.tensor(list(chosen)), torch.tensor(list(rejected))
    reference = tree_logs(torch.zeros(len(features), arms, dtype=features.dtype), depth)
    seen = []
    for step in range(steps + 1):
        logs = tree_logs(features @ theta, depth)
        law = logs.detach().exp()
        both = law[better.unique()].sum(), law[worse.unique()].sum()
        seen.append(torch.stack([*both, 1 - law[torch.cat([better, worse]).unique()].sum()]))
        if step < steps:
            loss, _ = objective(Pairs(logs[better], logs[worse], reference[better], reference[worse]))
            (down,) = torch.autograd.grad(loss.mean(), theta)
            theta = (theta - rate * down).detach().requires_grad_()
    return Masses(*torch.stack(seen, 1))


# ---- private


def _basis(d: np.ndarray, form: Form) -> np.ndarray:
    """[points, 2]: what alpha and beta are multiplied with."""
    if form == "log":
        return np.column_stack([d, -d * np.log(np.where(d > 0, d, 1.0))])
    return np.column_stack([d, -d * d]) if form == "linear" else np.column_stack([d * d, -(d**4)])
