"""AlpacaFarm: a simulated crowd that labels pairs, judges policies and says which method is the better one.

Comparisons by people are dear and slow. A pool of simulated annotators costs little, and is a stand-in if it is as
varied and as noisy as people are: then methods rank in simulation as they do with people, and fail as they do. A policy
that chases a reward model too far is such a failure; a single annotator without noise may show less of it.

Equations (Dubois et al. 2023; the numbers are ours). Annotator k of K has a utility u_k(y) of answers, biases and all,
and adds o_k to the answer that is shown first. Of y1, shown first, and y2, with g the annotator's sharpness,

    P_k(y1, y2) = sigmoid(g (u_k(y1) + o_k - u_k(y2))),    at g = inf 1, 1/2 or 0                              (1)

A query draws k, and which answer is shown first, by lot. In training its label is flipped with probability f, by whim:

    p(y1 > y2) = f + (1 - 2 f) mean over k of (P_k(y1, y2) + 1 - P_k(y2, y1)) / 2                              (2)

The pool that evaluates is the same without flips. A policy's win rate is that of its answers against a reference's on
the same prompts, one query each, with a bootstrap over prompts,

    W = 1/n sum_i v_i,    v_i = 1 where the policy's answer won, 0 where the reference's did.                  (3)

Two pools, or a pool and itself, label a pair alike with probability

    A = mean over pairs of (p q + (1 - p) (1 - q)),                                                            (4)

which is what a pool is made for: it should agree with people as often as people do with each other. The proof is the
order of methods. With s_ij = sign(W_i - W_j) in simulation, and likewise with people,

    rho = corr over i of (sum_j s_ij,  sum_j s_ij'),                                                           (5)

Spearman's: a sum of signs is a rank, ties at their mean.

Steps: `alpacafarm` makes a pool of utilities; `label` answers queries and counts them; train methods on the labels;
`win_rate` judges each by `evaluator()`; `rank_agreement` compares orders. For conditioning on rewards, `quantiles`
sorts scores into bins, with which prompts are marked so that the best can be asked for: Quark does so in rounds, with
answers that it draws anew; binary reward conditioning marks chosen and rejected. The other reference methods are here
by their names: FeedME is `sft` on chosen answers, expert iteration `raft`, and there are `ppo` and `dpo`; best-of-n
answers with the best of n draws by a reward model.

Deviations: annotators are utilities, where the paper's are 13 prompts of language models; people are a pool as well.

    >>> import torch
    >>> pool = alpacafarm(lambda texts: torch.tensor([[float(len(each)), -float(len(each))] for each in texts]))
    >>> pool.prefers(["long answer"], ["short"])  # one annotator likes length, the other does not
    tensor([0.5000])
    >>> terse = alpacafarm(lambda texts: torch.tensor([[-float(len(each))] for each in texts]), price=0.006)
    >>> terse.prefers(["long answer"], ["short"])  # but for flips, the second
    tensor([0.2500])
    >>> labels = terse.evaluator().label(["a", "bcd"], ["bc", "d"], torch.Generator().manual_seed(0))
    >>> labels.first.tolist(), labels.annotator.tolist()
    ([True, False], [0, 0])

References: dubois2023alpacafarm, lu2022quark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.ledger.intervals import bootstrap
from backchannel.parts.ranks import rank_correlation

CARD = Card(
    name="AlpacaFarm",
    summary="A simulated crowd with biases and flips labels pairs, judges policies by win rate, and ranks methods.",
    paper="dubois2023alpacafarm",
    row=42,
    topics=("preference learning", "noisy labels", "overoptimisation"),
    feedback=("comparison",),
    protocol="artefact",
    engine="torch",
    neighbour="",
    example={"utilities": lambda answers: torch.zeros(len(answers), 1)},
    extras=("torch",),
)

Utilities = Callable[[Any], Tensor]
"""n answers, of any kind -> the utility of each to each of K annotators: [n, K]."""


class Labels(NamedTuple):
    """What n queries were answered."""

    first: Tensor  # bool[n]: the first answer was preferred
    annotator: Tensor  # int64[n]: by whom
    shown: Tensor  # bool[n]: the first answer was shown first


class WinRate(NamedTuple):
    """(3), with the bootstrap's interval."""

    value: float
    low: float
    high: float


class RankAgreement(NamedTuple):
    """Whether two evaluations put methods into one order."""

    spearman: float  # (5)
    swapped: list[tuple[str, str]]  # the first is ahead in the first evaluation, and behind in the second


