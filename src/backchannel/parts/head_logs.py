"""Log-probabilities of given tokens from hidden states and a language model's head, never holding all logits.

With hidden state h, head W [vocabulary, width] and bias b, the logits are z = f(s (W h + b)), where f(x) = x or, with a
soft cap c, c tanh(x / c). Of a token y

    log p(y) = z_y - log sum_v exp(z_v)
    d log p(y) / dh = s (f'_y W_y - sum_v p_v f'_v W_v)

so that a gradient for h is one row of W less the row that the model expects: no larger than h itself. All tokens at
once would need [tokens, vocabulary], the largest tensor of a whole training step; here logits exist for a block of
tokens at a time, of `BLOCK_BYTES` at most.

Where W needs no gradient (as under LoRA) the forward pass computes that of h from the logits at hand, and the backward
pass is a multiplication. Where it needs one, the backward pass computes the logits once more.

Weights and hidden states of 16 bits are multiplied with sums, logits and probabilities in 32 bits.

    >>> import torch
    >>> hidden, weight = torch.randn(5, 8), torch.randn(100, 8)
    >>> tokens = torch.tensor([3, 1, 4, 1, 5])
    >>> whole = torch.log_softmax(hidden @ weight.T, 1)[torch.arange(5), tokens]
    >>> torch.allclose(head_logs(hidden, weight, tokens), whole, atol=1e-5)
    True
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_BYTES = {"cpu": 1 << 25, "other": 1 << 28}  # an accelerator wants larger products
SLICE = 4096  # rows of a head of 16 bits that are widened at a time
_WIDE = "dtype" in torch.ops.aten.mm.overloads()  # products of 16 bits with results of 32, on CUDA alone


def head_logs(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    bias: Tensor | None = None,
    scale: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """log p of each token: [n], in float32 or, given float64, in float64.

    Args:
        hidden: the hidden state that predicts each token, [n, width].
        weight: of the head, [vocabulary, width].
        tokens: int64[n].
        bias: of the head, [vocabulary].
        scale: multiplies the logits.
        softcap: c of c tanh(logits / c), after the scale.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden, weight = (each.to(torch.get_autocast_dtype(device)) for each in (hidden, weight))
    elif hidden.dtype != weight.dtype:
        common = torch.promote_types(hidden.dtype, weight.dtype)
        hidden, weight = hidden.to(common), weight.to(common)
    learns = torch.is_grad_enabled()
    head = learns and (weight.requires_grad or (bias is not None and bias.requires_grad))
    with torch.autocast(device, enabled=False):
        found: Tensor = _HeadLogs.apply(
            hidden, weight, bias, tokens, scale, softcap, head, learns and hidden.requires_grad
        )
    return found


