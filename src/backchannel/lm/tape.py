"""Tape: every call to a model on disk, so that a run can be replayed without the model and resumed after a kill.

A tape is JSON lines: a head with the model's name, then one line for each answered call with its key, the request and
the reply. The key is a hash of the request (messages, limits, temperature, stop texts, seed) and of how often the
same request was made before, so that the third asking gets the third answer, however other calls interleave.

    Tape("run.jsonl", lm)    answers from the tape what is on it, asks the model for the rest, and records that
    Tape("run.jsonl")        offline: the tape alone; `NotOnTape` for anything else

A line is written whole and flushed when its reply has come, so a run that is killed or cancelled leaves a tape that
holds every answer so far. A torn last line is dropped with a note in `notes`; damage anywhere else is an error. (A
power cut may lose lines that the operating system still held.) One process records on a tape at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

import msgspec

from backchannel.lm.protocol import LanguageModel, Message, Reply


class NotOnTape(LookupError):  # noqa: N818 (it says what happened)
    """An offline tape was asked for a call that it does not hold."""


class Head(msgspec.Struct, tag_field="record", tag="tape"):
    """The first line."""

    model: str
    format: Literal[1] = 1


class Request(msgspec.Struct, frozen=True):
    """What was asked."""

    messages: list[Message]
    max_tokens: int
    temperature: float
    stop: list[str]
    seed: int | None


class Call(msgspec.Struct, tag_field="record", tag="call"):
    """One line: the `occurrence`-th time (from 0) that `request` was made."""

    key: str
    occurrence: int
    request: Request
    reply: Reply


_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Head | Call] = msgspec.json.Decoder(Head | Call)


def key_of(request: Request, occurrence: int) -> str:
    """The content key of a call."""
    return hashlib.blake2b(_encode((request, occurrence)), digest_size=16).hexdigest()


class Tape:
    """A language model that remembers.

    Attributes:
        notes: what was noticed when the tape was opened.
        recorded: calls that went to the model and onto the tape since it was opened.
        replayed: calls that were answered from the tape.
    """

    def __init__(self, path: str | os.PathLike[str], lm: LanguageModel | None = None) -> None:
        self.path = Path(path)
        self.lm = lm
        self.notes: list[str] = []
        self.recorded = 0
        self.replayed = 0
        self._replies: dict[str, Reply] = {}
        self._asked: Counter[bytes] = Counter()
        self._file: BinaryIO | None = None
        if lm is None and not self.path.exists():
            raise FileNotFoundError(f"there is no tape at {self.path}, and no model to record one with")
        name, whole = self._read() if self.path.exists() else (None, 0)
        if lm is None:
            if name is None:
                raise ValueError(f"{self.path} holds no tape")
            self._name = name
            return
        if name is not None and name != lm.name:
            raise ValueError(f"{self.path} was recorded with the model {name!r}, not with {lm.name!r}")
        self._name = lm.name
        self._file = open(self.path, "ab")  # noqa: SIM115 (closed by close)
        self._file.truncate(whole)
        if name is None:
            self._write(Head(lm.name))

    @property
    def name(self) -> str:
        """The name of the model that was recorded."""
        return self._name

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Reply:
        """The reply on the tape, else the model's, which is then on the tape."""
        request = Request(list(messages), max_tokens, float(temperature), list(stop), seed)
        plain = _encode(request)
        occurrence = self._asked[plain]
        self._asked[plain] += 1  # counted when asked, not when answered: calls in flight do not swap answers
        key = key_of(request, occurrence)
        if key in self._replies:
            self.replayed += 1
            return self._replies[key]
        if self.lm is None:
            last = messages[-1].content if messages else ""
            raise NotOnTape(
                f"{self.path} holds {len(self._replies)} calls, but not this one (its asking number {occurrence + 1}), "
                f"whose prompt ends in {last[-60:]!r}"
            )
        try:
            reply = await self.lm.complete(
                messages, max_tokens=max_tokens, temperature=temperature, stop=stop, seed=seed
            )
        except BaseException:
            if self._asked[plain] == occurrence + 1:
                self._asked[plain] = occurrence  # nobody answered: asking again is still this asking
            raise
        self._replies[key] = reply
        self._write(Call(key, occurrence, request, reply))
        self.recorded += 1
        return reply

    def close(self) -> None:
        """Close the file. Everything is on it already."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Tape:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _write(self, line: Head | Call) -> None:
        if self._file is None or self._file.closed:
            raise ValueError(f"the tape {self.path} is closed")
        self._file.write(_encode(line) + b"\n")
        self._file.flush()

    def _read(self) -> tuple[str | None, int]:
        """Fill in the replies; the model's name (None: not even a head) and how many bytes are whole lines."""
        calls, name, whole = [], None, 0
        for number, line, end in _lines(self.path, self.notes):
            record = _decode(line, self.path, number)
            whole = end
            if isinstance(record, Head) == (name is not None):
                raise ValueError(f"{self.path}, line {number}: a tape has one head, on its first line")
            if isinstance(record, Head):
                name = record.model
            else:
                calls.append(record)
        self._replies = {call.key: call.reply for call in calls}
        return name, whole


def read_calls(path: str | os.PathLike[str]) -> list[Call]:
    """Every call on a tape, in the order of its replies."""
    records = [_decode(line, path, number) for number, line, _ in _lines(Path(path), [])]
    return [record for record in records if isinstance(record, Call)]


def _lines(path: Path, notes: list[str]) -> list[tuple[int, bytes, int]]:
    """Whole lines as (number from 1, line, where it ends); what follows the last line end is torn, and noted."""
    *whole, rest = path.read_bytes().split(b"\n")
    if rest:
        notes.append(f"{path}: dropped a torn last line of {len(rest)} bytes; its call will be made again")
    lines, end = [], 0
    for number, line in enumerate(whole, 1):
        end += len(line) + 1
        lines.append((number, line, end))
    return lines


def _decode(line: bytes, path: str | os.PathLike[str], number: int) -> Head | Call:
    try:
        return _decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}, line {number}: not a line of a tape ({error})") from None
