"""OAIF: direct alignment on answers that the model draws as it learns, and that an annotator compares on the spot.

Direct methods such as DPO learn from pairs that were collected once, often from another model. As the policy moves
away, the pairs say less and less of what it would answer now, and training goes on fitting them. Online feedback draws
both answers from the policy of the moment and has them compared: the loss stays as it is, the data follow.

Steps (Guo et al. 2024, algorithm 1), for a batch of prompts x:

    1.  y1, y2 ~ pi(. | x)                     two answers of the policy as it is now
    2.  the annotator says which is better: y+, y-
    3.  a step down loss(x, y+, y-; pi, ref)   of DPO, IPO, SLiC or another loss of pairs

The reference stays the model from the start. An annotator is a person, a reward model or a language model that is
instructed in words, so that another instruction aligns to something else without new data; here it is whoever scores
answers. Pairs that it calls equal are left out.

Deviations: `answers` may be more than two, and then the best is compared with the worst. How many steps follow a
round of annotation is the caller's; the paper takes one.

    >>> import torch
    >>> recipe = oaif(beta=0.1)
    >>> found = recipe.select(torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, 3.0]]), torch.Generator())
    >>> found.row.tolist(), found.better.tolist(), found.worse.tolist()  # the second prompt is a tie
    ([0, 2], [0, 1], [1, 0])

References: guo2024direct, rafailov2023direct.
"""

from __future__ import annotations

from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive
from backchannel.parts.recipes import Compared, Recipe, best_and_worst

CARD = Card(
    name="OAIF",
    summary="Direct alignment on pairs that the model draws as it learns, and an annotator compares on the spot.",
    paper="guo2024direct",
    row=296,
    topics=("preference optimisation", "own answers"),
    feedback=("comparison",),
    protocol="recipe",
    engine="torch",
    neighbour="dpo",
    example={"beta": 0.1},
    strength="strong",
    first=True,
    extras=("torch",),
)


def oaif(beta: float = 0.1, answers: int = 2, objective: Objective[Pairs] | None = None) -> Recipe:
    """Direct alignment from online feedback.

    Args:
        beta: the price of leaving the reference, of DPO's loss; not read where an objective is given.
        answers: drawn to each prompt, at least 2.
        objective: a loss of pairs in DPO's place.
    """
    if answers < 2:
        raise ValueError(f"answers must be 2 or more, not {answers}")
    positive(beta=beta)

    def select(scores: Tensor, rng: Generator) -> Compared:
        return best_and_worst(scores)  # step 2

    def logistic(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -logsigmoid(h), Info(h.detach())

    return Recipe(answers, select, objective or Objective(logistic, Pairs))
