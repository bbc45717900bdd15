"""FLR: an answer is as good as what its reader is likely to say next: thanks are likelier after a good one.

People judge answers all the time, in what they say next: "yes, that makes sense", "that is not what I asked". A
language model that has read many conversations knows which of these follows which answer. So it can score an answer
without being asked for a judgement, and without having been trained on comparisons: by how likely it finds some fixed
follow-ups of a content reader, and some of a disappointed one.

Equations (Zhang et al. 2025; the numbers are ours). With l(f) the log-likelihood of the follow-up f after prompt x and
answer y under a model that is called the scorer, F+ the positive follow-ups and F- the negative ones,

    l(f) = log p(f | x, y)     or, of each token,     log p(f | x, y) / |f|                      (1)
    r(x, y) = mean of l over F+ - mean of l over F-     or their sums                            (2)

Follow-ups are the same for all answers. So |f| only says how much each of them counts (whole log-likelihoods let long
ones count more), and how likely a follow-up is as such cancels between two answers to one prompt; not so between
prompts. The length of y enters nowhere but in what the scorer makes of it. Sums differ from means where there are more
follow-ups of one sort.

Steps:

    1.  draw k answers to each prompt from the first model; score them by (2)
    2.  mine pairs: of each prompt the best against the worst, where they differ by more than `least`    (3)
    3.  a step down  -log sigmoid(h),  DPO's loss of these pairs                                 (4)
    and before, if there are texts that users wrote about answers: train the scorer to write them,
        loss = -log p(u | x, y) / |u|, as demonstrations (`remarked`, for SFT)                   (5)

The scorer plays the user: roles are swapped (`reader`), so that any model of conversations, which writes what comes
next, scores follow-ups. `follow_up_judge` makes such a model a judge of answers; `backchannel align --judge` takes one:

    # my_judge.py, for `backchannel align --judge my_judge:judge`
    from backchannel.lm.local import load_gguf
    from backchannel.preference.flr import follow_up_judge
    judge = follow_up_judge(load_gguf("SmolLM2-135M-Instruct.Q4_1.gguf").score)

Deviations: the follow-ups in `FOLLOW_UPS` are ours, and few: of eight of each sort the four by which SmolLM2-135M
ordered most answers rightly in 20 questions of `tasks/degraded_answers.py`, part "development". The paper has ten of
each sort for each of several sides of helpfulness, and its code averages logits over a follow-up's tokens. A
follow-up's end is not scored. A conversation's system message is not shown to the scorer, who is the user.

    >>> import torch
    >>> positive, negative = torch.tensor([[-9.0, -8.0], [-12.0, -9.0]]), torch.tensor([[-14.0], [-10.0]])
    >>> reward = follow_up(positive, negative)
    >>> reward
    tensor([ 5.5000, -0.5000])
    >>> found = flr(answers=2).select(reward[None], torch.Generator())
    >>> int(found.better), int(found.worse), float(found.gap)
    (0, 1, 6.0)

References: zhang2025aligning, rafailov2023direct, ouyang2022training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.lm.answers import Rated, Text
from backchannel.lm.protocol import Message, assistant, system, user
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive
from backchannel.parts.recipes import Compared, Recipe, best_and_worst

CARD = Card(
    name="FLR",
    summary="Scores answers by how likely a model finds content or disappointed follow-ups; mines pairs for DPO.",
    paper="zhang2025aligning",
    row=60,
    topics=("reward models", "preference optimisation", "own answers"),
    feedback=("reward",),
    protocol="recipe",
    engine="torch",
    neighbour="self_rewarding_lm",
    example={"answers": 4},
    extras=("torch",),
)

Score = Callable[[Sequence[Message], Sequence[str]], Sequence[float]]
"""(a conversation, texts that may come next) -> the log-likelihood of each: `lm.local.Local.score`, say."""


class FollowUps(NamedTuple):
    """What a reader may say next."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]


FOLLOW_UPS = FollowUps(
    ("Yes, that makes sense.", "Thank you, that answers my question.", "Great answer!", "I understand it now."),
    ("No, that is not right.", "That is wrong.", "That makes no sense.", "What are you talking about?"),
)
OPENING = (system("You ask a question, and say what you think of the answer."),)


