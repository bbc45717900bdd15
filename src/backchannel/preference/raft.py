"""RAFT: draw several answers, rank them by a reward, and imitate the best; again, with the model that this made.

Reinforcement learning follows a gradient through what the model drew. Reward ranked fine-tuning needs none: drawing,
ranking and training are three stages that know nothing of each other, and the last is plain imitation. So a generator
may be anything that can be asked for an answer and trained on examples, a diffusion model as well as a language model,
and only the order of rewards matters, not their scale.

Steps (Dong et al. 2023, algorithm 1), in each of some rounds, for n prompts x_i and the model p of the moment:

    1.  y_i1 ... y_iK ~ p(. | x_i)
    2.  r~(x, y) = r(x, y) - price (log p(y | x) - log p_0(y | x))                               (1)
        local:   of each prompt keep the best share of its K answers by r~: one, if share = 1/K
        global:  of all n K answers together keep the best share of n K                          (2)
    3.  p <- p trained on what was kept, by

            loss = -log p(y | x) / |y|, weighed by the tokens |y|                                (3)

Under local ranking every prompt is answered, and with share = 1/K the kept answers are draws of best-of-K: K says how
fast reward rises, and how far from p_0. Global ranking also chooses prompts; it is for answers without prompts, or
where rewards of different prompts compare. The price in (1) keeps the model near the first one, p_0.

`raft` is the recipe, of which a round may be played by whoever draws answers and trains. `collect` does steps 1 and 2
with nothing but two functions, one that answers and one that scores: answers are whatever these hand each other.

Deviations: ties are broken by lot. The price belongs to `collect`, which can ask for log-ratios; a recipe sees scores
alone, so that whoever scores takes it off. The paper draws at a temperature, which is the sampler's to choose.

    >>> import torch
    >>> scores = torch.tensor([[0.1, 0.9, 0.5], [5.0, 4.0, 3.0]])
    >>> found = raft(answers=3).select(scores, torch.Generator())
    >>> found.row.tolist(), found.answer.tolist()
    ([0, 1], [1, 0])
    >>> found = raft(answers=3, ranking="global").select(scores, torch.Generator())
    >>> found.row.tolist(), found.answer.tolist()
    ([1, 1], [0, 1])

References: dong2023raft, ouyang2022training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from backchannel.card import Card
from backchannel.parts.imitation import imitation
from backchannel.parts.recipes import Kept, Recipe, scored

CARD = Card(
    name="RAFT",
    summary="Rank the model's own answers by a reward and imitate the best: no gradient of the sampler is needed.",
    paper="dong2023raft",
    row=248,
    topics=("rejection sampling", "own answers", "best of n"),
    feedback=("reward",),
    protocol="recipe",
    engine="torch",
    neighbour="sft",
    example={"answers": 4},
    extras=("torch",),
)

Draw = Callable[[Sequence[Any], Generator], Sequence[Any]]
"""(n prompts, a generator) -> an answer to each."""
Measure = Callable[[Sequence[Any], Sequence[Any]], Tensor]
"""(n prompts, an answer to each) -> a number for each, [n]."""


def raft(answers: int = 8, share: float | None = None, ranking: Literal["local", "global"] = "local") -> Recipe:
    """Reward ranked fine-tuning.

    Args:
        answers: K, drawn to each prompt, at least 2.
        share: of the answers that are kept, in (0, 1]; at least one is. None: 1/K.
        ranking: "local": among the answers to one prompt; "global": among all of a round.
    """
    if answers < 2:
        raise ValueError(f"answers must be 2 or more, not {answers}")
    if share is not None and not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], not {share}")
    if ranking not in ("local", "global"):
        raise ValueError(f"ranking must be local or global, not {ranking!r}")
    part = 1 / answers if share is None else share

    def select(scores: Tensor, rng: Generator) -> Kept:
        k = scored(scores).shape[1]
        groups = scores if ranking == "local" else scores.reshape(1, -1)
        lot = torch.randperm(groups.shape[1], generator=rng)
        order = lot[groups[:, lot].argsort(dim=1, descending=True, stable=True)]
        best = order[:, : max(1, round(part * groups.shape[1]))]  # (2)
        place = (best + torch.arange(len(groups))[:, None] * groups.shape[1]).flatten()
        return Kept(place // k, place % k, score=scores.reshape(-1)[place])

    return Recipe(answers, select, imitation())  # (3)


class Ranked(NamedTuple):
    """What was kept: prompts, an answer to each, and its score."""

    prompts: list[Any]
    answers: list[Any]
    scores: Tensor  # [m]: of (1)


def collect(
    recipe: Recipe,
    prompts: Sequence[Any],
    draw: Draw,
    reward: Measure,
    rng: Generator,
    price: float = 0.0,
    log_ratio: Measure | None = None,
) -> Ranked:
    """Steps 1 and 2, of a generator that is only asked for answers.

    Args:
        recipe: of `raft`.
        prompts: of any kind; where answers need none, as many of anything as answers are wanted.
        draw: called K times.
        reward: r of each answer.
        rng: of the draws, and of ties.
        price: of (1), at least 0.
        log_ratio: log p(y | x) - log p_0(y | x); needed where there is a price.
    """
    if not 0 <= price < float("inf"):
        raise ValueError(f"price must be at least 0, not {price}")
    if price and log_ratio is None:
        raise ValueError(f"a price of {price} needs the log-ratio of each answer, and there is no function for it")
    drawn = [draw(prompts, rng) for _ in range(recipe.answers)]
    columns = [reward(prompts, each) for each in drawn]
    if price and log_ratio is not None:
        columns = [r - price * log_ratio(prompts, each) for r, each in zip(columns, drawn, strict=True)]  # (1)
    kept = recipe.select(torch.stack(columns, 1), rng)
    if not isinstance(kept, Kept) or kept.score is None:
        raise ValueError("collect needs a recipe that keeps single answers with their scores, as raft does")
    rows, chosen = kept.row.tolist(), kept.answer.tolist()
    answers = [drawn[j][i] for i, j in zip(rows, chosen, strict=True)]
    return Ranked([prompts[i] for i in rows], answers, kept.score)
