"""Preference strength: how much several reward models agree with each label, and what to do with doubtful ones.

Of the comparisons that people give, many are wrong or say little. Reward models trained on them, each in its own
order, fit most labels and vote on each: the mean margin over the models is the strength of the preference. The lowest
strengths are mostly wrong labels, to be exchanged; the next ones are unsure, to be softened; high ones deserve a
margin.

Equations (Wang et al. 2024), with d_im = r_m(x_i, chosen) - r_m(x_i, rejected) of model m = 1, ..., M:

    u_i = (1 / M) sum_m d_im,    s_i^2 = (1 / M) sum_m (d_im - u_i)^2                                                (1)
    flip the labels of the lowest share of u                                                                        (2)
    soft labels:      -p_i log sigmoid(d_i) - (1 - p_i) log sigmoid(-d_i),   p_i = sigmoid(u_i)                      (3)
    adaptive margin:  -log sigmoid(d_i - u_i)                                                                        (4)
    contrast:         -log( exp(cos(h_i, h'_i) / tau) / sum_j exp(cos(h_i, h'_j) / tau) )                            (5)

In (5) h_i and h'_i are two views of pair i, with different dropout: representations of the answers, or the difference
of the chosen and the rejected one's. It is added to the loss with a weight.

Steps: train M models; `preference_strength` of their margins; `flip` them; train anew on the flipped pairs with
`soft_labels` or `adaptive_margin`, which read the strength p and the gap u of a batch of `Scores`.

Deviations: after a flip the strength is negated with the label, so that (3) and (4) use one u for both.

    >>> import torch
    >>> strength = preference_strength(torch.tensor([[2.0, -1.0, 0.5], [1.0, -2.0, 0.1], [3.0, -3.0, 0.3]]))
    >>> strength.mean, strength.weakest(0.34)
    (tensor([ 2.0000, -2.0000,  0.3000]), tensor([False,  True, False]))

References: wang2024secrets, gao2021simcse.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Scores, known, positive

CARD = Card(
    name="Preference strength",
    summary="Finds wrong labels of comparisons by a vote of reward models; flips, softens or trusts by strength.",
    paper="wang2024secrets",
    row=112,
    topics=("reward models", "noisy labels"),
    feedback=("comparison",),
    protocol="artefact",
    engine="torch",
    neighbour="bradley_terry",
    example={"margins": [[2.0, -1.0, 0.5], [1.0, -2.0, 0.1]]},
    extras=("torch",),
)


class Strength(NamedTuple):
    """What the models say of each label."""

    mean: Tensor  # [n]: u
    deviation: Tensor  # [n]: s

    def weakest(self, share: float) -> Tensor:
        """Which labels are of the lowest `share`, rounded down: bool[n]."""
        if not 0 <= share <= 1:
            raise ValueError(f"share must lie in [0, 1], not {share}")
        lowest = self.mean.argsort(stable=True)[: int(share * len(self.mean) + 1e-9)]
        chosen = torch.zeros(len(self.mean), dtype=torch.bool)
        chosen[lowest] = True
        return chosen


def preference_strength(margins: Tensor | list[list[float]]) -> Strength:
    """(1), from the margins of each model on each pair as labelled: [M, n]."""
    d = torch.as_tensor(margins)
    if d.dim() != 2 or not d.is_floating_point() or not bool(torch.isfinite(d).all()):
        raise ValueError(f"margins must be finite numbers [models, pairs], not {d.dtype} of shape {list(d.shape)}")
    mean = d.mean(0)
    return Strength(mean, (d - mean).square().mean(0).sqrt())


def flip(chosen: Tensor, rejected: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """(2): answers (features, tokens, rewards: [n, ...]) with the labels of `which` exchanged."""
    swap = which.reshape(-1, *[1] * (chosen.dim() - 1))
    return torch.where(swap, rejected, chosen), torch.where(swap, chosen, rejected)


def soft_labels() -> Objective[Scores]:
    """(3): reads `strength`, the probability p that the label is right."""

    def objective(scores: Scores) -> tuple[Tensor, Info]:
        d, p = scores.chosen - scores.rejected, known(scores, "strength")
        return -p * logsigmoid(d) - (1 - p) * logsigmoid(-d), Info(d.detach())

    return Objective(objective, Scores)


def adaptive_margin() -> Objective[Scores]:
    """(4): reads `gap`, the strength u."""

    def objective(scores: Scores) -> tuple[Tensor, Info]:
        d = scores.chosen - scores.rejected
        return -logsigmoid(d - known(scores, "gap")), Info(d.detach())

    return Objective(objective, Scores)


def contrast(first: Tensor, second: Tensor, temperature: float = 0.05) -> Tensor:
    """(5) of each pair, from two views of all pairs of a batch, [n, d] each: [n]."""
    positive(temperature=temperature)
    cosines = normalize(first, dim=1) @ normalize(second, dim=1).mT
    return cross_entropy(cosines / temperature, torch.arange(len(first)), reduction="none")
