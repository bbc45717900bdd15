"""Objectives: what the losses of preference learning read, and what they return.

An objective is a pure function of a batch: log-probabilities and what was said of the answers, in, one loss for each
example, out. It samples nothing, holds no model and keeps no state; so it can be proved on a table of actions, trained
on a tiny transformer, and run on a large model, and is the same lines everywhere. There are five kinds of batch:

- `Pairs`: two answers to a prompt, of which one was preferred;
- `Singles`: one answer, good or bad or with a score. Where what is neither good nor bad must be estimated from other
  answers (KTO's reference point, BCO's shift), whoever makes the batch writes it in `baseline`: no example's loss
  depends on which others happen to share its batch;
- `Rankings`: k answers to a prompt, best first;
- `Rollouts`: an answer token by token, with the advantage of each;
- `Scores`: what a reward model says of two answers.

Log-probabilities are of the answer alone, its end included and the prompt left out, summed over tokens except in
`Rollouts`. What a data set does not say is None; an objective that needs it calls `known`, which says so in a sentence.

With log-probabilities of the chosen answer w and the rejected answer l under the policy and a fixed reference,

    h = beta ((log pi(w) - log ref(w)) - (log pi(l) - log ref(l)))

is the margin of the implicit rewards (Rafailov et al. 2023): under Bradley and Terry's model, sigmoid(h) is the
probability that w is preferred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """Two answers to each of n prompts, as labelled; tensors are [n]."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor
    chosen_length: Tensor | None = None  # tokens of the answer, its end included
    rejected_length: Tensor | None = None
    strength: Tensor | None = None  # the probability that the chosen answer is the better one
    gap: Tensor | None = None  # by how much its reward is higher, where rewards are known
    rationale: Tensor | None = None  # log-probability under the policy of why, after the prompt and both answers


class Singles(NamedTuple):
    """One answer to each of n prompts; tensors are [n]."""

    policy: Tensor
    reference: Tensor
    length: Tensor | None = None
    good: Tensor | None = None  # bool
    score: Tensor | None = None  # a reward or an advantage
    baseline: Tensor | None = None  # the log-ratio that counts as neither good nor bad; never has a gradient


class Rankings(NamedTuple):
    """k answers to each of n prompts, best first; tensors are [n, k]."""

    policy: Tensor
    reference: Tensor
    length: Tensor | None = None
    score: Tensor | None = None


class Rollouts(NamedTuple):
    """n answers token by token; tensors are [n, tokens], and what `mask` leaves out counts nowhere."""

    policy: Tensor  # log-probabilities now
    sampled: Tensor  # and when the answer was drawn
    reference: Tensor
    mask: Tensor  # bool: the tokens of the answer, its end included
    advantage: Tensor
    value: Tensor | None = None  # what a critic expects from here
    returns: Tensor | None = None  # and what came


class Scores(NamedTuple):
    """Rewards that a model gives to the two answers of n pairs, as labelled; tensors are [n]."""

    chosen: Tensor
    rejected: Tensor
    strength: Tensor | None = None
    gap: Tensor | None = None
    tie: Tensor | None = None  # bool: neither was preferred


class Info(NamedTuple):
    """What to log of a batch: the margin of each pair, detached. Its sign says whether the policy agrees."""

    margin: Tensor  # [n]


class Baseline(NamedTuple):
    """How the `baseline` of `Singles` is estimated while training goes on."""

    of: Literal["mismatched", "own"]  # answers to other prompts, or examples as they are, good and bad in turns
    value: Callable[[Tensor, Tensor], Tensor]
    """Of the log-ratios to the reference of some answers, [n], and of whether they are good, bool[n]: a number."""


B = TypeVar("B", Pairs, Singles, Rankings, Rollouts, Scores)


