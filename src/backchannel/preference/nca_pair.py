"""NCA-pair: noise-contrastive estimation of the optimal policy, which keeps the chosen answer likely.

Each answer is told apart from a sample of the reference by a classifier whose logit is its implicit reward. DPO's loss
sees only the difference of rewards; this one has both, so that the chosen answer's own likelihood cannot fall for long.

Equations (Chen et al. 2024, section 4, for two answers with hard labels; the number is ours), with
r(y) = beta log pi(y) / ref(y):

    loss = -log sigmoid(r(w)) - 1/2 log sigmoid(-r(w)) - 1/2 log sigmoid(-r(l))                  (1)

Steps: log-probabilities of both answers under both models; both rewards; the loss.

Deviations: none.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.nca_pair import nca_pair
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> nca_pair(beta=0.5)(pairs)[0]
    tensor([1.1982, 2.1265])

References: chen2024noise.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, positive

CARD = Card(
    name="NCA-pair",
    summary="Tell each answer apart from the reference's samples; keeps the chosen answer likely, unlike DPO.",
    paper="chen2024noise",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"beta": 0.1},
    strength="simple",
    extras=("torch",),
)


def nca_pair(beta: float) -> Objective[Pairs]:
    """Noise contrastive alignment on pairs.

    Args:
        beta: the price of leaving the reference, positive; larger stays closer.
    """
    positive(beta=beta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        chosen = beta * (pairs.policy_chosen - pairs.reference_chosen)
        rejected = beta * (pairs.policy_rejected - pairs.reference_rejected)
        loss = -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)  # (1)
        return loss, Info((chosen - rejected).detach())

    return Objective(objective, Pairs)
