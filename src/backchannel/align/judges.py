"""Judges: who says which of two answers is better. A score of each answer, or a language model that compares.

`scored("module:function")` takes a function of (prompt, answer) that returns a number, higher is better. `Compared`
asks a language model twice, with the answers in both orders, and believes only what it says both times. A judge that
fails or answers nonsense is asked again and then counted as silent: nothing is guessed, and no run is lost by it. One
that is silent several times in a row is asked ever more rarely, since each time may take minutes. What a user should
know of it, with the first reason, is in its `notes`.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple, Protocol

from backchannel.lm.answers import Text
from backchannel.lm.protocol import LanguageModel, LanguageModelError, user, wait

SELDOM = 16  # silences in a row; from there on it is asked at each power of 2


class NonsenseError(ValueError):
    """A judge's answer that is none; the message says what it was."""


@dataclass
class Hearing:
    """How a judge was asked, and what came of it.

    Attributes:
        tries: how often it is asked one thing before it counts as silent.
        patience: silences in a row after which it is asked seldom.
        asked: things that it was to judge, so far.
        silent: those of which it said nothing.
        row: silences since it last spoke.
        reason: of the first silence.
    """

    tries: int
    patience: int
    asked: int = 0
    silent: int = 0
    row: int = 0
    reason: str = ""

    def __call__(self, ask: Callable[[int], float]) -> float | None:
        """What `ask(0)`, `ask(1)` ... says first; None if the judge stays silent."""
        self.asked += 1
        seldom = self.row >= self.patience
        if not seldom or (self.row >= SELDOM and self.row & (self.row - 1) == 0):
            for attempt in range(1 if seldom else self.tries):
                try:
                    said = ask(attempt)
                except (Exception, SystemExit) as error:  # whatever a user's function may raise: it is told in `notes`
                    self.reason = self.reason or reason(error)
                    if isinstance(error, LanguageModelError):  # its client has tried again, with waits
                        break
                    continue
                self.row = 0
                return said
        self.silent += 1
        self.row += 1
        return None

    def notes(self, what: str) -> list[str]:
        """What a user should know: how often it said nothing of `what`, and why the first time."""
        if not self.silent:
            return []
        seldom = "; it was asked seldom in the end" if self.row > self.patience else ""
        return [
            f"the judge said nothing of {self.silent:,} of {self.asked:,} {what}{seldom}; the first time: {self.reason}"
        ]


def reason(error: BaseException) -> str:
    """An error on one line, with its kind where that is no news of ours."""
    said = " ".join(str(error).split())[:300]
    kind = type(error).__name__
    return said if isinstance(error, (NonsenseError, LanguageModelError)) else f"{kind}: {said}" if said else kind


class Verdict(NamedTuple):
    """What a judge said of pairs of answers."""

    wins: list[float | None]  # 1 if the first is better, 0 if the second, 1/2 for a tie; None: the judge was silent
    scores: list[tuple[float, float] | None] | None = None  # of both, of each pair; a judge may have none at all


class Judge(Protocol):
    """Compares the first answer to each prompt with the second."""

    def __call__(self, prompts: Sequence[Text], first: Sequence[str], second: Sequence[str]) -> Verdict:
        """One verdict for each prompt."""


def tried(judge: Judge | None, name: str, prompts: Sequence[Text], answers: Sequence[str]) -> None:
    """See, before anything is trained, that a judge works: it judges answers until it says something.

    Raises:
        ValueError: if it failed on all of them, or too often in a row.
    """
    hearing: Hearing | None = getattr(judge, "hearing", None)
    if judge is None:
        return
    for prompt, answer in zip(prompts, answers, strict=True):
        if judge([prompt], [answer], [answer]).wins[0] is not None or hearing is None:
            return
        if hearing.row >= hearing.patience:
            break
    if hearing is not None and hearing.row:
        raise ValueError(f"the judge {name} said nothing of answers from before training: {hearing.reason}")


def told(judge: Judge | None) -> list[str]:
    """What a user should know of how it judged."""
    found: list[str] = getattr(judge, "notes", [])
    return found


class Scored:
    """A judge by scores. Each answer to a prompt is scored once a call; the judge is silent where that fails twice."""

    def __init__(self, score: Callable[[Text, str], Any], name: str):
        self.score, self.name = score, name
        self.hearing = Hearing(tries=2, patience=SELDOM)

    def __call__(self, prompts: Sequence[Text], first: Sequence[str], second: Sequence[str]) -> Verdict:
        """One verdict for each pair, with their scores."""
        known: dict[tuple[str, str], float | None] = {}

        def scored(prompt: Text, answer: str) -> float | None:
            key = repr(prompt), answer
            if key not in known:
                known[key] = self.hearing(lambda attempt: number(self.score(prompt, answer), answer))
            return known[key]

        return compared(
            [
                (scored(prompt, one), scored(prompt, other))
                for prompt, one, other in zip(prompts, first, second, strict=True)
            ]
        )

    @property
    def notes(self) -> list[str]:
        """What a user should know."""
        return self.hearing.notes("answers")


