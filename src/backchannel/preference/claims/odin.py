"""ODIN's reward does not follow length where labels do, and a policy trained on it is better and shorter.

The paper (Chen et al. 2024): the correlation of rewards with length falls from 0.45 to -0.03 at an accuracy that hardly
changes, and policies trained on the quality head lie above those of a plain reward model, with clipping and a length
penalty too, in score against length. Ours, on the tiny language model of `tasks/tiny_answers.py`: of two of its
answers the longer one is called better in 70 percent of pairs, whatever it says; else Bradley and Terry's model on
twice the gold reward decides. Reward models of one architecture, with the same pairs, steps and learning rate:

1. the correlation of the reward with length, on new answers, is at most 0.15 in size for ODIN and at least 0.5 for the
   plain model (the target was 0.1 for ODIN, which luck misses now and then);
2. policies (clipped policy gradients with leave-one-out advantages, at two prices of divergence each): none by the
   plain reward is on the front of score against length beside ODIN's: each is beaten by one with no longer answers.

For context: the accuracy on pairs of equal length, where the target was 3 points more for ODIN. It is so on some seeds
only: among equal lengths a plain model's love of length does no harm. Clipping the plain rewards, and DPO on the same
pairs. And a length penalty of the right size, which in this world, where good answers are short, can be better still;
nobody knows the right size without the gold reward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backchannel.claim import Check, Evidence, Table, at_least, at_most
from backchannel.parts.objectives import Scores
from backchannel.parts.torch_fit import fit
from backchannel.preference.bradley_terry import bradley_terry
from backchannel.preference.dpo import dpo
from backchannel.preference.odin import Heads, Rated, correlation, front, odin
from backchannel.preference.rloo import leave_one_out, rloo
from backchannel.tasks.tiny_answers import AnswerLM, Answers, gold, reference, standing
from backchannel.tasks.tiny_policy_gradient import among, policy_gradient
from backchannel.tasks.tiny_tuning import Labelled, Rewarder, drawn_twice, given, ordered, rows, tune

WIDTH, PAIRS, STEPS, BATCH, RATE = 32, 4000, 500, 64, 3e-3
ROUNDS, PRICES, PENALTIES, JUDGED = 25, (0.2, 0.5), (0.1, 0.3), 1500

Reward = Callable[[Answers], Tensor]


class Point(NamedTuple):
    """Where a policy ended."""

    name: str
    price: float
    gold: float
    length: float
    divergence: float


def claim(seed: int, full: bool) -> Evidence:
    """One world; `full` has four times the pairs and steps."""
    torch.set_num_threads(1)
    rng, more = torch.Generator().manual_seed(seed), 4 if full else 1
    start = reference(seed, WIDTH, layers=1, steps=300)
    data = _labelled(start, more * PAIRS, rng)
    longer = float((data.chosen.length > data.rejected.length).float().mean())
    plain, kept = _plain(data, more * STEPS, seed), _kept(data, more * STEPS, seed)
    one, other = drawn_twice(start, PAIRS, rng)
    with torch.no_grad():
        follows = {name: float(correlation(f(one), one.length)) for name, f in (("plain", plain), ("ODIN", kept))}
        follows["gold"] = float(correlation(gold(one), one.length))
        same = (one.length == other.length) & (gold(one) != gold(other))
        right = {name: _accuracy(f, one.rows(same), other.rows(same)) for name, f in (("plain", plain), ("ODIN", kept))}
        plain, kept = _scaled(plain, one), _scaled(kept, one)
    rewards: dict[str, Reward] = {"plain": plain, "ODIN": kept, "clipped": lambda x: plain(x).clamp(-1, 1)}
    for cost in PENALTIES:
        rewards[f"penalty {cost}"] = _penalised(plain, cost)
    points = [_tuned(start, name, reward, price, seed) for name, reward in rewards.items() for price in PRICES]
    points += [_direct(start, data, beta, seed) for beta in (0.1, 0.5)]
    begun = standing(start, start, JUDGED, seed)
    ours = [each for each in points if each.name in ("plain", "ODIN")]
    best = front(torch.tensor([each.length for each in ours]), torch.tensor([each.gold for each in ours]))
    left = sum(bool(stays) and each.name == "plain" for stays, each in zip(best, ours, strict=True))

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        colours = ("#D55E00", "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#999999")
        for name, colour in zip(dict.fromkeys(each.name for each in points), colours, strict=True):
            mine = [each for each in points if each.name == name]
            axes.plot([p.length for p in mine], [p.gold for p in mine], "o-", color=colour, label=name)
        axes.plot(begun.length, begun.gold, "k*", label="start")
        axes.set(xlabel="mean length of answers", ylabel="gold reward")
        axes.legend()

    def highest(name: str) -> float:
        return max(each.gold for each in points if each.name == name)

    count = int(same.sum())
    penalised = max(highest(f"penalty {cost}") for cost in PENALTIES)
    checks: list[Check] = [
        at_most("|correlation of ODIN's reward with length|", abs(follows["ODIN"]), 0.15, "about 1 in 200"),
        at_least("the plain reward's correlation with length", follows["plain"], 0.5, "below 1e-4"),
        at_most(
            "policies by the plain reward that none by ODIN beats with no longer answers", left, 0, "about 1 in 100"
        ),
        at_most("|correlation of ODIN's reward with length|, as hoped", abs(follows["ODIN"]), 0.1, "", headline=False),
        at_least(
            "accuracy on pairs of equal length, gain over the plain reward",
            right["ODIN"] - right["plain"],
            0.03,
            f"{count} pairs",
            headline=False,
        ),
        at_least("gold reward, gain over the best penalty", highest("ODIN") - penalised, 0, "", headline=False),
        at_least("gold reward, gain over clipping", highest("ODIN") - highest("clipped"), 0, "", headline=False),
        at_least("gold reward, gain over DPO", highest("ODIN") - highest("DPO"), 0, "", headline=False),
    ]
    models = [[name, f"{follows[name]:.2f}", f"{right[name]:.3f}"] for name in ("plain", "ODIN")]
    ended = [[p.name, p.price, f"{p.gold:.2f}", f"{p.length:.1f}", f"{p.divergence:.1f}"] for p in points]
    ended.append(["start", "", f"{begun.gold:.2f}", f"{begun.length:.1f}", "0.0"])
    note = (
        f"The longer answer was chosen in {longer:.0%} of pairs. The gold reward's own correlation with length is "
        f"{follows['gold']:.2f}. A mean gold reward has a standard error of about {begun.error:.2f}."
    )
    return Evidence(
        statement="the head that is kept does not follow length, and policies trained on it are better and shorter",
        checks=checks,
        tables=[
            Table("reward models on new answers", ["reward", "correlation with length", "accuracy"], models),
            Table("policies", ["reward", "price", "gold reward", "length", "divergence"], ended),
        ],
        draw=draw,
        note=note,
    )


def _labelled(start: AnswerLM, n: int, rng: torch.Generator) -> Labelled:
    """Pairs of its answers: 70 percent by length where lengths differ, the others by the gold reward."""
    one, other = drawn_twice(start, n, rng)
    first = torch.rand(n, generator=rng) < torch.sigmoid(2 * (gold(one) - gold(other)))
    by_length = (torch.rand(n, generator=rng) < 0.7) & (one.length != other.length)
    return ordered(one, other, torch.where(by_length, one.length > other.length, first))


def _batches(data: Labelled, body: Rewarder, seed: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Features of random pairs, [2, batch, width], the chosen answers first; and their lengths."""
    rng = torch.Generator().manual_seed(seed)

    def draw() -> tuple[Tensor, Tensor]:
        some = rows(data, torch.randint(len(data.chosen.tokens), (BATCH,), generator=rng))
        both = Answers(*(torch.cat(each) for each in zip(some.chosen, some.rejected, strict=True)))
        return body.features(both).view(2, BATCH, WIDTH), both.length.view(2, BATCH)

    return draw


