"""Rows: the columns under which answers and what was said of them are found in data sets, as records, and back.

    pairs         prompt, chosen, rejected; strength, gap or score_chosen and score_rejected
    singles       prompt, completion; label (good or bad) or score; or messages, whose last is a demonstration
    rankings      prompt, responses; ratings, higher is better, or rankings, of which 1 is the best
    all of them   rationale, annotator, id, continues, meta

Texts are plain or lists of messages. What has another name comes with a column map, {what it means: its name}, or the
name of a place within a column (`align/places.py`); columns that mean nothing here are kept in `meta`.

Conversations without a prompt column share it: the prompt is the messages with which both begin, and never a part of a
message. Two plain texts without a prompt are refused, or split behind the last `split` marker where one is given, such
as "\\n\\nAssistant:"; never at the first character in which they differ.

    >>> from backchannel.align.rows import Rows
    >>> same = [{"role": "user", "content": "Hi"}]
    >>> both = {name: [*same, {"role": "assistant", "content": text}] for name, text in
    ...         (("chosen", "The sky is blue"), ("rejected", "The sky"))}
    >>> Rows().record(both).chosen
    [Message(role='assistant', content='The sky is blue')]
    >>> Rows().record({"chosen": "The sky is blue", "rejected": "The sky"})
    Traceback (most recent call last):
        ...
    ValueError: two plain texts without a prompt: name its column (--column) or a marker between them (--split)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from backchannel.align.messages import behind, message_of, messages_in, messages_of, shared
from backchannel.align.places import found, is_place, read_by
from backchannel.ledger.problems import LogError, nearest, shortened
from backchannel.lm.answers import Kind, Preference, Ranked, Rated, Record, Text
from backchannel.lm.protocol import user

OF_PAIRS = ("chosen", "rejected", "strength", "gap", "score_chosen", "score_rejected")
OF_SINGLES = ("completion", "label", "score", "messages")
OF_RANKINGS = ("responses", "ratings", "rankings")
OF_ALL = ("prompt", "rationale", "annotator", "id", "continues", "meta")
MEANINGS = (*OF_ALL, *OF_PAIRS, *OF_SINGLES, *OF_RANKINGS)
USED: dict[Kind, tuple[str, ...]] = {"pairs": OF_PAIRS, "singles": OF_SINGLES, "rankings": OF_RANKINGS}
NEEDED: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "pairs": (("chosen", "rejected"),),
    "singles": (("completion",), ("messages",)),
    "rankings": (("responses",),),
}


class Rows:
    """How the rows of one source become records.

    Attributes:
        cells: the source is a table of texts, whose cells may hold messages and `meta` as JSON.
        prompts: of a row with a prompt nothing else is read.
        kept: columns that went to `meta`.
        parts: places within columns that were read, and the rest of those columns was not.
        cuts: pairs of texts that were split.
    """

    def __init__(
        self,
        columns: Mapping[str, str] | None = None,
        kind: Kind | None = None,
        split: str | None = None,
        cells: bool = False,
        prompts: bool = False,
    ) -> None:
        for meaning in columns or ():
            if meaning not in MEANINGS:
                raise LogError(f"a column map has no {meaning!r}; {nearest(meaning, MEANINGS)}")
        self.named = {**{meaning: meaning for meaning in MEANINGS}, **(columns or {})}
        self.mapped = {meaning: name for meaning, name in (columns or {}).items() if not is_place(name)}
        self.places = {meaning: name for meaning, name in (columns or {}).items() if is_place(name)}
        self.columns = {kind: {self.named[each] for each in (*names, *OF_ALL)} for kind, names in USED.items()}
        self.kind, self.split, self.cells, self.prompts = kind, split, cells, prompts
        self.kept: dict[str, None] = {}
        self.parts: dict[str, None] = {}
        self.cuts = 0

    def record(self, row: Mapping[str, Any]) -> Record:
        """What a row says; ValueError says why it says nothing."""
        for meaning, name in self.mapped.items():
            if name not in row:
                raise ValueError(f"the {meaning}: there is no column {name!r}; {nearest(name, row)}")
        given = {meaning: row[name] for meaning, name in self.named.items() if row.get(name) is not None}
        if self.places:
            given |= self._placed(row)
        if self.cells:
            given = {name: value for name, value in given.items() if value != "" or name == "prompt"}
        if self.prompts and "prompt" in given:
            only: dict[str, Any] = {name: given[name] for name in ("prompt", "id", "continues") if name in given}
            return Rated(self._text("prompt", given["prompt"]), "(none)", **self._more({}, set(), only))
        kind = self._kind(given)
        used = self.columns[kind]
        if self.places:
            used = used.union(*(read_by(row, name) for name in used & {*self.places.values()}))
        more = self._more(row, used, given)
        if kind == "pairs":
            return self._pair(given, more)
        return self._single(given, more) if kind == "singles" else self._ranking(given, more)

    def _placed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What stands at places within columns, or in several."""
        values = {}
        for meaning, name in self.places.items():
            try:
                values[meaning] = found(row, name)
            except ValueError as error:
                raise ValueError(f"the {meaning}: {error}") from None
            if name not in row:
                self.parts |= dict.fromkeys(part.strip() for part in name.split(",") if "." in part)
        return {meaning: value for meaning, value in values.items() if value is not None}

    def _kind(self, given: Mapping[str, Any]) -> Kind:
        kinds = [kind for kind, ways in NEEDED.items() if any(all(name in given for name in way) for way in ways)]
        if self.kind is not None:
            if self.kind in kinds:
                return self.kind
            needed = " or ".join(" and ".join(repr(self.named[name]) for name in way) for way in NEEDED[self.kind])
            raise ValueError(f"expected {self.kind}, with {needed}" + (f"; found {kinds[0]}" if kinds else ""))
        if kinds:
            return kinds[0]
        half = next((name for name in ("chosen", "rejected") if name in given), None)
        if half:
            raise ValueError(f"there is {self.named[half]!r} alone: a pair needs chosen and rejected")
        raise ValueError(
            "found neither chosen and rejected, nor a completion, nor responses; a column map (--column) tells"
        )

    def _more(self, row: Mapping[str, Any], used: set[str], given: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that all records have."""
        meta = given.get("meta", {})
        if self.cells and isinstance(meta, str):
            with suppress(msgspec.DecodeError):  # else a text of that name
                meta = msgspec.json.decode(meta)
        known = dict(meta) if isinstance(meta, dict) else {self.named["meta"]: meta}
        for name, value in row.items():
            if name not in used and value is not None and not (self.cells and value == ""):
                known[name] = value
                self.kept[name] = None
        more: dict[str, Any] = {"meta": known}
        for name in ("rationale", "annotator", "id"):
            value = given.get(name, "")
            if isinstance(value, (list, Mapping)):
                raise ValueError(f"the {name} must be a text or a number, not {shortened(value)}")
            if value != "" and value == value:  # tables hold nan where a text is missing
                more[name] = str(value)
        if "continues" in given:
            more["continues"] = _truth(self.named["continues"], given["continues"])
        return more

    def _pair(self, given: Mapping[str, Any], more: dict[str, Any]) -> Preference:
        chosen, rejected = (self._text(name, given[name]) for name in ("chosen", "rejected"))
        prompt = self._text("prompt", given["prompt"]) if "prompt" in given else None
        if isinstance(chosen, list) and isinstance(rejected, list) and not isinstance(prompt, list):
            prompt, chosen, rejected = shared(prompt, chosen, rejected)
        elif isinstance(prompt, list):
            chosen, rejected = behind(prompt, chosen), behind(prompt, rejected)
        elif prompt is None:
            if self.split is None or not isinstance(chosen, str) or not isinstance(rejected, str):
                raise ValueError(
                    "two plain texts without a prompt: name its column (--column) or a marker between them (--split)"
                )
            prompt, chosen = _cut(chosen, self.split)
            other, rejected = _cut(rejected, self.split)
            if prompt != other:
                raise ValueError(f"chosen and rejected have different texts before their last {self.split!r}")
            self.cuts += 1
        numbers: dict[str, Any] = {
            name: self._number(name, given[name]) for name in ("strength", "gap") if name in given
        }
        scores = ("score_chosen", "score_rejected")
        if all(name in given for name in scores):
            better, worse = (self._number(name, given[name]) for name in scores)
            numbers.setdefault("gap", better - worse)
        for name in scores:  # the difference does not say them
            if name in given:
                more["meta"].setdefault(self.named[name], self._number(name, given[name]))
        return Preference(prompt, chosen, rejected, **numbers, **more)

    def _single(self, given: Mapping[str, Any], more: dict[str, Any]) -> Rated:
        if "completion" in given:
            answer = self._text("completion", given["completion"])
            if "prompt" not in given:
                raise ValueError("there is a completion, but no prompt")
            prompt = self._text("prompt", given["prompt"])
            if isinstance(prompt, str) and isinstance(answer, list):
                prompt = [user(prompt)]
            elif isinstance(prompt, list):
                answer = behind(prompt, answer)
        else:
            told = self._text("messages", given["messages"])
            if not isinstance(told, list):
                raise ValueError("messages must be a list of messages, not a text")
            prompt, answer = told[:-1], told[-1:]
        good = _truth(self.named["label"], given["label"]) if "label" in given else None
        score = self._number("score", given["score"]) if "score" in given else None
        return Rated(prompt, answer, good, score, **more)

    def _ranking(self, given: Mapping[str, Any], more: dict[str, Any]) -> Ranked:
        if "prompt" not in given:
            raise ValueError("there are responses, but no prompt")
        prompt = self._text("prompt", given["prompt"])
        answers = [self._text("responses", each) for each in self._list("responses", given["responses"])]
        if isinstance(prompt, list):
            answers = [behind(prompt, answer) for answer in answers]
        elif any(isinstance(answer, list) for answer in answers):
            prompt = [user(prompt)]
        by = next((name for name in ("ratings", "rankings") if name in given), None)
        if by is None:
            raise ValueError("there are responses, but neither ratings nor rankings")
        values = [self._number(by, each) for each in self._list(by, given[by])]
        if len(values) != len(answers):
            raise ValueError(f"there are {len(answers)} responses and {len(values)} {by}")
        for value in values:
            if value != value:
                raise ValueError(f"each of the {by} must be a finite number, not {value}")
        if by == "rankings" and len(set(values)) < len(values):
            raise ValueError(f"two responses have the same rank in {shortened(values)}; ratings can hold ties")
        order = sorted(range(len(values)), key=lambda i: values[i] if by == "rankings" else -values[i])
        scores = None if by == "rankings" else [values[i] for i in order]
        return Ranked(prompt, [answers[i] for i in order], scores, **more)

    def _text(self, meaning: str, value: Any) -> Text:
        if isinstance(value, str):
            return messages_in(value) or value if self.cells else value
        if isinstance(value, Mapping):
            return [message_of(value, 1)]
        if isinstance(value, (list, tuple)) and value:
            return messages_of(value)
        raise ValueError(f"{self.named[meaning]} must be a text or a list of messages, not {shortened(value)}")

    def _list(self, meaning: str, value: Any) -> list[Any]:
        if self.cells and isinstance(value, str):
            with suppress(msgspec.DecodeError):  # else said below
                value = msgspec.json.decode(value)
        if isinstance(value, (list, tuple)):
            return list(value)
        raise ValueError(f"{self.named[meaning]} must be a list, not {shortened(value)}")

    def _number(self, meaning: str, value: Any) -> float:
        with suppress(TypeError, ValueError):  # else said below
            if not isinstance(value, bool) and (self.cells or not isinstance(value, str)):
                return float(value)
        raise ValueError(f"{self.named[meaning]} must be a number, not {shortened(value)}")


def _cut(text: str, marker: str) -> tuple[str, str]:
    at = text.rfind(marker)
    if at < 0:
        raise ValueError(f"there is no {marker!r} in {shortened(text)}")
    return text[: at + len(marker)], text[at + len(marker) :]


def _truth(name: str, value: Any) -> bool:
    said = value.strip().lower() if isinstance(value, str) else value
    if said in (True, "true", "1"):
        return True
    if said in (False, "false", "0"):
        return False
    raise ValueError(f"{name} must be true or false, not {shortened(value)}")
