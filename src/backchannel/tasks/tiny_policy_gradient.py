"""Policy gradients on the tiny language model of `tasks/tiny_answers.py`: it answers, is rewarded, and takes steps.

    start = reference(seed)
    tuned = policy_gradient(start, gold, rloo(0.2), among(leave_one_out), 40, 32, 4, 1e-3, seed, beta=0.1)

A round: `answers` answers to each of `prompts` fresh prompts (`roll`), their rewards, what each token is credited with,
and steps of Adam down an objective. The price of leaving the reference is part of the reward: token t pays

    beta (log pi(y_t) - log ref(y_t)),

and the reward of the answer comes with its last token. A credit is either a rule among the answers to a prompt
(`among`: leave-one-out, a group's mean) or what a critic did not expect (`expected`). Objectives read `Rollouts`, or
`Pairs` of the first two answers to each prompt: there the model that drew them stands in the place of the reference,
and `gap` is the difference of their rewards, prices included.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from backchannel.parts.objectives import Objective, Pairs, Rollouts
from backchannel.tasks.tiny_answers import ASKED, LENGTH, AnswerLM, Answers, random_prompts

Reward = Callable[[Answers], Tensor]
"""Answers -> their rewards, [n], or [n, m] where each has several."""


class Rolled(NamedTuple):
    """`group` answers to each of some prompts; those to prompt i are the rows from i * group on."""

    answers: Answers
    sampled: Tensor  # log-probabilities when they were drawn: [n, LENGTH]
    reference: Tensor  # and of the reference: [n, LENGTH]
    reward: Tensor  # [n] or [n, m], no price in it
    price: Tensor  # that each token pays for leaving the reference: [n, LENGTH]
    group: int

    @property
    def divergence(self) -> Tensor:
        """The log-ratio to the reference of each answer: [n]. Its mean estimates the divergence."""
        return (self.sampled - self.reference).sum(1)

    @property
    def total(self) -> Tensor:
        """What each answer earned, its price paid: [n]."""
        return self.reward - self.price.sum(1)

    @property
    def rewards(self) -> Tensor:
        """The same token by token: [n, LENGTH]."""
        return at_the_end(self.reward, self.answers) - self.price


class Credited(NamedTuple):
    """Advantages of tokens, and what a critic should have expected at each."""

    advantage: Tensor  # [n, LENGTH]
    returns: Tensor | None = None  # [n, LENGTH], or [n, LENGTH, m]


Credit = Callable[[Rolled], Credited]


class Beside(Protocol):
    """What steps after an optimizer does: moving averages, resets."""

    def step(self) -> Any:
        """After each of its steps."""


class Critic(nn.Module):
    """What to expect before each token of an answer: a transformer like the policy's, and a number for each reward."""

    def __init__(self, start: AnswerLM, outputs: int = 1):
        super().__init__()
        self.body = copy.deepcopy(start).requires_grad_(True)
        self.body.head.requires_grad_(False)
        self.value = nn.Linear(self.body.head.in_features, outputs)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, answers: Answers) -> Tensor:
        """[n, LENGTH], or [n, LENGTH, outputs] where there are several."""
        seen = torch.cat([answers.prompts, answers.tokens[:, :-1]], 1)
        out: Tensor = self.value(self.body.hidden(seen)[:, ASKED:])
        return out[:, :, 0] if out.shape[2] == 1 else out


def at_the_end(reward: Tensor, answers: Answers) -> Tensor:
    """Rewards of answers, [n], as rewards of their last tokens: [n, LENGTH]."""
    return reward.new_zeros(len(reward), LENGTH).scatter(1, answers.length[:, None] - 1, reward[:, None])


def among(rule: Callable[[Tensor], Tensor]) -> Credit:
    """Every token gets its answer's advantage by `rule`, of totals [prompts, group] -> the same shape."""

    def credit(rolled: Rolled) -> Credited:
        advantage = rule(rolled.total.view(-1, rolled.group)).reshape(-1, 1)
        return Credited(advantage.expand(-1, LENGTH))

    return credit


