"""Reward-augmented DPO: answers with scores teach what to say for each score, and the best is asked for.

A direct loss sees that one answer was preferred, not how good either was. It unlearns a rejected answer that was nearly
as good, and learns a chosen one that was merely less bad. Where both answers have a score, every pair can be read
twice: whoever is asked for an answer of the score that the chosen one had, should give that one, and whoever is asked
for the score that the rejected one had, the other. The loss stays as it is; after training, the highest score is asked
for.

Equations (Zhang et al. 2025; the numbers are ours). An answer y of score r(x, y) is worth, to one who was asked for g,

    R(x, y, g) = -(g - r(x, y))^2                                                                                    (1)

Of a pair (x, y1, y2) and each goal g in {r(x, y1), r(x, y2)}, the answer whose score g is has R = 0, and is preferred:

    (x, y1, y2)  ->  (x + g = r(x, y1):  y1 over y2),  (x + g = r(x, y2):  y2 over y1)                               (2)

each with the gap (r(x, y1) - r(x, y2))^2. Only scores are read: which answer was called the better one adds nothing.
Two answers of the same score are equally good for every goal, and are left out.

Steps: `reward_augmented_dpo(records)` gives the records of (2), with the goal written into the prompt, for `tune` or
for `backchannel align --method dpo` (or any other loss); `asked_for` writes the goal, in training and when the tuned
model is asked. `relabelled` is (2) on arrays of scores. Rankings with scores give all of their pairs. Hold prompts out
before this: of a prompt whose two goals fall on both sides, training has seen the answers.

Deviations: scores of several attributes, which the paper also writes into prompts, need a `write` of one's own; and
the wording of the goal is ours.

    >>> from backchannel.lm.answers import Preference
    >>> pair = Preference("Why is the sky blue?", "Air scatters blue light.", "It is night.",
    ...                   meta={"score_chosen": 9, "score_rejected": 2})
    >>> for each in reward_augmented_dpo([pair]):
    ...     print(repr(each.prompt), each.chosen, each.gap)
    'Give an answer that is rated 9.\\n\\nWhy is the sky blue?' Air scatters blue light. 49.0
    'Give an answer that is rated 2.\\n\\nWhy is the sky blue?' It is night. 49.0

References: zhang2025reward, rafailov2023direct, dong2023steerlm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

import msgspec
import numpy as np

from backchannel.card import Card
from backchannel.lm.answers import Preference, Ranked, Rated, Text
from backchannel.lm.protocol import system

CARD = Card(
    name="Reward-augmented DPO",
    summary="Scored pairs as pairs for a goal: asked for either score, that answer is preferred; ask for the best.",
    paper="zhang2025reward",
    row=131,
    topics=("preference optimisation",),
    feedback=("comparison", "rating"),
    protocol="artefact",
    engine="none",
    neighbour="dpo",
    example={"records": [Preference("2 + 2 =", " 4", " 5", meta={"score_chosen": 9, "score_rejected": 2})]},
)

Write = Callable[[Text, float], Text]
"""(prompt, goal) -> the prompt that asks for an answer of this score."""


class Relabelled(NamedTuple):
    """Goal-conditioned pairs, two for each pair of different scores; arrays are [m]."""

    row: np.ndarray  # int64: of which pair
    goal: np.ndarray  # float64: the score that is asked for
    swap: np.ndarray  # bool: the second answer is preferred
    gap: np.ndarray  # float64: by how much, in (1)


def relabelled(first: np.ndarray, second: np.ndarray) -> Relabelled:
    """(2) of n pairs with these scores, float[n] each."""
    scores = np.stack([np.asarray(first, float), np.asarray(second, float)], 1)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be finite numbers [n], and are of shape {list(scores.shape[:1] + scores.shape[2:])}"
        )
    goal = scores.reshape(-1)  # of each pair its first score, then its second
    row, swap = np.repeat(np.arange(len(scores)), 2), np.tile([False, True], len(scores))
    worth = -((goal[:, None] - scores[row]) ** 2)  # (1), of both answers
    gap = np.where(swap, worth[:, 1] - worth[:, 0], worth[:, 0] - worth[:, 1])
    told = gap > 0
    return Relabelled(row[told], goal[told], swap[told], gap[told])


def asked_for(prompt: Text, goal: float) -> Text:
    """The prompt with the goal: before a plain text, or at the end of a conversation's system message."""
    said = f"Give an answer that is rated {goal:g}."
    if isinstance(prompt, str):
        return f"{said}\n\n{prompt}"
    if prompt[0].role == "system":
        return [system(f"{prompt[0].content}\n\n{said}"), *prompt[1:]]
    return [system(said), *prompt]


def reward_augmented_dpo(
    records: Iterable[Preference | Ranked | Rated],
    write: Write = asked_for,
    scores: tuple[str, str] = ("score_chosen", "score_rejected"),
) -> list[Preference]:
    """Pairs for a goal, two of each pair of answers with different scores.

    Args:
        records: pairs whose scores are in `meta`, as `align.read` puts them there, or rankings with scores.
        write: puts a goal into a prompt.
        scores: names of the scores of the chosen and the rejected answer in a pair's `meta`.

    Returns:
        pairs with the gap of (1), the goal as `meta["goal"]`, and a number behind their id.
    """
    pairs = [pair for number, record in enumerate(records, 1) for pair in _pairs(record, number, scores)]
    first, second = (np.array([pair.meta[name] for pair in pairs], float) for name in scores)
    found = []
    for row, goal, swap, gap in zip(*(each.tolist() for each in relabelled(first, second)), strict=True):
        pair = pairs[row]
        better, worse = (pair.rejected, pair.chosen) if swap else (pair.chosen, pair.rejected)
        told = (pair.meta[name] for name in (scores[::-1] if swap else scores))
        meta = pair.meta | dict(zip(scores, told, strict=True)) | {"goal": goal}
        id = None if pair.id is None else f"{pair.id}/{1 + swap}"
        more = {"chosen": better, "rejected": worse, "gap": gap, "strength": None, "id": id, "meta": meta}
        found.append(msgspec.structs.replace(pair, prompt=write(pair.prompt, goal), **more))
    return found


def _pairs(record: Preference | Ranked | Rated, number: int, names: tuple[str, str]) -> Iterator[Preference]:
    """A pair as it is, or each pair of a ranking, with its scores in `meta`."""
    if isinstance(record, Preference):
        for name in names:
            if not isinstance(record.meta.get(name), int | float):
                raise ValueError(
                    f"record {number} must have the number {name!r} in meta, not {record.meta.get(name)!r}"
                )
        yield record
    elif isinstance(record, Ranked) and record.scores is not None:
        more = {name: getattr(record, name) for name in ("rationale", "annotator", "continues")}
        for i, j in combinations(range(len(record.answers)), 2):
            meta = record.meta | {names[0]: record.scores[i], names[1]: record.scores[j]}
            id = None if record.id is None else f"{record.id}/{i + 1}-{j + 1}"
            yield Preference(record.prompt, record.answers[i], record.answers[j], id=id, meta=meta, **more)
    else:
        raise ValueError(f"record {number} must be a pair or a ranking with scores, not {type(record).__name__}")
