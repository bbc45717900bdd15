"""Bradley-Terry: a reward model from comparisons, the higher reward winning with logistic odds.

Each answer has a number; the chance that one answer beats another is a logistic function of the difference. Maximum
likelihood fits the numbers up to a constant for each prompt.

Equations (Bradley and Terry 1952; the numbers are ours), for rewards a of the chosen and b of the rejected answer:

    P(chosen wins) = sigmoid(a - b)                                                              (1)
    loss           = -log sigmoid(a - b - gap) + c (a + b)^2                                     (2)

`gap` is by how much the chosen answer should lead at least (Llama 2's margin, from how sure the annotator was), `c` a
small price that keeps the mean of rewards at 0, which comparisons do not settle. A tie counts as half a win for each.

Steps: rewards of both answers; the log-likelihood; the price of their mean.

Deviations: ties as halves are not in the model; `davidson` and `rao_kupper` have them.

    >>> import torch
    >>> from backchannel.parts.objectives import Scores
    >>> from backchannel.preference.bradley_terry import bradley_terry
    >>> scores = Scores(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]))
    >>> bradley_terry()(scores)[0], bradley_terry(center=0.1)(scores)[0]
    (tensor([0.3133, 1.3133]), tensor([1.2133, 1.4133]))

References: bradley1952rank.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Scores, known

CARD = Card(
    name="Bradley-Terry",
    summary="Fit a reward model to comparisons by logistic regression on differences of rewards.",
    paper="bradley1952rank",
    topics=("reward models",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="davidson",
    example={},
    strength="simple",
    extras=("torch",),
)


def bradley_terry(center: float = 0.0, use_gap: bool = False) -> Objective[Scores]:
    """The negative log-likelihood of comparisons.

    Args:
        center: c, the price of a mean reward away from 0, at least 0; 0.01 is usual.
        use_gap: ask for the lead that the data's `gap` says. A gap in the data is not used otherwise.
    """
    if not 0 <= center < float("inf"):
        raise ValueError(f"center must be at least 0, not {center}")

    def objective(scores: Scores) -> tuple[Tensor, Info]:
        lead = scores.chosen - scores.rejected
        h = lead - known(scores, "gap") if use_gap else lead
        loss = -logsigmoid(h)
        if scores.tie is not None:
            loss = torch.where(scores.tie, -0.5 * (logsigmoid(lead) + logsigmoid(-lead)), loss)
        return loss + center * (scores.chosen + scores.rejected).square(), Info(lead.detach())  # (2)

    return Objective(objective, Scores)