@dataclass(frozen=True)
class Objective(Generic[B]):
    """A loss, and what it must be given. Call it with a batch.

    Attributes:
        loss: of a batch, [n], and what to log: a NamedTuple of detached tensors [n].
        reads: the kind of batch.
        reference: False if the reference's log-probabilities are never read, so that none need be computed.
        weight: how much each example counts in the mean, [n]; None: evenly. A mean over tokens is a mean over answers
            that count as their length.
        credit: of losses over `Rollouts` that need no critic: the advantages of k answers to each of n prompts, [n, k],
            from their rewards.
        baseline: of losses over `Singles` that read one: how it is found.
        critic: of losses over `Rollouts` that train one: advantages and returns, from rewards, the critic's values and
            the mask, [n, tokens] each.
    """

    loss: Callable[[B], tuple[Tensor, Any]]
    reads: type[B]
    reference: bool = True
    weight: Callable[[B], Tensor] | None = None
    credit: Callable[[Tensor], Tensor] | None = None
    baseline: Baseline | None = None
    critic: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def __call__(self, batch: B) -> tuple[Tensor, Any]:
        """The loss of each example, [n], and what to log."""
        return self.loss(batch)


def known(batch: Any, field: str) -> Tensor:
    """A field of a batch; ValueError if the data do not say it."""
    value: Tensor | None = getattr(batch, field)
    if value is None:
        raise ValueError(f"this objective needs the {field.replace('_', ' ')} of each example, and the data say none")
    return value


def margin(pairs: Pairs, beta: float) -> Tensor:
    """h of each pair: [n]."""
    chosen = pairs.policy_chosen - pairs.reference_chosen
    rejected = pairs.policy_rejected - pairs.reference_rejected
    return beta * (chosen - rejected)


def positive(**settings: float) -> None:
    """ValueError, with its name, for a setting that is not a positive number."""
    for name, value in settings.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive, not {value}")


def swapped(pairs: Pairs) -> Pairs:
    """The same pairs with the other answer chosen."""
    return Pairs(
        pairs.policy_rejected,
        pairs.policy_chosen,
        pairs.reference_rejected,
        pairs.reference_chosen,
        pairs.rejected_length,
        pairs.chosen_length,
        None if pairs.strength is None else 1 - pairs.strength,
        None if pairs.gap is None else -pairs.gap,
        pairs.rationale,
    )


def rows(batch: B, chosen: Tensor | slice) -> B:
    """Some examples of a batch."""
    cut: list[Any] = [None if each is None else each[chosen] for each in batch]
    return type(batch)(*cut)


def random_pairs(n: int, seed: int, scale: float = 3.0) -> Pairs:
    """Made-up log-probabilities in float64, for tests: Gaussian around -20 with standard deviation `scale`."""
    rng = torch.Generator().manual_seed(seed)
    return Pairs(*(scale * torch.randn(4, n, generator=rng, dtype=torch.float64) - 20))


def random_batch(reads: type[Any], n: int, seed: int) -> Any:
    """A made-up batch of any kind with every field, in float64, for tests."""
    rng = torch.Generator().manual_seed(seed)

    def logs(*shape: int) -> Tensor:
        return 3 * torch.randn(*shape, generator=rng, dtype=torch.float64) - 20

    def lengths(*shape: int) -> Tensor:
        return torch.randint(3, 12, shape, generator=rng)

    def chance() -> Tensor:
        return 0.5 + 0.5 * torch.rand(n, generator=rng, dtype=torch.float64)

    if reads is Pairs:
        pairs = random_pairs(n, seed)
        return Pairs(*pairs[:4], lengths(n), lengths(n), chance(), 3 * chance(), logs(n))
    if reads is Singles:
        good = torch.arange(n) % 2 == 0
        return Singles(logs(n), logs(n), lengths(n), good, torch.where(good, chance(), -chance()), chance())
    if reads is Rankings:
        return Rankings(logs(n, 4), logs(n, 4), lengths(n, 4), logs(n, 4).sort(1, descending=True)[0])
    if reads is Scores:
        tie = torch.arange(n) % 3 == 1
        return Scores(logs(n) + 20, logs(n) + 20, chance(), 3 * chance(), tie)
    if reads is Rollouts:
        mask = torch.arange(9) < lengths(n)[:, None]
        near = -0.5 - torch.rand(3, n, 9, generator=rng, dtype=torch.float64)
        others = torch.randn(3, n, 9, generator=rng, dtype=torch.float64)
        return Rollouts(near[0], near[1], near[2], mask, others[0], others[1], others[2])
    raise TypeError(f"{reads} is no kind of batch")
