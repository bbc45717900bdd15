"""Constrained RLHF: each of several rewards is raised up to the point to which it can be trusted, and no further.

A sum of rewards that were learned is a proxy: past some point its rise costs quality. Where that point lies is known,
or looked for, of each reward; so each becomes a constraint, with a multiplier that weighs it as long as it is not met.
What is maximised beyond the constraints is closeness to the reference.

Equations (Moskovitz et al. 2024, sections 4 and 5; the numbers are ours). Reward 0 of a token is its price of leaving
the reference, r_0 = -beta log(pi / ref). With N rewards of means J_i, thresholds theta_i and multipliers mu,

    mu-PPO (J_i >= theta_i):  w_i = sigmoid(mu_i)        xi-PPO (J_i = theta_i):  w_i = tanh(mu_i)         (1)
    A = (N - sum_i w_i) A_0 + sum_i w_i A_i                                                                (2)
    mu <- mu - alpha grad_mu sum_i w_i (J_i - theta_i)                                                     (3)

so a weight falls while its reward is above its threshold; tanh may go below 0 and pull it down again. The advantages
A_0 ... A_N are those of a critic with a head for each reward; the loss is PPO's with the errors of all heads,

    loss = mean over tokens of (-min(rho A, clip(rho, 1 - eps, 1 + eps) A) + c sum_i (V_i - G_i)^2).       (4)

Thresholds can be looked for in the very run that uses them (`ThresholdSearch`): train on some thresholds until they are
reached or time is up, ask an evaluation of the policy, go on from it with the thresholds that Nelder and Mead's simplex
method wants to know next.

Steps: rewards, one by one; advantages, head by head; `mixed` by (2); some epochs of `objective`; `update` by (3).

Deviations: multipliers start at 0 and have no momentum. Advantages are not standardised, so that (2) is the policy
gradient of the Lagrangian. Multipliers are updated when the caller says so, once a round here; the paper does so with
every step. A simplex keeps the values that it was told; the paper's asks anew of points that are not near an old one.

    >>> import torch
    >>> method = constrained_rlhf([1.0, 0.5], kind="equality", rate=0.5)
    >>> method.update(torch.tensor([[0.0, 0.6], [1.0, 0.8]]))  # the first is below its threshold, the second above
    >>> method.weights
    tensor([ 0.2449, -0.0997])
    >>> method.mixed(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([2.0456])

References: moskovitz2024confronting, schulman2017proximal, nelder1965simplex.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Objective, Rollouts, known, positive
from backchannel.parts.rollout_losses import clipped, log_ratio, mean_of_tokens

CARD = Card(
    name="Constrained RLHF",
    summary="PPO on several rewards, each up to a threshold: multipliers weigh them, a simplex finds the thresholds.",
    paper="moskovitz2024confronting",
    row=36,
    topics=("policy gradients", "overoptimisation"),
    feedback=("reward",),
    protocol="artefact",
    engine="torch",
    neighbour="ppo",
    example={"thresholds": [1.0, 0.5]},
    extras=("torch",),
)


class Info(NamedTuple):
    """What to log: of each answer, the share of its tokens that were clipped and the heads' summed squared error."""

    clipped: Tensor  # [n]
    value_error: Tensor  # [n]


