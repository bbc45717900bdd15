"""What losses of rollouts share: ratios of probabilities of tokens, clipping, divergence, sums over an answer's tokens.

Tokens outside the mask may hold anything: they are replaced before anything is computed of them. Log-ratios are cut at
+-20, so that exponentials stay finite in float32: a ratio of 5e8 is a mistake or a lost cause.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 20.0  # of a log-ratio


def log_ratio(policy: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """log policy / other of each token, cut at +-20 and 0 outside the mask: [n, tokens]."""
    zero = torch.zeros((), dtype=policy.dtype, device=policy.device)
    difference = torch.where(mask, policy, zero) - torch.where(mask, other, zero)
    return difference.clamp(-LARGEST, LARGEST)


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """-min(ratio A, clip(ratio) A): no gain from a ratio beyond [1 - low, 1 + high] in its advantage's favour."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def divergence(log_ratio_to_reference: Tensor) -> Tensor:
    """An unbiased and positive estimate of KL(policy, reference) from one sample of the policy: [n, tokens].

    exp(-x) + x - 1, where x = log policy / reference (Schulman's third estimator).
    """
    x = log_ratio_to_reference
    return torch.exp(-x) + x - 1


def mean_of_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over each answer's tokens: [n]; 0 for an answer without any."""
    return torch.where(mask, values, torch.zeros_like(values)).sum(1) / mask.sum(1).clamp(min=1)
