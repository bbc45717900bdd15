"""Judges: who says which of two answers is better. A score of each answer, or a language model that compares.

`scored("module:function")` takes a function of (prompt, answer) that returns a number, higher is better. `Compared`
asks a language model twice, with the answers in both orders, and believes only what it says both times; a judge that
does not answer, or answers nonsense, is asked again and then counted as silent: nothing is guessed.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from backchannel.lm.answers import Text
from backchannel.lm.protocol import LanguageModel, LanguageModelError, user, wait


class Verdict(NamedTuple):
    """What a judge said of pairs of answers."""

    wins: list[float | None]  # 1 if the first is better, 0 if the second, 1/2 for a tie; None: the judge was silent
    scores: list[tuple[float, float]] | None = None  # of both, where there are any


class Judge(Protocol):
    """Compares the first answer to each prompt with the second."""

    def __call__(self, prompts: Sequence[Text], first: Sequence[str], second: Sequence[str]) -> Verdict:
        """One verdict for each prompt."""


class Scored:
    """A judge by scores."""

    def __init__(self, score: Callable[[Text, str], float], name: str):
        self.score, self.name = score, name

    def __call__(self, prompts: Sequence[Text], first: Sequence[str], second: Sequence[str]) -> Verdict:
        """ValueError if a score is no finite number."""
        pairs = [
            (self._one(prompt, one), self._one(prompt, other))
            for prompt, one, other in zip(prompts, first, second, strict=True)
        ]
        return Verdict([0.5 if a == b else float(a > b) for a, b in pairs], pairs)

    def _one(self, prompt: Text, answer: str) -> float:
        value = self.score(prompt, answer)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{self.name} must return a finite number, and returned {value!r} for {answer[:60]!r}")
        return float(value)


def scored(name: str) -> Scored:
    """The function that "module:function" names."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"a judge is named as module:function, not {name!r}")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"the judge {name!r} cannot be loaded: {error}") from None
    for part in function.split("."):
        if not hasattr(found, part):
            raise ValueError(f"the judge {name!r} cannot be loaded: {module} has no {function}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"the judge {name!r} is no function")
    return Scored(found, name)


QUESTION = """Two answers to the same request follow. Say which is better.

Request:
{prompt}

Answer A:
{first}

Answer B:
{second}

Which is better? Write A, B or TIE, and nothing else."""


@dataclass
class Compared:
    """A language model as a judge, asked in both orders.

    Attributes:
        lm: who is asked.
        question: with {prompt}, {first} and {second}.
        tries: how often it is asked in one order before it counts as silent.
        silent: answers that were none, so far.
        split: pairs in which the order decided, so far; they count as ties.
    """

    lm: LanguageModel
    question: str = QUESTION
    tries: int = 3
    silent: int = 0
    split: int = 0
    _heard: dict[str, float | None] = field(default_factory=dict)

    def __call__(self, prompts: Sequence[Text], first: Sequence[str], second: Sequence[str]) -> Verdict:
        """One verdict for each pair."""
        return Verdict([self._pair(*each) for each in zip(prompts, first, second, strict=True)])

    def _pair(self, prompt: Text, one: str, other: str) -> float | None:
        ahead, behind = self._ask(prompt, one, other), self._ask(prompt, other, one)
        if ahead is None or behind is None:
            return None
        if ahead + behind != 1:
            self.split += 1
            return 0.5
        return ahead

    def _ask(self, prompt: Text, one: str, other: str) -> float | None:
        asked = self.question.format(prompt=plain(prompt), first=one, second=other)
        if asked not in self._heard:
            self._heard[asked] = self._answer(asked)
        return self._heard[asked]

    def _answer(self, asked: str) -> float | None:
        for attempt in range(self.tries):
            try:
                reply = wait(self.lm.complete([user(asked)], max_tokens=8, temperature=0.0, seed=attempt))
            except (LanguageModelError, TimeoutError):
                continue
            said = re.match(r"\W*(?:answer\s+)?(a|b|tie)\b", reply.text.strip().lower())
            if said:
                return {"a": 1.0, "b": 0.0, "tie": 0.5}[said[1]]
        self.silent += 1
        return None


def plain(prompt: Text) -> str:
    """A prompt as one text: the last message, after the others where there are more."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in prompt)
