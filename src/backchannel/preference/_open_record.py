"""The record of open human feedback: what was said, by whom, under which licence, for which uses, found where."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from datetime import date
from typing import Any, Literal

import msgspec

from backchannel.lm.answers import Rated, Text

Kind = Literal["comparison", "ranking", "rating", "reaction", "correction", "critique"]  # of backchannel.feedback
Use = Literal["training", "research", "publication"]


class Consent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For which uses the contributor agreed, and on which day (ISO 8601)."""

    uses: list[Use]
    given: str

    def __post_init__(self) -> None:
        date.fromisoformat(self.given)


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """In which collection a record was found, from which day it is, and which model answered."""

    source: str
    collected: str
    model: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        date.fromisoformat(self.collected)


class OpenFeedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a contributor said of responses to a prompt; values as in `backchannel.feedback`.

    Attributes:
        value: of a comparison {"better": response, "worse": response} or {"tie": [response, response]}; of a ranking
            the responses, best first; of a rating a number; of a reaction "good" or "bad"; of a correction what should
            have been answered; of a critique words.
        contributor: a name or a pseudonym that is the same in all collections.
        licence: as SPDX writes it, such as "CC-BY-4.0".
        scale: the least and the highest value of a rating.
    """

    prompt: Text
    responses: list[str]
    kind: Kind
    value: Any
    contributor: str
    licence: str
    consent: Consent
    provenance: Provenance
    scale: tuple[float, float] | None = None
    language: str | None = None
    meta: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if not self.contributor.strip() or not self.licence.strip():
            raise ValueError("every record names its contributor and its licence")
        for response in self.responses:
            Rated(self.prompt, response)  # which says what is wrong with them
        several = self.kind in ("comparison", "ranking")
        if several != (len(self.responses) > 1):
            raise ValueError(
                f"a {self.kind} is of {'several responses' if several else 'one'}, not {len(self.responses)}"
            )
        if self.scale is not None and not (self.kind == "rating" and self.scale[0] < self.scale[1]):
            raise ValueError(f"scale is of ratings, from low to high, not {self.scale} of a {self.kind}")
        if not _sensible(self):
            raise ValueError(f"a {self.kind} of {self.responses!r} cannot have the value {self.value!r}")

    @property
    def content(self) -> str:
        """c(f) of (1), as 32 hexadecimal digits: the same for copies."""
        prompt = self.prompt if isinstance(self.prompt, str) else [[each.role, each.content] for each in self.prompt]
        value = self.value
        if self.kind == "comparison" and "tie" in value:
            value = {"tie": sorted(map(_plain, value["tie"]))}
        said = [self.kind, prompt, sorted(map(_plain, self.responses)), value, self.contributor]
        said.append(None if self.scale is None else [float(end) for end in self.scale])
        return hashlib.sha256(msgspec.json.encode(_plain(said), order="deterministic")).hexdigest()[:32]


def _sensible(each: OpenFeedback) -> bool:
    """Whether the value is one of its kind, of these responses."""
    value, known = each.value, each.responses
    if len(set(known)) < len(known):
        return False
    if each.kind == "comparison":
        names = set(value) if isinstance(value, dict) else None
        both = value["tie"] if names == {"tie"} else list(value.values()) if names == {"better", "worse"} else None
        return isinstance(both, list) and len(both) == 2 and both[0] != both[1] and all(one in known for one in both)
    if each.kind == "ranking":
        return isinstance(value, list) and len(value) == len(known) and all(one in value for one in known)
    if each.kind == "rating":
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return number and (each.scale is None or each.scale[0] <= value <= each.scale[1])
    if each.kind == "reaction":
        return value in ("good", "bad")
    return isinstance(value, str) and bool(value.strip()) and not (each.kind == "correction" and value in known)


def _plain(value: Any) -> Any:
    """The texts within in composed form and with single spaces."""
    if isinstance(value, str):
        return " ".join(unicodedata.normalize("NFC", value).split())
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return float(value) if isinstance(value, int) else value
