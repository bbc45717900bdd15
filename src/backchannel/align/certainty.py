"""Strengths of records, for objectives that read a certainty.

In records and in `Pairs` a strength is the probability that the chosen answer is the better one: below 1/2 the other
answer is. UPO takes each label for right and reads as strength how certain it is, from 0 to 1; a low probability would
push the worse answer up.

    >>> from backchannel.preference.soft_dpo import soft_dpo
    >>> from backchannel.preference.upo import upo
    >>> soft, certain = soft_dpo(beta=0.1), upo(beta=0.1)
    >>> by_probability(soft) is soft, by_probability(certain) is certain
    (True, False)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backchannel.align.examples import reads_field
from backchannel.parts.objectives import Objective, Pairs, known, random_batch, swapped


def by_probability(objective: Objective[Any]) -> Objective[Any]:
    """The same objective, for pairs whose strength is a probability.

    One whose loss is the same whichever answer is named first (`swapped`) reads a probability, and stays as it is.
    Another one that reads strengths is given the likelier answer as chosen, with the certainty |2 p - 1|: a tie counts
    nothing. Its margin is that of the pair as labelled.
    """
    if objective.reads is not Pairs or not reads_field(objective, "strength"):
        return objective
    some = random_batch(Pairs, 8, seed=0)
    if torch.allclose(objective(some)[0], objective(swapped(some))[0]):
        return objective

    def loss(pairs: Pairs) -> tuple[Tensor, Any]:
        p = known(pairs, "strength")
        turned = p < 0.5
        sides: list[Any] = [
            None if own is None or other is None else torch.where(turned, other, own)
            for own, other in zip(pairs, swapped(pairs), strict=True)
        ]
        each, info = objective(Pairs(*sides)._replace(strength=(2 * p - 1).abs()))
        return each, info._replace(margin=torch.where(turned, -info.margin, info.margin))

    return replace(objective, loss=loss)
