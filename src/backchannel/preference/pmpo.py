"""PMPO: good answers up, bad answers down, one kind or both, with the reference as what neither says.

Expectation-maximisation raises the likelihood of what succeeded, and throws away what failed. But what failed tells the
rest of the distribution: the reference is a mixture of its good and bad answers, so fitting the good ones is fitting
the reference less the bad ones. Hence a likelihood of bad answers with the opposite sign, which the divergence from the
reference keeps from running away.

Equations (Abdolmaleki et al. 2025, eq. 10), for good answers a and bad answers b:

    J = alpha E_good log pi(a) - (1 - alpha) E_bad log pi(b) - beta KL(ref, pi)

with alpha in [0, 1]: 1 learns from good answers alone, 0 from bad ones alone. If the reference is rho good and 1 - rho
bad answers, alpha = 0 and beta = 1 / (1 - rho), then J is the likelihood of the good ones, up to a factor.

    loss = -alpha log pi(a) / s_good - beta log pi(a) / ref(a)                                   (1)
    loss = (1 - alpha) log pi(b) / s_bad - beta log pi(b) / ref(b)                               (2)

of a good and of a bad answer. The last terms estimate the divergence from the answer itself, drawn from the reference;
s_good and s_bad are the shares of good and bad answers among the data, so that the mean loss is -J.

Where all answers are labelled and were drawn from the reference, a good one weighs alpha / s_good + beta and a bad one
beta - (1 - alpha) / s_bad in the likelihood: with even shares alpha and beta act through 2 alpha + beta alone, and
learning from one kind or from both is the same method at another beta.

Steps: log-probabilities of the answers; the sign of each by its label; the divergence.

Deviations: language models have the divergence exactly, token by token over their vocabulary; ours is its
estimate from the answers that were drawn, which must come from the reference. With finite data and beta below
(1 - alpha) / s_bad the loss of a bad answer falls without end (the paper asks for a large beta there): stop early.

    >>> import torch
    >>> from backchannel.parts.objectives import Singles
    >>> from backchannel.preference.pmpo import pmpo
    >>> logs, good = torch.tensor([-4.0, -9.0]), torch.tensor([True, False])
    >>> pmpo(alpha=0.5, beta=0.25)(Singles(logs, torch.tensor([-5.0, -6.0]), good=good))[0]
    tensor([ 3.7500, -8.2500])

References: abdolmaleki2025learning.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Objective, Singles, known

CARD = Card(
    name="PMPO",
    summary="Learn from answers called good, bad, or both, by likelihoods of opposite signs and a divergence.",
    paper="abdolmaleki2025learning",
    row=251,
    topics=("preference optimisation",),
    feedback=("rating",),
    protocol="objective",
    engine="torch",
    neighbour="kto",
    example={"alpha": 0.5, "beta": 0.5},
    strength="default",
    first=True,
    extras=("torch",),
)


class Info(NamedTuple):
    """What to log: the log-ratio to the reference."""

    ratio: Tensor  # [n]


def pmpo(alpha: float, beta: float, good_share: float = 0.5) -> Objective[Singles]:
    """Preference optimisation as probabilistic inference.

    Args:
        alpha: how much good answers count, in [0, 1]; bad ones count 1 - alpha.
        beta: the price of leaving the reference, at least 0.
        good_share: of good answers among the data, in (0, 1).
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    if not 0 <= beta < float("inf"):
        raise ValueError(f"beta must be at least 0, not {beta}")
    if not 0 < good_share < 1:
        raise ValueError(f"good_share must lie in (0, 1), not {good_share}")
    up, down = alpha / good_share, (1 - alpha) / (1 - good_share)

    def objective(singles: Singles) -> tuple[Tensor, Info]:
        logs, ratio = singles.policy, singles.policy - singles.reference
        sign = torch.where(known(singles, "good"), torch.full_like(logs, -up), torch.full_like(logs, down))
        return sign * logs - beta * ratio, Info(ratio.detach())  # (1), (2)

    return Objective(objective, Singles, reference=beta > 0)
