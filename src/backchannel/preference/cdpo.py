"""cDPO: conservative DPO, which smooths labels so that no pair is fitted to certainty.

If a label is wrong with probability eps, the likelihood of its pair should aim at 1 - eps instead of 1. The margin
then stops at log((1 - eps) / eps), and a wrong label pulls a policy only so far.

Equations (Mitchell 2023, eq. 3), with l(w, l) = -log sigmoid(h(w, l)) the loss of DPO:

    loss = (1 - eps) l(w, l) + eps l(l, w)

With labels that really are flipped at rate eps, the minimiser's preferences are smoothed twice, by the data and by
the loss: (1 - eps) p' + eps (1 - p'), where p' is the preference as seen. rDPO (`rdpo.py`) undoes the first; cDPO adds
the second.

Steps: the margin; both losses; their mixture.

Deviations: none.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.cdpo import cdpo
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> loss, info = cdpo(flip_rate=0.25, beta=0.5)(pairs)
    >>> loss
    tensor([0.5633, 1.6269])

References: mitchell2023note, rafailov2023direct.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive

CARD = Card(
    name="cDPO",
    summary="DPO with smoothed labels: bounds how far one pair can pull the policy.",
    paper="mitchell2023note",
    topics=("preference optimisation", "noisy labels"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"flip_rate": 0.2, "beta": 0.1},
    strength="simple",
    extras=("torch",),
)


def cdpo(flip_rate: float, beta: float) -> Objective[Pairs]:
    """Conservative DPO.

    Args:
        flip_rate: eps, the probability that a label is wrong, in [0, 1/2].
        beta: the price of leaving the reference, positive.
    """
    if not 0 <= flip_rate <= 0.5:
        raise ValueError(f"flip_rate must lie in [0, 1/2], not {flip_rate}")
    positive(beta=beta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -(1 - flip_rate) * logsigmoid(h) - flip_rate * logsigmoid(-h), Info(h.detach())  # (3)

    return Objective(objective, Pairs)
