"""OSP: a model draws answers, judges them itself, and learns how much better each is, not only which.

Online preference learning needs a judge. OSP asks the model that is being tuned, for every pair of its own answers, and
keeps what the judgement says beyond the winner: the probability p. Pairs that the judge can hardly tell apart are then
not pulled apart, which is what hard labels overfit.

Equations (Zhai et al. 2024; the numbers are ours). J(a, b) is the probability that the judge gives to the answer that
it is shown first, for N answers to a prompt:

    p(a, b) = (J(a, b) + 1 - J(b, a)) / 2                              both orders: position counts for nothing      (1)
    rank the answers by their mean p(a, .) over the others                                                           (2)
    pairs: each answer against each that is ranked below it, with strength p                                         (3)
    loss = -p log sigmoid(h) - (1 - p) log sigmoid(-h)                                                               (4)

h is DPO's margin. (4) is least at h = log p / (1 - p): if p(a, b) = sigmoid(r(a) - r(b)), at the policy proportional to
ref exp(r / beta), the one that reward learning would aim at, whatever the answers were drawn from. With hard labels
there is no such point: margins grow as long as training goes on.

Steps: draw N answers; judge all pairs in both orders; (1); rank (2); pair (3); some steps down (4).

A recipe's scores are numbers of single answers, [n, N]: they are read as log-odds, sigmoid(scale (s_a - s_b)).
Judgements of pairs, [n, N, N] with J(a, b) in row a and column b, are taken as they are; `align` hands them on where
its judge compares.

Deviations: the paper asks the model in words, "which answer is better", and reads the probabilities of two tokens; here
whoever draws brings the judgements. Of the paper's ranked pairing we know that it makes several pairs of a ranking, not
which; we take all, so that the winner by (2) may lose a single comparison and then has p below 1/2.

    >>> import torch
    >>> recipe = osp(beta=0.1, answers=3)
    >>> found = recipe.select(torch.tensor([[0.0, 2.0, 1.0]]), torch.Generator())
    >>> found.better.tolist(), found.worse.tolist(), found.strength
    ([1, 1, 2], [2, 0, 0], tensor([0.7311, 0.8808, 0.7311]))

References: zhai2024online, rafailov2023direct.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, known, margin, positive
from backchannel.parts.recipes import Compared, Recipe, scored

CARD = Card(
    name="OSP",
    summary="Learns from its own answers, ranked by its own judgements, with the strength of each preference.",
    paper="zhai2024online",
    row=123,
    topics=("preference optimisation", "own answers"),
    feedback=("comparison",),
    protocol="recipe",
    engine="torch",
    neighbour="oaif",
    example={"beta": 0.1},
    extras=("torch",),
)


def osp(beta: float = 0.1, answers: int = 4, scale: float = 1.0) -> Recipe:
    """Online self-preferring.

    Args:
        beta: the price of leaving the reference, positive.
        answers: N, drawn to each prompt, at least 2.
        scale: log-odds of winning for each point by which a score is higher, positive; judgements of pairs need none.
    """
    if answers < 2:
        raise ValueError(f"answers must be 2 or more, not {answers}")
    positive(beta=beta, scale=scale)

    def select(scores: Tensor, rng: Generator) -> Compared:
        if scores.dim() == 3:
            return ranked_pairs(scores)
        scored(scores)
        return ranked_pairs(torch.sigmoid(scale * (scores[:, :, None] - scores[:, None, :])))

    def soft(pairs: Pairs) -> tuple[Tensor, Info]:
        h, p = margin(pairs, beta), known(pairs, "strength")
        return -p * logsigmoid(h) - (1 - p) * logsigmoid(-h), Info(h.detach())  # (4)

    return Recipe(answers, select, Objective(soft, Pairs), compares=True)


def both_orders(judged: Tensor) -> Tensor:
    """(1) of judgements [n, N, N]: the probability that the answer of the row is better than that of the column."""
    if judged.dim() != 3 or judged.shape[1] != judged.shape[2] or judged.shape[1] < 2:
        raise ValueError(f"judgements must be [prompts, N, N] of N >= 2 answers, not {list(judged.shape)}")
    wrong = ~((judged >= 0) & (judged <= 1)) & ~torch.eye(judged.shape[1], dtype=torch.bool)
    if bool(wrong.any()):
        row, one, other = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"the judgement of answers {one} and {other} to prompt {row} must be a probability, "
            f"not {float(judged[row, one, other])}"
        )
    return (judged + 1 - judged.mT) / 2


def ranked_pairs(judged: Tensor) -> Compared:
    """(1) to (3): pairs of answers, the higher ranked one first, with the strength of each.

    Args:
        judged: J, [n, N, N]; the diagonal is ignored.
    """
    p = both_orders(judged)
    n, k, _ = p.shape
    others = ~torch.eye(k, dtype=torch.bool)
    mean = torch.where(others, p, torch.zeros_like(p)).sum(2) / (k - 1)
    order = mean.argsort(dim=1, descending=True, stable=True)  # (2)
    above, below = torch.triu_indices(k, k, 1)  # (3)
    row = torch.arange(n).repeat_interleave(len(above))
    better, worse = order[:, above].reshape(-1), order[:, below].reshape(-1)
    return Compared(row, better, worse, strength=p[row, better, worse])
