"""APO-zero: chosen answers up and rejected answers down, each for itself and each with an anchor.

DPO only asks for a difference: both answers may fall. Where chosen answers are better than what the model would say,
APO-zero raises them and lowers the rejected ones, separately; each pull fades as its answer moves away from the
reference.

Equations (D'Oosterlinck et al. 2024, eq. 7), with r(y) = beta log pi(y) / ref(y):

    loss = 1 - sigmoid(r(w)) + sigmoid(r(l))

Steps: log-probabilities of both answers under both models; both rewards; the loss.

Deviations: the 1 is ours, and TRL's: the loss is at least 0 and has the same gradient.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.apo_zero import apo_zero
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> apo_zero(beta=0.5)(pairs)[0]
    tensor([0.7551, 1.4621])

References: doosterlinck2024anchored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, positive

CARD = Card(
    name="APO-zero",
    summary="Raise chosen and lower rejected answers separately; for chosen answers better than the model's own.",
    paper="doosterlinck2024anchored",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="apo_down",
    example={"beta": 0.1},
    strength="simple",
    extras=("torch",),
)


def apo_zero(beta: float) -> Objective[Pairs]:
    """Anchored preference optimisation, zero.

    Args:
        beta: how soon each pull fades, positive; larger stays closer to the reference.
    """
    positive(beta=beta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        chosen = beta * (pairs.policy_chosen - pairs.reference_chosen)
        rejected = beta * (pairs.policy_rejected - pairs.reference_rejected)
        return torch.sigmoid(-chosen) + torch.sigmoid(rejected), Info((chosen - rejected).detach())  # (7)

    return Objective(objective, Pairs)
