"""Methods rank on a simulated pool as they do on users, and what its noisy labels taught is overoptimised.

The paper (Dubois et al. 2023): eleven models trained and judged in simulation rank as those trained and judged by
people do (a rank correlation of 0.98); PPO and best-of-n with a learned reward beat supervised tuning; and with 13
varied annotators and a quarter of labels flipped, win rates rise and then fall as a policy chases its reward model, as
they do with people, where with one annotator without noise they go on rising. Ours, on a tiny transformer: users are
200 Gaussian tastes whose mean is the gold reward, who compare by Bradley and Terry's model, and label a pair alike two
times in three, as the paper's people do; the pool is 13 other tastes that as a group like length, with a liking for the
first place and flips of a quarter. Both label the same 4,000 pairs.

1. Eight methods trained and judged on the pool, and on users, have win rates against the reference of a rank
   correlation of at least 0.8.
2. PPO and best-of-16 win at least 55 percent, on the pool and on users.
3. PPO without a price of leaving the start, on the pool's reward model, loses again at least half of the gold reward
   that it gained.

That one annotator without noise (the pool's common liking, no variety, no flips, no liking for a place) hides
overoptimisation does not hold here: what it taught is overoptimised as well, since a reward model of 4,000 comparisons
errs far from the start even where labels do not. On most seeds it ends far ahead of the pool in gold reward, on one of
five it did not. Both checks are kept as context. SFT, FeedME and binary reward conditioning are close together, and
which of them is ahead is partly luck. Prices of queries are the paper's: 0.3 dollars for people, 0.006 simulated. Quark
is that of Lu et al. 2022, but without its divergence term; the paper's program trains on the best bin alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.parts.imitation import imitation
from backchannel.preference.alpacafarm import Pool, WinRate, agreement, alpacafarm, quantiles, rank_agreement, win_rate
from backchannel.preference.bradley_terry import bradley_terry
from backchannel.preference.dpo import dpo
from backchannel.preference.ppo import generalised_advantage, ppo
from backchannel.preference.raft import raft
from backchannel.tasks.tiny_answers import AnswerLM, Answers, gold, marked, random_prompts
from backchannel.tasks.tiny_answers import reference as reference_model
from backchannel.tasks.tiny_crowd import LIKED, Tastes, crowd, imitators
from backchannel.tasks.tiny_policy_gradient import Critic, Reward, Rolled, expected, policy_gradient
from backchannel.tasks.tiny_tuning import Judged, Labelled, drawn_twice, given, improve, learn_reward, ordered, tune

PAIRS, JUDGED, BEST, BINS, USERS, ANNOTATORS = 4000, 3000, 16, 5, 200, 13
WIDTH, ROUNDS, LONG, LAST = 24, 60, 100, 10  # rounds of PPO, of a run that goes too far, and of its end
PRICES = {"users": 0.3, "pool": 0.006}  # of a query, in dollars, as the paper has it
PRICE = 0.15  # of leaving the start; none in the run that goes too far
ADVANTAGE = partial(generalised_advantage, discount=1.0, trace=0.95)

Policy = Callable[[Tensor, torch.Generator], Answers]
"""(prompts, a generator) -> an answer to each."""


def claim(seed: int, full: bool) -> Evidence:
    """Eight methods twice, and PPO without a price twice; `full` has four times the prompts in every evaluation."""
    torch.set_num_threads(1)
    start, rng = reference_model(seed, WIDTH, layers=1, steps=150), torch.Generator().manual_seed(seed)
    one, other = drawn_twice(start, PAIRS, rng)
    pools = {
        "users": alpacafarm(crowd(USERS, seed), sharpness=1.0, flips=0.0, price=PRICES["users"]),
        "pool": alpacafarm(
            imitators(ANNOTATORS, seed + 1),
            (0.6 * torch.rand(ANNOTATORS, generator=rng)).tolist(),
            price=PRICES["pool"],
        ),
        "one": alpacafarm(Tastes(torch.tensor(LIKED)[None]), flips=0.0, price=PRICES["pool"]),
    }
    labels = {name: ordered(one, other, pool.label(one, other, rng).first) for name, pool in pools.items()}
    rewards = {name: _reward(data, one, seed) for name, data in labels.items()}
    prompts = random_prompts(4 * JUDGED if full else JUDGED, rng)
    beside = start.sample(prompts, rng)
    rates: dict[str, dict[str, WinRate]] = {}
    spent, rows = {}, []
    for name in ("users", "pool"):
        judge, rates[name] = pools[name].evaluator(), {}
        for method, policy in _methods(start, labels[name], rewards[name], seed).items():
            answers = policy(prompts, rng)
            found = rates[name][method] = win_rate(judge, answers, beside, rng)
            by_users = float(pools["users"].prefers(answers, beside).mean())
            cells = [f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})", f"{by_users:.1%}"]
            rows.append([method, name, *cells, f"{gold(answers).mean():.2f}", f"{answers.length.float().mean():.1f}"])
        spent[name] = pools[name].spent + judge.spent
    order = rank_agreement(*({m: each.value for m, each in rates[name].items()} for name in ("pool", "users")))
    paths = {name: _chase(start, rewards[name], pools[name].evaluator(), seed) for name in ("pool", "one")}
    ends = {name: path[-LAST:].mean(0) for name, path in paths.items()}
    peaks, begun = {name: float(path[:, 0].max()) for name, path in paths.items()}, float(gold(beside).mean())
    lost = {name: (peaks[name] - ends[name][0]) / (peaks[name] - begun) for name in paths}

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for method in rates["pool"]:
            at = [100 * rates[name][method].value for name in ("pool", "users")]
            left.plot(*at, "o", color="#0072B2")
            left.annotate(method, at, (4, 4), textcoords="offset points", fontsize=7)
        left.set(xlabel="win rate on the pool, percent", ylabel="win rate on users, percent")
        for name, colour in (("pool", "#D55E00"), ("one", "#009E73")):
            right.plot(paths[name][:, 2], paths[name][:, 0], color=colour, label=name)
        right.set(xlabel="divergence from the start, nats", ylabel="gold reward", title="PPO without a price")
        right.legend()

    p, q = (pools[name].prefers(one, other) for name in ("users", "pool"))
    clean = pools["pool"].evaluator().prefers(one, other)
    luck = "unknown"
    checks = [
        at_least(f"rank correlation of {len(rates['pool'])} methods, pool and users", order.spearman, 0.8, luck),
        *(
            at_least(f"{method}: win rate on {name}", rates[name][method].value, 0.55, luck)
            for name in ("pool", "users")
            for method in ("PPO", f"best of {BEST}")
        ),
        at_least("noisy pool: share of PPO's gain of gold reward that is lost again", lost["pool"], 0.5, luck),
        at_least(
            "one annotator without noise: last gold reward, ahead", ends["one"][0] - ends["pool"][0], 0.5, luck, False
        ),
        at_most("one annotator without noise: share lost again", lost["one"], 0.25, luck, headline=False),
    ]
    agree = [("users, users", p, p), ("users, pool", p, clean), ("pool, pool", clean, clean)]
    agree += [("users, pool with flips", p, q), ("pool with flips, itself", q, q)]
    alike = [[both, f"{agreement(a, b):.1%}"] for both, a, b in agree]
    chased = []
    for name, path in paths.items():
        rewarded, won = (begun, peaks[name], ends[name][0]), (path[:, 1].max(), ends[name][1])
        chased.append([name, *(f"{x:.2f}" for x in rewarded), *(f"{x:.1%}" for x in won), f"{ends[name][2]:.1f}"])
    columns = ["labels of", "gold reward before", "highest", "last", "highest win rate by its labeller", "last", "nats"]
    tables = [
        Table("Methods", ["method", "trained and judged by", "win rate", "by users", "gold reward", "tokens"], rows),
        Table("How often two labels of a pair are alike", ["by", "alike"], alike),
        Table("PPO without a price, means of five rounds", columns, chased),
    ]
    statement = "methods rank on a simulated pool as on users, and what its noisy labels taught is overoptimised"
    cost = " and ".join(f"{spent[name]:,.0f} dollars for {name}" for name in spent)
    note = (
        f"Queries of labels and of eight evaluations: {cost}. Pairs of methods in another order: {len(order.swapped)}."
    )
    return Evidence(statement, checks, tables, draw, note)


def _reward(data: Labelled, before: Answers, seed: int) -> Reward:
    """A reward model, scaled to mean 0 and deviation 1 on the reference's answers."""
    model = learn_reward(data, bradley_terry(), 400, 3e-3, seed, width=WIDTH, layers=1)
    with torch.no_grad():
        usual = model(before)
        middle, scale = usual.mean(), usual.std()

    @torch.no_grad()
    def reward(answers: Answers) -> Tensor:
        out: Tensor = (model(answers) - middle) / scale
        return out

    return reward


