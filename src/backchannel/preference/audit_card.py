"""Audit card: what comparisons and a reward model fitted to them presume, beside what the data say of it.

A reward model presumes that a choice shows a preference, that preferences are transitive and are those of one utility,
that people agree on it, and that it does not change with the circumstances. Lambert, Gilbert and Zick (2023) trace
these presumptions through the history of costs, rewards and preferences, and ask that they be stated and looked into.
The card holds what people state and what can be counted, one beside the other.

What is counted, of votes n_e on each pair e of items, w_e of them for the first:

    intransitive = G{p : all three of p_ab, p_bc, p_ca on one side of 1/2}                                 (1)

is the rate of triples whose true majorities go round: G is the law of a triple's probabilities of greatest likelihood,
so that noise is not counted (parts/triples.py).

    LR = 2 sum_e [w_e log(w_e / n_e) + (n_e - w_e) log(1 - w_e / n_e)] - 2 max_u L(u)                       (2)

compares one utility an item, P(a beats b) = sigmoid(u_a - u_b), with a probability of its own for each pair; its p is
exact, given how often each item won (parts/scalar_utility.py). Every group of annotators has utilities of its own in
(1) and (2): a majority of people who each are consistent can go round, and a mixture of utilities is no utility.

    alpha = 1 - disagreement seen / disagreement of random votes                                            (3)

is Krippendorff's, of all annotators and of each group, and Cohen's kappa compares two groups; `shift` is how far a
group, or a context, moves the probability of a choice, less what noise alone would show (parts/agreement.py).

Of a reward model r: the share of votes that it predicts, the mean log-likelihood of sigmoid(r_a - r_b) beside that of
the best utilities and of the unrestricted model, and the slope of a logistic fit to r_a - r_b, 1 if it is calibrated.

Steps: `audit_card(data, stated)` counts; `to_markdown` renders every field of `REQUIRED`, marking what nobody stated;
`to_json` holds all numbers.

Deviations: the paper proposes no algorithm; fields, estimates and tests are ours.

    >>> votes = {"first": ["x", "y", "z"] * 40, "second": ["y", "z", "x"] * 40, "vote": [1, 1, 1, -1] * 30}
    >>> card = audit_card(votes, {"name": "scissors, paper, stone"})
    >>> card.triples.triples, card.scalar.p <= 0.01, len(unstated(card))
    (1, True, 13)

References: lambert2023history, kiefer1956consistency, besag1989generalized, krippendorff2004reliability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from backchannel.card import Card
from backchannel.parts.agreement import Agreement, Shift, alpha, kappa, shift
from backchannel.parts.comparisons import Comparisons, comparisons, tally
from backchannel.parts.logit import logit
from backchannel.parts.scalar_utility import ScalarTest, scalar_utility
from backchannel.parts.triples import Triples, intransitive

CARD = Card(
    name="Audit card",
    summary="What comparisons presume, stated and tested: transitive choices, one utility, annotators who agree.",
    paper="lambert2023history",
    row=288,
    topics=("audit", "documentation"),
    feedback=("comparison",),
    protocol="artefact",
    engine="numba",
    neighbour="",
    example={"data": {"first": ["x", "y"], "second": ["y", "z"], "vote": [1, 1]}, "stated": {"name": "three answers"}},
)
LEVEL = 0.01  # at which a test is said to reject
WIDE = 0.25  # an interval of the intransitive share that is wider says that the votes cannot tell


class Struct(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Unknown fields are an error."""


class Stated(Struct, frozen=True):
    """What only people can say. An empty field is marked on the card."""

    name: str
    data: str = ""  # where items come from, version, licence
    annotators: str = ""  # who they are, how they were found and paid
    instructions: str = ""  # what they were asked, and what they saw
    model: str = ""  # of the reward: base, training, version
    use: str = ""  # what the reward is to be used for, and what not
    preference: str = ""  # what a choice is taken to show, and of whom
    reward: str = ""  # what one number is taken to hold, and what it leaves out
    cost: str = ""  # whom errors cost what
    measured: str = ""  # why a choice in these circumstances speaks for others
    scalar: str = ""  # why one utility an item should do
    aggregate: str = ""  # how people who disagree are made one
    stable: str = ""  # why it should not change with time and context
    contact: str = ""


class RewardFit(Struct, frozen=True):
    """How a reward model explains the votes without a tie."""

    accuracy: float
    error: float  # standard error of it, pairs taken as clusters
    log_likelihood: float  # of a vote, on average
    slope: float | None  # None where none is finite: every vote is predicted, or none could be


