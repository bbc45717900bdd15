"""Chat templates: how a tokenizer writes a conversation, and what of it stands around an answer.

A template is a program of its own: it may trim texts, take out thoughts, refuse roles, write a generation prompt or
have none. What it writes around an answer is found by rendering a made-up one:

    ... <|im_start|>assistant\\n  An answer of five words.  <|im_end|>\\n
        head: the prompt's        the answer                tail, of which <|im_end|> ends the turn
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from backchannel.lm.protocol import Message, assistant, user

PROBE = "An answer of five words."


class RecordError(ValueError):
    """A record that cannot be put in tokens; the message is one sentence."""


class Frame(NamedTuple):
    """What a template writes around an answer."""

    head: str  # before it, although a generation prompt was asked for; "" where the generation prompt is enough
    tail: str  # behind it
    closing: str  # of the tail, what stands before the token that ends the turn
    end: int  # that token; EOS where the template has none


class Template:
    """The chat template of a tokenizer of `transformers`, or `template` in its place."""

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.special = {each.content for each in tokenizer.added_tokens_decoder.values() if each.special}
        self.special |= set(tokenizer.all_special_tokens)

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return self.template is not None or self.tokenizer.chat_template is not None

    @cached_property
    def frame(self) -> Frame:
        """What it writes around an answer."""
        asked = [user("A question?")]
        bare, text = self.render(asked), self.render(asked, add_generation_prompt=True)
        whole = self.render([*asked, assistant(PROBE)])
        at = whole.rfind(PROBE)
        if at < 0:
            raise ValueError("the chat template does not write what the assistant says")
        head = whole[len(text) : at] if text == bare and whole.startswith(text) else ""
        tail = whole[at + len(PROBE) :]
        where, mark = min(((tail.find(mark), mark) for mark in self.special if mark in tail), default=(-1, ""))
        if where < 0:
            return Frame(head if head.strip() else "", tail, tail.rstrip(), int(self.tokenizer.eos_token_id))
        end = int(self.tokenizer.convert_tokens_to_ids(mark))
        return Frame(head if head.strip() else "", tail, tail[:where], end)

    def prompt(self, messages: list[Message], continues: bool) -> str:
        """A conversation up to where the answer begins."""
        if continues:
            return self.render(messages, continue_final_message=True)
        return self.render(messages, add_generation_prompt=True) + self.frame.head

    def whole(self, messages: list[Message], answer: Message, continues: bool) -> str:
        """A conversation with the answer, and without the tail behind it."""
        if continues:
            text = self.render([*messages[:-1], assistant(messages[-1].content + answer.content)])
        else:
            text = self.render([*messages, answer])
        if not text.endswith(self.frame.tail):
            raise RecordError("the chat template ends this answer otherwise than others")
        return text[: len(text) - len(self.frame.tail)]

    def render(self, messages: list[Message], **how: bool) -> str:
        """A conversation as the template writes it."""
        if not self.exists:
            raise ValueError(
                "the tokenizer has no chat template, and the data are conversations: give a template, or plain texts"
            )
        from jinja2.exceptions import TemplateError

        said = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(self.tokenizer.apply_chat_template(said, tokenize=False, chat_template=self.template, **how))
        except TemplateError as error:
            raise RecordError(f"the chat template takes no such conversation: {error}") from None
