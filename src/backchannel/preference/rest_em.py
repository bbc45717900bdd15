"""ReST-EM: solve problems, keep what a verifier accepts, train the first model on that; again, with the better solver.

Where a solution can be checked, a model needs nobody's solutions: it samples its own, and those that are right are
demonstrations. In the view of expectation maximisation being right is what was observed, and the solution is hidden.

Equations (Singh et al. 2024, section 3; the numbers are ours), with r(x, y) = 1 where the verifier accepts y, else 0:

    E:  q_t(y | x)  proportional to  p_t(y | x) r(x, y)                                          (1)
    M:  p_{t+1} = argmax over p of  E_x E_{y ~ q_t} log p(y | x)                                 (2)

Neither step lowers the likelihood of being right, the mean over x of log sum_y p(y | x) r(x, y), for a p that is free.

Steps, in each of a few rounds:

    1.  K solutions of p_t to each problem; those that pass are draws of q_t, by rejection
    2.  at most `cap` of them for each problem, by lot: easy problems have many, and would be most of the data
    3.  p_{t+1}: the *first* model, trained on them by -log p(y | x) / |y|, weighed by tokens

Starting again at the first model keeps what it knew of other things: going on from the last one fits the same problems
again and again. Problems of which no solution passed are left out. `pass_at_k` judges: the probability that of k
solutions one is right (Chen et al. 2021), from c right ones among n,

    pass@k = 1 - (n - c choose k) / (n choose k)                                                 (3)

Deviations: solutions that are the same text count as often as they were drawn, up to the cap. A verifier's score need
not be 0 or 1: `passing` says which scores pass.

    >>> import torch
    >>> scores = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    >>> rest_em(answers=4, cap=2).select(scores, torch.Generator()).row.tolist()
    [0, 0, 2]
    >>> pass_at_k(torch.tensor([0, 1, 4]), samples=4, k=2)
    tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)

References: singh2024beyond, chen2021evaluating.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from backchannel.card import Card
from backchannel.parts.imitation import imitation
from backchannel.parts.recipes import Kept, Recipe, scored

CARD = Card(
    name="ReST-EM",
    summary="Self-training on solutions that a verifier accepts, each round anew from the first model.",
    paper="singh2024beyond",
    row=160,
    topics=("rejection sampling", "own answers"),
    feedback=("reward",),
    protocol="recipe",
    engine="torch",
    neighbour="raft",
    example={"answers": 8, "cap": 3, "passing": 0.0},
    extras=("torch",),
)


def rest_em(answers: int = 32, cap: int = 10, passing: float = 1.0) -> Recipe:
    """Expectation-maximisation self-training.

    Args:
        answers: K, drawn to each problem.
        cap: how many of a problem's right ones are kept, at least 1.
        passing: the least score of a right answer.
    """
    if answers < 1 or cap < 1:
        raise ValueError(f"answers and cap must be 1 or more, not {answers} and {cap}")
    if not -float("inf") < passing < float("inf"):
        raise ValueError(f"passing must be a number, not {passing}")

    def select(scores: Tensor, rng: Generator) -> Kept:
        right = scored(scores) >= passing  # (1)
        lot = torch.rand(scores.shape, generator=rng).masked_fill(~right, torch.inf)
        place = lot.argsort(1).argsort(1)
        row, answer = (right & (place < cap)).nonzero(as_tuple=True)
        return Kept(row, answer, good=torch.ones_like(row, dtype=torch.bool))

    return Recipe(answers, select, imitation(), begin="start")  # (2)


def pass_at_k(right: Tensor, samples: int, k: int) -> Tensor:
    """(3) of each problem, float64[n]: without bias, whatever the number of samples.

    Args:
        right: how many of each problem's samples are right: int64[n].
        samples: of each problem.
        k: at least 1, at most `samples`.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k must lie in 1..{samples}, the number of samples, not {k}")
    wrong = (samples - right).double()[:, None]
    drawn = torch.arange(k, dtype=torch.float64)
    return 1 - ((wrong - drawn) / (samples - drawn)).clamp_min(0).prod(1)
