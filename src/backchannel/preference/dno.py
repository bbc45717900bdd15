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
of DPO, with the reference moved to p_t each round: `certain=True`. `large_margin_pairs` chooses the pairs.

Steps: draw K answers of p_t; have them judged; (1) from the sample; keep pairs with a clear margin; some steps down (2)
give p_{t+1}.

A recipe's scores, [n, K], are read as the win rates (1): each answer's share of wins over the others to its prompt
(`sample_win_rates`, or what `align` makes of a judge that compares). Where a judge gives points, `margin` is in points.

Deviations: the paper's judge gives points, and pairs whose better answer is not good are dropped as well; here the
margin alone decides. The recipe has no teacher: whoever judges may add a teacher's answers, which are like others.

    >>> import torch
    >>> recipe = dno(eta=0.2, answers=3, margin=0.35)
    >>> found = recipe.select(torch.tensor([[0.9, 0.5, 0.2], [0.5, 0.6, 0.5]]), torch.Generator())
    >>> found.row.tolist(), found.better.tolist(), found.worse.tolist()  # the second prompt has no clear pair
    ([0, 0], [0, 0], [1, 2])
    >>> pairs = Pairs(*torch.tensor([[-4.0], [-6.0], [-5.0], [-5.0]]), gap=torch.tensor([0.4]))
    >>> classification(eta=0.2)(pairs)[1].margin
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
from backchannel.parts.objectives import Info, Objective, Pairs, known, positive
from backchannel.parts.objectives import margin as log_ratios
from backchannel.parts.recipes import Compared, Recipe, scored

CARD = Card(
    name="DNO",
    summary="Self-improvement on general preferences: classify one's own pairs by the win rates against oneself.",
    paper="rosset2024direct",
    row=114,
    topics=("preference optimisation", "preference games", "exponential weights"),
    feedback=("comparison",),
    protocol="recipe",
    engine="torch",
    neighbour="dpo",
    example={"eta": 0.5},
    extras=("torch",),
)


def dno(eta: float, answers: int = 4, margin: float = 0.5, certain: bool = True) -> Recipe:
    """Rounds of one's own answers, of which those are compared whose win rates differ clearly.

    Args:
        eta: the price of leaving the present policy, positive.
        answers: K, drawn to each prompt, at least 2.
        margin: by how much the win rates of a pair must differ, positive.
        certain: the practical algorithm, or else (2) with the win rates' difference.
    """
    if answers < 2:
        raise ValueError(f"answers must be 2 or more, not {answers}")
    positive(margin=margin)

    def select(scores: Tensor, rng: torch.Generator) -> Compared:
        row, better, worse = large_margin_pairs(scored(scores), margin)
        return Compared(row, better, worse, gap=scores[row, better] - scores[row, worse])

    return Recipe(answers, select, classification(eta, certain), anchor="last")


def classification(eta: float, certain: bool = False) -> Objective[Pairs]:
    """The loss of DNO on pairs whose reference is the policy that they were drawn from.

    Args:
        eta: the price of leaving the present policy, positive.
        certain: the practical algorithm: the chosen answer is better for certain. Otherwise the batch's `gap` must say
            by how much its win rate is higher.
    """
    positive(eta=eta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = log_ratios(pairs, eta)
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
    if wins.dim() != 3 or wins.shape[1] != wins.shape[2] or wins.shape[2] < 2:
        raise ValueError(f"wins must be [n, k, k], of at least 2 answers to a prompt, not {tuple(wins.shape)}")
    k = wins.shape[-1]
    others = wins.masked_fill(torch.eye(k, dtype=torch.bool, device=wins.device), 0.0)
    if not bool(((others >= 0) & (others <= 1)).all()):
        raise ValueError("wins must be probabilities, and some lie outside of [0, 1]")
    return others.sum(-1) / (k - 1)


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
