"""Examples: records in tokens with what was said of them, and the batches that objectives read.

An objective says which kind of batch it reads; records of another kind are converted where nothing is made up
(`lm/answer_kinds.py`), and what is left out is counted. Facts that an objective may ask for (strength, gap, score ...)
must be known of all records or of none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from backchannel.align.rationales import asked_why
from backchannel.align.template import RecordError
from backchannel.align.tokens import Encoder
from backchannel.lm.answer_kinds import Target, converted, left_out
from backchannel.lm.answers import Preference, Ranked, Rated, Record
from backchannel.parts.objectives import Objective, Pairs, Rankings, Rollouts, Scores, Singles, random_batch

KINDS: dict[type[Any], Target] = {Pairs: "pairs", Singles: "singles", Rankings: "rankings", Scores: "pairs"}


class Example(NamedTuple):
    """A record, ready."""

    record: Record
    prompt: list[int]
    answers: list[list[int]]
    facts: dict[str, float | bool | list[float]]
    before: tuple[float, ...] = ()  # log-probabilities of the answers under the reference, once they are known
    why: tuple[list[int], list[int]] | None = (
        None  # the question why, and the rationale, for an objective that reads it
    )

    @property
    def size(self) -> int:
        """Tokens, where the prompt is read once."""
        return len(self.prompt) + sum(map(len, self.answers)) + sum(map(len, self.why or ()))


def examples(
    records: Iterable[Record], encoder: Encoder, objective: Objective[Any], skip_bad_rows: int = 0
) -> tuple[list[Example], list[str]]:
    """All records as what an objective is trained on, and what a user should know of the way there.

    Raises:
        ValueError: if nothing is left, if facts are known of some records alone, or rankings differ in length.
    """
    reads = objective.reads
    if reads not in KINDS:
        raise ValueError(
            f"an objective over {reads.__name__} cannot learn from records: it needs answers as it draws them"
        )
    left: Counter[str] = Counter()
    told = _rankings(_strengths(converted(records, _target(objective), left), objective, left), objective, left)
    explained = reads is Pairs and reads_field(objective, "rationale")

    def example(record: Record, name: str) -> Example:
        encoded = encoder(record, name)
        why = _why(record, name, encoder) if explained else None
        return Example(record, encoded.prompt, encoded.answers, _facts(record), why=why)

    found = list(encoder.each(told, example, skip_bad_rows))
    if not found:
        raise ValueError(
            f"no record can be used as {_target(objective)}" + "".join(f"; {each}" for each in left_out(left))
        )
    if reads is Singles and reads_field(objective, "good") and not any("good" in each.facts for each in found):
        raise ValueError("this objective learns which answers are good (label), and the data say it of none")
    if reads is Scores and all(each.facts["tie"] for each in found if "strength" in each.facts):
        for each in found:  # a tie is all that strengths say
            each.facts.pop("strength", None)
    for name in ("strength", "gap", "good", "score"):
        have = sum(name in each.facts for each in found)
        if 0 < have < len(found) and not (name in reads._fields and reads_field(objective, name)):
            for each in found:
                each.facts.pop(name, None)
        elif 0 < have < len(found):
            raise ValueError(f"{have:,} of {len(found):,} records say their {name}: either all must, or none")
    sizes = {len(each.answers) for each in found}
    if len(sizes) > 1:
        raise ValueError(
            f"rankings must all have the same number of answers; there are some of {min(sizes)} and of {max(sizes)}"
        )
    return found, left_out(left) + encoder.report.sentences()


def _why(record: Record, name: str, encoder: Encoder) -> tuple[list[int], list[int]]:
    """The question why, and its answer, in tokens."""
    if not isinstance(record, Preference) or record.rationale is None:
        raise RecordError(f"{name} has no rationale, which this objective learns from")
    asked = encoder(asked_why(record), f"{name}, asked why")
    return asked.prompt, asked.answers[0]


def _target(objective: Objective[Any]) -> Target:
    """What records are made; an objective over single answers that never asks who is good learns from good ones."""
    if objective.reads is Singles and not reads_field(objective, "good") and not reads_field(objective, "score"):
        return "demonstrations"
    return KINDS[objective.reads]


def reads_field(objective: Objective[Any], field: str) -> bool:
    """Whether a loss depends on a field of its batch: found by changing it."""
    some = random_batch(objective.reads, 8, seed=0)
    value = getattr(some, field)
    other = ~value if value.dtype == torch.bool else 1 - value
    one, another = objective(some)[0], objective(some._replace(**{field: other}))[0]
    return not torch.allclose(one, another, rtol=0, atol=0, equal_nan=True)


def _strengths(records: Iterable[Record], objective: Objective[Any], left: Counter[str]) -> Iterator[Record]:
    """Pairs as the objective can take them. One that reads no strengths is told who is better, and of no tie."""
    if KINDS[objective.reads] != "pairs" or reads_field(objective, "strength"):
        yield from records
        return
    ties = objective.reads is Scores and reads_field(objective, "tie")
    for record in records:
        assert isinstance(record, Preference)
        if record.strength == 0.5 and ties:
            yield record
        elif record.strength == 0.5:
            left["ties"] += 1
        elif record.strength is not None:
            left["strengths, which this objective does not read"] += 1
            swap = record.strength < 0.5
            chosen, rejected = (record.rejected, record.chosen) if swap else (record.chosen, record.rejected)
            gap = None if record.gap is None else -record.gap if swap else record.gap
            yield msgspec.structs.replace(record, chosen=chosen, rejected=rejected, gap=gap, strength=None)
        else:
            yield record


def _rankings(records: Iterable[Record], objective: Objective[Any], left: Counter[str]) -> Iterator[Record]:
    """Without ties, unless the objective reads scores: an order among equals would be that of the file."""
    strict = objective.reads is Rankings and not reads_field(objective, "score")
    for record in records:
        if strict and isinstance(record, Ranked) and record.scores and len({*record.scores}) < len(record.scores):
            left["rankings with ties"] += 1
        else:
            yield record


def batch(
    objective: Objective[Any],
    some: Sequence[Example],
    now: Tensor,
    before: Tensor | None = None,
    baseline: float | None = None,
) -> Any:
    """What `objective` reads.

    Args:
        objective: says the kind.
        some: n examples with k answers each.
        now: log-probabilities of all their answers in order, [n k], with the rationale's behind each pair's where
            examples have one; of a reward model its scores; for `Rollouts`, of each answer's tokens, [n, tokens], or
            [n, tokens, 2] with a critic's values.
        before: those under the reference; None: as the examples know them, or zeros where they are not needed.
        baseline: of `Singles`.
    """
    if objective.reads is Rollouts:
        return _rollouts(some, now)
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
        why = now[:, 2] if now.shape[1] > 2 else None
        return Pairs(*logs, length[:, 0], length[:, 1], fact("strength"), fact("gap"), why)
    if objective.reads is Singles:
        neutral = None if baseline is None else torch.full_like(now[:, 0], baseline)
        return Singles(now[:, 0], then[:, 0], length[:, 0], fact("good"), fact("score"), neutral)
    if objective.reads is Rankings:
        return Rankings(now, then, length, fact("score"))
    return Scores(now[:, 0], now[:, 1], fact("strength"), fact("gap"), fact("tie"))


def _rollouts(some: Sequence[Example], now: Tensor) -> Rollouts:
    """Answers token by token, with zeros behind their ends."""
    policy, value = (now[..., 0], now[..., 1]) if now.dim() == 3 else (now, None)

    def padded(name: str) -> Tensor:
        rows: list[Any] = [each.facts[name] for each in some]
        return pad_sequence([torch.tensor(row, dtype=now.dtype, device=now.device) for row in rows], batch_first=True)

    lengths = torch.tensor([len(each.answers[0]) for each in some], device=now.device)
    mask = torch.arange(now.shape[1], device=now.device) < lengths[:, None]
    sampled, reference, advantage = (padded(name) for name in ("sampled", "reference", "advantage"))
    return Rollouts(policy, sampled, reference, mask, advantage, value, None if value is None else padded("returns"))


def weights(objective: Objective[Any], some: Sequence[Example]) -> Tensor:
    """How much each example counts, float32[n]: known before any model is asked."""
    if objective.weight is None:
        return torch.ones(len(some))
    zeros = torch.zeros(sum(len(each.answers) for each in some))
    return objective.weight(batch(objective, some, zeros, zeros)).float()


def _facts(record: Record) -> dict[str, Any]:
    if isinstance(record, Preference):
        facts: dict[str, Any] = {"strength": record.strength, "gap": record.gap, "tie": record.tie}
    elif isinstance(record, Rated):
        facts = {"good": record.good, "score": record.score}
    else:
        assert isinstance(record, Ranked)
        facts = {"score": record.scores}
    return {name: value for name, value in facts.items() if value is not None}
