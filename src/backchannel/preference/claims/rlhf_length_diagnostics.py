"""Most of what PPO gains of a reward that likes length is length, and length alone wins most of what PPO wins.

The paper (Singhal et al. 2024): on three data sets rewards correlate with length (0.55 to 0.72 among answers to one
prompt), 2 to 53 percent of PPO's gain of reward is left among answers of equal length, and PPO on length alone wins 56
to 64 percent of simulated comparisons with the first model, where PPO wins 58 to 63. Mitigations shorten answers, and
none is right everywhere. Ours, on a tiny transformer: the judge follows Bradley and Terry's model on the gold reward
and `LIKES` for every token, labels the pairs from which the reward model is learned, and decides who wins.

1. The reward correlates with length by more than 0.5.
2. Of the gain of PPO by it, at most 40 percent is left within lengths (bins of one token), also if lengths that only
   one of the two policies has are left out instead of counted as length.
3. PPO on length alone, for a target of all the tokens that there are, keeps at least half of PPO's lead over the first
   model in the judge's wins.
4. A reward model from pairs balanced by length follows length less, by at least 0.2.

For context: by gold alone, which likes no length, answers of PPO on length alone are worse than the first model's. The
table has every mitigation, the judge's wins and those by gold. Balanced pairs give shorter answers and the most gold; a
high price shorter answers only; a penalty of one deviation at `MOST` tokens, scaled rewards and random pairs do not
shorten answers here, and where long answers are omitted nothing says that they are worse. The rewards that PPO climbs
have mean 0 and deviation 1 on the first model's answers, so that a price means the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.preference.bradley_terry import bradley_terry
from backchannel.preference.ppo import generalised_advantage, ppo
from backchannel.preference.rlhf_length_diagnostics import (
    LengthDiagnostics,
    Running,
    balanced,
    correlation,
    length_reward,
    mismatched,
    penalised,
    rlhf_length_diagnostics,
)
from backchannel.tasks.tiny_answers import LENGTH, AnswerLM, Answers, gold, random_prompts, reference
from backchannel.tasks.tiny_policy_gradient import Credit, Credited, Critic, Rolled, expected, policy_gradient
from backchannel.tasks.tiny_tuning import Annotator, Labelled, Rewarder, drawn_twice, label, learn_reward, rows

WIDTH, PAIRS, STEPS, JUDGED, DRAWS = 32, 4000, 300, 2000, 8
ROUNDS, PROMPTS, RATE, EPOCHS, PRICE, HIGH, MOST = 25, 48, 2e-3, 2, 0.1, 0.6, 9
LIKES = 0.6
JUDGE, QUALITY = Annotator(scale=1.0, length=LIKES), Annotator(scale=1.0)

Reward = Callable[[Answers], Tensor]


class Ended(NamedTuple):
    """A policy, or a way to answer, on fresh prompts."""

    found: LengthDiagnostics  # by the standard reward
    wins: float  # by the judge, over the first model
    better: float  # by gold alone
    gold: float


def claim(seed: int, full: bool) -> Evidence:
    """One world; `full` has three times the pairs and the steps of reward models, and twice the rounds."""
    torch.set_num_threads(1)
    rng, more = torch.Generator().manual_seed(seed), 3 if full else 1
    start, rounds = reference(seed, WIDTH, layers=1, steps=300), 2 * ROUNDS if full else ROUNDS
    data = label(*drawn_twice(start, more * PAIRS, rng), rng, JUDGE)
    longer = data.chosen.length - data.rejected.length
    learned = {
        name: learn_reward(each, bradley_terry(), more * STEPS, 3e-3, seed, 64, WIDTH, 1)
        for name, each in {
            "all pairs": data,
            "balanced pairs": rows(data, torch.as_tensor(balanced(longer, np.random.default_rng(seed)))),
            "and random pairs": _augmented(data, np.random.default_rng(seed)),
        }.items()
    }
    one, other = drawn_twice(start, JUDGED, rng)
    models = [[name, *(f"{x:.2f}" for x in _says(each, start, one, other, rng))] for name, each in learned.items()]
    follows = [float(row[1]) for row in models]
    plain, even, random = (_scaled(each, one) for each in learned.values())
    tune = partial(_tuned, start, rounds=rounds, seed=seed)
    policies: dict[str, Callable[[Tensor, torch.Generator], Answers]] = {
        name: model.sample
        for name, model in {
            "the first model": start,
            "PPO": tune(plain),
            "PPO on length alone": tune(_scaled(lambda x: length_reward(x.length, LENGTH), one)),
            "high price": tune(plain, price=HIGH),
            "penalty on length": tune(_penalised(plain)),
            "scaled rewards": tune(_running(plain)),
            "long answers omitted": tune(plain, omit=True),
            "balanced pairs": tune(even),
            "and random pairs": tune(random),
        }.items()
    }
    policies[f"longest of {DRAWS}"] = partial(_longest, start)
    ends = {name: _judged(answer, start, plain, seed) for name, answer in policies.items()}
    tuned, alone = ends["PPO"], ends["PPO on length alone"]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        bins = tuned.found.bins
        for what, colour, at in (("first model", "#0072B2", 4), ("PPO", "#D55E00", 5)):
            many = [5 + 200 * each[at - 2] / JUDGED for each in bins]
            left.scatter([each.low for each in bins], [each[at] for each in bins], many, colour, label=what)
        left.set(xlabel="tokens", ylabel="mean reward (size: how many answers)", title="within lengths")
        left.legend()
        for mark, (name, each) in zip("*osD^v<>PX", ends.items(), strict=True):
            right.plot(each.found.length_after, each.wins, mark, label=name, alpha=0.8)
        right.set(xlabel="mean tokens", ylabel="wins over the first model", title="policies")
        right.legend(fontsize="small", loc="upper left")

    error = 0.5 / JUDGED**0.5
    luck = f"standard error {tuned.found.error / tuned.found.gain:.3f}, and about 0.06 from seed to seed"
    checks = [
        at_least("correlation of reward and length", follows[0], 0.5, "below 1e-4"),
        at_most("share of PPO's gain of reward within lengths", tuned.found.ratio, 0.4, luck),
        at_most("the same, by lengths of both alone", tuned.found.ratio / tuned.found.shared, 0.4, luck),
        at_least("lead of PPO in wins", tuned.wins - 0.5, 0.05, f"standard error at most {error:.3f}"),
        at_least("share of it by length alone", (alone.wins - 0.5) / (tuned.wins - 0.5), 0.5, "unknown"),
        at_least("correlation, fall by balanced pairs", follows[0] - follows[1], 0.2, "unknown"),
        at_least("wins of length alone by gold alone", alone.better, 0.5, f"standard error at most {error:.3f}", False),
    ]
    table = [
        [
            name,
            f"{each.found.length_after:.1f}",
            f"{each.found.gain:.2f}",
            f"{each.found.within:.2f} +- {each.found.error:.2f}",
            f"{each.found.shared:.0%}",
            *(f"{x:.2f}" for x in (each.wins, each.better, each.gold)),
        ]
        for name, each in ends.items()
    ]
    columns = ["policy", "tokens", "gain of reward", "within lengths", "in shared bins", "wins", "by gold", "gold"]
    shown = ["learned from", "correlation with length", "for one prompt", "right about gold"]
    note = (
        f"The longer answer was chosen in {float((longer > 0).sum() / (longer != 0).sum()):.0%} of pairs of different "
        f"length. Gold's own correlation with length is {correlation(one.length, gold(one)):.2f}. "
        f"Wins have standard errors of at most {error:.3f}."
    )
    statement = "most of PPO's gain of reward is length, and length alone wins most of what PPO wins"
    tables = [Table("Reward models on new answers", shown, models), Table("Policies", columns, table)]
    return Evidence(statement, checks, tables, draw, note)


def _augmented(data: Labelled, rng: np.random.Generator) -> Labelled:
    """Half as many pairs again, of a chosen answer and a chosen one to another prompt."""
    some = rng.choice(len(data.chosen.prompts), len(data.chosen.prompts) // 2, replace=False)
    own = data.chosen.rows(torch.as_tensor(some))
    kinds = np.unique(own.prompts.numpy(), axis=0, return_inverse=True)[1].reshape(-1)
    worse = Answers(own.prompts, own.tokens[torch.as_tensor(mismatched(kinds, rng))])

    def both(one: Answers, more: Answers) -> Answers:
        return Answers(torch.cat([one.prompts, more.prompts]), torch.cat([one.tokens, more.tokens]))

    return Labelled(both(data.chosen, own), both(data.rejected, worse))


@torch.no_grad()
def _says(model: Rewarder, start: AnswerLM, one: Answers, other: Answers, rng: torch.Generator) -> list[float]:
    """Correlation with length, the same among answers to one prompt, and how often it is right about gold."""
    several = start.sample(random_prompts(200, rng).repeat_interleave(DRAWS, 0), rng)
    grouped = correlation(several.length.view(-1, DRAWS), model(several).view(-1, DRAWS))
    right = ((model(one) > model(other)) == (gold(one) > gold(other)))[gold(one) != gold(other)]
    return [correlation(one.length, model(one)), grouped, float(right.float().mean())]


@torch.no_grad()
def _scaled(reward: Reward, answers: Answers) -> Reward:
    """With mean 0 and deviation 1 on these answers."""
    seen = reward(answers)
    middle, deviation = seen.mean(), seen.std()
    return lambda x: (reward(x) - middle) / deviation


def _penalised(reward: Reward) -> Reward:
    running = Running()

    def less(answers: Answers) -> Tensor:
        plain = reward(answers)
        running.meet(plain)
        out: Tensor = penalised(plain, answers.length, MOST, running.deviation)
        return out

    return less


def _running(reward: Reward) -> Reward:
    running = Running()
    return lambda answers: running.scaled(reward(answers))


def _tuned(
    start: AnswerLM, reward: Reward, rounds: int, seed: int, price: float = PRICE, omit: bool = False
) -> AnswerLM:
    """PPO with a critic; with `omit` nothing is learned from answers of more than `MOST` tokens."""
    critic = Critic(start)
    credit: Credit = expected(critic, partial(generalised_advantage, discount=1.0, trace=0.95))

    def some(rolled: Rolled) -> Credited:
        advantage, returns = credit(rolled)
        return Credited(advantage * (rolled.answers.length <= MOST)[:, None], returns)

    objective, by = ppo(0.2, 0.1), some if omit else credit
    climb = partial(policy_gradient, start, reward, objective, by, rounds, PROMPTS, 2, RATE, seed)
    return climb(beta=price, epochs=EPOCHS, critic=critic)


def _longest(model: AnswerLM, prompts: Tensor, rng: torch.Generator) -> Answers:
    """Of several answers the longest."""
    tokens = torch.stack([model.sample(prompts, rng).tokens for _ in range(DRAWS)], 1)
    best = torch.stack([Answers(prompts, each).length for each in tokens.unbind(1)], 1).argmax(1)
    return Answers(prompts, tokens[torch.arange(len(prompts)), best])


@torch.no_grad()
def _judged(answer: Callable[[Tensor, torch.Generator], Answers], start: AnswerLM, reward: Reward, seed: int) -> Ended:
    rng = torch.Generator().manual_seed(seed + 1)
    prompts = random_prompts(JUDGED, rng)
    before, after = start.sample(prompts, rng), answer(prompts, rng)
    found = rlhf_length_diagnostics(before.length, reward(before), after.length, reward(after), width=1)
    wins, better = (float(who.prefers(after, before).mean()) for who in (JUDGE, QUALITY))
    return Ended(found, wins, better, float(gold(after).mean()))
