"""Davidson: comparisons with ties, likelier the closer two answers are.

Bradley and Terry's model cannot say that two answers are equally good. Davidson gives a tie the geometric mean of both
answers' odds, times a number: the odds of a win to a loss stay what they were.

Equations (Davidson 1970; the number is ours), for rewards a and b, with d = a - b:

    P(first wins) = exp(d / 2) / (exp(d / 2) + exp(-d / 2) + nu)
    P(tie)        = nu / (exp(d / 2) + exp(-d / 2) + nu)

    loss = -log of the probability of what was said                                              (1)

nu is the odds of a tie to a win among equals: where a share s of comparisons of equals are ties, nu = 2 s / (1 - s).

Steps: the difference of rewards; the three log-probabilities.

Deviations: nu is given, not fitted.

    >>> import torch
    >>> from backchannel.parts.objectives import Scores
    >>> from backchannel.preference.davidson import davidson
    >>> same = torch.zeros(2)
    >>> loss, _ = davidson(nu=2.0)(Scores(same, same, tie=torch.tensor([False, True])))
    >>> torch.exp(-loss)  # of equals, half are ties, and a quarter is won by either
    tensor([0.2500, 0.5000])

References: davidson1970extending, bradley1952rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Scores, known, positive

CARD = Card(
    name="Davidson",
    summary="Fit a reward model to comparisons with ties; a tie is likelier the closer two answers are.",
    paper="davidson1970extending",
    topics=("reward models", "ties"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="rao_kupper",
    example={"nu": 1.0},
    strength="simple",
    extras=("torch",),
)


def davidson(nu: float) -> Objective[Scores]:
    """The negative log-likelihood of comparisons with ties.

    Args:
        nu: how common ties are, positive; near 0 the model is Bradley and Terry's.
    """
    positive(nu=nu)

    def objective(scores: Scores) -> tuple[Tensor, Info]:
        lead = scores.chosen - scores.rejected
        even = torch.full_like(lead, math.log(nu))
        said = torch.where(known(scores, "tie"), even, lead / 2)
        total = torch.logsumexp(torch.stack([lead / 2, -lead / 2, even]), 0)
        return total - said, Info(lead.detach())  # (1)

    return Objective(objective, Scores)
