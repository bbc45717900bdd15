"""KTO: good and bad answers, without pairs, valued as people value gains and losses.

Prospect theory: what counts is the gain over a reference point, and more of it counts less and less. KTO raises
answers called good and lowers answers called bad; each saturates once it is well above or below what the policy
gives to an answer that has nothing to do with the prompt. One bit for each answer is enough.

Equations (Ethayarajh et al. 2024, eqs. 7 and 8), for an answer y to a prompt x:

    r    = log pi(y | x) / ref(y | x)
    z0   = max(0, mean over a batch of log pi(y' | x) / ref(y' | x)), y' another prompt's answer: an estimate of the
           divergence from the reference, without a gradient
    v    = sigmoid(beta (r - z0)) if y is good, sigmoid(beta (z0 - r)) if it is bad
    loss = lambda_D (1 - v) if y is good, lambda_U (1 - v) if it is bad

Steps: log-probabilities of the answers and of the mismatched ones under both models; z0 (`reference_point`), which
whoever makes the batch writes in its field `baseline`; the loss.

The paper asks that lambda_D n_D / (lambda_U n_U) lie in [1, 4/3], where n_D and n_U count good and bad answers.

Deviations: loss and reference point are apart, so that an example's loss depends on no other of its batch. A batch
without `baseline` is taken at z0 = 0, which is APO-zero's unpaired loss.

    >>> import torch
    >>> from backchannel.parts.objectives import Singles
    >>> from backchannel.preference.kto import kto, reference_point
    >>> logs, good = torch.tensor([-4.0, -9.0]), torch.tensor([True, False])
    >>> other, under_reference = torch.tensor([-6.0, -7.0]), torch.tensor([-7.0, -8.0])  # of mismatched answers
    >>> z = reference_point(other, under_reference).expand(2)
    >>> kto(beta=0.5)(Singles(logs, torch.tensor([-5.0, -6.0]), good=good, baseline=z))[0]
    tensor([0.5000, 0.1192])

References: ethayarajh2024model.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Baseline, Objective, Singles, known, positive

CARD = Card(
    name="KTO",
    summary="Learn from answers called good or bad, one at a time, each with diminishing returns.",
    paper="ethayarajh2024model",
    topics=("preference optimisation",),
    feedback=("rating",),
    protocol="objective",
    engine="torch",
    neighbour="bco",
    example={"beta": 0.1},
    strength="simple",
    first=True,
    extras=("torch",),
)


class Info(NamedTuple):
    """What to log: beta times the log-ratio, the implicit reward."""

    reward: Tensor  # [n]


def kto(beta: float, desirable: float = 1.0, undesirable: float = 1.0) -> Objective[Singles]:
    """Kahneman-Tversky optimisation.

    Args:
        beta: how soon gains and losses saturate, positive; larger stays closer to the reference.
        desirable: lambda_D, the weight of good answers, positive.
        undesirable: lambda_U, of bad ones.
    """
    positive(beta=beta, desirable=desirable, undesirable=undesirable)

    def objective(singles: Singles) -> tuple[Tensor, Info]:
        ratio = singles.policy - singles.reference
        gain = beta * (ratio if singles.baseline is None else ratio - singles.baseline.detach())
        good = known(singles, "good")
        loss = torch.where(good, desirable * torch.sigmoid(-gain), undesirable * torch.sigmoid(gain))  # (7), (8)
        return loss, Info(beta * ratio.detach())

    return Objective(objective, Singles, baseline=Baseline("mismatched", _point))


def reference_point(policy: Tensor, reference: Tensor) -> Tensor:
    """z0, a number: from log-probabilities of answers to other prompts, as many as a batch has or more."""
    return (policy - reference).mean().clamp(min=0).detach()


def _point(ratios: Tensor, good: Tensor) -> Tensor:
    return reference_point(ratios, torch.zeros_like(ratios))
