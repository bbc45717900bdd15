"""APO-down: both answers down, the rejected one further.

Where even the chosen answers are worse than what the model would say, as when both come from a weaker model, they
should not be imitated: APO-down lowers the chosen answer, and keeps the rejected one below it.

Equations (D'Oosterlinck et al. 2024, eq. 8), with r(y) = beta log pi(y) / ref(y):

    loss = sigmoid(r(w)) + 1 - sigmoid(r(w) - r(l))

At the reference both terms pull the chosen answer alike, up and down; the first step lowers the rejected one alone.

Steps: log-probabilities of both answers under both models; both rewards; the loss.

Deviations: the 1 is ours, and TRL's: the loss is at least 0 and has the same gradient.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.apo_down import apo_down
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> apo_down(beta=0.5)(pairs)[0]
    tensor([0.8914, 1.1497])

References: doosterlinck2024anchored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, positive

CARD = Card(
    name="APO-down",
    summary="Lower both answers, the rejected one further; for chosen answers worse than the model's own.",
    paper="doosterlinck2024anchored",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="apo_zero",
    example={"beta": 0.1},
    strength="simple",
    extras=("torch",),
)


def apo_down(beta: float) -> Objective[Pairs]:
    """Anchored preference optimisation, down.

    Args:
        beta: how soon each pull fades, positive; larger stays closer to the reference.
    """
    positive(beta=beta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        chosen = beta * (pairs.policy_chosen - pairs.reference_chosen)
        h = chosen - beta * (pairs.policy_rejected - pairs.reference_rejected)
        return torch.sigmoid(chosen) + torch.sigmoid(-h), Info(h.detach())  # (8)

    return Objective(objective, Pairs)
