"""Pairs of answers, their margin, and what an objective on them returns.

With log-probabilities of the chosen answer w and the rejected answer l under the policy and a fixed reference,

    h = beta ((log pi(w) - log ref(w)) - (log pi(l) - log ref(l)))

is the margin of the implicit rewards (Rafailov et al. 2023): under Bradley and Terry's model, sigmoid(h) is the
probability that w is preferred.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Log-probabilities of whole answers, each [n]: summed over the answer's tokens, prompts left out."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor


class Info(NamedTuple):
    """What to log of a batch: the margin of each pair, detached. Its sign says whether the policy agrees."""

    margin: Tensor  # [n]


Objective = Callable[[Pairs], tuple[Tensor, Info]]  # -> the loss of each pair, [n], and Info


def margin(pairs: Pairs, beta: float) -> Tensor:
    """h of each pair: [n]."""
    chosen = pairs.policy_chosen - pairs.reference_chosen
    rejected = pairs.policy_rejected - pairs.reference_rejected
    return beta * (chosen - rejected)


def swapped(pairs: Pairs) -> Pairs:
    """The same pairs with the other answer chosen."""
    return Pairs(pairs.policy_rejected, pairs.policy_chosen, pairs.reference_rejected, pairs.reference_chosen)


def random_pairs(n: int, seed: int, scale: float = 3.0) -> Pairs:
    """Made-up log-probabilities in float64, for tests: Gaussian around -20 with standard deviation `scale`."""
    rng = torch.Generator().manual_seed(seed)
    return Pairs(*(scale * torch.randn(4, n, generator=rng, dtype=torch.float64) - 20))