@dataclass
class Pool:
    """Annotators. `queries` counts what they were asked."""

    utilities: Utilities
    order: float | Sequence[float]
    sharpness: float
    flips: float
    price: float
    queries: int = 0

    @property
    def spent(self) -> float:
        """The price of all queries so far."""
        return self.price * self.queries

    def evaluator(self) -> Pool:
        """The same annotators without flips, with a count of their own."""
        return replace(self, flips=0.0, queries=0)

    def prefers(self, one: Any, other: Any) -> Tensor:
        """(2), exactly, of n pairs: [n]. No query."""
        ahead = self._ahead(one, other)
        clean = (self._chance(ahead, 1.0) + self._chance(ahead, -1.0)).mean(1) / 2
        return self.flips + (1 - 2 * self.flips) * clean  # (2)

    def label(self, one: Any, other: Any, rng: torch.Generator) -> Labels:
        """One query for each of n pairs."""
        ahead = self._ahead(one, other)
        n, many = ahead.shape
        who = torch.randint(many, (n,), generator=rng)
        shown = torch.rand(n, generator=rng) < 0.5
        chance = self._chance(ahead, torch.where(shown, 1.0, -1.0)[:, None]).gather(1, who[:, None])[:, 0]
        first = torch.rand(n, generator=rng) < chance
        flipped = torch.rand(n, generator=rng) < self.flips
        self.queries += n
        return Labels(first ^ flipped, who, shown)

    def _ahead(self, one: Any, other: Any) -> Tensor:
        ours, theirs = self.utilities(one), self.utilities(other)
        if ours.dim() != 2 or ours.shape != theirs.shape:
            raise ValueError(
                f"utilities must be [n, K] for both answers of n pairs, not {list(ours.shape)} and {list(theirs.shape)}"
            )
        if not bool((torch.isfinite(ours) & torch.isfinite(theirs)).all()):
            raise ValueError("utilities must be finite numbers")
        return ours - theirs

    def _chance(self, ahead: Tensor, shown: float | Tensor) -> Tensor:
        """(1), of the first answers, which are shown first where `shown` is 1 and second where it is -1."""
        lead = ahead + shown * torch.as_tensor(self.order, dtype=ahead.dtype)
        if self.sharpness == math.inf:
            return (1 + lead.sign()) / 2
        return torch.sigmoid(self.sharpness * lead)


def alpacafarm(
    utilities: Utilities,
    order: float | Sequence[float] = 0.0,
    sharpness: float = math.inf,
    flips: float = 0.25,
    price: float = 1.0,
) -> Pool:
    """A pool of annotators.

    Args:
        utilities: what n answers are worth to each of K annotators, [n, K]; here belong their biases.
        order: o_k, what being shown first adds to an answer: one number for all, or K.
        sharpness: g, how surely the better answer is named, positive; inf: always.
        flips: f, the probability that a label is turned round, in [0, 0.5).
        price: of a query, at least 0.
    """
    if not bool(torch.isfinite(torch.as_tensor(order)).all()):
        raise ValueError(f"order must be one finite number, or one for each annotator, not {order}")
    if not sharpness > 0:
        raise ValueError(f"sharpness must be positive, not {sharpness}")
    if not 0 <= flips < 0.5:
        raise ValueError(f"flips must lie in [0, 0.5), not {flips}")
    if not 0 <= price < math.inf:
        raise ValueError(f"price must be at least 0, not {price}")
    return Pool(utilities, order, sharpness, flips, price)


def win_rate(pool: Pool, answers: Any, reference: Any, rng: torch.Generator, error: float = 0.05) -> WinRate:
    """(3): one query for each prompt.

    Args:
        pool: who judges, `evaluator()` as a rule.
        answers: the policy's, to n prompts, at least 20.
        reference: those of another policy to the same prompts.
        rng: of the queries.
        error: how often the interval may miss.
    """
    won = pool.label(answers, reference, rng).first.double().numpy()  # (3)
    low, high = bootstrap(won, error)
    return WinRate(float(won.mean()), low, high)


def agreement(p: Tensor, q: Tensor) -> float:
    """(4), of the probabilities by which two pools prefer the first answer of the same pairs, [n] each."""
    if p.dim() != 1 or p.shape != q.shape or not len(p):
        raise ValueError(f"p and q must be of the same pairs, at least one, not {list(p.shape)} and {list(q.shape)}")
    if not all(bool(((each >= 0) & (each <= 1)).all()) for each in (p, q)):
        raise ValueError("p and q must be probabilities, and some lie outside of [0, 1]")
    return float((p * q + (1 - p) * (1 - q)).mean())


def rank_agreement(simulated: dict[str, float], actual: dict[str, float]) -> RankAgreement:
    """(5), of the win rates of the same methods, at least 2, in two evaluations."""
    names = list(simulated)
    if set(names) != set(actual) or len(names) < 2:
        raise ValueError(f"both must judge the same methods, at least 2, not {names} and {list(actual)}")
    rates = np.array([[each[name] for name in names] for each in (simulated, actual)])
    signs = np.sign(rates[:, :, None] - rates[:, None, :])
    swapped = [(names[i], names[j]) for i, j in np.argwhere((signs[0] > 0) & (signs[1] < 0)).tolist()]
    return RankAgreement(rank_correlation(*rates), swapped)  # (5)


def quantiles(scores: Tensor, bins: int) -> Tensor:
    """Sorts n scores into bins of equal size, by rank: 0 for the lowest to bins - 1 for the best. int64[n]."""
    if scores.dim() != 1 or not bool(torch.isfinite(scores).all()):
        raise ValueError(f"scores must be finite numbers, [n], not of the shape {list(scores.shape)}")
    if not 2 <= bins <= len(scores):
        raise ValueError(f"bins must lie in 2..{len(scores)}, the number of scores, not {bins}")
    rank = scores.argsort(stable=True).argsort()
    return rank * bins // len(scores)