def _methods(start: AnswerLM, data: Labelled, reward: Reward, seed: int) -> dict[str, Policy]:
    def feedback(drawn: list[Answers], rng: torch.Generator) -> Tensor:
        return torch.stack([reward(each) for each in drawn], 1)

    def best(prompts: Tensor, rng: torch.Generator) -> Answers:
        drawn = [start.sample(prompts, rng) for _ in range(BEST)]
        chosen = feedback(drawn, rng).argmax(1)
        return Answers(prompts, torch.stack([each.tokens for each in drawn], 1)[torch.arange(len(prompts)), chosen])

    both = _joined(data.chosen.marked(2), data.rejected.marked(1))
    conditioned = tune(start, given(Judged(both), 64), imitation(), 200, 3e-3, seed)
    return {
        "SFT": start.sample,
        "FeedME": tune(start, given(Judged(data.chosen), 64), imitation(), 100, 3e-3, seed).sample,
        "binary reward conditioning": _asking(conditioned, 2),
        "DPO": tune(start, given(data, 64), dpo(0.1), 150, 1e-3, seed).sample,
        f"best of {BEST}": best,
        "expert iteration": improve(start, raft(8), feedback, 2, 500, 100, 3e-3, seed).sample,
        "Quark": _asking(_quark(start, reward, seed), BINS),
        "PPO": _ppo(start, reward, ROUNDS, 64, PRICE, 2e-3, seed).sample,
    }


