"""Agents: a task in words, one attempt at it, what is made of the attempt, and the trace of it all.

A `TextTask` is an environment whose actions and observations are texts: a text world of many steps, or a coding problem
of one (the action is a program, the observation what the tests said). `attempt` lets a model play one episode. An
*evaluator* turns the attempt into a `Verdict`: all that a method may learn from. `TextTask.verify` is the truth, asked
once, at the end, for the record alone.

| evaluator   | the verdict's words                            | passed                                |
|-------------|------------------------------------------------|---------------------------------------|
| `binary`    | succeeded or failed                            | the environment's score is 1          |
| `scalar`    | the score                                      | the environment's score is 1          |
| `words`     | the environment's last observation (test logs) | the environment's score is 1          |
| `self_tests`| the failures of tests that the model wrote     | the model's own tests pass            |
"""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from backchannel.lm.budget import Spent
from backchannel.lm.protocol import LanguageModel, Message, assistant, system, user


class Outcome(NamedTuple):
    """What the environment answers to an action."""

    text: str
    done: bool
    score: float  # in [0, 1]: how much of the goal is reached; 1 is success


class Episode(Protocol):
    """One run of a task, from its start."""

    async def step(self, action: str) -> Outcome:
        """Do it; after an outcome that is done, there is no further step."""
        ...


class TextTask(Protocol):
    """An environment in words. Deterministic: the same actions have the same outcomes in every episode."""

    @property
    def instructions(self) -> str:
        """How to act in tasks of this kind."""
        ...

    @property
    def opening(self) -> str:
        """This task: what is known at the start, and what to achieve."""
        ...

    def start(self) -> Episode:
        """A new episode."""
        ...

    async def verify(self, actions: Sequence[str]) -> bool:
        """The truth: whether these actions achieve the goal."""
        ...


class Attempt(msgspec.Struct):
    """One episode: actions and what was observed after each; the last score."""

    actions: list[str] = []
    observations: list[str] = []
    score: float = 0.0

    @property
    def transcript(self) -> str:
        """The episode as text, an action on each line that starts with "> "."""
        return "\n".join(f"> {a}\n{o}" for a, o in zip(self.actions, self.observations, strict=True))


class Verdict(msgspec.Struct):
    """What an evaluator says of an attempt: r_t, as a number and in words."""

    passed: bool
    score: float
    text: str


class Step(msgspec.Struct):
    """One event: an "attempt" (its transcript and score), a "verdict" (its words and score), a "reflection" ..."""

    trial: int
    kind: str
    text: str
    score: float | None = None


class Trace(msgspec.Struct):
    """What a run of an agent did.

    Attributes:
        success: the truth of the last whole attempt.
        trials: how many attempts were whole.
        ended: "passed" if the evaluator was content, "trials" or "budget" if those ran out.
        steps: what happened, in order.
        spent: what the budget was charged during this run.
    """

    success: bool
    trials: int
    ended: Literal["passed", "trials", "budget"]
    steps: list[Step]
    spent: Spent

    def texts(self, kind: str) -> list[str]:
        """The texts of the steps of one kind, in order."""
        return [step.text for step in self.steps if step.kind == kind]


Evaluate = Callable[[LanguageModel, Attempt], Awaitable[Verdict]]
Evaluator = Callable[[Any], Evaluate]


async def attempt(
    lm: LanguageModel, task: TextTask, notes: str, *, max_tokens: int, temperature: float, seed: int
) -> Attempt:
    """One episode: the model sees instructions, `notes` (what it is to remember), the opening, and its steps so far."""
    head = f"{notes}\n\n{task.opening}" if notes else task.opening
    messages = [system(task.instructions), user(head)]
    episode, played = task.start(), Attempt()
    while True:
        reply = await lm.complete(messages, max_tokens=max_tokens, temperature=temperature, seed=seed)
        outcome = await episode.step(reply.text)
        played.actions.append(reply.text)
        played.observations.append(outcome.text)
        played.score = outcome.score
        if outcome.done:
            return played
        messages += [assistant(reply.text), user(outcome.text)]


def binary(task: TextTask) -> Evaluate:
    """Success or failure, and no more."""
    return _from_environment(lambda played: "You succeeded." if played.score >= 1 else "You failed.")


def scalar(task: TextTask) -> Evaluate:
    """The environment's score."""
    return _from_environment(lambda played: f"Your score is {played.score:.2f} of 1.")


def words(task: TextTask) -> Evaluate:
    """The environment's last observation: for code, what the visible tests said."""
    return _from_environment(lambda played: played.observations[-1])


def self_tests(task: Any) -> Evaluate:
    """Tests that the model writes for itself, once a run; for tasks with `check(program, tests) -> failures`."""
    if not hasattr(task, "check"):
        raise TypeError(f"self_tests needs a task that can check a program against tests, not a {type(task).__name__}")
    tests: list[str] = []

    async def evaluate(lm: LanguageModel, played: Attempt) -> Verdict:
        if not tests:
            tests.extend(_assertions((await lm.complete(_ask_for_tests(task), max_tokens=512)).text))
        failures: list[str] = await task.check(played.actions[-1], tests)
        score = 1 - len(failures) / len(tests) if tests else 0.0
        return Verdict(
            bool(tests) and not failures, score, "\n".join(failures) or f"All {len(tests)} own tests passed."
        )

    return evaluate


def _from_environment(say: Callable[[Attempt], str]) -> Evaluate:
    async def evaluate(lm: LanguageModel, played: Attempt) -> Verdict:
        return Verdict(played.score >= 1, played.score, say(played))

    return evaluate


def _ask_for_tests(task: TextTask) -> list[Message]:
    head = "Write unit tests for the function below: Python assert statements, one on each line, and nothing else."
    return [system(head), user(task.opening)]


def _assertions(text: str) -> list[str]:
    """The lines of `text` that are one assert statement each."""
    found = []
    for line in text.splitlines():
        try:
            tree = ast.parse(line.strip())
        except SyntaxError:
            continue  # prose, or a fence of code: not a test
        if len(tree.body) == 1 and isinstance(tree.body[0], ast.Assert):
            found.append(line.strip())
    return found
