"""Language models: one protocol, and the records that cross it.

A model is anything with a name and `async complete(messages, ...) -> Reply`. A client of a service, a simulated
model, a tape and a budget all have this shape, so that they wrap one another:

    budget.meter(Tape("run.jsonl", OpenAICompatible("some-model", ...)))

    >>> import asyncio
    >>> class Echo:
    ...     name = "echo"
    ...     async def complete(self, messages, *, max_tokens=256, temperature=0.0, stop=(), seed=None):
    ...         return Reply(messages[-1].content, count_tokens(messages), 1)
    >>> wait(Echo().complete([user("hello")])).text
    'hello'
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

T = TypeVar("T")
Role = Literal["system", "user", "assistant"]


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Role
    content: str


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a model answered, and what the answer cost.

    Attributes:
        text: the answer, without the stop text.
        tokens_in: tokens of the prompt, as the model counts them.
        tokens_out: tokens of the answer.
        ended: "stop" if the model had finished, "length" if `max_tokens` cut it short.
    """

    text: str
    tokens_in: int
    tokens_out: int
    ended: Literal["stop", "length"] = "stop"


class LanguageModelError(RuntimeError):
    """A model did not answer; the message says why in one sentence."""


@runtime_checkable
class LanguageModel(Protocol):
    """Text in, text out.

    `temperature` 0 asks for the likeliest answer. `seed` makes a sampled answer repeatable where the model can do that:
    whoever wants different answers to the same prompt passes different seeds. `stop` lists texts that end the answer.
    """

    @property
    def name(self) -> str:
        """Which model answers; kept on tapes."""
        ...

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Reply:
        """The model's answer to the conversation so far."""
        ...


def system(content: str) -> Message:
    """A message that sets the scene."""
    return Message("system", content)


def user(content: str) -> Message:
    """A message to the model."""
    return Message("user", content)


def assistant(content: str) -> Message:
    """A message of the model."""
    return Message("assistant", content)


def count_tokens(messages: Sequence[Message] | str) -> int:
    """An estimate of the tokens of a prompt or a text: a third of its UTF-8 bytes, and four for each message's frame.

    Byte-pair tokens of English and of code are nearer to four bytes, so that this errs on the high side. It depends on
    nothing but the text: budgets decide alike in a run and in its replay.
    """
    if isinstance(messages, str):
        return -(-len(messages.encode()) // 3)
    return sum(4 + count_tokens(message.content) for message in messages)


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run an async call from ordinary code and return its result; works in a notebook, whose event loop runs, too."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
