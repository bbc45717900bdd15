"""Plackett-Luce DPO: fit a policy to whole rankings.

A ranking is a series of choices: the best of all, then the best of what is left. With DPO's implicit reward in the
place of a reward model, its likelihood is a function of the policy alone; of two answers it is DPO.

Equations (Plackett 1975; Rafailov et al. 2023, appendix A.3; the number is ours), for answers y_1, ..., y_K to a
prompt, best first:

    r_k  = beta log pi(y_k) / ref(y_k)
    loss = -sum over k < K of (r_k - log sum over j >= k of exp(r_j))                            (1)

Steps: log-probabilities of all answers under both models; the log-likelihood of each choice.

Deviations: none. (The policy's normaliser cancels in each choice, as in DPO.)

    >>> import torch
    >>> from backchannel.parts.objectives import Rankings
    >>> from backchannel.preference.plackett_luce import plackett_luce
    >>> reference = torch.full((2, 3), -5.0)
    >>> policy = torch.tensor([[-3.0, -5.0, -7.0], [-7.0, -5.0, -3.0]])
    >>> plackett_luce(beta=0.5)(Rankings(policy, reference))[0]
    tensor([0.7209, 3.7209])

References: plackett1975analysis, rafailov2023direct.
"""

from __future__ import annotations

from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Rankings, positive

CARD = Card(
    name="Plackett-Luce DPO",
    summary="Fit a policy to rankings of several answers by maximum likelihood; of two answers it is DPO.",
    paper="plackett1975analysis",
    topics=("preference optimisation",),
    feedback=("ranking",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"beta": 0.1},
    strength="simple",
    extras=("torch",),
)


def plackett_luce(beta: float) -> Objective[Rankings]:
    """DPO on rankings; Info's margin is that of the first answer over the last.

    Args:
        beta: the price of leaving the reference, positive; larger stays closer.
    """
    positive(beta=beta)

    def objective(rankings: Rankings) -> tuple[Tensor, Info]:
        r = beta * (rankings.policy - rankings.reference)
        rest = r.flip(1).logcumsumexp(1).flip(1)  # of each answer and those below it
        return (rest - r)[:, :-1].sum(1), Info((r[:, 0] - r[:, -1]).detach())  # (1)

    return Objective(objective, Rankings)
