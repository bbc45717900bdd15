"""CPO: DPO with an even reference, and cross-entropy to keep what was chosen likely.

If the reference gave every answer the same probability, DPO's loss would need none, which saves its memory and time.
Alone that loss may lower both answers; imitation of the chosen one keeps the policy in place.

Equations (Xu et al. 2024, eqs. 3 to 6; the number is ours), for a chosen answer w and a rejected answer l:

    x    = beta (log pi(w) - log pi(l))
    loss = -log sigmoid(x) - log pi(w)                                                           (1)

Steps: log-probabilities of both answers under the policy; the margin x; both terms.

Deviations: none. TRL's cross-entropy is a mean over the tokens of the batch, with a weight.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.cpo import cpo
    >>> logs = torch.tensor([[-4.0, -9.0], [-6.0, -5.0]])
    >>> cpo(beta=0.5)(Pairs(*logs, *logs))[0]
    tensor([ 4.3133, 11.1269])

References: xu2024contrastive.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, positive

CARD = Card(
    name="CPO",
    summary="DPO without a reference, and cross-entropy on chosen answers to stay in place.",
    paper="xu2024contrastive",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"beta": 0.1},
    strength="simple",
    extras=("torch",),
)


def cpo(beta: float) -> Objective[Pairs]:
    """Contrastive preference optimisation.

    Args:
        beta: the scale of the margin, positive.
    """
    positive(beta=beta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        x = beta * (pairs.policy_chosen - pairs.policy_rejected)
        return -logsigmoid(x) - pairs.policy_chosen, Info(x.detach())  # (1)

    return Objective(objective, Pairs, reference=False)
