"""Messages: what rows of data sets hold of conversations, and what two of them share.

>>> from backchannel.align.messages import messages_of
>>> messages_of([{"role": "user", "content": "Hi"}, {"from": "gpt", "value": "Hello"}])
[Message(role='user', content='Hi'), Message(role='assistant', content='Hello')]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from backchannel.ledger.problems import shortened
from backchannel.lm.answers import Text
from backchannel.lm.protocol import Message, user

NOT_READ = ("tool_calls", "function_call", "tool_call_id", "images")
OTHER_NAMES = {"human": "user", "gpt": "assistant", "system": "system"}  # where messages are {"from", "value"}


def messages_in(cell: str) -> list[Message] | None:
    """The messages that a cell holds as JSON; None where it is a text."""
    if not cell.startswith("["):
        return None
    if cell.startswith(("[{'role'", "[{'content'", "[{'from'")):
        raise ValueError(f"messages in a cell must be JSON, with double quotes, not {shortened(cell)}")
    try:
        found = msgspec.json.decode(cell)
    except msgspec.DecodeError:
        return None
    if not found or not all(isinstance(each, dict) and ("role" in each or "from" in each) for each in found):
        return None
    return messages_of(found)


def messages_of(value: Any) -> list[Message]:
    """Messages from a list of objects; ValueError names the one that is none."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list of messages, not {shortened(value)}")
    return [message_of(each, number) for number, each in enumerate(value, 1)]


def message_of(value: Any, number: int) -> Message:
    """One message; `number` is its place, for what is said of one that is none."""
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"message {number} must have a role and a content, not be {shortened(value)}")
    for name in NOT_READ:
        if value.get(name):
            raise ValueError(f"message {number} holds {name!r}, which is not read: expected texts alone")
    role, said = value.get("role"), value.get("content")
    if role is None and said is None:
        role, said = OTHER_NAMES.get(str(value.get("from")), value.get("from")), value.get("value")
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"message {number} has the role {role!r}; expected system, user or assistant")
    if not isinstance(said, str):
        raise ValueError(f"message {number} must have a text as content, not {shortened(said)}")
    return Message(role, said)


def shared(prompt: str | None, chosen: list[Message], rejected: list[Message]) -> tuple[Text, Text, Text]:
    """The prompt that two conversations share, and what each has behind it."""
    most = min(len(chosen), len(rejected)) - 1
    same = next((i for i in range(most) if chosen[i] != rejected[i]), most)
    if prompt is not None and not same:
        return [user(prompt)], chosen, rejected
    if prompt is not None and all(message.content.strip() != prompt.strip() for message in chosen[:same]):
        raise ValueError("the messages that chosen and rejected share do not hold the prompt")
    if not same:
        raise ValueError("chosen and rejected share no message, and there is no prompt")
    return chosen[:same], chosen[same:], rejected[same:]


def behind(prompt: list[Message], answer: Text) -> Text:
    """An answer without the prompt, where the data repeat it."""
    return answer[len(prompt) :] if isinstance(answer, list) and answer[: len(prompt)] == prompt else answer
