"""RLUF: learns from the reactions of users, one of several rewards, and watches what that does.

Users say little: now and then one gives an answer a heart. P[Love] is the probability of that, a logistic model of the
answer. It becomes one reward beside helpfulness and safety, it says before a test with users which policy they will
like, and it is hacked where it weighs too much: the paper's models began to say goodbye with love.

Equations (Han et al. 2025; the numbers are ours), for an answer y to x with or without a reaction, l = 1 or 0:

    P[Love](x, y) = sigmoid(r(x, y)),   loss = -w_u (l log sigmoid(r) + (1 - l) log sigmoid(-r))         (1)
    w_u = min(1, cap / hearts of user u)                                                         (2)
    r <- r + log(kept)                                                                           (3)
    R = sum_i weight_i (R_i - mean_i) / deviation_i - beta log(pi / ref),  i = love, helpful, safe       (4)
    z_t = (p_t - q_t) / sqrt(m (1 - m) (1 / n_p + 1 / n_q)),  m the pooled share                      (5)

(2) bounds what one user can say, in either direction. (3) is for a model that was trained on all answers with a heart
and a share `kept` of those without: odds of classes that were sampled apart are off by that factor alone. The means and
deviations of (4) are those of the answers before tuning, so that weights are of like things. (5) compares, for each
token t, the shares p_t of answers with it after tuning and q_t before: a trick that is loved is a token that spreads.

Steps: `love_loss` (1) with `user_weights` (2) trains r; `corrected` (3) and `reliability` make and check probabilities;
`rluf` mixes rewards (4), for any policy gradient that pays beta; `rank_correlation` (parts/ranks.py) holds offline
scores of policies against what users did; `spreading` (5) names what a policy says ever more, beside what it does to
each reward.

Deviations: the paper's optimiser is not described well enough to repeat; (4) is a weighted sum for a policy gradient.
(2), (3) and (5) are ours: the paper filters its data and looks at answers by eye.

    >>> import torch
    >>> before = Signals(torch.tensor([0.01, 0.03]), torch.tensor([0.0, 2.0]), torch.tensor([1.0, 1.0]))
    >>> mix = rluf(love=0.5, helpful=0.5, safe=1.0, before=before)
    >>> mix(Signals(torch.tensor([0.04]), torch.tensor([1.0]), torch.tensor([1.0])))
    tensor([0.7071])

References: han2025reinforcement, king2001logistic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.ranks import ranks

CARD = Card(
    name="RLUF",
    summary="Users' hearts as one reward of several: P[Love], the mix, and a watch on what a policy says ever more.",
    paper="han2025reinforcement",
    row=8,
    topics=("reward models", "reward hacking"),
    feedback=("rating",),
    protocol="artefact",
    engine="torch",
    neighbour="bradley_terry",
    example={"love": 0.3, "helpful": 0.5, "safe": 0.2},
    extras=("torch",),
)


class Signals(NamedTuple):
    """Rewards of n answers; tensors are [n]."""

    love: Tensor  # P[Love], or its logit
    helpful: Tensor
    safe: Tensor


class Reliability(NamedTuple):
    """Predicted and observed shares in groups of like predictions, and what they come to."""

    predicted: Tensor  # [groups]
    observed: Tensor
    error: float  # mean |observed - predicted|
    area: float  # how often an answer with a reaction is rated above one without: under the ROC curve


class Spread(NamedTuple):
    """Tokens by how much more answers have them now, most first."""

    token: Tensor  # int64[tokens]
    before: Tensor  # share of answers with it
    after: Tensor
    z: Tensor  # (5)


def rluf(love: float, helpful: float, safe: float, before: Signals | None = None) -> Callable[[Signals], Tensor]:
    """The mix of rewards (4), without the price of leaving the reference, which the policy gradient takes.

    Args:
        love: the weight of P[Love], at least 0, as all weights.
        helpful: of the reward for helpfulness.
        safe: of the reward for safety.
        before: rewards of answers before tuning, to bring them to one scale; None: they are on one.

    Returns:
        a function from the rewards of n answers to the mixed ones, [n].
    """
    weights = Signals(*(torch.tensor(each, dtype=torch.float64) for each in (love, helpful, safe)))
    for name, weight in weights._asdict().items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight of {name} must be at least 0, not {float(weight)}")
    if not any(weights):
        raise ValueError("one weight at least must be positive")
    scales = [(0.0, 1.0)] * 3 if before is None else [_scale(each) for each in before]

    def mix(signals: Signals) -> Tensor:
        parts = [
            float(weight) * (signal - middle) / deviation
            for weight, signal, (middle, deviation) in zip(weights, signals, scales, strict=True)
        ]
        return torch.stack(parts).sum(0)  # (4)

    return mix


def love_loss(logit: Tensor, loved: Tensor, weight: Tensor | None = None) -> Tensor:
    """(1) of each answer: [n].

    Args:
        logit: r of each answer, [n].
        loved: bool[n].
        weight: of its user, [n]; None: all count as 1.
    """
    loss = -torch.where(loved, logsigmoid(logit), logsigmoid(-logit))
    return loss if weight is None else weight * loss


def user_weights(user: Tensor, loved: Tensor, cap: float) -> Tensor:
    """(2) of each answer: [n].

    Args:
        user: who saw each answer, numbered from 0: int64[n].
        loved: bool[n].
        cap: of the hearts that a user may give in full, positive.
    """
    if not 0 < cap < math.inf:
        raise ValueError(f"cap must be positive, not {cap}")
    hearts = torch.bincount(user, loved.float())
    return (cap / hearts.clamp_min(1e-9)).clamp_max(1.0)[user]


def corrected(logit: Tensor, kept: float) -> Tensor:
    """(3): logits for all answers, by a model that was trained on the share `kept` of those without a reaction."""
    if not 0 < kept <= 1:
        raise ValueError(f"kept must lie in (0, 1], not {kept}")
    return logit + math.log(kept)


def reliability(probability: Tensor, loved: Tensor, groups: int = 10) -> Reliability:
    """How predicted probabilities, [n], and reactions, bool[n], agree."""
    if not 1 <= groups <= len(probability):
        raise ValueError(f"groups must lie in 1..{len(probability)}, the number of answers, not {groups}")
    order = probability.argsort(stable=True)
    predicted, observed = (
        torch.stack([part.mean() for part in each[order].double().tensor_split(groups)])
        for each in (probability, loved)
    )
    hearts = int(loved.sum())
    pairs = hearts * (len(loved) - hearts)
    above = float(ranks(probability)[loved.numpy()].sum()) - hearts * (hearts + 1) / 2
    return Reliability(
        predicted, observed, float((observed - predicted).abs().mean()), above / pairs if pairs else math.nan
    )


def spreading(before: Tensor, after: Tensor, vocabulary: int) -> Spread:
    """(5) for each token.

    Args:
        before: tokens of answers before tuning, int64[n, tokens].
        after: and after it.
        vocabulary: how many tokens there are.
    """
    q, p = (_shares(each, vocabulary) for each in (before, after))
    n, m = len(before), len(after)
    pooled = (n * q + m * p) / (n + m)
    deviation = (pooled * (1 - pooled) * (1 / n + 1 / m)).sqrt()
    z = torch.where(deviation > 0, (p - q) / deviation.clamp_min(1e-12), torch.zeros_like(p))  # (5)
    order = z.argsort(descending=True, stable=True)
    return Spread(order, q[order], p[order], z[order])


def _scale(reward: Tensor) -> tuple[float, float]:
    deviation = float(reward.double().std()) if len(reward) > 1 else 0.0
    return float(reward.double().mean()), deviation or 1.0  # what does not vary is left as it is


def _shares(tokens: Tensor, vocabulary: int) -> Tensor:
    """The share of answers that have each token."""
    seen = torch.zeros(len(tokens), vocabulary, dtype=torch.float64)
    return seen.scatter(1, tokens, 1.0).mean(0)