def _plain(data: Labelled, steps: int, seed: int) -> Reward:
    model, objective = Rewarder(seed, WIDTH, layers=1), bradley_terry()
    batch = _batches(data, model, seed)

    def loss(step: int) -> Tensor:
        scores = model.score(batch()[0])[..., 0]
        return objective(Scores(scores[0], scores[1]))[0].mean()

    fit(model.parameters(), loss, steps, torch.optim.Adam, RATE)
    return model.requires_grad_(False)


def _kept(data: Labelled, steps: int, seed: int) -> Reward:
    """ODIN's quality head."""
    model, heads, objective = Rewarder(seed, WIDTH, layers=1), Heads(WIDTH, seed), odin()
    batch = _batches(data, model, seed)

    def loss(step: int) -> Tensor:
        features, tokens = batch()
        both = heads(features)
        return objective(Rated(both.quality, both.length, tokens, heads.overlap()))[0]

    fit([*model.body.parameters(), *heads.parameters()], loss, steps, torch.optim.Adam, RATE)
    model.score = heads.reward()
    return model.requires_grad_(False)


def _scaled(reward: Reward, answers: Answers) -> Reward:
    """With mean 0 and deviation 1 on these answers, so that a price means the same for every reward."""
    seen = reward(answers)
    middle, deviation = seen.mean(), seen.std()
    return lambda x: (reward(x) - middle) / deviation


def _penalised(reward: Reward, cost: float) -> Reward:
    return lambda x: reward(x) - cost * x.length


def _accuracy(reward: Reward, one: Answers, other: Answers) -> float:
    return float(((reward(one) > reward(other)) == (gold(one) > gold(other))).float().mean())


def _tuned(start: AnswerLM, name: str, reward: Reward, price: float, seed: int) -> Point:
    model = policy_gradient(start, reward, rloo(0.2), among(leave_one_out), ROUNDS, 32, 4, 2e-3, seed, beta=price)
    now = standing(model, start, JUDGED, seed + 1)
    return Point(name, price, now.gold, now.length, now.divergence)


def _direct(start: AnswerLM, data: Labelled, beta: float, seed: int) -> Point:
    now = standing(tune(start, given(data, BATCH), dpo(beta), 100, 1e-3, seed), start, JUDGED, seed + 1)
    return Point("DPO", beta, now.gold, now.length, now.divergence)
