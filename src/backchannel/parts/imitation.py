"""The likelihood of answers that are worth imitating, as an objective: each token counts alike.

Recipes that keep good answers and train on them share this loss; `preference.sft` is it, as a method of its own.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from backchannel.parts.objectives import Objective, Singles, known


class Info(NamedTuple):
    """What to log: the answer's log-probability."""

    log_probability: Tensor  # [n]


def imitation() -> Objective[Singles]:
    """-log pi(y) / |y| of each answer, weighed by its length |y|: the weighted mean is the mean over tokens."""

    def loss(singles: Singles) -> tuple[Tensor, Info]:
        return -singles.policy / known(singles, "length"), Info(singles.policy.detach())

    def weight(singles: Singles) -> Tensor:
        return known(singles, "length").to(singles.policy.dtype)

    return Objective(loss, Singles, reference=False, weight=weight)
