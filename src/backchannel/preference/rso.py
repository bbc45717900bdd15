"""RSO: preference pairs drawn from the optimal policy by rejection sampling, for DPO's loss or SLiC's.

DPO's loss is the likelihood of a preference model whose optimum is p(y) exp(r(y) / beta) / Z, and maximum likelihood
wants pairs from the distribution that it estimates. Pairs that people labelled come from anywhere, and pairs of the
first model p from p. With a reward model at hand, answers of the optimum can be had from those of p: draw many, and
accept the better ones more often.

Equations (Liu et al. 2024, section 3 and algorithm 1; the numbers are ours). Of N candidates y_j ~ p(. | x), those that
are not accepted yet are gone through in passes, each with the largest reward r_max among them; one is accepted with

    probability exp((r(y_j) - r_max) / beta)                                                     (1)

until there are m. Where r_max is that of all answers, what a pass accepts is p exp(r / beta) / Z exactly. Accepted
candidates are not put back, so that r_max falls and every pass accepts one at least: with beta -> 0 they are the best m
of N, with beta -> infinity the first m, answers of p. Pairs are made by a tournament: accepted answers meet in twos, by
lot, the one of more reward is preferred and meets the next winner (2); `first` stops after the first round, with m / 2
pairs of the m - 1. The losses, with h = gamma ((log pi(w) - log p(w)) - (log pi(l) - log p(l))):

    sigmoid-norm: -log sigmoid(h),     hinge-norm: max(0, 1 - h),
    hinge: max(0, 1 - gamma (log pi(w) - log pi(l)))                                             (3)

the last being SLiC's, which reads no reference: the other two normalise by it.

Steps: N answers of the first model to each prompt; `rejection_sampling`; `tournament`; descent of (3).

Deviations: pairs of equal reward are left out, and the first goes on. The paper's reward is the logit of a pairwise
model against one baseline answer, and its candidates differ as texts; here rewards are whatever scores say (beta is in
their units) and candidates are draws, so that answers that come up twice count twice, as p would have it.

    >>> import torch
    >>> rewards = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    >>> rejection_sampling(rewards, beta=1e-6, accepted=3, rng=torch.Generator())
    tensor([[1, 3, 2]])
    >>> rejection_sampling(rewards, beta=1e6, accepted=3, rng=torch.Generator())
    tensor([[0, 1, 2]])

References: liu2024statistical, rafailov2023direct, zhao2023slic.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid, relu

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive
from backchannel.parts.recipes import Compared, Recipe, scored

CARD = Card(
    name="RSO",
    summary="Pairs of the optimal policy, by rejection sampling from the first model's answers and a reward.",
    paper="liu2024statistical",
    row=122,
    topics=("preference optimisation", "rejection sampling", "own answers"),
    feedback=("reward",),
    protocol="recipe",
    engine="torch",
    neighbour="dpo",
    example={"answers": 16, "accepted": 4},
    extras=("torch",),
)

Loss = Literal["sigmoid-norm", "hinge-norm", "hinge"]


def rso(
    beta: float = 0.5,
    answers: int = 64,
    accepted: int = 8,
    gamma: float = 0.05,
    loss: Loss = "sigmoid-norm",
    first: bool = False,
) -> Recipe:
    """Statistical rejection sampling optimisation.

    Args:
        beta: the temperature of the optimum that pairs are drawn from, in units of the scores.
        answers: N, drawn to each prompt from the first model.
        accepted: m, of these, at least 2.
        gamma: of the loss, positive.
        loss: "sigmoid-norm" (DPO's), "hinge-norm", or "hinge" (SLiC's).
        first: whether the tournament ends after its first round.
    """
    if not 2 <= accepted <= answers:
        raise ValueError(f"accepted must lie in 2..{answers}, the number of answers, not {accepted}")
    positive(beta=beta)

    def select(scores: Tensor, rng: Generator) -> Compared:
        return tournament(scores, rejection_sampling(scores, beta, accepted, rng), rng, first)

    return Recipe(answers, select, unified(loss, gamma), mixtures=((0.0, 1.0),))


def rejection_sampling(rewards: Tensor, beta: float, accepted: int, rng: Generator) -> Tensor:
    """(1): which candidates are accepted, in the order of acceptance: int64[n, accepted].

    Args:
        rewards: of k candidates to each of n prompts: [n, k].
        beta: the temperature, positive.
        accepted: m, at most k.
        rng: of the passes.
    """
    n, k = scored(rewards).shape
    if not 1 <= accepted <= k:
        raise ValueError(f"accepted must lie in 1..{k}, the number of candidates, not {accepted}")
    positive(beta=beta)
    never = torch.iinfo(torch.int64).max
    turn, passes = torch.full((n, k), never), 0
    while bool(((turn < never).sum(1) < accepted).any()):
        left = rewards.masked_fill(turn < never, -torch.inf)
        r_max = left.max(1, keepdim=True)[0].clamp_min(torch.finfo(rewards.dtype).min)  # where none is left
        u = torch.rand(n, k, generator=rng, dtype=rewards.dtype)
        hit = u < torch.exp((left - r_max) / beta)  # (1)
        turn = torch.where(hit, passes * k + torch.arange(k), turn)
        passes += 1
    return turn.argsort(1)[:, :accepted]


def tournament(scores: Tensor, players: Tensor, rng: Generator, first: bool = False) -> Compared:
    """(2): the pairs of a knock-out tournament, or of its `first` round.

    Args:
        scores: of all answers: [n, k].
        players: which of them take part: int64[n, m].
        rng: of the draw.
        first: whether losers' conquerors do not meet.
    """
    lot = torch.rand(players.shape, generator=rng).argsort(1)
    playing = players.gather(1, lot)
    met: list[Tensor] = []
    row = torch.arange(len(players))[:, None]
    while playing.shape[1] > 1 and not (first and met):
        half = playing.shape[1] // 2
        one, other, free = playing[:, 0 : 2 * half : 2], playing[:, 1 : 2 * half : 2], playing[:, 2 * half :]
        ahead = scores.gather(1, one) - scores.gather(1, other)
        better, worse = torch.where(ahead >= 0, one, other), torch.where(ahead >= 0, other, one)
        met.append(torch.stack([row.expand_as(one), better, worse]).flatten(1)[:, (ahead != 0).flatten()])
        playing = torch.cat([better, free], 1)
    rows, better, worse = torch.cat(met, 1)
    return Compared(rows, better, worse, gap=scores[rows, better] - scores[rows, worse])


def unified(loss: Loss, gamma: float) -> Objective[Pairs]:
    """(3): a preference model's link, on log-ratios to the reference or on log-probabilities.

    Args:
        loss: "sigmoid-norm", "hinge-norm" or "hinge".
        gamma: the scale of the margin, positive.
    """
    positive(gamma=gamma)
    if loss not in ("sigmoid-norm", "hinge-norm", "hinge"):
        raise ValueError(f"loss must be sigmoid-norm, hinge-norm or hinge, not {loss!r}")

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, gamma) if loss != "hinge" else gamma * (pairs.policy_chosen - pairs.policy_rejected)
        return -logsigmoid(h) if loss == "sigmoid-norm" else relu(1 - h), Info(h.detach())

    return Objective(objective, Pairs, reference=loss != "hinge")
