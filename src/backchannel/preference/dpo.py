"""DPO: fit a policy to preferences directly, as a classifier of pairs.

The policy that maximises a reward less beta times its divergence from a reference determines that reward, up to a
constant for each prompt. So Bradley and Terry's model of preferences can be written in terms of the policy, and maximum
likelihood needs neither a reward model nor reinforcement learning.

Equations (Rafailov et al. 2023, eq. 7), for a pair with chosen answer w and rejected answer l:

    h(w, l) = beta (log pi(w) / ref(w) - log pi(l) / ref(l))
    loss    = -log sigmoid(h(w, l))

Steps: log-probabilities of both answers under both models; the margin h; the loss.

Deviations: none.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.dpo import dpo
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> loss, info = dpo(beta=0.5)(pairs)
    >>> loss, info.margin
    (tensor([0.3133, 2.1269]), tensor([ 1., -2.]))

References: rafailov2023direct.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive

CARD = Card(
    name="DPO",
    summary="Fit a policy to preferred and rejected answers by maximum likelihood, without a reward model.",
    paper="rafailov2023direct",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="cdpo",
    example={"beta": 0.1},
    strength="simple",
    extras=("torch",),
    first=True,
)


def dpo(beta: float) -> Objective[Pairs]:
    """Direct preference optimisation.

    Args:
        beta: the price of leaving the reference, positive; larger stays closer.
    """
    positive(beta=beta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -logsigmoid(h), Info(h.detach())  # (7)

    return Objective(objective, Pairs)