def compared(pairs: Sequence[tuple[float | None, float | None]]) -> Verdict:
    """The verdict that scores make; silent where one of the two is unknown."""
    scores = [None if a is None or b is None else (a, b) for a, b in pairs]
    wins = [None if each is None else 0.5 if each[0] == each[1] else float(each[0] > each[1]) for each in scores]
    return Verdict(wins, scores)


def number(value: Any, answer: str) -> float:
    """A score as a float; NonsenseError if it is not finite. Scalars of NumPy and torch are numbers; True is 1."""
    plain = value.item() if hasattr(value, "item") else value
    if not isinstance(plain, Real) or not math.isfinite(plain):
        raise NonsenseError(f"a judge must return a finite number, and returned {plain!r:.60} for {answer[:60]!r}")
    return float(plain)


def scored(name: str) -> Scored:
    """The function that "module:function" names."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"a judge is named as module:function, not {name!r}")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"the judge {name!r} cannot be loaded: {error}") from None
    except Exception as error:  # whatever a user's module may raise
        raise ValueError(f"the judge {name!r} cannot be loaded: {reason(error)}") from None
    for part in function.split("."):
        if not hasattr(found, part):
            raise ValueError(f"the judge {name!r} cannot be loaded: {module} has no {function}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"the judge {name!r} is no function")
    if inspect.iscoroutinefunction(found):
        raise ValueError(f"the judge {name!r} is an async function, and a plain one is needed")
    return Scored(found, name)


QUESTION = """Two answers to the same request follow. Say which is better.

Request:
{prompt}

Answer A:
{first}

Answer B:
{second}

Which is better? Write A, B or TIE, and nothing else."""


_MARKS = re.compile(r"[*_`\"'()\[\]:.!\s]+")
_ANSWER = "(?:answer|response|one|choice)"
_FORMS = re.compile(
    rf"(?:(?:(?:the )?(?:better|best) {_ANSWER} is |(?:my |the )?(?:final )?(?:answer|choice|verdict) (?:is )?)?"
    rf"(?:{_ANSWER} )?(?P<one>a|b)(?: is (?:the )?better(?: {_ANSWER})?)?|(?:(?:it is |it s )?a )?tie)"
)


def side(text: str) -> float | None:
    """Which answer a reply names: 1 for A, 0 for B, 1/2 for a tie; None unless it says that and nothing else.

    >>> [side(each) for each in ("A", "**B**.", "Answer: A", "The better answer is B", "A tie")]
    [1.0, 0.0, 1.0, 0.0, 0.5]
    >>> [side(each) for each in ("A is worse than B", "A/B", "A or B", "a better one is B")]
    [None, None, None, None]
    """
    said = _FORMS.fullmatch(_MARKS.sub(" ", text.lower()).strip())
    return None if said is None else {"a": 1.0, "b": 0.0}.get(said["one"], 0.5)


@dataclass
class Compared:
    """A language model as a judge, asked in both orders.

    A model that answers nonsense is asked again, up to three times; trying again where a service does not answer is
    its client's work.

    Attributes:
        lm: who is asked.
        question: with {prompt}, {first} and {second}.
        both: pairs of different answers of which it said something in both orders, so far.
        split: those of which it did not say the same; they count as ties.
        hearing: how it was asked, and what came of it.
    """

    lm: LanguageModel
    question: str = QUESTION
    both: int = 0
    split: int = 0
    hearing: Hearing = field(default_factory=lambda: Hearing(tries=3, patience=3))
    _heard: dict[str, float] = field(default_factory=dict)

    def __call__(self, prompts: Sequence[Text], first: Sequence[str], second: Sequence[str]) -> Verdict:
        """One verdict for each pair."""
        return Verdict([self._pair(*each) for each in zip(prompts, first, second, strict=True)])

    @property
    def notes(self) -> list[str]:
        """What a user should know."""
        said = self.hearing.notes("questions")
        if self.split:
            said.append(
                f"of {self.split:,} of {self.both:,} pairs the judge said something else when their order was turned "
                "round: they count as ties"
            )
        return said

    def _pair(self, prompt: Text, one: str, other: str) -> float | None:
        ahead = self._ask(prompt, one, other)
        behind = None if ahead is None else self._ask(prompt, other, one)
        if ahead is None or behind is None:
            return None
        alike = ahead + behind == 1
        if one != other:
            self.both += 1
            self.split += not alike
        return ahead if alike else 0.5

    def _ask(self, prompt: Text, one: str, other: str) -> float | None:
        asked = self.question.format(prompt=plain(prompt), first=one, second=other)
        if asked in self._heard:
            return self._heard[asked]
        said = self.hearing(lambda attempt: self._answer(asked, attempt))
        if said is not None:
            self._heard[asked] = said
        return said

    def _answer(self, asked: str, attempt: int) -> float:
        reply = wait(self.lm.complete([user(asked)], max_tokens=16, temperature=0.0, seed=attempt))
        said = side(reply.text)
        if said is None:
            raise NonsenseError(f"it answered {reply.text[:60]!r}, which is none of A, B and TIE")
        return said


def plain(prompt: Text) -> str:
    """A prompt as one text: the last message, after the others where there are more."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in prompt)
