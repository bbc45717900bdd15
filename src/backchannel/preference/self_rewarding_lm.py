"""Self-Rewarding LM: one model answers and judges its answers, and both change as it learns from the judgements.

A reward model that was trained once is a ceiling. Here the judge is the model itself, told to give points to an answer:
what it learns as one may help it as the other, and the judge of the next round is the better model.

Steps of a round (Yuan et al. 2024, section 2), from M_t:

    1.  draw k answers to each prompt from M_t
    2.  ask M_t for points of each, 0 to 5, several times, and take the mean                                         (1)
    3.  of each prompt the answer with the most points against the one with the least; none where they are equal     (2)
    4.  M_{t+1}: some steps from M_t down   -log sigmoid(h),   h = DPO's margin with M_t as the reference            (3)

M_1 is trained on demonstrations of both tasks: answers to prompts, and points for answers. The reference moves along
with the model, unlike in OAIF: what holds it is only how many steps a round has.

With p_s the probability of s points, the mean of n judgements has expectation sum_s s p_s and variance
(sum_s s^2 p_s - (sum_s s p_s)^2) / n: `judged` draws them, or takes the expectation where n is None. `agreement` is the
paper's pairwise accuracy: how often the judge orders two answers as people do.

Deviations: the paper has the model write new prompts, too; here whoever runs the rounds brings prompts. The paper draws
points with a written reason before them; here a distribution over points is all that is asked.

    >>> import torch
    >>> points = judged(torch.tensor([[[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]]]))  # a scale of 0, 1, 2
    >>> points, self_rewarding_lm(answers=2).select(points, torch.Generator()).better
    (tensor([[1.6000, 0.5000]]), tensor([0]))
    >>> agreement(points, torch.tensor([[3.0, 1.0]]))
    1.0

References: yuan2024self, rafailov2023direct.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive
from backchannel.parts.recipes import Compared, Recipe, best_and_worst

CARD = Card(
    name="Self-Rewarding LM",
    summary="A model gives points to its own answers, learns from the best against the worst, and judges anew.",
    paper="yuan2024self",
    row=329,
    topics=("preference optimisation", "own answers"),
    feedback=("reward",),
    protocol="recipe",
    engine="torch",
    neighbour="oaif",
    example={"beta": 0.1},
    extras=("torch",),
)


def self_rewarding_lm(beta: float = 0.1, answers: int = 4) -> Recipe:
    """Rounds of direct alignment on points that the model gives to its own answers.

    Args:
        beta: the price of leaving the model of the round before, positive.
        answers: k, drawn to each prompt, at least 2.
    """
    if answers < 2:
        raise ValueError(f"answers must be 2 or more, not {answers}")
    positive(beta=beta)

    def select(scores: Tensor, rng: Generator) -> Compared:
        return best_and_worst(scores)  # (2)

    def logistic(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -logsigmoid(h), Info(h.detach())  # (3)

    return Recipe(answers, select, Objective(logistic, Pairs), begin="last", anchor="last")


def judged(points: Tensor, samples: int | None = None, rng: Generator | None = None) -> Tensor:
    """(1): the mean of `samples` judgements of each answer, or their expectation: [...].

    Args:
        points: how likely the judge gives 0, 1, ..., S points: [..., S + 1], each row with the sum 1.
        samples: n, at least 1; None: infinitely many.
        rng: draws them.
    """
    if points.dim() < 1 or points.shape[-1] < 2 or not bool((points >= 0).all()):
        raise ValueError(f"points must be probabilities of two points at least, not {list(points.shape)}")
    if not bool(((points.sum(-1) - 1).abs() < 1e-3).all()):
        raise ValueError("the probabilities of an answer's points must have the sum 1")
    scale = torch.arange(points.shape[-1], dtype=points.dtype)
    if samples is None:
        return points @ scale
    if samples < 1:
        raise ValueError(f"samples must be 1 or more, not {samples}")
    drawn = points.reshape(-1, len(scale)).multinomial(samples, replacement=True, generator=rng)
    return scale[drawn].mean(1).reshape(points.shape[:-1])


def agreement(own: Tensor, truth: Tensor) -> float:
    """How often two answers to a prompt stand in the order that the truth has, a tie of `own` as half.

    Args:
        own: points by the judge, [n, k].
        truth: points by people, [n, k]; pairs that they call equal do not count.
    """
    if own.shape != truth.shape or own.dim() != 2:
        raise ValueError(f"points must be [n, k] of the same answers, not {list(own.shape)} and {list(truth.shape)}")
    one, other = torch.triu_indices(own.shape[1], own.shape[1], 1)
    ahead, really = own[:, one] - own[:, other], truth[:, one] - truth[:, other]
    told = really != 0
    if not bool(told.any()):
        raise ValueError("the truth tells no two answers apart")
    right = (ahead * really > 0).double() + 0.5 * (ahead == 0).double()
    return float(right[told].mean())
