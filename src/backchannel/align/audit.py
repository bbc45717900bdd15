"""The audit of preference data: what they can be trusted for, before a model is tuned on them.

Each finding is a count or a share with a 95 % interval. Intervals of shares of votes are Wilson's, with as many votes
as the prompts are worth: votes on one prompt hang together, so that with v votes and the variance of prompt sums in
place of the binomial's, the effective number is n = p (1 - p) v^2 / sum_prompts (sum of (vote - p))^2, at most v.

Length: of votes on answers of different length, how often the longer one was chosen; and the logistic model

    P(first preferred) = sigmoid(b log2(length of first / length of second) [+ c gap of ratings])

with and without length, both directions of a pair alike: b is what doubling the length adds to the log-odds, and
explained = 1 - log-likelihood with / log-likelihood without. Where ratings are known, b is what length adds beside
them. Transitivity, utility and agreement are those of the audit card (`preference/audit_card.py`), of choices alone:
the pairs of one ranking are one judgement, and cannot go round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import msgspec
import numpy as np

from backchannel.align.gathered import Gathered
from backchannel.align.near import near_pairs, plain
from backchannel.parts.comparisons import Comparisons, comparisons
from backchannel.parts.logit import logit
from backchannel.preference.audit_card import AuditCard, Stated, audit_card
from backchannel.preference.ratings_vs_rankings import ratings_vs_rankings, wilson

EDGES = (-np.inf, -2.0, -1.0, -0.5, -0.15, 0.15, 0.5, 1.0, 2.0, np.inf)  # of log2(length of first / of second)
RIDGE = 1e-6  # keeps coefficients finite where length decides everything
Tell = Callable[[str, float], None]


class Share(msgspec.Struct):
    """A share of `count`, with its 95 % interval; None where there is nothing to take a share of."""

    value: float | None
    low: float | None
    high: float | None
    count: int


class Bin(msgspec.Struct):
    """Votes on pairs whose lengths differ by 2^low to 2^high: how often the first answer was chosen."""

    low: float | None
    high: float | None
    chosen: Share


class Length(msgspec.Struct):
    """What length does to choices."""

    longer: Share  # of votes on answers of different length
    ratio: float | None  # median length of preferred answers by that of the others
    effect: float | None  # b, and its standard error
    error: float | None
    explained: float | None
    beside: float | None  # b where the gap of ratings is known, and stands beside it
    beside_error: float | None
    bins: list[Bin]


class Duplicates(msgspec.Struct):
    """The same vote more than once, and texts that nearly repeat."""

    votes: int  # that repeat an earlier one: same prompt, answers, preference and annotator
    prompts: int  # that are nearly another one
    answers: int  # pairs of nearly the same answers that were compared
    examples: list[tuple[str, str]]  # of prompts


class Conflicts(msgspec.Struct):
    """Pairs that were judged both ways."""

    pairs: Share  # of pairs judged twice or more
    own: Share  # of pairs judged twice or more by one annotator: by whom it was judged both ways


class Leakage(msgspec.Struct):
    """What is also in another file."""

    name: str
    prompts: Share  # that are there, too
    near: int  # that are there nearly
    pairs: Share  # of pairs of answers
    examples: list[str]


class Ratings(msgspec.Struct):
    """Ratings beside choices of the same pairs."""

    contradict: Share
    reversed: float | None


class Audited(msgspec.Struct):
    """Everything that was found."""

    name: str
    kinds: dict[str, int]
    bad: dict[str, int]  # rows, by what is wrong with them
    first_bad: dict[str, str]
    prompts: int
    answers: int
    votes: int
    ties: int
    duplicates: Duplicates
    conflicts: Conflicts
    length: Length
    position: Share  # of votes with a known order: for the answer shown first
    ratings: Ratings
    card: AuditCard | None
    leakage: Leakage | None = None
    command: str = ""
    version: str = ""
    seconds: float = 0.0


def audit(
    found: Gathered, other: Gathered | None = None, draws: int = 999, seed: int = 0, tell: Tell | None = None
) -> Audited:
    """Audit one source, against another where one is given."""
    say = tell or (lambda what, share: None)
    votes = [found.first, found.second, found.vote, found.annotator, found.group, found.context]
    data = comparisons(*votes)
    say("reading texts", 0.2)
    duplicates = _duplicates(found)
    say("agreement, transitivity, utility", 0.5)
    chosen = ~np.array(found.from_ranking, bool)
    choices = comparisons(*(np.array(each)[chosen] for each in votes))
    card = audit_card(choices, Stated(found.name), draws=draws, seed=seed) if (choices.vote != 0).any() else None
    say("length and leakage", 0.9)
    return Audited(
        name=found.name,
        kinds=dict(found.kinds),
        bad=dict(found.bad.kinds),
        first_bad=found.bad.firsts,
        prompts=len(found.prompts),
        answers=len(found.texts),
        votes=len(found.vote),
        ties=found.vote.count(0),
        duplicates=duplicates,
        conflicts=_conflicts(found, data),
        length=_length(found),
        position=_position(found),
        ratings=_ratings(found),
        card=card,
        leakage=None if other is None else _leakage(found, other),
    )


def share(hits: np.ndarray, prompts: np.ndarray | None = None) -> Share:
    """Of votes: the mean of `hits` in [0, 1], its interval as above."""
    hits = np.asarray(hits, float)
    if not hits.size:
        return Share(None, None, None, 0)
    value, worth = float(hits.mean()), float(hits.size)
    if prompts is not None:
        sums = np.bincount(np.unique(prompts, return_inverse=True)[1], hits - value)
        spread = float((sums**2).sum())
        worth = min(worth, value * (1 - value) * worth**2 / spread) if spread > 0 else float(np.unique(prompts).size)
    low, high = wilson(value, max(worth, 1.0))
    return Share(value, low, high, hits.size)


def _duplicates(found: Gathered) -> Duplicates:
    votes = Counter(zip(found.first, found.second, found.vote, found.annotator, strict=True))
    prompts = list(found.prompts)
    near = near_pairs(prompts)
    pairs = set(zip(found.first, found.second, strict=True))
    alike = sum(plain(found.texts[a]) == plain(found.texts[b]) for a, b in pairs)
    shown = [(prompts[a], prompts[b]) for a, b in near[:5]]
    return Duplicates(sum(n - 1 for n in votes.values()), len({b for _, b in near}), alike, shown)


def _conflicts(found: Gathered, data: Comparisons) -> Conflicts:
    both: list[Share] = []
    for keys in (zip(data.first, data.second), zip(data.first, data.second, data.annotator)):  # noqa: B905
        said: dict[tuple[int, ...], list[int]] = {}
        for key, vote in zip(keys, data.vote, strict=True):
            if vote:
                said.setdefault(tuple(map(int, key)), []).append(int(vote))
        again = {key: votes for key, votes in said.items() if len(votes) > 1}
        prompts = np.array([found.prompt_of[int(data.items[key[0]])] for key in again], np.int64)
        both.append(share(np.array([len(set(votes)) > 1 for votes in again.values()]), prompts))
    return Conflicts(both[0], both[1] if any(found.annotator) else Share(None, None, None, 0))


def _length(found: Gathered) -> Length:
    size = np.log2([max(len(text), 1) for text in found.texts]) if found.texts else np.empty(0)
    first, second, vote = (np.array(each, np.int64) for each in (found.first, found.second, found.vote))
    decided = vote != 0
    apart, vote = (size[first] - size[second])[decided], vote[decided]
    prompts = np.array(found.prompt_of, np.int64)[first[decided]]
    uneven = apart != 0
    longer = share((np.sign(apart) == vote)[uneven], prompts[uneven])
    empty = Length(longer, None, None, None, None, None, None, [])
    if not uneven.any():
        return empty
    effect, error, explained = _effect(apart[:, None], vote, prompts)
    gap = found.gaps()[decided]
    known = np.isfinite(gap)
    beside: tuple[float | None, float | None] = (None, None)
    if known.sum() >= 20 and np.ptp(gap[known]) > 0:
        scale = float(gap[known].std())
        beside = _effect(np.stack([apart[known], gap[known] / scale], 1), vote[known], prompts[known])[:2]
    # Both directions of each pair: how often the first is chosen, by how much longer it is.
    ahead, won = np.concatenate([apart, -apart]), np.concatenate([vote > 0, vote < 0])
    twice = np.concatenate([prompts, prompts])
    bins = []
    for low, high in pairwise(EDGES):
        inside = (ahead > low) & (ahead <= high) if low >= 0 else (ahead >= low) & (ahead < high)
        if low < 0 < high:
            inside = (ahead >= low) & (ahead <= high)
        ends = [None if np.isinf(end) else float(end) for end in (low, high)]
        bins.append(Bin(ends[0], ends[1], share(won[inside], twice[inside])))
    return Length(longer, float(2 ** np.median(vote * apart)), effect, error, explained, *beside, bins)


def _effect(x: np.ndarray, vote: np.ndarray, prompts: np.ndarray) -> tuple[float, float, float]:
    """The coefficient of the first column, its error, and what share of the log-likelihood all columns explain."""
    fitted = logit(x, vote > 0, prompts, ridge=RIDGE)
    return float(fitted.theta[0]), float(fitted.error[0]), 1 + fitted.log_likelihood / float(np.log(2))


def _position(found: Gathered) -> Share:
    vote, shown = np.array(found.vote), np.array(found.shown)
    known = (vote != 0) & (shown != 0)
    prompts = np.array(found.prompt_of, np.int64)[np.array(found.first, np.int64)]
    return share((vote == shown)[known], prompts[known])


def _ratings(found: Gathered) -> Ratings:
    gap, chosen = found.gaps(), ~np.array(found.from_ranking, bool)
    known = np.isfinite(gap) & chosen
    if not known.any():
        return Ratings(Share(None, None, None, 0), None)
    vote = np.array(found.vote)[known]
    told = ratings_vs_rankings(gap[known], np.zeros(vote.size), vote)
    prompts = np.array(found.prompt_of, np.int64)[np.array(found.first, np.int64)[known]]
    return Ratings(share(np.sign(gap[known]) != vote, prompts), told.reversed)


def _leakage(found: Gathered, other: Gathered) -> Leakage:
    there = {plain(prompt) for prompt in other.prompts}
    own = list(found.prompts)
    hit = np.array([plain(prompt) in there for prompt in own])
    left = [prompt for prompt, known in zip(own, hit, strict=True) if not known]
    near = {a for a, b in near_pairs([*left, *other.prompts]) if a < len(left) <= b}
    pairs = [_pairs(each) for each in (found, other)]
    return Leakage(
        other.name,
        share(hit),
        len(near),
        share(np.array([pair in pairs[1] for pair in sorted(pairs[0])])),
        [prompt for prompt, known in zip(own, hit, strict=True) if known][:5],
    )


def _pairs(found: Gathered) -> set[tuple[str, str]]:
    """Pairs of answers that were compared, whichever was chosen."""
    texts = [(plain(found.texts[a]), plain(found.texts[b])) for a, b in zip(found.first, found.second, strict=True)]
    return {(min(pair), max(pair)) for pair in texts}