class AuditCard(Struct, frozen=True):
    """Everything on the card."""

    stated: Stated
    items: int
    pairs: int
    votes: int
    ties: int
    annotators: int
    triples: Triples
    scalar: ScalarTest
    agreement: Agreement
    within: list[Agreement]  # of each group
    kappa: Agreement | None  # of two groups
    groups: Shift
    contexts: Shift
    reward: RewardFit | None = None


_STATED = {  # heading, and what is asked for
    "name": ("Name", "what this card is of"),
    "data": ("Data", "where the items come from, version and licence"),
    "annotators": ("Who chose", "who the annotators are, how they were found and paid"),
    "instructions": ("What they were asked", "the instructions, and what annotators saw"),
    "model": ("The model", "base, training and version of the reward model"),
    "use": ("Use", "what the reward is to be used for, and what not"),
    "preference": ("Presumed of preferences", "what a choice is taken to show, and of whom"),
    "reward": ("Presumed of the reward", "what one number is taken to hold, and what it leaves out"),
    "cost": ("Presumed of costs", "whom errors cost what"),
    "measured": ("Presumed of the measurement", "why choices in these circumstances speak for others"),
    "scalar": ("Presumed of utility", "why choices should be transitive, and one utility for each item do"),
    "aggregate": ("Presumed of people together", "how people who disagree are made one"),
    "stable": ("Presumed of time and context", "why preferences should not change with them"),
    "contact": ("Contact", "whom to write to"),
}
_MEASURED = {
    "votes": "Votes",
    "triples": "Intransitive triples",
    "utility": "One utility",
    "agreement": "Agreement",
    "groups": "Groups",
    "contexts": "Contexts",
    "reward_fit": "What the reward model explains",
}
REQUIRED = {name: title for name, (title, _) in _STATED.items()} | _MEASURED


def audit_card(
    data: Comparisons | Mapping[str, Any],
    stated: Stated | Mapping[str, str],
    rewards: Sequence[float] | np.ndarray | None = None,
    draws: int = 999,
    seed: int = 0,
) -> AuditCard:
    """The card of a set of comparisons.

    Args:
        data: of `comparisons`, or its arguments by name.
        rewards: what a reward model gives to each item, in the order of `data.items` (sorted names).
        draws: of each test; its least p is 1 / (draws + 1).
    """
    data = data if isinstance(data, Comparisons) else comparisons(**data)
    stated = stated if isinstance(stated, Stated) else msgspec.convert(stated, Stated)
    rng, votes, both = np.random.default_rng(seed), tally(data, data.group), np.unique(data.group)
    return AuditCard(
        stated=stated,
        items=np.union1d(data.first, data.second).size,
        pairs=np.unique(data.first * len(data.items) + data.second).size,
        votes=data.vote.size,
        ties=int((data.vote == 0).sum()),
        annotators=np.unique(data.annotator).size,
        triples=intransitive(votes),
        scalar=scalar_utility(votes, rng, draws),
        agreement=alpha(data, rng),
        within=[alpha(_only(data, data.group == each), rng) for each in both] if both.size > 1 else [],
        kappa=kappa(data, data.group, rng) if both.size == 2 else None,
        groups=shift(data, data.group, rng, _people(data), draws),
        contexts=shift(data, data.context, rng, draws=draws),
        reward=None if rewards is None else _reward(data, np.asarray(rewards, float)),
    )


def unstated(card: AuditCard) -> list[str]:
    """The fields that still wait for a person."""
    return [name for name in Stated.__struct_fields__ if not getattr(card.stated, name).strip()]


def to_markdown(card: AuditCard) -> str:
    """The card as a document: every field of `REQUIRED` has its heading."""
    stated = [
        (title, getattr(card.stated, name).strip() or f"[to be stated by a person: {asked}]")
        for name, (title, asked) in _STATED.items()
    ]
    sections = [line for title, text in [*stated, *findings(card)] for line in (f"## {title}", text)]
    return "\n\n".join([f"# Audit card: {card.stated.name}", *sections]) + "\n"


