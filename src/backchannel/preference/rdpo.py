"""rDPO: DPO from labels that are flipped at a known rate, with the bias of the flips taken out.

A flipped label shows the wrong answer as chosen. If flips strike every pair with the same probability eps < 1/2, a
mixture of the loss of a pair and the loss of its mirror image has, on average over flips, exactly the loss that DPO
would have had on the clean label: an unbiased estimate, at the price of a variance that grows as 1 / (1 - 2 eps)^2.

Equations (Ray Chowdhury, Kini and Natarajan 2024; the number is ours), with l(w, l) = -log sigmoid(h(w, l)),
the loss of DPO:

    loss(w, l) = ((1 - eps) l(w, l) - eps l(l, w)) / (1 - 2 eps)                                 (1)

Since l(l, w) = l(w, l) + h, this is l(w, l) - eps / (1 - 2 eps) h: DPO's curvature, tilted towards the label. Hence it
is convex in h, but not bounded below: with few data there may be no minimiser, and the paper's theory keeps the
parameters in a ball. Its suboptimality with log-linear policies is O(sqrt(d / n) / (1 - 2 eps)).

Steps: the margin; both losses; their difference, rescaled.

`estimate_flip_rate` chooses eps by cross-validation: fit rDPO with each candidate, and score the labels held out, flips
and all, by the likelihood of the mixture (1 - eps) sigmoid(h) + eps sigmoid(-h). While margins are small the rate and
the margins' scale trade against each other, and only pairs with a clear winner tell them apart: expect a wide
spread unless many true margins exceed about 2.

Deviations: the paper does not define its cross-validation; ours is above.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs, swapped
    >>> from backchannel.preference.rdpo import rdpo
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> robust = rdpo(flip_rate=0.25, beta=0.5)
    >>> 0.75 * robust(pairs)[0] + 0.25 * robust(swapped(pairs))[0]  # the mean over flips: the loss of DPO
    tensor([0.3133, 2.1269])

References: chowdhury2024provably, rafailov2023direct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive

CARD = Card(
    name="rDPO",
    summary="DPO with an unbiased loss for labels that are flipped at a known rate.",
    paper="chowdhury2024provably",
    row=97,
    topics=("preference optimisation", "noisy labels"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"flip_rate": 0.2, "beta": 0.1},
    extras=("torch",),
    first=True,
)


class FlipRate(NamedTuple):
    """The candidate with the best score, and the mean held-out log-likelihood of each candidate."""

    rate: float
    scores: dict[float, float]


def rdpo(flip_rate: float, beta: float) -> Objective[Pairs]:
    """Robust DPO.

    Args:
        flip_rate: eps, the probability that a label is wrong, in [0, 1/2).
        beta: the price of leaving the reference, positive.
    """
    if not 0 <= flip_rate < 0.5:
        raise ValueError(f"flip_rate must lie in [0, 1/2), not {flip_rate}")
    positive(beta=beta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        kept, flipped = -logsigmoid(h), -logsigmoid(-h)
        return ((1 - flip_rate) * kept - flip_rate * flipped) / (1 - 2 * flip_rate), Info(h.detach())  # (1)

    return Objective(objective, Pairs)


def estimate_flip_rate(
    fit: Callable[[Objective[Pairs], Tensor, Tensor], Tensor],
    examples: int,
    beta: float,
    candidates: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4),
    folds: int = 5,
    seed: int = 0,
) -> FlipRate:
    """The flip rate among `candidates`, by cross-validation; see above for how far to trust it.

    Args:
        fit: `fit(objective, train, held) -> margins`: train a fresh policy with `objective` on the examples `train`
            (int64 indices), and return the margins h of the examples `held` as labelled.
        examples: how many labelled pairs there are.
        beta: of the objective.
        candidates: rates in [0, 1/2).
        folds: parts into which the examples are cut, after shuffling with `seed`.
    """
    if not 2 <= folds <= examples:
        raise ValueError(f"folds must lie in 2..{examples}, the number of examples, not {folds}")
    order = torch.randperm(examples, generator=torch.Generator().manual_seed(seed))
    parts = order.tensor_split(folds)
    scores = {}
    for rate in candidates:
        objective, total = rdpo(rate, beta), 0.0
        for i, held in enumerate(parts):
            h = fit(objective, torch.cat([part for j, part in enumerate(parts) if j != i]), held)
            likelihood = (1 - rate) * torch.sigmoid(h) + rate * torch.sigmoid(-h)
            total += float(likelihood.clamp_min(1e-12).log().sum())
        scores[rate] = total / examples
    return FlipRate(max(scores, key=lambda rate: scores[rate]), scores)
