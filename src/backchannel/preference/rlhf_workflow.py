"""RLHF workflow: rounds of one's own answers, the best of n against the worst by a reward model, with DPO.

Direct alignment needs comparisons of answers like those that the policy gives now, and people cannot compare that many.
So what they said once trains a reward model, and the reward model compares from then on. Each round draws n answers to
each prompt, from the policy and from variants of it that explore, and keeps two: the one that the reward model likes
best and the one that it likes least. They differ as much as n answers do, which is where there is something to learn.

Steps (Dong et al. 2024, sections 2 and 3; the numbers are ours). With a reward model r^ fitted to comparisons by the
likelihood of Bradley and Terry (`bradley_terry`), the start p_0, and rounds t = 1, 2, ...:

    1.  y_1 ... y_n ~ p_t(. | x)^(1 / T) token by token, with temperatures T in turns     p_t and its variants
    2.  u(y) = r^(x, y) - price |y|                                                        tokens may cost something
    3.  w = argmax u, l = argmin u; prompts all of whose answers are worth the same are left out
    4.  from p_t, steps down -log sigmoid(beta log p(w) / p_0(w) - beta log p(l) / p_0(l)) give p_{t+1}

The reference stays p_0, so that beta is the price of leaving the start and not the last round. A reward model is a
proxy: beyond some divergence the policy finds its errors, its score rises and the true reward falls. A price on tokens
holds the commonest error, a liking for length.

Deviations: a round learns from its own pairs, as the paper's programs do; its theory fits all pairs so far. How many
prompts, rounds and steps is the caller's.

    >>> import torch
    >>> recipe = rlhf_workflow(beta=0.1, answers=4, temperatures=(1.0, 1.25))
    >>> recipe.sources()
    [(slice(0, None, None), [(1.0, 0.0), (0.8, 0.0), (1.0, 0.0), (0.8, 0.0)])]
    >>> found = recipe.select(torch.tensor([[0.3, 0.9, -0.2, 0.1], [1.0, 1.0, 1.0, 1.0]]), torch.Generator())
    >>> found.row.tolist(), found.better.tolist(), found.worse.tolist()  # the second prompt has nothing to teach
    ([0], [1], [2])

References: dong2024rlhf, rafailov2023direct.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive
from backchannel.parts.recipes import Compared, Recipe, best_and_worst

CARD = Card(
    name="RLHF workflow",
    summary="Online iterative DPO: of n own answers the best against the worst by a reward model, in rounds.",
    paper="dong2024rlhf",
    row=33,
    topics=("preference optimisation", "own answers", "best of n"),
    feedback=("reward",),
    protocol="recipe",
    engine="torch",
    neighbour="oaif",
    example={"beta": 0.1},
    strength="strong",
    extras=("torch",),
)


def rlhf_workflow(
    beta: float = 0.1, answers: int = 8, temperatures: Sequence[float] = (1.0,), token_price: float = 0.0
) -> Recipe:
    """Online iterative DPO on the best of n answers against the worst.

    Args:
        beta: the price of leaving the start, positive.
        answers: n, drawn to each prompt, at least 2.
        temperatures: of the n answers, in turns, each positive: 1 is the policy, above 1 explores.
        token_price: what each token of an answer takes from its score, at least 0.
    """
    if answers < 2:
        raise ValueError(f"answers must be 2 or more, not {answers}")
    if not temperatures:
        raise ValueError("temperatures must be at least one number")
    if not 0 <= token_price < float("inf"):
        raise ValueError(f"token_price must be at least 0, not {token_price}")
    positive(beta=beta, **{f"temperature {i}": each for i, each in enumerate(temperatures)})

    def select(scores: Tensor, rng: Generator) -> Compared:
        return best_and_worst(scores)  # step 3

    def logistic(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -logsigmoid(h), Info(h.detach())  # step 4

    mixtures = tuple((1 / each, 0.0) for each in temperatures)  # step 1
    return Recipe(answers, select, Objective(logistic, Pairs), mixtures, token_price=token_price)
