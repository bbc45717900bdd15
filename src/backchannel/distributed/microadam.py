"""MicroAdam: Adam whose state is a window of sparse gradients and a 4-bit error, 0.9 bytes a parameter instead of 8.

Adam keeps two floats for each parameter. MicroAdam keeps the last m gradients, of each only the largest hundredth, and
computes both moments from them anew in every step. What a gradient's other entries said is not lost: it is kept in four
bits each, and added to the next gradient, so that small entries add up until they are large enough to be chosen. Only
parameters chosen within the last m steps move.

Equations (Modoranu et al. 2024, algorithm 1), for the gradient g_t of a parameter tensor with d entries, t = 1, 2, ...:

    a_t        = g_t + Q^{-1}(e_t, low_t, high_t)                                                         (1)
    I_t, V_t   = the k largest |entries| of a_t in each block: their places and values                    (2)
    a_t[I_t]   = 0                                                                                        (3)
    low, high  = least and greatest entry of each bucket of a_t                                           (4)
    e_{t+1}    = Q(a_t, low, high) = floor((a_t - low) / u + 1/2),  u = (high - low) / 15                 (5)
    m_t        = (1 - beta_1) / (1 - beta_1^t) sum_i beta_1^{t-i} V_i                                     (6)
    v_t        = (1 - beta_2) / (1 - beta_2^t) sum_i beta_2^{t-i} V_i^2                                   (7)
    theta_t    = (1 - gamma lambda) theta_{t-1} - gamma m_t / (eps + sqrt(v_t))                           (8)

Q^{-1}(e, low, high) = low + u e. The sums go over the last m steps, i = max(1, t - m + 1) to t; V_i counts at its own
places. The bias correction is that of t steps, as in Adam, though the window forgets: with m = 10 the sum in (6) soon
holds 65 % of its weight, that in (7) only 1 %, so that steps are up to 6.5 times Adam's for entries that are always
chosen, and end m steps after the last choice for the others. Learning rates are therefore not Adam's.

State, in bytes: 2 m k for places (int16) and 2 m k for values (bfloat16), d / 2 for e, two codes in each byte, and 4
for each bucket: with k = d / 100 and m = 10 it is 0.9 d. `parts.state_bytes` counts what is allocated.

Steps: as any optimizer of torch.

Deviations: arithmetic is in float32 (float64 for such parameters) whatever the gradient's dtype, and the gradient is
left as it was; the authors' code works in bfloat16 and overwrites it. Codes are clamped to 0..15, because low and high
are rounded to bfloat16 and may lie within the entries; a bucket without any range has u = 0 and is restored as low.
The authors' options that add the error to the step, for pretraining, are left out, and so is a version for optax: the
family works with torch alone. On a GPU sums (6) and (7) have no fixed order, unless torch is told to be deterministic.

    >>> import torch
    >>> from backchannel.distributed.microadam import microadam
    >>> from backchannel.parts.state_bytes import state_bytes
    >>> weight = torch.nn.Parameter(torch.ones(1000, 100))
    >>> optimizer = microadam([weight], lr=1e-3)
    >>> weight.square().sum().backward()
    >>> optimizer.step()
    >>> state_bytes(optimizer)                                       # AdamW: 800,004
    StateBytes(total=90004, parameters=100000)

References: modoranu2024microadam, kingma2015adam, loshchilov2019decoupled.
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
    name="MicroAdam",
    summary="Adam with 0.9 bytes of state a parameter: a window of sparse gradients, and the rest in four bits.",
    paper="modoranu2024microadam",
    row=136,
    topics=("compression", "error feedback", "optimizer state"),
    feedback=("gradient",),
    protocol="optimizer",
    engine="torch",
    neighbour="error_compensation",
    example={"lr": 0.02},
    extras=("torch",),
)


def microadam(
    params: ParamsT,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    density: float = 0.01,
    window: int = 10,
    block: int = 10_000,
    bucket: int = 100_000,
    error_feedback: bool = True,
) -> MicroAdam:
    """MicroAdam, as a `torch.optim.Optimizer`; every setting may differ from group to group.

    Args:
        params: parameters, or groups of them.
        lr: gamma; schedules change it as they do for any optimizer.
        betas: beta_1 and beta_2.
        eps: positive: most entries of (6) and (7) are 0.
        weight_decay: lambda, decoupled as in AdamW.
        density: k of a block is this times its size, rounded up.
        window: m.
        block: how many entries compete with one another for k places; at most 32,768, so that a place is an int16.
        bucket: how many entries share a least and a greatest one.
        error_feedback: False drops what is not chosen: Top-k Adam, an ablation.
    """
    defaults = {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "density": density,
        "window": window,
        "block": block,
        "bucket": bucket,
        "error_feedback": error_feedback,
    }
    return MicroAdam(params, defaults)


class MicroAdam(GradientOptimizer):
    """What `microadam` makes.

    The state of a parameter: `step`, t; `places` int16[m, k] and `values` bfloat16[m, k], of which row (i - 1) mod m is
    step i's; `codes` uint8[ceil(d / 2)], `lows` and `highs` bfloat16[buckets].
    """

    def check(self, group: dict[str, Any]) -> None:
        """ValueError if a setting of this group is wrong."""
        check_rate(group["lr"])
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"betas must lie in [0, 1), not {group['betas']}")
        for name, least in (("weight_decay", 0), ("window", 1), ("bucket", 1)):
            if not (math.isfinite(group[name]) and group[name] >= least):
                raise ValueError(f"{name} must be finite and at least {least}, not {group[name]}")
        if not (math.isfinite(group["eps"]) and group["eps"] > 0):
            raise ValueError(f"eps must be finite and positive, not {group['eps']}")
        if not 0 < group["density"] <= 1:
            raise ValueError(f"density must lie in (0, 1], not {group['density']}")
        if not 1 <= group["block"] <= 32_768:
            raise ValueError(f"block must be 1 to 32,768, so that a place is an int16, not {group['block']}")

    def move(self, found: Moving) -> None:
        """(1) to (8) for each parameter; ValueError, before anything has changed, if a state does not fit."""
        found = [each for each in found if each[1].numel()]
        for group, parameter, _ in found:
            _prepare(self.state[parameter], group, parameter)
        for group, parameter, gradient in found:
            _move(self.state[parameter], group, parameter, gradient)


def _prepare(state: dict[str, Any], group: dict[str, Any], parameter: Tensor) -> None:
    """Make the state of a parameter, or ValueError if what is there is that of another shape or setting."""
    d, device = parameter.numel(), parameter.device
    whole, each, _, last = _sizes(d, group["density"], group["block"])
    shape = (group["window"], whole * each + last)
    buckets = math.ceil(d / group["bucket"])
    if not state:
        state["step"] = 0
        state["places"] = torch.zeros(shape, dtype=torch.int16, device=device)
        state["values"] = torch.zeros(shape, dtype=torch.bfloat16, device=device)
        if group["error_feedback"]:
            state["codes"] = torch.zeros((d + 1) // 2, dtype=torch.uint8, device=device)
            state["lows"] = torch.zeros(buckets, dtype=torch.bfloat16, device=device)
            state["highs"] = torch.zeros(buckets, dtype=torch.bfloat16, device=device)
    right = state["places"].shape == shape and ("codes" in state) == group["error_feedback"]
    if right and group["error_feedback"]:
        right = (len(state["codes"]), len(state["lows"])) == ((d + 1) // 2, buckets)
    if not right:
        raise ValueError(f"the state does not fit a parameter of shape {tuple(parameter.shape)} and these settings")


def _move(state: dict[str, Any], group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
    """Equations (1) to (8) for one parameter."""
    d, wide = parameter.numel(), torch.promote_types(parameter.dtype, torch.float32)
    (beta_1, beta_2), lr, window = group["betas"], group["lr"], group["window"]
    a = gradient.reshape(-1).to(wide)
    if group["error_feedback"]:
        a = a + _restored(state["codes"], state["lows"], state["highs"], group["bucket"], d).to(wide)  # (1)

    places = _largest(a, group["density"], group["block"])
    starts = _starts(d, group["density"], group["block"], a.device)
    chosen, row = places + starts, state["step"] % window
    state["places"][row], state["values"][row] = places, a[chosen]  # (2)
    if group["error_feedback"]:
        rest = a.index_fill(0, chosen, 0)  # (3)
        for name, value in zip(("codes", "lows", "highs"), _coded(rest, group["bucket"]), strict=True):
            state[name].copy_(value)
    state["step"] += 1

    t = state["step"]
    rows = min(t, window)
    ages = [(t - 1 - i) % window for i in range(rows)]
    values = state["values"][:rows].to(wide)
    index = (state["places"][:rows] + starts).flatten()
    powers = [values.new_tensor([[beta**age] for age in ages]) for beta in (beta_1, beta_2)]
    first = torch.zeros_like(a).index_add_(0, index, (powers[0] * values).flatten())
    second = torch.zeros_like(a).index_add_(0, index, (powers[1] * values.square()).flatten())
    m = (1 - beta_1) / (1 - beta_1**t) * first  # (6)
    v = (1 - beta_2) / (1 - beta_2**t) * second  # (7)
    theta = (1 - lr * group["weight_decay"]) * parameter.reshape(-1).to(wide)
    parameter.copy_((theta - lr * m / (group["eps"] + v.sqrt())).view(parameter.shape))  # (8)


def _sizes(d: int, density: float, block: int) -> tuple[int, int, int, int]:
    """How many whole blocks, the entries chosen of each; the size of the last one, and the entries chosen of it."""
    whole, rest = divmod(d, block)
    return whole, math.ceil(density * block - 1e-9), rest, math.ceil(density * rest - 1e-9)


def _starts(d: int, density: float, block: int, device: torch.device) -> Tensor:
    """The first entry of the block of each chosen one: int64[k of all blocks]."""
    whole, each, _, last = _sizes(d, density, block)
    starts = block * torch.arange(whole + 1, device=device)
    return torch.cat([starts[:-1].repeat_interleave(each), starts[-1:].expand(last)])


def _largest(a: Tensor, density: float, block: int) -> Tensor:
    """Places within their blocks of the entries of largest magnitude: int64[k of all blocks]."""
    whole, each, rest, last = _sizes(len(a), density, block)
    found = []
    if whole:
        found.append(a[: whole * block].view(whole, block).abs().topk(each, dim=1, sorted=False).indices.flatten())
    if rest:
        found.append(a[whole * block :].abs().topk(last, sorted=False).indices)
    return torch.cat(found)


def _coded(a: Tensor, bucket: int) -> tuple[Tensor, Tensor, Tensor]:
    """(4), (5): codes, two in each byte, and the least and greatest entry of each bucket."""
    rows = _filled(a, min(bucket, len(a)))
    low, high = rows.amin(1).to(torch.bfloat16), rows.amax(1).to(torch.bfloat16)
    unit = (high.to(a.dtype) - low) / 15
    unit = torch.where(unit > 0, unit, math.inf)  # without a range the code is 0
    steps = (rows - low[:, None]) / unit[:, None] + 0.5
    codes = _filled(steps.clamp(0, 15).to(torch.uint8).flatten()[: len(a)], 2)  # to an integer: down
    return codes[:, 0] << 4 | codes[:, 1], low, high


def _restored(packed: Tensor, low: Tensor, high: Tensor, bucket: int, d: int) -> Tensor:
    """Q^{-1}: the entries that the codes stand for, float32[d]."""
    codes = torch.stack([packed >> 4, packed & 15], 1).flatten()[:d]
    low, high = low.float()[:, None], high.float()[:, None]
    return (low + (high - low) / 15 * _filled(codes, min(bucket, d))).flatten()[:d]


def _filled(a: Tensor, size: int) -> Tensor:
    """Rows of `size` entries, the last filled up with the last entry."""
    missing = -len(a) % size
    return (torch.cat([a, a[-1:].expand(missing)]) if missing else a).view(-1, size)