def flr(beta: float = 0.1, answers: int = 8, least: float = 0.0) -> Recipe:
    """DPO on pairs that are mined from the first model's answers; scores are those of `follow_up`.

    Args:
        beta: the price of leaving the first model, positive.
        answers: k, drawn to each prompt, at least 2.
        least: pairs whose scores differ by no more are left out, at least 0.
    """
    if answers < 2:
        raise ValueError(f"answers must be 2 or more, not {answers}")
    if not 0 <= least < float("inf"):
        raise ValueError(f"least must be at least 0, not {least}")
    positive(beta=beta)

    def select(scores: Tensor, rng: Generator) -> Compared:
        return mined(scores, least)

    def logistic(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -logsigmoid(h), Info(h.detach())  # (4)

    return Recipe(answers, select, Objective(logistic, Pairs), mixtures=((0.0, 1.0),))


def follow_up(
    positive: Tensor,
    negative: Tensor,
    positive_tokens: Tensor | None = None,
    negative_tokens: Tensor | None = None,
    how: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """(2): the rewards of answers, from the log-likelihoods of follow-ups after them: [...].

    Args:
        positive: log p of each positive follow-up: [..., P].
        negative: of each negative one: [..., N].
        positive_tokens: |f|, to divide by, [P]; None: whole log-likelihoods.
        negative_tokens: likewise, [N].
        how: "mean" or "sum" over follow-ups.
    """
    if how not in ("mean", "sum"):
        raise ValueError(f"how must be mean or sum, not {how!r}")
    if (positive_tokens is None) != (negative_tokens is None):
        raise ValueError("tokens must be given of positive and negative follow-ups alike, or of neither")
    sides = []
    for name, logs, tokens in (("positive", positive, positive_tokens), ("negative", negative, negative_tokens)):
        if not logs.dim() or not logs.shape[-1]:
            raise ValueError(f"{name} must hold at least one follow-up, and has the shape {list(logs.shape)}")
        if not bool(torch.isfinite(logs).all()):
            raise ValueError(f"{name} must hold finite log-likelihoods")
        if tokens is not None:
            if tokens.shape != logs.shape[-1:] or not bool((tokens > 0).all()):
                raise ValueError(f"tokens of {name} must be {logs.shape[-1]} positive numbers")
            logs = logs / tokens  # (1)
        sides.append(logs.mean(-1) if how == "mean" else logs.sum(-1))
    if sides[0].shape != sides[1].shape:
        raise ValueError(f"both must be of the same answers, not of {list(sides[0].shape)} and {list(sides[1].shape)}")
    return sides[0] - sides[1]  # (2)


def mined(scores: Tensor, least: float = 0.0) -> Compared:
    """(3): of each prompt the best answer against the worst, where scores, [n, k], differ by more than `least`."""
    found = best_and_worst(scores)
    assert found.gap is not None
    kept = found.gap > least
    return Compared(found.row[kept], found.better[kept], found.worse[kept], gap=found.gap[kept])


def reader(prompt: Text, answer: str, opening: Sequence[Message] = OPENING) -> list[Message]:
    """The conversation up to where its user would react, with roles swapped: the model is the user.

    Args:
        prompt: a question, or a conversation of which the user spoke last.
        answer: to it.
        opening: what stands before; the first message of some templates must be a user's.
    """
    turns = [user(prompt)] if isinstance(prompt, str) else [each for each in prompt if each.role != "system"]
    if not turns or turns[-1].role != "user":
        raise ValueError("prompt must end with what the user said, or there is nothing to react to an answer of")
    swapped = [assistant(each.content) if each.role == "user" else user(each.content) for each in turns]
    return [*opening, *swapped, user(answer)]


def remarked(prompt: Text, answer: str, remark: str, opening: Sequence[Message] = OPENING) -> Rated:
    """(5): what a user said of an answer, as a demonstration to train the scorer on (`backchannel align`, `sft`)."""
    return Rated(reader(prompt, answer, opening), remark)


def follow_up_judge(
    score: Score, follow_ups: FollowUps = FOLLOW_UPS, opening: Sequence[Message] = OPENING
) -> Callable[[Text, str], float]:
    """(2) with whole log-likelihoods, as a function of prompt and answer: higher is better.

    Args:
        score: the scorer.
        follow_ups: of both sorts.
        opening: of `reader`.
    """
    if not follow_ups.positive or not follow_ups.negative:
        raise ValueError("follow_ups must hold at least one positive and one negative text")
    many = len(follow_ups.positive)

    def judge(prompt: Text, answer: str) -> float:
        found = score(reader(prompt, answer, opening), [*follow_ups.positive, *follow_ups.negative])
        logs = torch.tensor(list(found), dtype=torch.float64)
        return float(follow_up(logs[:many], logs[many:]))

    return judge
