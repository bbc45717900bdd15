"""UPO: of the pairs that a reward model labels, learn from those of which a second judge is certain.

A model that improves on its own answers is labelled by a reward model, which errs, and errs most where rewards look
best. UPO has each pair read again by an estimator of pairs, several times, each time with other units dropped. Where
the estimator contradicts the reward, the pair goes. Where its readings disagree among themselves, it has not learned
such pairs, whatever their mean says: they are drawn less often, and count less.

Equations (Wang et al. 2025; the numbers are ours). p_t is the probability that the pair's label is right, in pass t of
T with dropout, H(p) = -p log p - (1 - p) log(1 - p), and g = r(better) - r(worse) the margin of rewards:

    p = (1/T) sum_t p_t,     I = H(p) - (1/T) sum_t H(p_t)              the information gain, in 0..log 2            (1)
    c = 1 - I / log 2                                                   certainty, in 0..1                           (2)
    candidates: pairs of answers to a prompt with g > 0 and p >= 1/2                                                 (3)
    draw a share of them without replacement, by  (1 - m) c / sum c + m g / sum g                                    (4)
    loss = -c log sigmoid(h)                                                                                         (5)

I (BALD) is what knowing the dropped units would tell of the label. It is 0 where all passes say the same, even if they
say 1/2: it measures what the estimator does not know, not how close the answers are. h is DPO's margin.

Steps: train the estimator with dropout on labelled pairs; draw answers and their rewards; `mc_dropout` the estimator;
`reliable_pairs` does (1) to (4); some steps down (5), of which a pair's `strength` is c; begin again.

Deviations: the released code draws by 1 - I alone, I in nats, half of the candidates, and keeps an equal number of hard
ones apart; m = 0 and share = 1/2 are its easy half. There (5) is plain DPO. The paper's own weights could not be read.
In records a strength is the probability that the chosen answer is better: of these `align` takes c = |2 strength - 1|
and the likelier answer as chosen (so that c is written as (1 + c) / 2), and a tie counts nothing.

    >>> import torch
    >>> agreed, torn = information_gain(torch.tensor([[0.9, 0.99], [0.9, 0.81]])), torch.tensor([[0.99], [0.01]])
    >>> agreed.mean, agreed.certainty, information_gain(torch.cat([torn, 1 - torn])).certainty
    (tensor([0.9000, 0.9000]), tensor([1.0000, 0.9221]), tensor([0.0808]))

References: wang2025selfevolutionary, gal2016dropout, houlsby2011bayesian, rafailov2023direct.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, known, margin, positive
from backchannel.parts.recipes import Compared, scored

CARD = Card(
    name="UPO",
    summary="Learns from pairs of which an estimator with dropout is certain, in proportion to how certain it is.",
    paper="wang2025selfevolutionary",
    row=108,
    topics=("preference optimisation", "noisy labels", "own answers"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"beta": 0.1},
    strength="strong",
    extras=("torch",),
)


class Estimate(NamedTuple):
    """What several passes say together."""

    mean: Tensor  # [...]: p
    gain: Tensor  # [...]: I, in nats

    @property
    def certainty(self) -> Tensor:
        """(2)."""
        return (1 - self.gain / log(2)).clamp(0, 1)


def upo(beta: float) -> Objective[Pairs]:
    """DPO in which each pair counts by the estimator's certainty, the pairs' `strength`.

    Args:
        beta: the price of leaving the reference, positive.
    """
    positive(beta=beta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -known(pairs, "strength") * logsigmoid(h), Info(h.detach())  # (5)

    return Objective(objective, Pairs)


def mc_dropout(estimator: nn.Module, ask: Callable[[], Tensor], passes: int, seed: int) -> Tensor:
    """What the estimator says in each pass, with other units dropped each time: [T, ...].

    Args:
        estimator: whose modules of dropout, and no others, are in the mode of training meanwhile.
        ask: asks the estimator.
        passes: T, at least 1.
        seed: of the units; torch's own generator is left as it was.
    """
    if passes < 1:
        raise ValueError(f"passes must be 1 or more, not {passes}")
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    droppers = [(each, each.training) for each in estimator.modules() if isinstance(each, kinds)]
    try:
        for each, _ in droppers:
            each.train()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            return torch.stack([ask() for _ in range(passes)])
    finally:
        for each, before in droppers:
            each.train(before)


def information_gain(passes: Tensor) -> Estimate:
    """(1) of probabilities [T, ...]."""
    if passes.dim() < 1 or not len(passes) or not bool(((passes >= 0) & (passes <= 1)).all()):
        raise ValueError("passes must be probabilities, one row for each pass, of one pass at least")
    mean = passes.mean(0)
    return Estimate(mean, (_entropy(mean) - _entropy(passes).mean(0)).clamp_min(0))


def reliable_pairs(
    scores: Tensor, passes: Tensor, rng: Generator, share: float = 0.5, by_margin: float = 0.5
) -> Compared:
    """(1) to (4): pairs with their certainty as `strength` and their margin of rewards as `gap`.

    Args:
        scores: rewards of k answers to each of n prompts, [n, k].
        passes: in each pass, how likely each answer beats each, [T, n, k, k], the answer of the row shown first.
        rng: draws (4).
        share: of the candidates that are kept, in (0, 1]; at least one.
        by_margin: m in [0, 1].
    """
    scored(scores)
    n, k = scores.shape
    if passes.dim() != 4 or tuple(passes.shape[1:]) != (n, k, k):
        raise ValueError(f"passes must be [T, {n}, {k}, {k}] as the scores are, not {list(passes.shape)}")
    if not 0 < share <= 1 or not 0 <= by_margin <= 1:
        raise ValueError(f"share must lie in (0, 1] and by_margin in [0, 1], not {share} and {by_margin}")
    estimate = information_gain(passes)
    gap = scores[:, :, None] - scores[:, None, :]
    row, better, worse = ((gap > 0) & (estimate.mean >= 0.5)).nonzero(as_tuple=True)  # (3)
    g, c = gap[row, better, worse], estimate.certainty[row, better, worse].to(gap.dtype)
    if not len(row):
        return Compared(row, better, worse, strength=c, gap=g)
    chance = (1 - by_margin) * c / c.sum().clamp_min(1e-12) + by_margin * g / g.sum()  # (4)
    number = min(max(1, int(share * len(row) + 1e-9)), int((chance > 0).sum()))
    kept = chance.multinomial(number, generator=rng).sort()[0] if number else row[:0]
    return Compared(row[kept], better[kept], worse[kept], strength=c[kept], gap=g[kept])


def _entropy(p: Tensor) -> Tensor:
    return -torch.xlogy(p, p) - torch.xlogy(1 - p, 1 - p)
