"""BCO: good and bad answers, without pairs, told apart by a classifier whose logit is the implicit reward.

If a binary classifier of good and bad answers is trained by cross-entropy with beta log pi / ref as its logit, DPO's
loss is bounded by its loss: answers need not come in pairs. The bound is tightest where the logit is shifted by delta,
the middle between the mean rewards of good and of bad answers.

Equations (Jung et al. 2024; the numbers are ours), for an answer y:

    r     = beta log pi(y) / ref(y)
    delta = (mean of r over good answers + mean of r over bad answers) / 2, a running mean without a gradient    (1)
    loss  = -log sigmoid(r - delta) if y is good, -log sigmoid(delta - r) if it is bad                           (2)

Steps: log-probabilities of the answers under both models; delta / beta, which whoever makes the batch writes in its
field `baseline` (`middle` of recent log-ratios); the loss.

Deviations: the paper's density ratio, which weighs bad answers to prompts that differ from the good ones', is left
out. A batch without `baseline` is taken at delta = 0; TRL's `bco_pair` is this on both answers of a pair, always.

    >>> import torch
    >>> from backchannel.parts.objectives import Singles
    >>> from backchannel.preference.bco import bco, middle
    >>> logs, reference = torch.tensor([-4.0, -9.0, -6.0]), torch.tensor([-5.0, -6.0, -6.0])
    >>> batch = Singles(logs, reference, good=torch.tensor([True, False, True]))
    >>> shift = middle(logs - reference, batch.good)
    >>> shift  # half of 0.5 and -3
    tensor(-1.2500)
    >>> bco(beta=0.5)(batch._replace(baseline=shift.expand(3)))[0]
    tensor([0.2812, 0.3484, 0.4287])

References: jung2024binary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Baseline, Objective, Singles, known, positive

CARD = Card(
    name="BCO",
    summary="Learn from answers called good or bad by a logistic classifier of implicit rewards; bounds DPO's loss.",
    paper="jung2024binary",
    topics=("preference optimisation",),
    feedback=("rating",),
    protocol="objective",
    engine="torch",
    neighbour="kto",
    example={"beta": 0.1},
    strength="simple",
    extras=("torch",),
)


class Info(NamedTuple):
    """What to log: beta times the log-ratio, the implicit reward."""

    reward: Tensor  # [n]


def bco(beta: float) -> Objective[Singles]:
    """Binary classifier optimisation.

    Args:
        beta: the price of leaving the reference, positive; larger stays closer.
    """
    positive(beta=beta)

    def objective(singles: Singles) -> tuple[Tensor, Info]:
        ratio = singles.policy - singles.reference
        logit = beta * (ratio if singles.baseline is None else ratio - singles.baseline.detach())
        return -logsigmoid(torch.where(known(singles, "good"), logit, -logit)), Info(beta * ratio.detach())  # (2)

    return Objective(objective, Singles, baseline=Baseline("own", middle))


def middle(ratios: Tensor, good: Tensor) -> Tensor:
    """delta / beta, a number: of log-ratios of recent answers, [n], among which must be good and bad ones."""
    if bool(good.all()) or not bool(good.any()):
        raise ValueError("the middle between good and bad answers needs both")
    return (0.5 * (ratios[good].mean() + ratios[~good].mean())).detach()  # (1)
