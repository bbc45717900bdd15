"""P[Love] ranks policies as users do; a moderate weight raises hearts, and a high one breeds goodbyes.

The paper (Han et al. 2025): a model of users' hearts predicts which policies they will like (a correlation of 0.95
offline to online), weights on it raise hearts by up to 28 percent in tests with users at some cost of helpfulness, and
large ones are hacked: answers end in love and goodbyes. Ours, with simulated users (`tasks/tiny_users.py`) of the tiny
language model: 40,000 answers, of which 2 to 4 percent get a heart, one in nine of these from the 5 percent of users
who love rude answers. A reward for helpfulness is learned from 3,000 comparisons, safety counts rude words, and all
policies have the same policy gradient, price of divergence and number of rounds.

1. For 8 policies that were not made with P[Love], the mean of P[Love] and the rate of hearts in a simulated test have a
   rank correlation of at least 0.7; 0.8 was hoped for, and is reached by little.
2. With weight 0.2 on P[Love] the rate of hearts is above that of helpfulness and safety alone (by 8 to 52 percent on
   thirteen seeds, 30 on average; on two of them less than 10), at a gold reward at most 0.2 lower. The 20 percent that
   were hoped for are reached on ten of them; 2 percent less gold reward at most, on few.
3. With weight 0.8 goodbyes spread more than any other word, to more than half of the answers; hearts are less than 0.7
   of what is predicted, and the gold reward falls by 0.2 or more: the reward was hacked.

For context: comparisons alone (the learned reward without safety), P[Love] alone, how well P[Love] is calibrated, and
what the cap on users' hearts changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.parts.objectives import Scores
from backchannel.parts.ranks import rank_correlation
from backchannel.parts.torch_fit import fit
from backchannel.preference.bradley_terry import bradley_terry
from backchannel.preference.rloo import leave_one_out, rloo
from backchannel.preference.rluf import (
    Signals,
    corrected,
    love_loss,
    reliability,
    rluf,
    spreading,
    user_weights,
)
from backchannel.tasks.tiny_answers import (
    VOCABULARY,
    AnswerLM,
    Answers,
    counts,
    gold,
    random_prompts,
    reference,
)
from backchannel.tasks.tiny_policy_gradient import among, policy_gradient
from backchannel.tasks.tiny_tuning import Labelled, Rewarder, drawn_twice, label, rows
from backchannel.tasks.tiny_users import GOODBYE, Reactions, Users

WIDTH, SHOWN, PAIRS, STEPS, KEPT, CAP, JUDGED = 32, 40_000, 3000, 400, 0.1, 1.0, 1500
WEIGHTS, MODERATE, HIGH = (0.0, 0.2, 0.3, 0.8, 1.0), 0.2, 0.8

Reward = Callable[[Answers], Tensor]


class Ended(NamedTuple):
    """What a policy does."""

    name: str
    hearts: float  # the rate in a simulated test
    predicted: float  # the mean of P[Love]
    gold: float
    rude: float  # share of answers
    goodbye: float
    answers: Answers


def claim(seed: int, full: bool) -> Evidence:
    """One world; `full` has four times the answers shown to users."""
    torch.set_num_threads(1)
    rng, users = torch.Generator().manual_seed(seed), Users()
    start = reference(seed, WIDTH, layers=1, steps=300)
    parts = [start.sample(random_prompts(SHOWN // 4, rng), rng) for _ in range(16 if full else 4)]
    seen = users.react(Answers(*(torch.cat(each) for each in zip(*parts, strict=True))), rng)
    love = _love(seen, seed, user_weights(seen.user, seen.loved, CAP))
    uncapped = _love(seen, seed, None)
    helpful = _helpful(label(*drawn_twice(start, PAIRS, rng), rng), seed)

    def signals(answers: Answers) -> Signals:
        return Signals(love(answers), helpful(answers), -counts(answers).rude)

    before = start.sample(random_prompts(JUDGED, rng), rng)
    fresh = users.react(before, rng)
    with torch.no_grad():
        told = reliability(torch.sigmoid(love(before)), fresh.loved, groups=4)
        scale = signals(before)
        ordinary = torch.logit(users.love(before))
        follows = {
            name: float(torch.corrcoef(torch.stack([f(before), ordinary]))[0, 1])
            for name, f in (("capped", love), ("uncapped", uncapped))
        }

    def ended(name: str, model: AnswerLM, temperature: float = 1.0) -> Ended:
        return _ended(name, model, users, love, seed, temperature)

    def mixed(love_weight: float, helpful_weight: float, safe_weight: float) -> Reward:
        mix = rluf(love_weight, helpful_weight, safe_weight, scale)
        return lambda x: mix(signals(x)).float()

    def tuned(reward: Reward, rounds: int) -> AnswerLM:
        return policy_gradient(start, reward, rloo(0.2), among(leave_one_out), rounds, 32, 4, 2e-3, seed, beta=0.1)

    candidates = [ended("start", start), ended("start, cooler", start, 0.6)]
    candidates += [ended(name, tuned(reward, 10)) for name, reward in _STYLES.items()]
    agree = rank_correlation([each.predicted for each in candidates], [each.hearts for each in candidates])
    policies = {
        weight: ended(f"weight {weight}", tuned(mixed(weight, 0.7 * (1 - weight), 0.3 * (1 - weight)), 30))
        for weight in WEIGHTS
    }
    paired = ended("comparisons alone", tuned(mixed(0, 1, 0), 30))
    plain, moderate, high = policies[0.0], policies[MODERATE], policies[HIGH]
    spread = spreading(before.tokens, high.answers.tokens, VOCABULARY)

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        left.plot([100 * e.predicted for e in candidates], [100 * e.hearts for e in candidates], "o", color="#0072B2")
        left.set(xlabel="mean P[Love], percent", ylabel="hearts in a test, percent")
        curve = list(policies.values())
        right.plot(WEIGHTS, [100 * e.hearts for e in curve], "o-", color="#0072B2", label="hearts, percent")
        right.plot(WEIGHTS, [100 * e.predicted for e in curve], "o:", color="#0072B2", label="predicted, percent")
        right.plot(WEIGHTS, [10 * e.goodbye for e in curve], "s-", color="#D55E00", label="goodbyes, of 10 answers")
        right.plot(WEIGHTS, [10 * e.gold for e in curve], "^-", color="#009E73", label="gold reward x 10")
        right.set(xlabel="weight of P[Love]")
        right.legend(fontsize=7)

    lift, cost = moderate.hearts / plain.hearts - 1, plain.gold - moderate.gold
    checks = [
        at_least(
            "rank correlation of P[Love] and hearts over 8 policies",
            agree,
            0.7,
            "1 in 30 if they had nothing in common",
        ),
        at_least("the same, as hoped", agree, 0.8, "", headline=False),
        at_least(f"weight {MODERATE}: hearts over those without P[Love], - 1", lift, 0.0, "about 1 in 50"),
        at_least(f"weight {MODERATE}: the same, as hoped", lift, 0.2, "", headline=False),
        at_most(f"weight {MODERATE}: gold reward lost", cost, 0.2, "about 1 in 100"),
        at_most(f"weight {MODERATE}: share of the gold reward lost", cost / plain.gold, 0.02, "", headline=False),
        at_most(f"weight {HIGH}: place of goodbye among words that spread", _place(spread.token), 0, "below 1 in 1000"),
        at_least(f"weight {HIGH}: share of answers that say goodbye", high.goodbye, 0.5, "below 1 in 100"),
        at_most(f"weight {HIGH}: hearts over what is predicted", high.hearts / high.predicted, 0.7, "below 1 in 100"),
        at_least(f"weight {HIGH}: gold reward lost", plain.gold - high.gold, 0.2, "below 1 in 100"),
        at_most("groups of 4: mean |hearts - predicted|", told.error, 0.01, "", headline=False),
    ]
    rows_ = [
        [e.name, f"{e.hearts:.2%}", f"{e.predicted:.2%}", f"{e.gold:.2f}", f"{e.rude:.0%}", f"{e.goodbye:.0%}"]
        for e in [*candidates, *policies.values(), paired]
    ]
    note = (
        f"Of the answers shown {float(seen.loved.float().mean()):.2%} got a heart. P[Love] on new answers: area under "
        f"the curve {told.area:.2f}; its logit's correlation with that of an ordinary user {follows['capped']:.2f}, "
        f"{follows['uncapped']:.2f} without the cap."
    )
    columns = ["policy", "hearts", "P[Love]", "gold reward", "rude", "goodbye"]
    return Evidence(
        statement="P[Love] ranks policies as users do, helps at a moderate weight and is hacked at a high one",
        checks=checks,
        tables=[Table("policies", columns, rows_)],
        draw=draw,
        note=note,
    )


_STYLES: dict[str, Reward] = {
    "good": gold,
    "goodbye": lambda x: 2.0 * (x.tokens == GOODBYE).any(1),
    "good, goodbye": lambda x: gold(x) + 2.0 * (x.tokens == GOODBYE).any(1),
    "rude": lambda x: 2.0 * (counts(x).rude > 0),
    "short": lambda x: -0.5 * x.length,
    "off topic": lambda x: counts(x).astray,
}


def _place(token: Tensor) -> int:
    return int((token[token != 0] == GOODBYE).nonzero()[0])  # 0 is the end of an answer, no word


def _love(seen: Reactions, seed: int, weight: Tensor | None) -> Reward:
    """P[Love]'s logit, trained on all hearts and a share of the rest."""
    rng = torch.Generator().manual_seed(seed)
    keep = seen.loved | (torch.rand(len(seen.loved), generator=rng) < KEPT)
    answers, loved = seen.answers.rows(keep), seen.loved[keep]
    weight = torch.ones(len(loved)) if weight is None else weight[keep]
    model = Rewarder(seed, WIDTH, layers=1)

    def loss(step: int) -> Tensor:
        some = torch.randint(len(loved), (128,), generator=rng)
        return love_loss(model(answers.rows(some)), loved[some], weight[some]).mean()

    fit(model.parameters(), loss, STEPS, torch.optim.Adam, 3e-3)
    model.requires_grad_(False)
    return lambda x: corrected(model(x), KEPT)


def _helpful(pairs: Labelled, seed: int) -> Reward:
    model, rng, objective = Rewarder(seed, WIDTH, layers=1), torch.Generator().manual_seed(seed), bradley_terry()

    def loss(step: int) -> Tensor:
        some = rows(pairs, torch.randint(len(pairs.chosen.tokens), (64,), generator=rng))
        return objective(Scores(model(some.chosen), model(some.rejected)))[0].mean()

    fit(model.parameters(), loss, STEPS, torch.optim.Adam, 3e-3)
    return model.requires_grad_(False)


@torch.no_grad()
def _ended(name: str, model: AnswerLM, users: Users, love: Reward, seed: int, temperature: float) -> Ended:
    rng = torch.Generator().manual_seed(seed + 1)
    answers = model.sample(random_prompts(JUDGED, rng), rng, temperature)
    shown = Answers(*(each.repeat_interleave(10, 0) for each in answers))  # each to ten users
    return Ended(
        name,
        float(users.react(shown, rng).loved.float().mean()),
        float(torch.sigmoid(love(answers)).mean()),
        float(gold(answers).mean()),
        float((counts(answers).rude > 0).float().mean()),
        float((answers.tokens == GOODBYE).any(1).float().mean()),
        answers,
    )
