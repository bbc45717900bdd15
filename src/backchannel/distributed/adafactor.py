"""Adafactor: adaptive learning rates whose second moments are one number for each row and column, not for each entry.

Adam keeps two numbers for each parameter. Adafactor keeps no momentum, and of the second moments of a matrix only the
sums of its rows and columns: their outer product, over the total, is the best rank-one estimate of them in the
generalised Kullback-Leibler divergence, and exact where they have rank one. Steps are relative to the size of the
parameters, and an update that is larger than its moments foretell is clipped.

The algorithm is torch's own, `torch.optim.Adafactor`, which this calls for every step. Added is what the paper has and
torch's lacks: momentum, steps that are not relative, an unfactored variant to compare with; and eps_1 that is small
enough, moments of bfloat16 parameters in float32, and refusals before anything has changed.

Equations (Shazeer and Stern 2018, algorithms 4 to 6), for the gradient G_t of a matrix X with n rows and m columns:

    alpha_t = max(eps_2, RMS(X_{t-1})) rho_t,         rho_t = min(lr, 1 / sqrt(t)),  lr = 0.01            (1)
    R_t     = beta_t R_{t-1} + (1 - beta_t) (G_t^2) 1_m,      beta_t = 1 - t^-0.8                         (2)
    C_t     = beta_t C_{t-1} + (1 - beta_t) 1_n^T (G_t^2)                                                 (3)
    V_t     = R_t C_t / (1_n^T R_t);     of vectors  V_t = beta_t V_{t-1} + (1 - beta_t) G_t^2            (4)
    U_t     = G_t / sqrt(V_t),           clipped  U_t / max(1, RMS(U_t) / d),  d = 1                      (5)
    M_t     = mu M_{t-1} + (1 - mu) alpha_t U_t,  with momentum;   alpha_t U_t without                    (6)
    X_t     = X_{t-1} - M_t                                                                               (7)

At t = 1 beta_t is 0. Tensors of more dimensions are factored along their last two. State: n + m numbers of a matrix,
as many as it has of a vector; with momentum, as many again as there are parameters.

Steps: as any optimizer of torch. The nearest neighbours are Adam and torch's Adafactor, which are not of this library:
the tests hold this one equal to torch's where settings agree, and the contrast is against both.

Deviations: those of torch. Means stand for sums in (2) and (3), which changes nothing. eps_1 is not added to G^2 but is
a floor: under the mean of R in (4) and, squared, under V in (5). Its default in torch is 1.2e-7 for float32: gradients
of size below 3e-4 then count as if their moments were smaller than they are. Here it is 1e-18, whose square float32
just holds; the paper's 1e-30 would make 0 / 0 of a row without gradients. Weight decay is lr times that much of X, as
in torch. (6) averages steps that are scaled and clipped, as other published implementations do.

    >>> import torch
    >>> from backchannel.distributed.adafactor import adafactor
    >>> from backchannel.parts.state_bytes import state_bytes
    >>> weight = torch.nn.Parameter(torch.ones(1000, 100))
    >>> optimizer = adafactor([weight])
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> state_bytes(optimizer)                                       # AdamW: 800,004
    StateBytes(total=4404, parameters=100000)
    >>> weight.detach()[0, :2]                                       # 1 % of the parameter
    tensor([0.9900, 0.9900])

References: shazeer2018adafactor, kingma2015adam.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim._adafactor import adafactor as torch_step
from torch.optim.optimizer import ParamsT

from backchannel.card import Card
from backchannel.parts.optimizers import GradientOptimizer, Moving, check_rate

CARD = Card(
    name="Adafactor",
    summary="Adam's second moments by row and column: optimizer state of a hundredth, with clipped, relative steps.",
    paper="shazeer2018adafactor",
    row=229,
    topics=("compression", "optimizer state"),
    feedback=("gradient",),
    protocol="optimizer",
    engine="torch",
    neighbour="",
    example={"lr": 0.02},
    extras=("torch",),
)


def adafactor(
    params: ParamsT,
    lr: float = 1e-2,
    decay: float = 0.8,
    eps: tuple[float, float] = (1e-18, 1e-3),
    clip: float = 1.0,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    relative: bool = True,
    factored: bool = True,
) -> Adafactor:
    """Adafactor, as a `torch.optim.Optimizer`; every setting may differ from group to group.

    Args:
        params: parameters, or groups of them.
        lr: the largest rho; schedules change it as they do for any optimizer.
        decay: beta_t = 1 - t^-decay; smaller forgets faster.
        eps: eps_1 and eps_2.
        clip: d, at least 1; infinite for none.
        momentum: mu, in [0, 1); above 0 it costs a number for each parameter.
        weight_decay: decoupled, times lr.
        relative: False makes alpha_t = rho_t, whatever the size of the parameters.
        factored: False keeps a second moment for each entry: an ablation.
    """
    defaults = {
        "lr": lr,
        "decay": decay,
        "eps": eps,
        "clip": clip,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "relative": relative,
        "factored": factored,
    }
    return Adafactor(params, defaults)


class Adafactor(GradientOptimizer):
    """What `adafactor` makes.

    The state of a parameter: `step`, t; `row_var` and `col_var`, or `variance`; `momentum`, M_t, where there is any.
    """

    def check(self, group: dict[str, Any]) -> None:
        """ValueError if a setting of this group is wrong."""
        check_rate(group["lr"])
        for name in ("decay", "weight_decay"):
            if not (math.isfinite(group[name]) and group[name] >= 0):
                raise ValueError(f"{name} must be finite and at least 0, not {group[name]}")
        if not all(math.isfinite(each) and each > 0 for each in group["eps"]):
            raise ValueError(f"eps must be two positive finite numbers, not {group['eps']}")
        if not group["clip"] >= 1:
            raise ValueError(f"clip must be at least 1, not {group['clip']}")
        if not 0 <= group["momentum"] < 1:
            raise ValueError(f"momentum must lie in [0, 1), not {group['momentum']}")

    def move(self, found: Moving) -> None:
        """(1) to (7) for each parameter."""
        for group, parameter, gradient in found:
            if parameter.numel():
                _move(self.state[parameter], group, parameter, gradient)


def _move(state: dict[str, Any], group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
    """One step of one parameter: torch's, made on the parameter or, where something is added, on zeros beside it."""
    wide = torch.promote_types(parameter.dtype, torch.float32)
    if not group["factored"]:
        gradient = gradient.reshape(-1)
    if not state:
        _begin(state, gradient, wide)
    if group["momentum"] and "momentum" not in state:
        state["momentum"] = torch.zeros_like(gradient, dtype=wide)
    least, decay = group["eps"][1], group["weight_decay"]
    if parameter.dtype == wide and group["relative"] and group["factored"] and not group["momentum"]:
        _torch_step(state, group, parameter, gradient, least, decay)
        return
    size = float(torch.linalg.vector_norm(parameter, dtype=wide)) / parameter.numel() ** 0.5
    moved = torch.zeros_like(gradient, dtype=wide)  # of size 0: alpha is rho times the least size that is asked for
    _torch_step(state, group, moved, gradient.to(wide), max(least, size) if group["relative"] else 1.0, 0.0)
    if group["momentum"]:
        moved = state["momentum"].lerp_(moved, 1 - group["momentum"])  # (6)
    parameter.copy_((1 - group["lr"] * decay) * parameter.to(wide) + moved.reshape(parameter.shape))  # (7)


def _begin(state: dict[str, Any], gradient: Tensor, wide: torch.dtype) -> None:
    state["step"] = torch.tensor(0.0)
    if gradient.dim() > 1:
        state["row_var"] = torch.zeros_like(gradient[..., :1], dtype=wide)
        state["col_var"] = torch.zeros_like(gradient[..., :1, :], dtype=wide)
    else:
        state["variance"] = torch.zeros_like(gradient, dtype=wide)


def _torch_step(
    state: dict[str, Any], group: dict[str, Any], moved: Tensor, gradient: Tensor, least: float, decay: float
) -> None:
    """(1) to (5), and (7) without momentum, by torch."""
    torch_step(
        [moved],
        [gradient],
        [state.get("row_var")],
        [state.get("col_var")],
        [state.get("variance")],
        [state["step"]],
        lr=group["lr"],
        beta2_decay=-group["decay"],
        eps1=group["eps"][0],
        eps2=least,
        d=group["clip"],
        weight_decay=decay,
        maximize=False,
    )