class _HeadLogs(torch.autograd.Function):
    """As `head_logs`; `head` and `states` say which gradients will be asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        scale: float,
        softcap: float | None,
        head: bool,
        states: bool,
    ) -> Tensor:
        found = torch.empty(len(tokens), dtype=_wide(hidden), device=hidden.device)
        totals = torch.empty_like(found)
        slopes = torch.empty_like(hidden) if states and not head else None
        for rows, room in _blocks(hidden, weight):
            logits = _logits(hidden[rows], weight, bias, scale, softcap, room)
            at = tokens[rows, None]
            chosen = logits.gather(1, at)
            steep = _steepness(logits, softcap) if slopes is not None else None
            top = logits.amax(1, keepdim=True)
            mass = logits.sub_(top).exp_().sum(1, keepdim=True)
            totals[rows] = (top + mass.log())[:, 0]
            found[rows] = chosen[:, 0] - totals[rows]
            if slopes is not None:
                target = weight[tokens[rows]].to(mass.dtype)
                if steep is not None:
                    target *= steep.gather(1, at)
                    logits *= steep
                slopes[rows] = target.sub_(_mixed(logits, weight).div_(mass)).mul_(scale).to(slopes.dtype)
        ctx.scale, ctx.softcap, ctx.head = scale, softcap, head
        if head:
            ctx.save_for_backward(hidden, weight, bias, tokens, totals)
        else:
            ctx.save_for_backward(slopes)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.head:
            (slopes,) = ctx.saved_tensors
            return (slopes * slope[:, None].to(slopes.dtype), *[None] * 7)
        hidden, weight, bias, tokens, totals = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight, dtype=slope.dtype) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros_like(bias, dtype=slope.dtype) if ctx.needs_input_grad[2] else None
        for rows, room in _blocks(hidden, weight):
            logits = _logits(hidden[rows], weight, bias, ctx.scale, ctx.softcap, room)
            steep = _steepness(logits, ctx.softcap)
            given = slope[rows, None]
            errors = logits.sub_(totals[rows, None]).exp_().mul_(-given)
            errors.scatter_add_(1, tokens[rows, None], given)  # given (one-hot of the token - p)
            if steep is not None:
                errors *= steep
            if of_hidden is not None:
                of_hidden[rows] = _mixed(errors, weight).mul_(ctx.scale).to(hidden.dtype)
            if of_weight is not None:
                _add_outer(of_weight, errors, hidden[rows], ctx.scale)
            if of_bias is not None:
                of_bias.add_(errors.sum(0), alpha=ctx.scale)
        of_weight = None if of_weight is None else of_weight.to(weight.dtype)
        of_bias = None if of_bias is None else of_bias.to(bias.dtype)
        return (of_hidden, of_weight, of_bias, *[None] * 5)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _blocks(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of `hidden`, and room for their logits, which is the same for every block."""
    dtype = _wide(hidden)
    limit = BLOCK_BYTES["cpu" if hidden.device.type == "cpu" else "other"]
    size = max(1, min(len(hidden), limit // (len(weight) * dtype.itemsize)))
    room = torch.empty(size, len(weight), dtype=dtype, device=hidden.device)
    for start in range(0, len(hidden), size):
        stop = min(start + size, len(hidden))
        yield slice(start, stop), room[: stop - start]


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None, room: Tensor
) -> Tensor:
    """z of each row, in `room`."""
    if hidden.dtype == room.dtype:
        torch.mm(hidden, weight.T, out=room)
    elif _WIDE and hidden.is_cuda:
        room.copy_(torch.mm(hidden, weight.T, out_dtype=room.dtype))
    else:
        wide = hidden.to(room.dtype)
        for part, rows in _widened(weight, room.dtype):
            room[:, part] = wide @ rows.T
    if bias is not None:
        room += bias
    if scale != 1:
        room *= scale
    if softcap is not None:
        room.div_(softcap).tanh_().mul_(softcap)
    return room


def _steepness(logits: Tensor, softcap: float | None) -> Tensor | None:
    """f' at each logit; None where it is 1 everywhere."""
    return None if softcap is None else 1 - (logits / softcap).square_()


def _mixed(weights: Tensor, weight: Tensor) -> Tensor:
    """sum_v weights_v W_v of each row: [n, width]."""
    if weights.dtype == weight.dtype:
        return weights @ weight
    if _WIDE and weight.is_cuda:
        found: Tensor = torch.mm(weights.to(weight.dtype), weight, out_dtype=weights.dtype)
        return found
    total = weights.new_zeros(len(weights), weight.shape[1])
    for part, rows in _widened(weight, weights.dtype):
        total.addmm_(weights[:, part], rows)
    return total


def _add_outer(total: Tensor, errors: Tensor, hidden: Tensor, scale: float) -> None:
    """total += scale errors^T hidden, with the products of 16-bit states in 32 bits."""
    total.addmm_(errors.T, hidden.to(errors.dtype), alpha=scale)


def _widened(weight: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(weight), SLICE):
        part = slice(start, start + SLICE)
        yield part, weight[part].to(dtype)
