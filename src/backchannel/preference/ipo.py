"""IPO: preferences without a model of rewards, by a margin that stops at a finite value.

DPO turns a preference into log odds: a pair that was only ever labelled one way asks for an infinite margin, and the
divergence from the reference is forgotten. IPO maximises the preference itself, less tau times the divergence; its
solution is a regression of the margin on a fixed number.

Equations (Gheshlaghi Azar et al. 2024, eq. 17), for a pair with chosen answer w and rejected answer l:

    x(w, l) = log pi(w) / ref(w) - log pi(l) / ref(l)
    loss    = (x(w, l) - 1 / (2 tau))^2

If w is preferred with probability p, the minimiser is x = (2 p - 1) / (2 tau), the optimum of the preference less
tau times the divergence where there are two answers: finite at p = 1.

Steps: log-probabilities of both answers under both models; their margin; its distance from 1 / (2 tau), squared.

Deviations: none. The paper's experiments, by TRL's word, divided log-ratios by the length of their answer, and TRL
does: `per_token` does so, too. tau is then a price for each token, and wants another value.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.ipo import ipo
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> ipo(tau=0.25)(pairs)[0]  # margins 2 and -4, both asked to be 2
    tensor([ 0., 36.])

References: azar2024general.
"""

from __future__ import annotations

from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, known, positive

CARD = Card(
    name="IPO",
    summary="Fit margins of preferred and rejected answers to a finite target, so that certain labels do not run away.",
    paper="azar2024general",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"tau": 0.1},
    strength="simple",
    extras=("torch",),
)


def ipo(tau: float, per_token: bool = False) -> Objective[Pairs]:
    """Identity preference optimisation.

    Args:
        tau: the price of leaving the reference, positive; larger stays closer.
        per_token: divide the log-ratio of each answer by its length, which the data must then say.
    """
    positive(tau=tau)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        chosen = pairs.policy_chosen - pairs.reference_chosen
        rejected = pairs.policy_rejected - pairs.reference_rejected
        if per_token:
            chosen, rejected = chosen / known(pairs, "chosen_length"), rejected / known(pairs, "rejected_length")
        x = chosen - rejected
        return (x - 1 / (2 * tau)).square(), Info(tau * x.detach())  # (17)

    return Objective(objective, Pairs)
