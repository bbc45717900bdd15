"""Open Human Feedback: a pool of what many people said of models' answers, whose it is and what it may be used for.

Feedback that everybody can train on must outlive the project that collected it. So each record says, beside what was
said, who said it, under which licence, for which uses the contributor agreed, and where it was found. Collections are
pooled, and copies of one record that came by several ways are counted once.

Definitions (the paper recommends; these are ours). With the content c(f) of a record f, its kind, prompt, responses,
value and contributor, in Unicode's composed form and with single spaces, and the order of the responses left out,

    f ~ g       iff c(f) = c(g)                            copies: one contributor said one thing of one thing    (1)
    S           = {f: licence, contributor, use, ... as asked}                                                    (2)
    export(S)   = {the first f of each class of S / ~}, as records that objectives read                           (3)
    score(f)    = (value - low) / (high - low)              of a rating whose scale is known                      (4)

The order of (2) and (3) matters: of two copies under different licences the one that may be used must survive. Two
contributors who agree are two records.

Steps: make a pool of records; `select` those that may be used; `export` them as "pairs" (for DPO and its kin),
"singles" (good or bad, for KTO and its kin), "rewards" (pairs with gaps, and ties) or "demonstrations" (for SFT). A
correction is a pair and a demonstration; a critique is the rationale of what its contributor said of the same answer; a
rating is good above the middle of its scale and bad below it. What an export cannot hold is counted. `credits` is the
list of whom to thank, which licences ask for. `dump` and `load` keep a pool as JSON lines.

Deviations: the paper proposes an ecosystem and no format; the record, copies and exports are ours.

    >>> about = {"prompt": "2 + 2 =", "contributor": "Ada", "consent": {"uses": ["training"], "given": "2026-01-01"}}
    >>> said = {"kind": "comparison", "responses": ["4", "5"], "value": {"better": "4", "worse": "5"}}
    >>> first = {**about, **said, "licence": "CC-BY-4.0", "provenance": {"source": "school", "collected": "2026-01-02"}}
    >>> copy = {**first, "licence": "unknown", "provenance": {"source": "mirror", "collected": "2026-02-01"}}
    >>> pool = open_human_feedback([copy, first, {**first, "contributor": "Bob"}])
    >>> usable = pool.select(licences={"CC-BY-4.0"}, use="training")
    >>> [(pair.chosen, pair.annotator) for pair in usable.export("pairs")]
    [('4', 'Ada'), ('4', 'Bob')]

References: donyehiya2025future.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from backchannel.card import Card
from backchannel.lm.answer_kinds import Target, converted
from backchannel.lm.answers import Preference, Ranked, Rated, Record
from backchannel.preference._open_record import OpenFeedback as OpenFeedback
from backchannel.preference._open_record import Use

CARD = Card(
    name="Open Human Feedback",
    summary="A pool of feedback with contributors, consent, licences and origins: filters, copies, exports.",
    paper="donyehiya2025future",
    row=225,
    topics=("documentation", "preference learning"),
    feedback=("comparison", "ranking", "rating", "correction", "critique"),
    protocol="artefact",
    engine="none",
    neighbour="",
    example={"records": []},
)
Export = Literal["pairs", "singles", "rewards", "demonstrations"]


class Credit(msgspec.Struct, frozen=True):
    """How much of a pool came under one licence from one collection, and from whom."""

    licence: str
    source: str
    contributors: list[str]
    records: int


class Pool:
    """Records as they came, copies and all. Every method leaves it as it is."""

    def __init__(self, records: Iterable[OpenFeedback] = ()) -> None:
        self.records = list(records)

    def __len__(self) -> int:
        return len(self.records)

    def __add__(self, other: Pool) -> Pool:
        return Pool([*self.records, *other.records])

    def select(
        self,
        *,
        licences: Collection[str] | None = None,
        contributors: Collection[str] | None = None,
        withdrawn: Collection[str] = (),
        use: Use | None = None,
        kinds: Collection[str] | None = None,
        sources: Collection[str] | None = None,
        languages: Collection[str] | None = None,
        since: str | None = None,
    ) -> Pool:
        """The records that meet every condition given (2).

        Args:
            licences, contributors, kinds, sources, languages: those to keep.
            withdrawn: contributors who took their consent back.
            use: what each contributor must have agreed to.
            since: the first day of collection (ISO 8601).
        """
        for name in (licences, contributors, kinds, sources, languages, withdrawn):
            if isinstance(name, str):
                raise ValueError(f"expected a set of names, not the text {name!r}")
        if use is not None and use not in get_args(Use):
            raise ValueError(f"use must be one of {', '.join(get_args(Use))}, not {use!r}")
        first = None if since is None else date.fromisoformat(since)
        return Pool(
            each
            for each in self.records
            if (licences is None or each.licence in licences)
            and (contributors is None or each.contributor in contributors)
            and each.contributor not in withdrawn
            and (use is None or use in each.consent.uses)
            and (kinds is None or each.kind in kinds)
            and (sources is None or each.provenance.source in sources)
            and (languages is None or each.language in languages)
            and (first is None or date.fromisoformat(each.provenance.collected) >= first)
        )

    def once(self) -> Pool:
        """The first of all copies of each record."""
        first: dict[str, OpenFeedback] = {}
        for each in self.records:
            first.setdefault(each.content, each)
        return Pool(first.values())

    def export(self, target: Export, left: Counter[str] | None = None) -> Iterator[Record]:
        """Records for training (3), of one kind; `left` counts what it cannot hold, copies among them."""
        if target not in get_args(Export):
            raise ValueError(f"an export is one of {', '.join(get_args(Export))}, not {target!r}")
        left = Counter() if left is None else left
        pool = self.once()
        left["copies"] += len(self) - len(pool)
        records = _records(pool.records, left, scores=target in ("pairs", "rewards"))
        kind: Target = "pairs" if target == "rewards" else target
        for record in converted(records, kind, left):
            if target == "pairs" and isinstance(record, Preference) and record.tie:
                left["ties"] += 1
            else:
                yield record

    def credits(self) -> list[Credit]:
        """Whom to thank, by licence and collection."""
        found: dict[tuple[str, str], list[str]] = {}
        for each in self.records:
            found.setdefault((each.licence, each.provenance.source), []).append(each.contributor)
        return [Credit(*key, sorted(set(names)), len(names)) for key, names in sorted(found.items())]

    def dump(self, path: str | Path) -> None:
        """One JSON object a line."""
        Path(path).write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in self.records))


def open_human_feedback(records: Iterable[OpenFeedback | Mapping[str, Any]] = ()) -> Pool:
    """A pool of records; what is no record is a ValueError that says where and why."""
    return Pool(_checked(each, number) for number, each in enumerate(records, 1))


def load(path: str | Path) -> Pool:
    """A pool that `dump` wrote."""
    lines = Path(path).read_bytes().splitlines()
    return Pool(_checked(line, number) for number, line in enumerate(lines, 1) if line.strip())


def _checked(record: OpenFeedback | Mapping[str, Any] | bytes, number: int) -> OpenFeedback:
    try:
        if isinstance(record, bytes):
            return msgspec.json.decode(record, type=OpenFeedback)
        whole = msgspec.to_builtins(record) if isinstance(record, OpenFeedback) else dict(record)
        return msgspec.convert(whole, OpenFeedback)
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"record {number}: {error}") from None


def _records(pool: list[OpenFeedback], left: Counter[str], scores: bool) -> Iterator[Record]:
    """As what objectives read; ratings with their scores, or as good and bad."""
    reasons: dict[object, list[str]] = {}
    for each in pool:
        if each.kind == "critique":
            reasons.setdefault(_about(each, each.responses[0]), []).append(each.value)
    used: set[object] = set()
    for each in pool:
        if each.kind == "critique":
            continue
        keys = [key for response in each.responses if (key := _about(each, response)) in reasons]
        used.update(keys)
        more: dict[str, Any] = {"annotator": each.contributor, "id": each.content}
        more["rationale"] = "\n".join(reason for key in keys for reason in reasons[key]) or None
        more["meta"] = {"licence": each.licence, "source": each.provenance.source}
        value, first = each.value, each.responses[0]
        if each.kind == "comparison":
            tie = "tie" in value
            better, worse = value["tie"] if tie else (value["better"], value["worse"])
            yield Preference(each.prompt, better, worse, 0.5 if tie else None, **more)
        elif each.kind == "ranking":
            yield Ranked(each.prompt, value, **more)
        elif each.kind == "correction":
            yield Preference(each.prompt, value, first, **more)
        elif each.kind == "reaction":
            yield Rated(each.prompt, first, value == "good", **more)
        elif each.scale is None:
            left["ratings without a scale"] += 1
        else:
            score = (value - each.scale[0]) / (each.scale[1] - each.scale[0])  # (4)
            if scores:
                yield Rated(each.prompt, first, score=score, **more)
            elif score == 0.5:
                left["ratings in the middle of their scale"] += 1
            else:
                yield Rated(each.prompt, first, score > 0.5, **more)
    left["critiques of what nothing else was said of"] += sum(len(reasons[key]) for key in reasons.keys() - used)


def _about(each: OpenFeedback, response: str) -> object:
    """Who said it, of what."""
    return each.contributor, each.prompt if isinstance(each.prompt, str) else tuple(each.prompt), response
