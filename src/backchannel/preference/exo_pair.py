"""EXO-pair: DPO with the divergence the other way round, which seeks the mode instead of covering the labels.

DPO fits by maximum likelihood, so that a policy that cannot be right everywhere is right on average. The optimum of
regularised reward minimises the reverse divergence; EXO does so on the distribution that the policy gives to two
answers.

Equations (Ji et al. 2024, eq. 16), with h DPO's margin and labels smoothed to 1 - eps and eps:

    q    = (sigmoid(h), sigmoid(-h))
    p    = (1 - eps, eps)
    loss = KL(q, p) = sum of q (log q - log p)

Steps: the margin; both distributions; their divergence.

Deviations: none.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.exo_pair import exo_pair
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> exo_pair(flip_rate=0.25, beta=0.5)(pairs)[0]
    tensor([0.0009, 0.8900])

References: ji2024towards.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive

CARD = Card(
    name="EXO-pair",
    summary="DPO by the reverse divergence to smoothed labels: seeks the mode.",
    paper="ji2024towards",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="cdpo",
    example={"flip_rate": 0.001, "beta": 0.1},
    strength="simple",
    extras=("torch",),
)


def exo_pair(flip_rate: float, beta: float) -> Objective[Pairs]:
    """Exact optimisation on pairs.

    Args:
        flip_rate: eps, to which labels are smoothed, in (0, 1/2); the paper takes 0.001. TRL calls it label_smoothing.
        beta: the price of leaving the reference, positive.
    """
    if not 0 < flip_rate < 0.5:
        raise ValueError(f"flip_rate must lie in (0, 1/2), not {flip_rate}")
    positive(beta=beta)
    right, wrong = math.log1p(-flip_rate), math.log(flip_rate)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        chosen, rejected = logsigmoid(h), logsigmoid(-h)
        loss = torch.sigmoid(h) * (chosen - right) + torch.sigmoid(-h) * (rejected - wrong)  # (16)
        return loss, Info(h.detach())

    return Objective(objective, Pairs)
