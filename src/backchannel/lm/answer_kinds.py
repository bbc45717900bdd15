"""From one kind of record to another: rankings and ratings to pairs, pairs to answers that are good or bad, and so on.

What a kind cannot hold is counted by name in `left`, so that nothing goes in silence: a tie is no pair, and a ranking
without scores does not say which of its answers are good. Nor does a score alone: demonstrations are the answers whose
scores are the highest of what one annotator rated, where another one to the same prompt is scored lower; in one
ranking or in single ratings alike.

- Pairs of a ranking are all its ordered pairs; k answers give k (k - 1) / 2 of them, so that long rankings weigh more.
- Ratings make rankings, and pairs, where one annotator rated several answers to the same prompt; scores of two people
  are never compared. An answer rated twice by one annotator counts with its last rating.
  Ids and rationales of single ratings stay behind, and of `meta` what differs.
- A pair becomes two answers, the chosen good and the rejected bad; the other way round where its strength is below 1/2.

    >>> from collections import Counter
    >>> from backchannel.lm.answers import Ranked, Rated
    >>> left = Counter()
    >>> ratings = [Rated("2 + 2 =", " 4", score=5), Rated("2 + 2 =", " 5", score=1), Rated("2 + 2 =", " 3", score=1)]
    >>> [(pair.chosen, pair.rejected, pair.gap) for pair in converted(ratings, "pairs", left)]
    [(' 4', ' 5', 4), (' 4', ' 3', 4)]
    >>> dict(left)
    {'ties': 1}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from backchannel.lm.answers import Preference, Ranked, Rated, Record, Text, content

Target = Literal["pairs", "singles", "rankings", "demonstrations"]
Groups = dict[object, dict[str, Rated]]
"""Ratings by prompt and annotator, and of these by answer."""


def left_out(left: Mapping[Any, int]) -> list[str]:
    """What `left` counts, a sentence each."""
    return [f"left out: {name} ({count:,})" for name, count in left.items() if count]


def converted(records: Iterable[Record], kind: Target, left: Counter[str]) -> Iterator[Record]:
    """The records as one kind; `left` counts what was left out, by why.

    Records that need no other stream through; ratings that are compared with each other are held until all are read.
    """
    return _TO[kind](records, left)


def _pairs(records: Iterable[Record], left: Counter[str]) -> Iterator[Record]:
    for record in _grouped(records, left, alone="ratings without another of the same prompt and annotator"):
        if isinstance(record, Preference):
            yield record
        elif isinstance(record, Ranked):
            yield from _pairs_of(record, left)


def _pairs_of(ranked: Ranked, left: Counter[str]) -> Iterator[Preference]:
    scores = ranked.scores
    for i, better in enumerate(ranked.answers):
        for j in range(i + 1, len(ranked.answers)):
            gap = None if scores is None else scores[i] - scores[j]
            if gap == 0:
                left["ties"] += 1
                continue
            yield Preference(
                ranked.prompt,
                better,
                ranked.answers[j],
                gap=gap,
                rationale=ranked.rationale,
                annotator=ranked.annotator,
                id=None if ranked.id is None else f"{ranked.id}/{i + 1}-{j + 1}",
                continues=ranked.continues,
                meta=ranked.meta,
            )


def _rankings(records: Iterable[Record], left: Counter[str]) -> Iterator[Record]:
    for record in _grouped(records, left, alone="ratings without another of the same prompt and annotator"):
        if isinstance(record, Ranked):
            yield record
        elif isinstance(record, Preference) and record.tie:
            left["ties"] += 1
        elif isinstance(record, Preference):
            _drop(record, left, "strength", "gap")
            answers = [record.chosen, record.rejected]
            if record.strength is not None and record.strength < 0.5:
                answers.reverse()
            yield Ranked(record.prompt, answers, **_shared(record))


def _singles(records: Iterable[Record], left: Counter[str]) -> Iterator[Record]:
    for record in records:
        if isinstance(record, Rated):
            yield record
        elif isinstance(record, Ranked):
            if record.scores is None:
                left["rankings without scores"] += 1
                continue
            for place, (answer, score) in enumerate(zip(record.answers, record.scores, strict=True)):
                yield Rated(record.prompt, answer, score=score, **_shared(record, f"{place + 1}"))
        elif record.tie:
            left["ties"] += 1
        else:
            _drop(record, left, "strength", "gap")
            first = record.strength is None or record.strength > 0.5
            yield Rated(record.prompt, record.chosen, good=first, **_shared(record, "chosen"))
            yield Rated(record.prompt, record.rejected, good=not first, **_shared(record, "rejected"))


def _demonstrations(records: Iterable[Record], left: Counter[str]) -> Iterator[Record]:
    """The best answer of each record, then the best-scored ones of each prompt; of other ratings those not bad."""
    scored: Groups = {}
    for record in records:
        if isinstance(record, Ranked):
            yield from _best_of(record, left)
            continue
        if isinstance(record, Rated):
            if record.good is False:
                left["answers that are bad"] += 1
                continue
            if record.good is None and record.score is not None:
                _put(record, scored, left)
                continue
            best = record.answer
        elif record.tie:
            left["ties"] += 1
            continue
        else:
            best = record.rejected if record.strength is not None and record.strength < 0.5 else record.chosen
        yield Rated(record.prompt, best, **_shared(record))
    for rated in scored.values():
        most, least = (end(map(_value, rated.values())) for end in (max, min))
        for each in rated.values():
            if most == least:
                left["scored answers without a lower score beside them"] += 1
            elif _value(each) < most:
                left["answers scored below the best of their prompt"] += 1
            else:
                yield Rated(each.prompt, each.answer, **_shared(each))


def _best_of(ranked: Ranked, left: Counter[str]) -> Iterator[Record]:
    """The first of an order; of scores the highest, all that have it, if there is a lower one."""
    best = 1 if ranked.scores is None else ranked.scores.count(ranked.scores[0])
    if best == len(ranked.answers):
        left["scored answers without a lower score beside them"] += best
        return
    if ranked.scores is not None:
        left["answers scored below the best of their prompt"] += len(ranked.answers) - best
    for place, answer in enumerate(ranked.answers[:best]):
        yield Rated(ranked.prompt, answer, **_shared(ranked, f"{place + 1}" if best > 1 else ""))


_TO: dict[Target, Callable[[Iterable[Record], Counter[str]], Iterator[Record]]] = {
    "pairs": _pairs,
    "singles": _singles,
    "rankings": _rankings,
    "demonstrations": _demonstrations,
}
TARGETS: tuple[Target, ...] = tuple(_TO)


def _shared(record: Record, place: str = "") -> dict[str, Any]:
    """What a record made of another one takes over; its id with the `place` behind it."""
    id = record.id if record.id is None or not place else f"{record.id}/{place}"
    names = ("rationale", "annotator", "continues", "meta")
    return {"id": id} | {name: getattr(record, name) for name in names}


def _drop(record: Record, left: Counter[str], *names: str) -> None:
    """Count what the new record cannot hold of the old one."""
    for name in names:
        if getattr(record, name) is not None:
            left[f"{name}s"] += 1


def _grouped(records: Iterable[Record], left: Counter[str], alone: str) -> Iterator[Record]:
    """Ratings of one prompt by one annotator as a ranking, behind all other records, which pass."""
    groups: Groups = {}
    for record in records:
        if not isinstance(record, Rated):
            yield record
        elif record.good is None and record.score is None:
            left["demonstrations"] += 1
        else:
            _put(record, groups, left)
    for rated in groups.values():
        if len(rated) < 2:
            left[alone] += 1
            continue
        best = sorted(rated.values(), key=_value, reverse=True)
        answers = [each.answer for each in best]
        if best[0].score is not None:
            more: dict[str, Any] = {name: getattr(best[0], name) for name in ("annotator", "continues")}
            yield Ranked(best[0].prompt, answers, [_value(each) for each in best], meta=_common(best), **more)
        else:
            yield from _good_and_bad(best, left)


def _put(record: Rated, groups: Groups, left: Counter[str]) -> None:
    """A rating among those of the same prompt and annotator; of an answer the last one counts."""
    key = (_key(record.prompt), record.annotator, record.continues, record.score is None)
    rated = groups.setdefault(key, {})
    if content(record.answer) in rated:
        left["ratings of an answer rated again"] += 1
    rated[content(record.answer)] = record


def _good_and_bad(rated: list[Rated], left: Counter[str]) -> Iterator[Preference]:
    """Each good answer against each bad one."""
    good, bad = ([each for each in rated if each.good is said] for said in (True, False))
    if ties := (len(good) * (len(good) - 1) + len(bad) * (len(bad) - 1)) // 2:
        left["ties"] += ties
    for better in good:
        for worse in bad:
            more: dict[str, Any] = {name: getattr(better, name) for name in ("annotator", "continues")}
            yield Preference(better.prompt, better.answer, worse.answer, meta=_common([better, worse]), **more)


def _common(rated: list[Rated]) -> dict[str, Any]:
    """What is known alike of all of them."""
    first, *others = (each.meta for each in rated)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _value(rated: Rated) -> float:
    return float(bool(rated.good)) if rated.score is None else rated.score


def _key(prompt: Text) -> object:
    return prompt if isinstance(prompt, str) else tuple(prompt)
