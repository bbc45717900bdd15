"""Adaptive Braking: momentum that bears late gradients, because what agrees with the motion is scaled down.

With gradients of D steps ago, momentum overshoots: when the gradient turns, the velocity goes on for D steps, and along
directions of high curvature it swings ever wider. Adaptive Braking looks at the angle between the gradient that arrives
and the velocity. A gradient that drives the motion on is scaled down, one that opposes it is scaled up: the motion is
braked before it becomes a swing.

Equations (Venigalla, Kosson, Chiley and Koester 2020; the numbering is ours), with the velocity v_0 = 0 and g_t a
gradient that may be late:

    c_t     = <g_t, v_t> / (|g_t| |v_t|),  0 where either is 0                                          (1)
    v_{t+1} = m v_t + (1 - rho c_t) g_t                                                                 (2)
    w_{t+1} = w_t - eta v_{t+1}                                                                         (3)

rho = 0 is SGD with momentum, to the last bit. For rho < 1 a gradient is scaled by between 1 - rho and 1 + rho; for
rho > 1 one that agrees with the velocity is turned round, so that velocities do not build up. The angle is that of a
group of numbers: a row (a neuron's incoming weights, a convolution's filter), a tensor or the model. Which one matters:
a single swinging neuron hides in the angle of a large group, while its own angle shows it.

Learning rates are not those of momentum: along a steady gradient, c_t near 1, steps are (1 - rho) times as long at the
same eta, and rates with braking can be as many times larger. See the claim for what remains when both are tuned.

Steps: as any optimizer of torch; what arrives late is the caller's affair. `tasks/delayed_gradients.py` simulates it.
The nearest neighbour is `torch.optim.SGD` with momentum, which is not of this library: the contrast is against it.

Deviations: the group that the authors' cosine runs over could not be looked up; all three are here, and rows are the
default because on the claim's digits they were the best by far (its `full` run compares them). Of a tensor with one
dimension, biases say, each entry is a row, and its cosine is 1 or -1. Weight decay is added to the gradient before (1),
as torch's SGD adds it. As there, eta scales the step and not the velocity, so that a schedule acts at once.

    >>> import torch
    >>> from backchannel.distributed.adaptive_braking import adaptive_braking
    >>> from backchannel.tasks.delayed_gradients import delayed_gradients
    >>> w = torch.nn.Parameter(torch.ones(1, 2))
    >>> late = delayed_gradients(adaptive_braking([w], lr=0.1), delay=8)
    >>> for _ in range(300):
    ...     (w * w * torch.tensor([0.5, 0.1])).sum().backward()
    ...     arrived = late.step()
    >>> bool(w.detach().abs().max() < 0.1)
    True

References: venigalla2020adaptive.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from backchannel.card import Card
from backchannel.parts.optimizers import GradientOptimizer, Moving, check_rate

CARD = Card(
    name="Adaptive Braking",
    summary="SGD with momentum for late gradients: what agrees with the motion is scaled down, what opposes it up.",
    paper="venigalla2020adaptive",
    row=200,
    topics=("delayed feedback",),
    feedback=("gradient",),
    protocol="optimizer",
    engine="torch",
    neighbour="",
    example={"lr": 0.05},
    extras=("torch",),
)

OVER = ("row", "tensor", "model")


def adaptive_braking(
    params: ParamsT,
    lr: float,
    momentum: float = 0.9,
    braking: float = 1.5,
    over: str = "row",
    weight_decay: float = 0.0,
) -> AdaptiveBraking:
    """SGD with momentum and Adaptive Braking, as a `torch.optim.Optimizer`.

    Args:
        params: parameters, or groups of them; every setting but `over` may differ from group to group.
        lr: eta.
        momentum: m, in [0, 1).
        braking: rho, at least 0: 0 is SGD with momentum; 1.5 was the best in the claim.
        over: whose angle is taken: "row" (along the first dimension), "tensor" or "model".
        weight_decay: times the parameter, added to the gradient.
    """
    defaults = {"lr": lr, "momentum": momentum, "braking": braking, "weight_decay": weight_decay}
    return AdaptiveBraking(params, defaults, over)


class AdaptiveBraking(GradientOptimizer):
    """What `adaptive_braking` makes. The state of a parameter is `velocity`, v_t."""

    def __init__(self, params: ParamsT, defaults: dict[str, Any], over: str):
        if over not in OVER:
            raise ValueError(f"over must be one of {', '.join(OVER)}, not {over!r}")
        self.over = over
        super().__init__(params, defaults)

    def check(self, group: dict[str, Any]) -> None:
        """ValueError if a setting of this group is wrong."""
        check_rate(group["lr"])
        if not 0 <= group["momentum"] < 1:
            raise ValueError(f"momentum must lie in [0, 1), not {group['momentum']}")
        for name in ("braking", "weight_decay"):
            if not (math.isfinite(group[name]) and group[name] >= 0):
                raise ValueError(f"{name} must be finite and at least 0, not {group[name]}")

    def move(self, found: Moving) -> None:
        """(1) to (3)."""
        moving = []
        for group, parameter, gradient in found:
            if group["weight_decay"]:
                gradient = gradient.add(parameter, alpha=group["weight_decay"])
            state = self.state[parameter]
            if not state:
                state["velocity"] = torch.zeros_like(parameter)
            moving.append((group, parameter, gradient, state["velocity"]))
        angles = _cosines([each[2:] for each in moving], self.over)
        for (group, parameter, gradient, velocity), cosine in zip(moving, angles, strict=True):
            if group["braking"]:
                gradient = (1 - group["braking"] * cosine).to(gradient.dtype) * gradient
            velocity.mul_(group["momentum"]).add_(gradient)  # (2)
            parameter.add_(velocity, alpha=-group["lr"])  # (3)


def _cosines(pairs: list[tuple[Tensor, Tensor]], over: str) -> list[Tensor]:
    """(1) for each pair of a gradient and a velocity, in a shape that multiplies it."""
    sums = [_products(gradient, velocity, over == "row") for gradient, velocity in pairs]
    if over == "model" and sums:
        device = sums[0][0].device
        totals = [torch.stack([each.to(device) for each in part]).sum(0) for part in zip(*sums, strict=True)]
        sums = [(totals[0].to(g.device), totals[1].to(g.device), totals[2].to(g.device)) for g, _ in pairs]
    found = []
    for (gradient, _), (dot, g, v) in zip(pairs, sums, strict=True):
        scale = g.sqrt() * v.sqrt()
        usable = (scale > 0) & scale.isfinite()  # where squares overflow, nothing is braked
        cosine = torch.where(usable, dot / scale, 0.0).clamp(-1, 1)
        found.append(cosine.reshape(-1, *[1] * (gradient.dim() - 1)) if cosine.dim() else cosine)
    return found


def _products(gradient: Tensor, velocity: Tensor, by_row: bool) -> tuple[Tensor, Tensor, Tensor]:
    """<g, v>, |g|^2 and |v|^2 of each row, or of the whole; in float32 at least."""
    wide = torch.promote_types(gradient.dtype, torch.float32)
    g, v = gradient.to(wide), velocity.to(wide)
    if by_row and gradient.dim():
        g, v = (each.flatten(1) if each.dim() > 1 else each[:, None] for each in (g, v))
        return (g * v).sum(1), (g * g).sum(1), (v * v).sum(1)
    return (g * v).sum(), (g * g).sum(), (v * v).sum()
