"""Rao-Kupper: comparisons with ties, where a difference below a threshold is not seen.

A judge compares noisy impressions and calls a tie if they lie within a threshold log theta of each other. With logistic
noise the chance to win is Bradley and Terry's against an opponent who is better by that threshold.

Equations (Rao and Kupper 1967; the numbers are ours), for rewards a and b, with d = a - b and e = log theta:

    P(first wins) = sigmoid(d - e)                                                               (1)
    P(tie)        = (theta^2 - 1) sigmoid(d - e) sigmoid(-d - e)                                 (2)

    loss = -log of the probability of what was said

Where a share s of comparisons of equals are ties, theta = (1 + s) / (1 - s).

Steps: the difference of rewards; both log-probabilities.

Deviations: theta is given, not fitted.

    >>> import torch
    >>> from backchannel.parts.objectives import Scores
    >>> from backchannel.preference.rao_kupper import rao_kupper
    >>> same = torch.zeros(2)
    >>> loss, _ = rao_kupper(theta=3.0)(Scores(same, same, tie=torch.tensor([False, True])))
    >>> torch.exp(-loss)  # of equals, half are ties, and a quarter is won by either
    tensor([0.2500, 0.5000])

References: rao1967ties, bradley1952rank.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Scores, known

CARD = Card(
    name="Rao-Kupper",
    summary="Fit a reward model to comparisons with ties; a difference below a threshold is a tie.",
    paper="rao1967ties",
    topics=("reward models", "ties"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="davidson",
    example={"theta": 2.0},
    strength="simple",
    extras=("torch",),
)


def rao_kupper(theta: float) -> Objective[Scores]:
    """The negative log-likelihood of comparisons with ties.

    Args:
        theta: exp of the threshold, above 1; near 1 there are no ties.
    """
    if not 1 < theta < float("inf"):
        raise ValueError(f"theta must be above 1, not {theta}")
    threshold, both = math.log(theta), math.log(theta**2 - 1)

    def objective(scores: Scores) -> tuple[Tensor, Info]:
        lead = scores.chosen - scores.rejected
        win, lose = logsigmoid(lead - threshold), logsigmoid(-lead - threshold)  # (1)
        return -torch.where(known(scores, "tie"), both + win + lose, win), Info(lead.detach())  # (2)

    return Objective(objective, Scores)
