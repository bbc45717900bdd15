"""Soft DPO: each pair with the probability that its label is right.

A judge, a vote or a comparison of rewards says more than who won: by how much. DPO takes 51 to 49 for certain. The
cross-entropy with the probability itself stops each pair's margin where its own evidence does.

Equations (Zhai et al. 2024; the number is ours), with DPO's margin h and p the probability that the chosen answer is
better:

    loss = -p log sigmoid(h) - (1 - p) log sigmoid(-h)                                           (1)

A constant p is cDPO at the rate 1 - p; p below 1/2 is a pair that is labelled the wrong way round.

Steps: the margin; both log-likelihoods; their mixture, by the field `strength`.

Deviations: none.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.soft_dpo import soft_dpo
    >>> logs = torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]])
    >>> soft_dpo(beta=0.5)(Pairs(*logs, strength=torch.tensor([0.75, 0.5])))[0]
    tensor([0.5633, 1.1269])

References: zhai2024online, rafailov2023direct.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, known, margin, positive

CARD = Card(
    name="Soft DPO",
    summary="DPO on pairs that say how likely their label is to be right.",
    paper="zhai2024online",
    topics=("preference optimisation", "noisy labels"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="cdpo",
    example={"beta": 0.1},
    strength="simple",
    extras=("torch",),
)


def soft_dpo(beta: float) -> Objective[Pairs]:
    """DPO with a probability for each label, the pairs' `strength`.

    Args:
        beta: the price of leaving the reference, positive; larger stays closer.
    """
    positive(beta=beta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h, p = margin(pairs, beta), known(pairs, "strength")
        return -p * logsigmoid(h) - (1 - p) * logsigmoid(-h), Info(h.detach())  # (1)

    return Objective(objective, Pairs)