def _quark(start: AnswerLM, reward: Reward, seed: int) -> AnswerLM:
    """Four rounds: all answers so far, marked with their bins of reward, are imitated; new ones ask for the best."""
    rng, model, seen = torch.Generator().manual_seed(seed), start, None
    for each in range(4):
        drawn = _asking(model, BINS if each else 0)(random_prompts(1000, rng), rng)
        seen = drawn if seen is None else _joined(seen, drawn)
        bins = quantiles(reward(seen), BINS)
        data = Answers(marked(seen.prompts, 1), seen.tokens)
        data.prompts[:, 0] += bins
        model = tune(model, given(Judged(data), 64), imitation(), 100, 1e-2, seed + each)
    return model


def _ppo(
    start: AnswerLM,
    reward: Reward,
    rounds: int,
    prompts: int,
    beta: float,
    rate: float,
    seed: int,
    after: Callable[[int, AnswerLM, Rolled], None] | None = None,
) -> AnswerLM:
    critic = Critic(start)
    credit, objective = expected(critic, ADVANTAGE), ppo(0.2, 0.5)
    tune_ = partial(policy_gradient, start, reward, objective, credit, rounds, prompts, 2, rate, seed)
    return tune_(beta=beta, epochs=2, critic=critic, after=after)


def _chase(start: AnswerLM, reward: Reward, judge: Pool, seed: int) -> np.ndarray:
    """PPO without a price: gold reward, how often its judge prefers its answers, divergence. [rounds - 4, 3]."""
    path, rng = [], torch.Generator().manual_seed(seed)

    def look(each: int, model: AnswerLM, rolled: Rolled) -> None:
        answers = rolled.answers
        won = judge.prefers(answers, start.sample(answers.prompts, rng))
        path.append([float(x.mean()) for x in (gold(answers), won, rolled.divergence)])

    _ppo(start, reward, LONG, 32, 0.0, 3e-3, seed, look)
    return np.stack([np.convolve(each, np.ones(5) / 5, "valid") for each in np.array(path).T], 1)


def _asking(model: AnswerLM, mark: int) -> Policy:
    """Answers of a model that is asked for with a mark."""
    return lambda prompts, rng: Answers(prompts, model.sample(marked(prompts, mark), rng).tokens)


def _joined(one: Answers, other: Answers) -> Answers:
    return Answers(*(torch.cat(each) for each in zip(one, other, strict=True)))
