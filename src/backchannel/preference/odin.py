"""ODIN: a reward model with a head for length, which is thrown away before the reward is used.

People call longer answers better more often than they are, a reward model learns it, and a policy that is trained on
the reward writes ever more. ODIN has two linear heads on the same features. Their sum explains the labels; one is
made to correlate with length and the other not to. So what length explains of the labels has a place to go to, and
the head that is kept has no need of it.

Equations (Chen et al. 2024; the numbers are ours), for pairs of a chosen answer w and a rejected answer l to x, with
r_Q = W_Q f(x, y) for quality and r_L = W_L f(x, y) for length; corr is Pearson's, over all answers of the batch, to
their lengths in tokens:

    L_R = -log sigmoid(r_Q(x, w) + r_L(x, w) - r_Q(x, l) - r_L(x, l)), meaned                    (1)
    L_L = |corr(r_Q, length)| - corr(r_L, length)                                                (2)
    L_O = |W_Q W_L'| / (|W_Q| |W_L|)                                                             (3)
    loss = L_R + length_weight L_L + orthogonal_weight L_O                                       (4)

Each term has a least value of its own: that of maximum likelihood, -1 and 0. Where one feature is the length, and the
others do not correlate with it, all three are reached at once: W_L is the likelihood's weight of the length, W_Q the
rest of it. Where quality itself comes with length, r_Q loses that part of it: (2) cannot tell the two.

Steps: `Heads` rates both answers; `odin` makes the loss (4) of a batch; `Heads.reward` is the quality head alone, a
linear layer to put on the same features. `front` is the paper's protocol for comparing what policies became: a score
counts at its length, and a policy that another beats with no longer answers is no gain.

Deviations: the paper keeps |W_Q| = |W_L| = 1, so that (3) cannot be met by small weights, and leaves the scale of
rewards to the features; here each head has a gain beside its direction, so that fixed features will do, and (3) is of
directions. A correlation with something constant is 0. (2) is of a batch: this loss is no sum over examples.

    >>> import torch
    >>> heads = Heads(width=2, seed=0)
    >>> features = torch.tensor([[[1.0, 3.0], [0.5, 1.0]], [[0.0, 2.0], [1.0, 1.0]]])  # [2, pair, width]
    >>> both, tokens = heads(features), torch.tensor([[3, 2], [1, 1]])
    >>> loss, info = odin()(Rated(both.quality, both.length, tokens, heads.overlap()))
    >>> info.margin.shape, bool((features @ heads.reward().weight[0] == both.quality).all())
    (torch.Size([2]), True)

References: chen2024odin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from backchannel.card import Card

CARD = Card(
    name="ODIN",
    summary="A reward model with two heads: one takes what length explains, and the other is the reward.",
    paper="chen2024odin",
    row=231,
    topics=("reward models", "reward hacking"),
    feedback=("comparison",),
    protocol="artefact",
    engine="torch",
    neighbour="bradley_terry",
    example={"length_weight": 1.0, "orthogonal_weight": 1.0},
    extras=("torch",),
)
TINY = 1e-12  # a variance below this is none


class Parts(NamedTuple):
    """What the two heads say of answers; tensors are of one shape."""

    quality: Tensor
    length: Tensor


class Rated(NamedTuple):
    """n pairs as labelled, row 0 the chosen answers and row 1 the rejected ones: tensors are [2, n]."""

    quality: Tensor
    length: Tensor
    tokens: Tensor  # of each answer
    overlap: Tensor  # of the heads: a scalar


class Info(NamedTuple):
    """What to log, detached: the lead of each pair by both heads and by the one that is kept, [n]; correlations."""

    margin: Tensor
    quality_margin: Tensor
    quality_correlation: Tensor  # a scalar
    length_correlation: Tensor


class Heads(nn.Module):
    """Two linear heads without a constant, each a direction and a gain."""

    def __init__(self, width: int, seed: int = 0):
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.direction = nn.Parameter(torch.randn(2, width, generator=rng))
        self.gain = nn.Parameter(torch.ones(2))

    def weights(self) -> Tensor:
        """W_Q and W_L: [2, width]."""
        return self.gain[:, None] * self._units()

    def forward(self, features: Tensor) -> Parts:
        """r_Q and r_L of features [..., width]."""
        found = features @ self.weights().T
        return Parts(found[..., 0], found[..., 1])

    def overlap(self) -> Tensor:
        """L_O: a scalar."""
        units = self._units()
        return (units[0] @ units[1]).abs()  # (3)

    def reward(self) -> nn.Linear:
        """The quality head alone, as it is now."""
        weight = self.weights().detach()[:1].clone()
        alone = nn.Linear(weight.shape[1], 1, bias=False, dtype=weight.dtype, device=weight.device)
        alone.weight = nn.Parameter(weight, requires_grad=False)
        return alone

    def _units(self) -> Tensor:
        return self.direction / self.direction.norm(dim=1, keepdim=True)


def odin(length_weight: float = 1.0, orthogonal_weight: float = 1.0) -> Callable[[Rated], tuple[Tensor, Info]]:
    """The loss of ODIN, of a batch: a scalar, and what to log.

    Args:
        length_weight: of (2), at least 0.
        orthogonal_weight: of (3), at least 0.
    """
    for name, value in (("length_weight", length_weight), ("orthogonal_weight", orthogonal_weight)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be at least 0, not {value}")

    def loss(rated: Rated) -> tuple[Tensor, Info]:
        total = rated.quality + rated.length
        margin = total[0] - total[1]
        ranking = -logsigmoid(margin).mean()  # (1)
        of_quality, of_length = (correlation(each, rated.tokens) for each in (rated.quality, rated.length))
        apart = of_quality.abs() - of_length  # (2)
        info = Info(margin, rated.quality[0] - rated.quality[1], of_quality, of_length)
        value = ranking + length_weight * apart + orthogonal_weight * rated.overlap  # (4)
        return value, Info(*(each.detach() for each in info))

    return loss


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's, over all elements of two tensors of one shape; 0 where one of them is constant."""
    if x.shape != y.shape:
        raise ValueError(
            f"a correlation is of as many numbers on both sides, not of {list(x.shape)} and {list(y.shape)}"
        )
    y = y.to(x.dtype)
    x, y = x - x.mean(), y - y.mean()
    spread = (x.square().mean().clamp_min(TINY) * y.square().mean().clamp_min(TINY)).sqrt()
    return (x * y).mean() / spread


def front(length: Tensor, score: Tensor) -> Tensor:
    """Which of some policies no other one beats: bool[n].

    Args:
        length: the mean length of each policy's answers, [n].
        score: how good they are, higher is better, [n].

    Returns:
        False where another's answers are no longer and score no less, and differ in one of the two.
    """
    shorter, better = length[:, None] >= length, score[:, None] <= score  # [i, j]: j against i
    differ = (length[:, None] > length) | (score[:, None] < score)
    return ~(shorter & better & differ).any(1)