def expected(critic: Critic, rule: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> Credit:
    """Advantages and returns by `rule`, of rewards, values and mask, [n, LENGTH]: generalised advantages, say."""

    def credit(rolled: Rolled) -> Credited:
        with torch.no_grad():
            return Credited(*rule(rolled.rewards, critic(rolled.answers), rolled.answers.mask))

    return credit


@torch.no_grad()
def roll(
    model: AnswerLM, start: AnswerLM, reward: Reward, prompts: Tensor, group: int, beta: float, rng: torch.Generator
) -> Rolled:
    """`group` answers of `model` to each prompt, with their rewards and prices; `start` is the reference."""
    answers = model.sample(prompts.repeat_interleave(group, 0), rng)
    sampled, still = model.log_probabilities(answers), start.log_probabilities(answers)
    return Rolled(answers, sampled, still, reward(answers), beta * (sampled - still), group)


def policy_gradient(
    start: AnswerLM,
    reward: Reward,
    objective: Objective[Any],
    credit: Credit | None,
    rounds: int,
    prompts: int,
    answers: int,
    learning_rate: float,
    seed: int,
    beta: float = 0.0,
    epochs: int = 1,
    batch: int | None = None,
    critic: Critic | None = None,
    after: Callable[[int, AnswerLM, Rolled], None] | None = None,
    beside: Callable[[list[Tensor]], Beside] | None = None,
) -> AnswerLM:
    """A copy of `start`, tuned on a reward by policy gradients with Adam, whose moments last from round to round.

    Args:
        start: where training begins, and the reference.
        reward: of answers.
        objective: a loss of `Rollouts`, or of `Pairs`.
        credit: what each token earned (`among`, `expected`); None for an objective of pairs.
        rounds: of answering and learning.
        prompts: in a round.
        answers: to each prompt, at least 2 for pairs.
        learning_rate: constant.
        seed: of all draws.
        beta: the price of leaving the reference, at least 0.
        epochs: how often a round's answers are learned from.
        batch: prompts in a step, whose answers stay together; None: all.
        critic: learns beside the policy, for an objective that reads values; changed in place.
        after: hears the number of each round, the model, which it may change in place, and what was drawn.
        beside: of the policy's parameters: what steps after Adam.
    """
    model, rng = copy.deepcopy(start).requires_grad_(True), torch.Generator().manual_seed(seed)
    learned = [*model.parameters(), *([] if critic is None else (p for p in critic.parameters() if p.requires_grad))]
    stepper = torch.optim.Adam(learned, lr=learning_rate)
    companion = None if beside is None else beside(list(model.parameters()))
    for each in range(rounds):
        rolled = roll(model, start, reward, random_prompts(prompts, rng), answers, beta, rng)
        credited = None if credit is None else credit(rolled)
        for _ in range(epochs):
            for some in torch.randperm(prompts, generator=rng).split(batch or prompts):
                data = measured(model, critic, rolled, credited, some)
                loss = objective(data)[0]
                weight = torch.ones_like(loss) if objective.weight is None else objective.weight(data)
                stepper.zero_grad()
                ((loss * weight).sum() / weight.sum()).backward()
                stepper.step()
                if companion is not None:
                    companion.step()
        if after is not None:
            after(each, model, rolled)
    return model.requires_grad_(False)


def measured(
    model: AnswerLM, critic: Critic | None, rolled: Rolled, credited: Credited | None, prompts: Tensor
) -> Rollouts | Pairs:
    """The batch that an objective reads, of the answers to some prompts: `Pairs` where nothing was credited."""
    rows = (prompts[:, None] * rolled.group + torch.arange(rolled.group)).flatten()
    answers = rolled.answers.rows(rows)
    now, then, still = model.log_probabilities(answers), rolled.sampled[rows], rolled.reference[rows]
    if credited is None:
        policy, drawn = (each.sum(1).view(-1, rolled.group) for each in (now, then))
        total = rolled.total[rows].view(-1, rolled.group)
        gap = total[:, 0] - total[:, 1]
        return Pairs(policy[:, 0], policy[:, 1], drawn[:, 0], drawn[:, 1], gap=gap)
    value = None if critic is None else critic(answers)
    returns = None if credited.returns is None else credited.returns[rows]
    return Rollouts(now, then, still, answers.mask, credited.advantage[rows], value, returns)
