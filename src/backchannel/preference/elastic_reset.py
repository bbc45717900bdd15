"""Elastic Reset: now and then the weights go back to their moving average, and the average to where training began.

A policy that is tuned on a reward drifts: it goes on leaving the model that it was, and loses what the reward does not
see. A price of leaving changes what is optimised. A reset does not: the moving average of the weights lies on the way
from the start to the policy, so that after a reset most of the reward comes back within a few steps, and much of the
drift does not.

Equations (Noukhovitch et al. 2023, algorithm 1), with theta_0 the weights at the start, after every step of the
optimizer

    ema <- decay ema + (1 - decay) theta                                                         (1)

and after every n of them

    theta <- ema,    ema <- theta_0                                                              (2)

If the weights lay still at theta for the n steps, they would be at theta_0 + (1 - decay^n) (theta - theta_0) after the
reset: the share that is kept, 1 - decay^n, says how hard it is.

Steps: call `step()` after the optimizer's; it is True where the weights were reset. The optimizer keeps its moments, as
the authors' does; hand over the parameters of the policy, and leave a critic's out.

`frontier` is how the paper compares methods: the best reward at no more than some drift, over budgets of drift. `area`
is its mean over budgets: the normalised area under that curve.

Deviations: averages of half-precision weights are kept in float32; `area` is ours, the paper shows the curve.

    >>> import torch
    >>> weight = torch.zeros(1, requires_grad=True)
    >>> optimizer, elastic = torch.optim.SGD([weight], lr=1.0), elastic_reset([weight], decay=0.5, every=2)
    >>> for _ in range(3):
    ...     weight.grad = -torch.ones(1)
    ...     optimizer.step()
    ...     print(elastic.step(), weight.item())
    False 1.0
    True 1.25
    False 2.25

References: noukhovitch2023elastic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backchannel.card import Card

CARD = Card(
    name="Elastic Reset",
    summary="Every n steps the weights become their moving average, and it the start: less drift for a reward.",
    paper="noukhovitch2023elastic",
    row=293,
    topics=("policy gradients", "overoptimisation"),
    feedback=("reward",),
    protocol="artefact",
    engine="torch",
    neighbour="",
    example={"decay": 0.99, "every": 50},
    extras=("torch",),
)


class Elastic:
    """What `elastic_reset` returns.

    Attributes:
        average: the moving average of each parameter.
        start: each parameter as it was handed over.
        steps: how many were taken.
    """

    def __init__(self, parameters: list[Tensor], decay: float, every: int):
        self.parameters, self.decay, self.every, self.steps = parameters, decay, every, 0
        self.start = [each.detach().clone() for each in parameters]
        self.average = [
            each.detach().to(torch.promote_types(each.dtype, torch.float32), copy=True) for each in parameters
        ]

    @torch.no_grad()
    def step(self) -> bool:
        """To be called after each step of the optimizer; True if the weights were reset."""
        self.steps += 1
        for average, theta in zip(self.average, self.parameters, strict=True):
            average.lerp_(theta.to(average.dtype), 1 - self.decay)  # (1)
        if self.steps % self.every:
            return False
        for average, theta, first in zip(self.average, self.parameters, self.start, strict=True):
            theta.copy_(average)  # (2)
            average.copy_(first)
        return True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, copied."""
        return {
            "steps": self.steps,
            "average": [each.clone() for each in self.average],
            "start": [each.clone() for each in self.start],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; ValueError if it is of other parameters."""
        for name in ("average", "start"):
            shapes = [[tuple(each.shape) for each in some] for some in (state[name], getattr(self, name))]
            if shapes[0] != shapes[1]:
                raise ValueError(f"the {name} in this state is of parameters with other shapes")
        self.steps = int(state["steps"])
        for name in ("average", "start"):
            for own, saved in zip(getattr(self, name), state[name], strict=True):
                own.copy_(saved)


def elastic_reset(parameters: Iterable[Tensor], decay: float = 0.99, every: int = 50) -> Elastic:
    """Resets beside an optimizer.

    Args:
        parameters: of the policy, as they are at the start; changed in place.
        decay: of the moving average, in [0, 1): 0 never resets to anything but the weights themselves.
        every: n, steps from reset to reset.
    """
    own = list(parameters)
    if not own:
        raise ValueError("parameters must be at least one tensor, not none")
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), not {decay}")
    if every < 1:
        raise ValueError(f"every must be 1 or more steps, not {every}")
    return Elastic(own, decay, every)


def frontier(drift: np.ndarray, reward: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    """The best reward among points whose drift is at most each budget: float64[budgets], -inf where there is none."""
    inside = np.asarray(drift, float)[None] <= np.asarray(budgets, float)[:, None]
    best: np.ndarray = np.where(inside, np.asarray(reward, float)[None], -np.inf).max(1)
    return best


def area(drift: np.ndarray, reward: np.ndarray, most: float) -> float:
    """The mean of the frontier over budgets from 0 to `most`.

    Args:
        drift: of each point, at least 0; the start, of drift 0, must be among them.
        reward: of each point.
        most: the largest budget, positive.
    """
    drift, reward = np.asarray(drift, float), np.asarray(reward, float)
    if most <= 0:
        raise ValueError(f"most must be positive, not {most}")
    if drift.size == 0 or drift.min() > 0:
        raise ValueError("the points must hold the start, of drift 0")
    edges = np.unique(np.append(drift[(drift > 0) & (drift < most)], [0.0, most]))
    return float((frontier(drift, reward, edges[:-1]) * np.diff(edges)).sum() / most)
