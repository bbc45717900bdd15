"""Answers of a language model, and what was said of them: the records that preference tuning reads.

There are three kinds, as there are kinds of batch in `parts/objectives.py`:

- `Preference`, of "pairs": two answers to a prompt, of which one was preferred;
- `Rated`, of "singles": one answer, good or bad or with a score, or with neither: a demonstration;
- `Ranked`, of "rankings": several answers, best first, with or without their scores.

A text is a plain string, which goes to a model as it is, or a conversation: a list of messages, to which a chat
template applies. The answer to a conversation is one message of the assistant, or its content alone.

A record that could only do harm in training is refused when it is made, in one sentence: an empty answer, two answers
that are the same, a number that is none, roles in an order that nobody speaks in.

    >>> from backchannel.lm.answers import Preference
    >>> from backchannel.lm.protocol import user
    >>> Preference([user("Is the sky blue?")], chosen="Yes.", rejected="No.").strength is None
    True
    >>> Preference("Q: is the sky blue?\\nA:", chosen=" Yes.", rejected=" Yes.")
    Traceback (most recent call last):
        ...
    ValueError: chosen and rejected are the same: ' Yes.'
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from backchannel.lm.protocol import Message, assistant

Text = str | list[Message]
Kind = Literal["pairs", "singles", "rankings"]


class _Said(msgspec.Struct, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What every record may have besides.

    Attributes:
        rationale: why.
        continues: the prompt ends within a message of the assistant, and the answers go on with it.
        meta: what else is known, by name.
    """

    rationale: str | None = None
    annotator: str | None = None
    id: str | None = None
    continues: bool = False
    meta: dict[str, Any] = {}


class Preference(_Said):
    """Two answers to a prompt.

    Attributes:
        strength: the probability that the chosen answer is the better one; 1/2 is a tie. None: unknown.
        gap: by how much the chosen answer's reward is higher; None: unknown.
    """

    prompt: Text
    chosen: Text
    rejected: Text
    strength: float | None = None
    gap: float | None = None

    def __post_init__(self) -> None:
        _check(self)
        _check_answer("chosen", self.chosen, self.prompt)
        _check_answer("rejected", self.rejected, self.prompt)
        if content(self.chosen) == content(self.rejected):
            raise ValueError(f"chosen and rejected are the same: {_short(content(self.chosen))}")
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ValueError(f"strength must be a probability, not {self.strength}")
        _check_finite("gap", self.gap)

    @property
    def tie(self) -> bool:
        """Whether neither answer is better: no loss that reads no strength may take one as chosen."""
        return self.strength == 0.5


class Rated(_Said):
    """One answer: good or bad, or with a score, higher is better; with neither it is a demonstration."""

    prompt: Text
    answer: Text
    good: bool | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        _check(self)
        _check_answer("answer", self.answer, self.prompt)
        _check_finite("score", self.score)


class Ranked(_Said):
    """Two or more answers to a prompt, best first; `scores`, where they are known, do not rise, and equal ones tie."""

    prompt: Text
    answers: list[Text]
    scores: list[float] | None = None

    def __post_init__(self) -> None:
        _check(self)
        if len(self.answers) < 2:
            raise ValueError(f"a ranking needs two answers or more, not {len(self.answers)}")
        for index, answer in enumerate(self.answers):
            _check_answer(f"answer {index + 1}", answer, self.prompt)
        contents = [content(answer) for answer in self.answers]
        for index, each in enumerate(contents):
            if each in contents[:index]:
                first = contents.index(each)
                raise ValueError(f"answers {first + 1} and {index + 1} are the same: {_short(each)}")
        if self.scores is not None:
            if len(self.scores) != len(self.answers):
                raise ValueError(f"there are {len(self.answers)} answers and {len(self.scores)} scores")
            for score in self.scores:
                _check_finite("each score", score)
            rise = next((i for i in range(1, len(contents)) if self.scores[i - 1] < self.scores[i]), 0)
            if rise:
                raise ValueError(f"answers come best first, but score {rise + 1} is higher than score {rise}")


Record = Preference | Rated | Ranked
KINDS: dict[Kind, type[Preference] | type[Rated] | type[Ranked]] = {
    "pairs": Preference,
    "singles": Rated,
    "rankings": Ranked,
}


def kind_of(record: Record) -> Kind:
    """Under which name of `KINDS` a record goes."""
    return next(kind for kind, known in KINDS.items() if type(record) is known)


def content(answer: Text) -> str:
    """What an answer says, without its frame."""
    return answer if isinstance(answer, str) else answer[0].content


def turn(answer: Text) -> Message:
    """An answer to a conversation as the message that it is."""
    return assistant(answer) if isinstance(answer, str) else answer[0]


def answers_of(record: Record) -> list[Text]:
    """All answers of a record: chosen and rejected, or the one, or best first."""
    if isinstance(record, Preference):
        return [record.chosen, record.rejected]
    return [record.answer] if isinstance(record, Rated) else list(record.answers)


def _check(record: Record) -> None:
    """The prompt, and what every record has."""
    prompt = record.prompt
    for name in ("rationale", "annotator", "id"):
        if getattr(record, name) == "":
            raise ValueError(f"{name} must not be empty: leave it out")
    if isinstance(prompt, str):
        if record.continues:
            raise ValueError("continues is for conversations; a plain prompt is always continued")
        return
    if not isinstance(prompt, list) or not all(isinstance(message, Message) for message in prompt):
        raise ValueError(f"the prompt must be a text or a list of messages, not {_short(prompt)}")
    if not prompt:
        raise ValueError("the prompt has no message")
    for index, message in enumerate(prompt):
        if message.role == "system" and index:
            raise ValueError(f"message {index + 1} of the prompt is the system's, which may only be the first")
    last = prompt[-1].role
    if record.continues and last != "assistant":
        raise ValueError(f"the answer continues a message of the assistant, but the prompt ends with the {last}'s")
    if not record.continues and last != "user":
        hint = "; `continues` says that the answer goes on with it" if last == "assistant" else ""
        raise ValueError(f"the prompt must end with a message of the user, not of the {last}{hint}")


def _check_answer(name: str, answer: Text, prompt: Text) -> None:
    if isinstance(answer, list):
        if isinstance(prompt, str):
            raise ValueError(f"the prompt is a plain text and {name} a conversation: expected the same for both")
        if len(answer) != 1 or not isinstance(answer[0], Message) or answer[0].role != "assistant":
            roles = ", ".join(str(getattr(message, "role", message)) for message in answer[:5])
            raise ValueError(f"{name} must be one message of the assistant, not {len(answer)} ({roles or 'none'})")
    elif not isinstance(answer, str):
        raise ValueError(f"{name} must be a text or a message, not {_short(answer)}")
    if not content(answer).strip():
        raise ValueError(f"{name} is empty")


def _check_finite(name: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
