"""Examples: records in tokens with what was said of them, and the batches that objectives read.

An objective says which kind of batch it reads; records of another kind are converted where nothing is made up
(`lm/answer_kinds.py`), and what is left out is counted. Facts that an objective may ask for (strength, gap, score ...)
must be known of all records or of none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backchannel.align.tokens import Encoder
from backchannel.lm.answer_kinds import Target, converted
from backchannel.lm.answers import Preference, Ranked, Rated, Record
from backchannel.parts.objectives import Objective, Pairs, Rankings, Scores, Singles

KINDS: dict[type[Any], Target] = {Pairs: "pairs", Singles: "singles", Rankings: "rankings", Scores: "pairs"}


class Example(NamedTuple):
    """A record, ready."""

    record: Record
    prompt: list[int]
    answers: list[list[int]]
    facts: dict[str, float | bool | list[float]]
    before: tuple[float, ...] = ()  # log-probabilities of the answers under the reference, once they are known

    @property
    def size(self) -> int:
        """Tokens, where the prompt is read once."""
        return len(self.prompt) + sum(map(len, self.answers))


def examples(
    records: Iterable[Record], encoder: Encoder, reads: type[Any], skip_bad_rows: int = 0
) -> tuple[list[Example], list[str]]:
    """All records as what an objective over `reads` is trained on, and what a user should know of the way there.

    Raises:
        ValueError: if nothing is left, if facts are known of some records alone, or rankings differ in length.
    """
    if reads not in KINDS:
        raise ValueError(
            f"an objective over {reads.__name__} cannot learn from records: it needs answers as it draws them"
        )
    left: Counter[str] = Counter()
    found = [
        Example(record, encoded.prompt, encoded.answers, _facts(record))
        for record, encoded in encoder.each(converted(records, KINDS[reads], left), skip_bad_rows)
    ]
    if not found:
        raise ValueError(
            f"no record can be used as {KINDS[reads]}" + "".join(f"; left out: {n} {why}" for why, n in left.items())
        )
    for name in ("strength", "gap", "good", "score"):
        have = sum(name in each.facts for each in found)
        if 0 < have < len(found):
            raise ValueError(f"{have:,} of {len(found):,} records say their {name}: either all must, or none")
    sizes = {len(each.answers) for each in found}
    if len(sizes) > 1:
        raise ValueError(
            f"rankings must all have the same number of answers; there are some of {min(sizes)} and of {max(sizes)}"
        )
    return found, [f"{count:,} {why} were left out" for why, count in left.items()] + encoder.report.sentences()


def batch(objective: Objective[Any], some: Sequence[Example], now: Tensor, before: Tensor | None = None) -> Any:
    """What `objective` reads.

    Args:
        objective: says the kind.
        some: n examples with k answers each.
        now: log-probabilities of all their answers in order, [n k]; of a reward model its scores.
        before: those under the reference; None: as the examples know them, or zeros where they are not needed.
    """
    n = len(some)
    now = now.reshape(n, -1)
    if before is None and objective.reference and objective.reads is not Scores:
        before = torch.tensor([each.before for each in some], dtype=now.dtype, device=now.device)
    then = torch.zeros_like(now) if before is None else before.reshape(n, -1)
    length = torch.tensor([[len(answer) for answer in each.answers] for each in some], device=now.device)

    def fact(name: str) -> Tensor | None:
        if name not in some[0].facts:
            return None
        values = torch.tensor([each.facts[name] for each in some], device=now.device)
        return values if values.dtype == torch.bool else values.to(now.dtype)

    if objective.reads is Pairs:
        logs = now[:, 0], now[:, 1], then[:, 0], then[:, 1]
        return Pairs(*logs, length[:, 0], length[:, 1], fact("strength"), fact("gap"))
    if objective.reads is Singles:
        return Singles(now[:, 0], then[:, 0], length[:, 0], fact("good"), fact("score"))
    if objective.reads is Rankings:
        return Rankings(now, then, length, fact("score"))
    strength = fact("strength")
    tie = None if strength is None else strength == 0.5
    return Scores(now[:, 0], now[:, 1], strength, fact("gap"), tie)


def weights(objective: Objective[Any], some: Sequence[Example]) -> Tensor:
    """How much each example counts, float32[n]: known before any model is asked."""
    if objective.weight is None:
        return torch.ones(len(some))
    zeros = torch.zeros(sum(len(each.answers) for each in some))
    return objective.weight(batch(objective, some, zeros, zeros)).float()


def _facts(record: Record) -> dict[str, Any]:
    if isinstance(record, Preference):
        facts: dict[str, Any] = {"strength": record.strength, "gap": record.gap}
    elif isinstance(record, Rated):
        facts = {"good": record.good, "score": record.score}
    else:
        assert isinstance(record, Ranked)
        facts = {"score": record.scores}
    return {name: value for name, value in facts.items() if value is not None}
