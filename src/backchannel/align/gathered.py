"""Answers and what was said of them, gathered from records for an audit: prompts and answers numbered, votes as lists.

Rankings give all their pairs. A preference of strength 1/2 is a tie, one below it is for the other answer. What ratings
say of a pair is its gap, the scores beside it, or else the mean ratings of its two answers where both were rated.
Bad rows are counted by what is wrong with them instead of stopping the audit.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backchannel.align.read import Reading
from backchannel.ledger.problems import LogError, Problems
from backchannel.lm.answers import Preference, Ranked, Rated, Record, Text, content

EMPTY, SAME = "an answer that is empty", "answers that are the same"
_KNOWN = {EMPTY: re.compile(r" is empty$"), SAME: re.compile(r"are the same: ")}


class Bad(Problems):
    """Bad rows by their kind, with the first of each."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: Counter[str] = Counter()
        self.firsts: dict[str, str] = {}

    def add(self, sentence: str) -> None:
        """Count it."""
        kind = next((kind for kind, found in _KNOWN.items() if found.search(sentence)), "a row that cannot be read")
        self.count += 1
        self.kinds[kind] += 1
        self.firsts.setdefault(kind, sentence)


@dataclass
class Gathered:
    """Votes and ratings of one source; items are answers to a prompt, numbered as they come."""

    name: str
    kinds: Counter[str] = field(default_factory=Counter)
    prompts: dict[str, int] = field(default_factory=dict)
    items: dict[tuple[int, str], int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)  # of items
    prompt_of: list[int] = field(default_factory=list)  # of items
    rated: dict[int, list[float]] = field(default_factory=dict)  # of items
    first: list[int] = field(default_factory=list)  # of votes: the answer named first: chosen, or higher in a ranking
    second: list[int] = field(default_factory=list)
    vote: list[int] = field(default_factory=list)
    annotator: list[str] = field(default_factory=list)
    group: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)  # 1: the first was shown first; -1: the second; 0: not known
    gap: list[float] = field(default_factory=list)  # of ratings, first less second; nan where not known
    from_ranking: list[bool] = field(default_factory=list)
    bad: Bad = field(default_factory=Bad)

    def gaps(self) -> np.ndarray:
        """What ratings say of each vote's pair: float64[votes], nan where they say nothing."""
        means = {item: float(np.mean(values)) for item, values in self.rated.items()}
        return np.array(
            [
                gap if gap == gap else means.get(a, np.nan) - means.get(b, np.nan)
                for gap, a, b in zip(self.gap, self.first, self.second, strict=True)
            ],
            float,
        )


def gather(reading: Reading, name: str, group: str | None, context: str | None, shown: str | None) -> Gathered:
    """All of a source; `group`, `context` and `shown` name columns that say these of each row."""
    found = Gathered(name)
    seen: Counter[str] = Counter()
    said: list[str] = []
    for record in reading.records(found.bad, {}, said):
        found.kinds[type(record).__name__] += 1
        for column in (group, context, shown):
            if column is not None and _label(record, column):
                seen[column] += 1
        _take(found, record, group, context, shown)
    if not found.kinds and not found.bad.count:
        raise LogError(f"{name} holds no record")
    for column in (group, context, shown):
        if column is not None and not seen[column]:
            raise LogError(f"no row of {name} has a column {column!r}")
    return found


def _take(found: Gathered, record: Record, group: str | None, context: str | None, shown: str | None) -> None:
    prompt = found.prompts.setdefault(_text(record.prompt), len(found.prompts))
    labels = (record.annotator or "", _label(record, group), _label(record, context))
    if isinstance(record, Rated):
        item, value = _item(found, prompt, record.answer), record.score
        if value is None and record.good is not None:
            value = float(record.good)
        if value is not None:
            found.rated.setdefault(item, []).append(value)
    elif isinstance(record, Preference):
        a, b = _item(found, prompt, record.chosen), _item(found, prompt, record.rejected)
        strength = 1.0 if record.strength is None else record.strength
        order = {"chosen": 1, "rejected": -1}.get(_label(record, shown), 0)
        _vote(found, a, b, int(np.sign(strength - 0.5)), labels, order, record.gap, ranking=False)
    elif isinstance(record, Ranked):
        items = [_item(found, prompt, answer) for answer in record.answers]
        scores = record.scores or [float(-place) for place in range(len(items))]
        for i in range(len(items)):
            for j in range(i + 1, len(items)):
                _vote(found, items[i], items[j], int(scores[i] > scores[j]), labels, 0, None, ranking=True)


def _label(record: Record, column: str | None) -> str:
    if column is None:
        return ""
    return str(record.annotator or "" if column == "annotator" else record.meta.get(column, ""))


def _vote(
    found: Gathered,
    a: int,
    b: int,
    vote: int,
    labels: tuple[str, str, str],
    order: int,
    gap: float | None,
    ranking: bool,
) -> None:
    found.first.append(a)
    found.second.append(b)
    found.vote.append(vote)
    for into, label in zip((found.annotator, found.group, found.context), labels, strict=True):
        into.append(label)
    found.shown.append(order)
    found.gap.append(np.nan if gap is None else gap)
    found.from_ranking.append(ranking)


def _item(found: Gathered, prompt: int, answer: Text) -> int:
    text = content(answer)
    number = found.items.setdefault((prompt, text), len(found.items))
    if number == len(found.texts):
        found.texts.append(text)
        found.prompt_of.append(prompt)
    return number


def _text(prompt: Any) -> str:
    """A prompt as one text; a conversation with its roles."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{each.role}: {each.content}" for each in prompt)
