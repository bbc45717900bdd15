"""SPPO-hard: one step of multiplicative weights against the policy itself, as a regression of log-ratios.

In the game of preferences, a policy that plays multiplicative weights against its last self tends to one that no other
beats. A step multiplies an answer's odds by exp(eta (its chance to win - 1/2)); SPPO fits that by least squares. Here
winners win for certain and losers never, as pairs alone can say.

Equations (Wu et al. 2024, eq. 4.7 with P = 1 for w and 0 for l), with the last policy as the reference:

    loss = (log pi(w) / ref(w) - eta / 2)^2 + (log pi(l) / ref(l) + eta / 2)^2

Steps: log-probabilities of both answers under both policies; two regressions.

Deviations: chances are 1 and 0, not a judge's. The log of the normaliser is left out, as in the paper. TRL's beta is
1 / eta.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.sppo_hard import sppo_hard
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> sppo_hard(eta=2.0)(pairs)[0]  # the first pair is where the step should bring it
    tensor([ 0., 18.])

References: wu2024self.
"""

from __future__ import annotations

from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, positive

CARD = Card(
    name="SPPO-hard",
    summary="A step of self-play by multiplicative weights, fitted to pairs by least squares.",
    paper="wu2024self",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="ipo",
    example={"eta": 10.0},
    strength="simple",
    extras=("torch",),
)


def sppo_hard(eta: float) -> Objective[Pairs]:
    """Self-play preference optimisation with hard labels.

    Args:
        eta: the step of the multiplicative weights, positive; larger goes further from the last policy.
    """
    positive(eta=eta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        chosen = pairs.policy_chosen - pairs.reference_chosen
        rejected = pairs.policy_rejected - pairs.reference_rejected
        loss = (chosen - eta / 2).square() + (rejected + eta / 2).square()  # (4.7)
        return loss, Info((chosen - rejected).detach())

    return Objective(objective, Pairs)
