"""DNO: self-improvement on general preferences, as a regression towards the win rates against oneself.

A policy that is rewarded by how often each answer beats its own answers, and pays for leaving itself, plays
against itself. DNO makes this a sequence of classifications: in each round the log-ratios to the present policy are
to explain differences of win rates, by the logistic loss that is stable for DPO.

Equations (Rosset et al. 2024, algorithm 1), with the present policy p_t as the reference:

    r_t(y) = P(y > p_t) = E_{y' from p_t} P(y > y')                                               (1)
    h(w, l) = eta log p(w) / p_t(w) - eta log p(l) / p_t(l)
    s = sigmoid(r_t(w) - r_t(l)),   loss = -s log sigmoid(h) - (1 - s) log sigmoid(-h)            (2)

If p is free, (2) is least where h = r_t(w) - r_t(l) for all pairs, that is for

    p_{t+1}(y) proportional to p_t(y) exp(r_t(y) / eta)                                           (3)

which is Hedge against oneself (`tabular`): the mean of T policies has a duality gap of at most
2 (eta log K / T + 1 / (8 eta)), from the uniform policy over K answers; least at eta = sqrt(T / (8 log K)). A single
policy need not converge.

The practical algorithm samples K answers to each prompt, adds one of a teacher, has all pairs judged, keeps the pairs
whose win rates differ by a margin or more, and takes the better answer of each for certain: s = 1, and (2) is the loss
of DPO, with the reference moved to p_t each round. `certain=True` is that loss, `large_margin_pairs` chooses the pairs.

Steps: sample; judge; (1) from the sample; keep pairs with a clear margin; minimise (2); the result is p_{t+1}.

Deviations: the paper's judge gives points, and pairs whose better answer is not good are dropped as well; here the
margin of win rates alone decides. A teacher's answers are answers like others. The claim is about tables; no language
model was trained with it yet.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.dno import dno, large_margin_pairs
    >>> large_margin_pairs(torch.tensor([[0.9, 0.5, 0.2], [0.5, 0.6, 0.5]]), margin=0.35)
    (tensor([0, 0]), tensor([0, 0]), tensor([1, 2]))
    >>> pairs = Pairs(*torch.tensor([[-4.0], [-6.0], [-5.0], [-5.0]]), gap=torch.tensor([0.4]))
    >>> dno(eta=0.2)(pairs)[1].margin
    tensor([0.4000])

References: rosset2024direct, freund1999adaptive.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.nash import Solver, normalised, win_rates
from backchannel.parts.objectives import Info, Objective, Pairs, known, margin, positive

CARD = Card(
    name="DNO",
    summary="Self-improvement on general preferences: classify one's own pairs by the win rates against oneself.",
    paper="rosset2024direct",
    row=114,
    topics=("preference optimisation", "preference games", "exponential weights"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"eta": 0.5},
    extras=("torch",),
)


def dno(eta: float, certain: bool = False) -> Objective[Pairs]:
    """The loss of DNO on pairs whose reference is the policy that they were drawn from.

    Args:
        eta: the price of leaving the present policy, positive.
        certain: the practical algorithm: the chosen answer is better for certain. Otherwise the batch's `gap` must say
            by how much its win rate is higher.
    """
    positive(eta=eta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, eta)
        if certain:
            return -logsigmoid(h), Info(h.detach())
        s = torch.sigmoid(known(pairs, "gap").to(h.dtype))
        return -s * logsigmoid(h) - (1 - s) * logsigmoid(-h), Info(h.detach())  # (2)

    return Objective(objective, Pairs)


def sample_win_rates(wins: Tensor) -> Tensor:
    """(1) from a sample: the mean over the other answers to the same prompt, [n, k].

    Args:
        wins: of k answers to each of n prompts, how likely each beats each other: [n, k, k]; the diagonal is ignored.
    """
    k = wins.shape[-1]
    if k < 2:
        raise ValueError(f"there must be at least 2 answers to a prompt to compare, not {k}")
    others = 1 - torch.eye(k, dtype=wins.dtype)
    return (wins * others).sum(-1) / (k - 1)


def large_margin_pairs(rates: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which pairs to train on: the prompt, the better and the worse answer of each, int64[m].

    Args:
        rates: win rates of k answers to each of n prompts: [n, k].
        margin: by how much they must differ, positive.
    """
    positive(margin=margin)
    clear = rates[:, :, None] - rates[:, None, :] >= margin
    prompt, better, worse = clear.nonzero(as_tuple=True)
    return prompt, better, worse


def tabular(eta: float) -> Solver:
    """(3), with exact win rates; `parts.nash.averages` of its policies is the answer.

    Args:
        eta: the price of leaving the present policy, positive.
    """
    positive(eta=eta)

    def step(matrix: np.ndarray, log_reference: np.ndarray, log_policy: np.ndarray, t: int) -> np.ndarray:
        return normalised(log_policy + win_rates(matrix, log_policy) / eta)  # (3)

    return Solver(step, queries=1)


def gap_bound(actions: int, horizon: int, eta: float) -> float:
    """Of the mean of T policies of `tabular` from the uniform one: the duality gap is at most this."""
    return 2 * (eta * float(np.log(actions)) / horizon + 1 / (8 * eta))