class Constrained:
    """What `constrained_rlhf` returns.

    Attributes:
        thresholds: float[N]; they may be changed between rounds.
        multipliers: mu, float[N].
        objective: (4), of rollouts with values and returns [n, tokens, N + 1] and mixed advantages.
    """

    def __init__(
        self,
        thresholds: Tensor,
        kind: Literal["inequality", "equality"],
        rate: float,
        epsilon: float,
        value_weight: float,
    ):
        self.thresholds, self.multipliers, self.rate = thresholds, torch.zeros_like(thresholds), rate
        self._squash = torch.sigmoid if kind == "inequality" else torch.tanh

        def loss(rollouts: Rollouts) -> tuple[Tensor, Info]:
            mask, advantage = rollouts.mask, rollouts.advantage
            rho = torch.exp(log_ratio(rollouts.policy, rollouts.sampled, mask))
            errors = (known(rollouts, "value") - known(rollouts, "returns")).square().sum(2)
            error = mean_of_tokens(errors, mask)
            past = ((rho < 1 - epsilon) & (advantage < 0)) | ((rho > 1 + epsilon) & (advantage > 0))
            each = mean_of_tokens(clipped(rho, advantage, epsilon, epsilon), mask) + value_weight * error  # (4)
            return each, Info(mean_of_tokens(past.to(rho.dtype), mask), error.detach())

        self.objective = Objective(loss, Rollouts, reference=False)

    @property
    def weights(self) -> Tensor:
        """w of (1): float[N]."""
        return self._squash(self.multipliers)

    def mixed(self, advantages: Tensor) -> Tensor:
        """(2): advantages [..., N + 1], of the price first, -> [...]."""
        n, w = len(self.thresholds), self.weights
        if advantages.shape[-1] != n + 1:
            raise ValueError(f"there must be {n + 1} advantages, the price's first, not {advantages.shape[-1]}")
        return (n - w.sum()) * advantages[..., 0] + (w * advantages[..., 1:]).sum(-1)

    def update(self, rewards: Tensor) -> None:
        """(3), by the rewards of some answers of the policy: [n, N]."""
        with torch.enable_grad():
            mu = self.multipliers.detach().requires_grad_()
            (slope,) = torch.autograd.grad((self._squash(mu) * (rewards.mean(0) - self.thresholds)).sum(), mu)
        self.multipliers = self.multipliers - self.rate * slope


def constrained_rlhf(
    thresholds: Sequence[float],
    kind: Literal["inequality", "equality"] = "equality",
    rate: float = 0.1,
    epsilon: float = 0.2,
    value_weight: float = 0.5,
) -> Constrained:
    """Constrained tuning on several rewards.

    Args:
        thresholds: theta, of each reward.
        kind: "inequality" for mu-PPO, "equality" for xi-PPO.
        rate: alpha, of the multipliers, positive.
        epsilon: how far a token's ratio may go from 1, in (0, 1).
        value_weight: c, of the critic's errors, positive.
    """
    if not len(thresholds):
        raise ValueError("thresholds must be those of at least one reward, not none")
    if kind not in ("inequality", "equality"):
        raise ValueError(f"kind must be 'inequality' or 'equality', not {kind!r}")
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must lie in (0, 1), not {epsilon}")
    positive(rate=rate, value_weight=value_weight)
    return Constrained(torch.tensor(thresholds, dtype=torch.float32), kind, rate, epsilon, value_weight)


class ThresholdSearch:
    """Nelder and Mead's simplex method, asked and told: thresholds for which an evaluation is high.

    Attributes:
        point: the thresholds to try next.
        best: (value, thresholds) of the best so far, None at the start.
    """

    def __init__(self, simplex: np.ndarray):
        """`simplex`: N + 1 different points, [N + 1, N]."""
        first = np.asarray(simplex, float)
        if first.ndim != 2 or len(first) != first.shape[1] + 1:
            raise ValueError(f"a simplex of N thresholds has N + 1 points, [N + 1, N], not {list(first.shape)}")
        self.best: tuple[float, np.ndarray] | None = None
        self._moves = _nelder_mead(first)
        self.point = next(self._moves)

    def tell(self, value: float) -> None:
        """The evaluation at `point`, higher is better; `point` becomes the next."""
        if self.best is None or value > self.best[0]:
            self.best = (value, self.point)
        self.point = self._moves.send(-value)


def _nelder_mead(simplex: np.ndarray) -> Generator[np.ndarray, float, None]:
    """Yields points, is sent their values, lower is better; without end."""
    points, values = list(simplex), []
    for point in points:
        values.append((yield point))
    while True:
        order = np.argsort(values, kind="stable")
        points, values = [points[i] for i in order], [values[i] for i in order]
        centre, worst = np.mean(points[:-1], axis=0), points[-1]
        reflected = centre + (centre - worst)
        value = yield reflected
        if value < values[0]:
            expanded = centre + 2 * (reflected - centre)
            further = yield expanded
            points[-1], values[-1] = (expanded, further) if further < value else (reflected, value)
        elif value < values[-2]:
            points[-1], values[-1] = reflected, value
        else:
            contracted = centre + 0.5 * (worst - centre)
            nearer = yield contracted
            if nearer < values[-1]:
                points[-1], values[-1] = contracted, nearer
            else:
                for i in range(1, len(points)):
                    points[i] = points[0] + 0.5 * (points[i] - points[0])
                    values[i] = yield points[i]
