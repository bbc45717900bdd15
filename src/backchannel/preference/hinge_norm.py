"""hinge-norm: SLiC's hinge on DPO's margin.

A support vector machine in the place of DPO's logistic regression: pairs whose margin of implicit rewards exceeds 1
teach nothing more. TRL calls it `hinge`, and cites SLiC for it.

Equations (Liu et al. 2024; the number is ours), for a pair with chosen answer w and rejected answer l; their gamma is
DPO's beta:

    h    = gamma (log pi(w) / ref(w) - log pi(l) / ref(l))
    loss = max(0, 1 - h)                                                                         (1)

Steps: log-probabilities of both answers under both models; the margin h; the hinge.

Deviations: none.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.hinge_norm import hinge_norm
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> hinge_norm(gamma=0.5)(pairs)[0]
    tensor([0., 3.])

References: liu2024statistical, zhao2023slic.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive

CARD = Card(
    name="hinge-norm",
    summary="DPO with a hinge for the logistic loss: pairs that are clear enough teach nothing more.",
    paper="liu2024statistical",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"gamma": 0.05},
    strength="simple",
    extras=("torch",),
)


def hinge_norm(gamma: float) -> Objective[Pairs]:
    """The hinge loss of implicit rewards.

    Args:
        gamma: the price of leaving the reference, positive; larger stays closer.
    """
    positive(gamma=gamma)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, gamma)
        return relu(1 - h), Info(h.detach())  # (1)

    return Objective(objective, Pairs)
