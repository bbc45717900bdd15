"""The record: a decision, and the feedback that answers it. Every family, log, simulation and service meets here.

A `Decision` says what was chosen, among what, with which probability. A `Feedback` answers one decision, by id; it
may come late, in parts, more than once, out of order, be taken back, or never come. Each has an id of its own: a log
that holds one twice is refused, or counts it once. On disk a log is JSON lines (one record a line, `"record":
"decision" | "feedback"`); a field that a record has not is refused, since it may be a misspelt one.

    >>> from backchannel.feedback import Decision, Feedback, encode, decode
    >>> line = encode(Decision(id="d1", action="red", options=["red", "blue"], propensity=0.5))
    >>> decode(line).action
    'red'
    >>> decode(encode(Feedback(id="f1", decision="d1", kind="reward", value=1.0))).value
    1.0
"""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args

import msgspec

Kind = Literal[
    "reward",  # value: number, higher is better
    "outcome",  # value: {name: number}, several at once
    "losses",  # value: [number], one for each option: full information
    "comparison",  # value: {"better": option, "worse": option} or {"tie": [option, option]}
    "ranking",  # value: [option], best first
    "rating",  # value: number on the source's own scale
    "critique",  # value: text
    "correction",  # value: what should have been done instead
    "reaction",  # value: text or emoji
    "followup",  # value: what the receiver said or did next
    "violation",  # value: {name: number}, constraint by how much
    "retraction",  # value: id of the feedback that is taken back
]
KINDS: tuple[str, ...] = get_args(Kind)


class Decision(msgspec.Struct, tag_field="record", tag="decision", omit_defaults=True, forbid_unknown_fields=True):
    """One choice. Times are seconds since 1970-01-01 UTC.

    Attributes:
        action: what was chosen: an option's name, or a list of them (a slate, in order).
        options: what could have been chosen: names, or {name: {feature: value}}; None if every known option.
        context: what was known before the choice: {feature: number | text | bool}.
        propensity: probability of the choice under the policy that made it, in (0, 1]; None if unknown.
        shown: False if nobody saw it. A decision that nobody saw is not one that nobody liked.
    """

    id: str
    action: str | list[str]
    options: list[str] | dict[str, dict[str, Any]] | None = None
    context: dict[str, Any] = {}
    propensity: float | None = None
    time: float | None = None
    policy: str | None = None
    version: int | None = None
    position: int | None = None
    shown: bool = True

    def __post_init__(self) -> None:
        if self.propensity is not None and not 0 < self.propensity <= 1:
            raise ValueError(f"propensity must lie in (0, 1], not {self.propensity}")
        if self.options is not None:
            chosen = self.action if isinstance(self.action, list) else [self.action]
            outside = [option for option in chosen if option not in self.options]
            if outside:
                raise ValueError(f"action {outside[0]!r} is not among the options {list(self.options)!r}")
            if len(set(self.options)) < len(self.options):
                twice = next(name for at, name in enumerate(self.options) if name in list(self.options)[:at])
                raise ValueError(f"the option {twice!r} is named twice in options")


class Feedback(msgspec.Struct, tag_field="record", tag="feedback", omit_defaults=True, forbid_unknown_fields=True):
    """One answer to one decision; `cost` is what it cost to get, in the task's own unit."""

    id: str
    decision: str
    kind: Kind
    value: Any
    time: float | None = None
    source: str | None = None
    cost: float = 0.0

    def __post_init__(self) -> None:
        numeric = self.kind in ("reward", "rating")
        if numeric and (isinstance(self.value, bool) or not isinstance(self.value, (int, float))):
            raise ValueError(f"a {self.kind} must be a number, not {self.value!r}")
        if numeric and not abs(self.value) <= sys.float_info.max:  # a whole number may lie beyond all floats
            raise ValueError(f"a {self.kind} must be finite, not {self.value}")


Record = Decision | Feedback
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """One JSON object, without a line end."""
    return _encoder.encode(record)


def decode(line: bytes | str) -> Record:
    """The record that `encode` wrote; msgspec.ValidationError (a ValueError) says what is wrong and where."""
    return _decoder.decode(line)