def findings(card: AuditCard) -> list[tuple[str, str]]:
    """What was measured: a title and a sentence or two each."""
    scalar, triples = card.scalar, card.triples
    coin, one, all_ = (each / (card.votes - card.ties) for each in (scalar.coin, scalar.scalar, scalar.unrestricted))
    fits = f"log-likelihood of a vote: coin {coin:.4f}, one utility {one:.4f}, a probability for each pair {all_:.4f}"
    verdict = "is rejected" if scalar.p <= LEVEL else "is not rejected"
    return [
        (
            _MEASURED["votes"],
            f"{card.votes:,} votes, {card.ties:,} of them ties, on {card.pairs:,} pairs of {card.items:,} items, by "
            f"{card.annotators:,} annotators.",
        ),
        (_MEASURED["triples"], _of_triples(triples)),
        (
            _MEASURED["utility"],
            f"That one utility for each item explains the votes {verdict}: likelihood ratio {scalar.statistic:.1f}, "
            f"{scalar.expected:.1f} by chance (p = {scalar.p:.4f}; {scalar.freedom} degrees of freedom); {fits}.",
        ),
        (_MEASURED["agreement"], "; ".join(_agreements(card)) + "."),
        (_MEASURED["groups"], _of_shift(card.groups, "group of annotators")),
        (_MEASURED["contexts"], _of_shift(card.contexts, "context")),
        (_MEASURED["reward_fit"], _of_reward(card.reward)),
    ]


def to_json(card: AuditCard) -> str:
    """One JSON object; nan becomes null."""
    return msgspec.json.encode(card).decode()


def _of_triples(found: Triples) -> str:
    if not found.triples:
        return "No triple of items was compared in all three pairs: transitivity cannot be seen in these data."
    seen = f"{found.triples:,} triples; majorities go round in {found.counted:.1%}, noise and all"
    if found.high - found.low > WIDE:
        return (
            f"These votes cannot tell choices that go round from noise: the true share lies between {found.low:.1%} "
            f"and {found.high:.1%} ({seen})."
        )
    span = f"95 % interval {found.low:.1%} to {found.high:.1%}"
    return f"{found.rate:.1%} of triples are truly intransitive ({span}; {seen})."


def _agreements(card: AuditCard) -> list[str]:
    named = [("Krippendorff's alpha", card.agreement)]
    named += [(f"within group {i + 1}", each) for i, each in enumerate(card.within)]
    named += [("Cohen's kappa between the two groups", card.kappa)] if card.kappa is not None else []
    return [
        f"{name} {each.value:.3f} ({each.low:.3f} to {each.high:.3f}, {each.pairs:,} pairs)"
        if each.pairs
        else f"{name}: no pair was judged twice"
        for name, each in named
    ]


def _of_shift(found: Shift, kind: str) -> str:
    if not found.pairs:
        return f"No pair was judged twice in each of two kinds of {kind}: whether choices depend on it cannot be seen."
    verdict = "depend" if found.p <= LEVEL else "are not seen to depend"
    return (
        f"Choices {verdict} on the {kind}: it moves the probability of a choice by {found.value:.3f} "
        f"(root mean square over {found.pairs:,} pairs, noise taken out; p = {found.p:.4f})."
    )


def _of_reward(found: RewardFit | None) -> str:
    if found is None:
        return "No reward model was given."
    slope = "no finite slope" if found.slope is None else f"slope {found.slope:.2f}, 1 if calibrated"
    return (
        f"It predicts {found.accuracy:.1%} of votes (standard error {found.error:.1%}); log-likelihood of a vote "
        f"{found.log_likelihood:.4f}; {slope}."
    )


def _reward(data: Comparisons, rewards: np.ndarray) -> RewardFit:
    if rewards.shape != data.items.shape or not np.isfinite(rewards).all():
        raise ValueError(f"rewards must be {len(data.items)} finite numbers, one for each item")
    decided = data.vote != 0
    apart = (rewards[data.first] - rewards[data.second])[decided] * data.vote[decided]
    right = np.where(apart == 0, 0.5, apart > 0)
    pairs = (data.first * len(data.items) + data.second)[decided]
    sums = np.bincount(np.unique(pairs, return_inverse=True)[1], right - right.mean())
    finite = apart.min() < 0 < apart.max()
    slope = float(logit(apart[:, None], np.ones(apart.size)).theta[0]) if finite else None
    error = float(np.sqrt((sums**2).sum()) / right.size)
    return RewardFit(float(right.mean()), error, -float(np.logaddexp(0, -apart).mean()), slope)


def _people(data: Comparisons) -> np.ndarray | None:
    """Annotators, where several are known and each belongs to one group: they then change groups as a whole."""
    memberships = np.unique(np.stack([data.annotator, data.group]), axis=1).shape[1]
    known = np.unique(data.annotator).size
    return data.annotator if known > 1 and memberships == known else None


def _only(data: Comparisons, chosen: np.ndarray) -> Comparisons:
    labels = {name: getattr(data, name)[chosen] for name in ("annotator", "group", "context")}
    return data._replace(first=data.first[chosen], second=data.second[chosen], vote=data.vote[chosen], **labels)
