"""Tokens: a record as the numbers that a model reads, with the place where the prompt ends and the answer begins.

    prompt   P = the tokens of which generation would go on
    answer   A = tokens that go on from P and end with the token that ends a turn, once

An `Encoder` holds to these rules, each of which has been broken somewhere in silence:

- A chat template is applied to conversations, once, and to plain text only where `chat` asks for it. Its text is
  tokenised without further special tokens, as generation does; so there is no second BOS where the template writes one.
  Plain text gets what the tokenizer puts before a text, and never what it puts behind it.
- The prompt is tokenised alone, and all answers of a record share its tokens. If the tokens of prompt and answer
  together begin with the prompt's, the others are the answer's. If they do not, since a token would span the border,
  the answer is tokenised as it would be within a text, and the row is counted as merged: a model that has read P can
  say A, but would never have read the merged token.
- What a template writes before the answer although no generation prompt asked for it belongs to the prompt. Where the
  whole conversation does not even begin with the prompt's text, the border is behind the longest common tokens.
- The answer ends with the template's end of turn or, where it has none and in plain text, with EOS. What a template
  writes behind that is never generated, and is left out.
- Masks come from positions (`Encoded.sequence`), never from token ids: a padding token may be EOS.
- Too long a record: the prompt gives way from its left, but for a BOS, down to half of the limit; then answers are cut
  on their right, and lose their end. They keep one token or more. A prompt that leaves no room at all is refused,
  unless `prompt_limit` says to what it may be cut.

Everything that was cut, merged, changed or left out is counted in `encoder.report`.

    >>> from backchannel.align.tokens import Encoded
    >>> Encoded(prompt=[1, 7, 8], answers=[[9, 2], [5, 5, 2]]).sequence(0)
    ([1, 7, 8, 9, 2], [False, False, False, True, True])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from backchannel.align.template import RecordError, Template
from backchannel.ledger.problems import Problems, counted, shortened
from backchannel.lm.answers import Record, Text, answers_of, content, turn
from backchannel.lm.protocol import user

T = TypeVar("T")


class Encoded(NamedTuple):
    """A record in tokens."""

    prompt: list[int]
    answers: list[list[int]]  # chosen and rejected, or the one, or best first

    def sequence(self, index: int) -> tuple[list[int], list[bool]]:
        """Prompt and answer in one, and which tokens are the answer's."""
        answer = self.answers[index]
        return self.prompt + answer, [False] * len(self.prompt) + [True] * len(answer)


@dataclass
class Report:
    """What was done to records: counts, and `sentences` that say them."""

    records: int = 0
    refused: int = 0
    prompts_cut: int = 0
    prompt_tokens_cut: int = 0
    answers_cut: int = 0
    answer_tokens_cut: int = 0
    second_bos: int = 0
    merged: int = 0
    parted: int = 0
    changed: int = 0
    marked: int = 0
    inner_ends: int = 0
    repeated: int = 0
    notes: list[str] = field(default_factory=list)  # of the tokenizer, whatever the records

    def sentences(self) -> list[str]:
        """What a user should know; empty where all went as it should."""
        said = list(self.notes)
        for name, (one, many) in _WORDS.items():
            if count := getattr(self, name):
                said.append(counted(count, one, many))
        if self.prompts_cut or self.answers_cut:
            said.append(
                f"{self.prompt_tokens_cut:,} tokens of prompts and {self.answer_tokens_cut:,} of answers were cut"
            )
        return said


_WORDS = {
    "refused": ("record was refused", "records were refused"),
    "prompts_cut": ("prompt was cut on its left", "prompts were cut on their left"),
    "answers_cut": ("answer was cut on its right and has no end", "answers were cut on their right and have no end"),
    "second_bos": ("second BOS was left out", "second BOS were left out"),
    "merged": ("answer would share a token with its prompt", "answers would share a token with their prompts"),
    "parted": (
        "answer does not follow the generation prompt: what both have in common is the prompt",
        "answers do not follow the generation prompt: what both have in common is the prompt",
    ),
    "changed": (
        "answer was changed by the template, which trims spaces or takes out thoughts",
        "answers were changed by the template, which trims spaces or takes out thoughts",
    ),
    "marked": (
        "conversation holds special tokens in its texts: was a template applied before?",
        "conversations hold special tokens in their texts: was a template applied before?",
    ),
    "inner_ends": ("answer holds an end of turn within", "answers hold an end of turn within"),
    "repeated": (
        "record's answers begin with its whole prompt: it is in them twice, and is learned as if it was answered",
        "records' answers begin with their whole prompt: it is in them twice, and is learned as if it was answered",
    ),
}


class Encoder:
    """Turns records into tokens for one tokenizer of `transformers`; call it with a record.

    Args:
        tokenizer: of the model to be tuned.
        limit: tokens of prompt and answer together, at most.
        prompt_limit: prompts longer than this are cut on their left, whatever the answers' length.
        answer_limit: answers longer than this are cut on their right.
        template: a chat template in place of the tokenizer's own.
        chat: apply the template to plain prompts, too, as one message of the user.

    Attributes:
        report: what was done so far.
        pad: the token to fill up with: the tokenizer's own, or EOS.
        ends: the tokens at which a sampler stops.
    """

    def __init__(
        self,
        tokenizer: Any,
        limit: int,
        *,
        prompt_limit: int | None = None,
        answer_limit: int | None = None,
        template: str | None = None,
        chat: bool = False,
    ) -> None:
        for name, value in (("limit", limit), ("prompt_limit", prompt_limit), ("answer_limit", answer_limit)):
            if value is not None and value < (2 if name == "limit" else 1):
                raise ValueError(f"{name} must be {2 if name == 'limit' else 1} or more, not {value}")
        if prompt_limit is not None and prompt_limit >= limit:
            raise ValueError(f"prompt_limit must be below the limit of {limit}, or no answer fits, not {prompt_limit}")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no EOS token, so that no answer would end; set tokenizer.eos_token")
        self.tokenizer, self.limit, self.chat = tokenizer, limit, chat
        self.prompt_limit, self.answer_limit = prompt_limit, answer_limit
        self.report = Report()
        self.eos, self.bos = int(tokenizer.eos_token_id), tokenizer.bos_token_id
        self.pad = self.eos if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
        if tokenizer.pad_token_id is None:
            self.report.notes.append("the tokenizer has no padding token: EOS fills up, and counts only within answers")
        self._opening = self._find_opening()
        self.template = Template(tokenizer, template)
        self.ends = [self.eos]
        if chat and not self.template.exists:
            raise ValueError("a chat template is asked for, for plain prompts, and the tokenizer has none")
        if self.template.exists:
            frame = self.template.frame
            self.ends = sorted({self.eos, frame.end})
            if frame.head:
                self.report.notes.append(f"the template has no generation prompt: prompts end with {frame.head!r}")

    def __call__(self, record: Record, name: str = "the record") -> Encoded:
        """A record in tokens; RecordError, with the record's `name`, where that cannot be."""
        with self._named(name):
            encoded = self._encode(record)
        self.report.records += 1
        return encoded

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """What is refused within is counted, and said of `name`."""
        try:
            yield
        except RecordError as error:
            self.report.refused += 1
            raise RecordError(f"{name}: {error}") from None

    def each(self, records: Iterable[Record], read: Callable[[Record, str], T], skip_bad_rows: int = 0) -> Iterator[T]:
        """What `read` makes of each record and its name; up to `skip_bad_rows` that are refused are left out.

        One is named by its place among records, by its id or the beginning of its prompt: a row may be several of them.
        """
        problems = Problems(skip_bad_rows)
        for number, record in enumerate(records, 1):
            try:
                found = read(record, f"record {number} ({known_by(record)})")
            except RecordError as error:
                problems.add(str(error))
            else:
                yield found
        self.report.notes += problems.notes()

    def prompt(self, prompt: Text, continues: bool = False) -> list[int]:
        """The tokens from which generation goes on."""
        if isinstance(prompt, str) and not self.chat:
            return self._begun(self._ids(prompt))
        messages = [user(prompt)] if isinstance(prompt, str) else prompt
        return self._once(self._ids(self.template.prompt(messages, continues)))

    def asked(self, prompt: Text, continues: bool = False, name: str = "the record") -> list[int]:
        """The same, cut on its left to `prompt_limit`, which is counted; RecordError, with the record's `name`."""
        with self._named(name):
            tokens = self.prompt(prompt, continues)
        return self._cut(tokens, len(tokens) if self.prompt_limit is None else self.prompt_limit)

    def _encode(self, record: Record) -> Encoded:
        answers = [*answers_of(record)]
        chat = not isinstance(record.prompt, str) or self.chat
        prompt, found = self._conversation(record, answers) if chat else self._plain(record, answers)
        if not prompt:
            raise RecordError("the prompt has no token, so that the first one of the answer has no probability")
        for answer in found:
            if len(answer) < 2:
                raise RecordError("an answer has no token but its end")
            self.report.inner_ends += any(token in self.ends for token in answer[:-1])
        return self._fitting(prompt, found)

    def _plain(self, record: Record, answers: list[Text]) -> tuple[list[int], list[list[int]]]:
        text = str(record.prompt)
        self.report.repeated += bool(text.strip()) and all(content(each).startswith(text) for each in answers)
        bare = self._ids(text)
        found = []
        for answer in answers:
            found.append([*self._open(self._following(bare, text, content(answer))), self.eos])
        return self._begun(bare, count=True), found

    def _conversation(self, record: Record, answers: list[Text]) -> tuple[list[int], list[list[int]]]:
        messages = [user(record.prompt)] if isinstance(record.prompt, str) else record.prompt
        texts = [message.content for message in messages] + [content(answer) for answer in answers]
        self.report.marked += any(mark in each for each in texts for mark in self.template.special)
        closing = self.template.frame.closing
        text = self.template.prompt(messages, record.continues)
        prompt = bare = self._ids(text)
        wholes: list[list[int]] = []
        for answer in answers:
            whole = self.template.whole(messages, turn(answer), record.continues)
            self.report.changed += not whole.endswith(content(answer))
            if whole.startswith(text):
                if not whole[len(text) :].strip():
                    raise RecordError("the chat template leaves nothing of an answer")
                wholes.append(bare + self._following(bare, text, whole[len(text) :] + closing))
            else:
                self.report.parted += 1
                wholes.append(self._ids(whole + closing))
                prompt = prompt[: _common(prompt, wholes[-1])]
        found = [[*self._open(whole[len(prompt) :]), self.template.frame.end] for whole in wholes]
        return self._once(prompt, count=True), found

    def _following(self, prompt: list[int], before: str, text: str) -> list[int]:
        """The tokens of a text that stands behind the prompt."""
        whole = self._ids(before + text)
        if whole[: len(prompt)] == prompt:
            return whole[len(prompt) :]
        self.report.merged += 1
        line = self._ids("\n")  # some tokenizers put a space before what begins a text
        within = self._ids("\n" + text)
        return within[len(line) :] if line and within[: len(line)] == line else self._ids(text)

    def _open(self, answer: list[int]) -> list[int]:
        """An answer without the ends that its text may bring along."""
        while answer and answer[-1] in self.ends:
            answer = answer[:-1]
        return answer

    def _fitting(self, prompt: list[int], answers: list[list[int]]) -> Encoded:
        """Cut to the limits; the report is told of it once the record is known to be good."""
        most = self.limit if self.answer_limit is None else self.answer_limit
        longest = min(max(map(len, answers)), most)
        kept = len(prompt) if self.prompt_limit is None else min(len(prompt), self.prompt_limit)
        if kept >= self.limit:
            raise RecordError(
                f"the prompt has {kept:,} tokens and leaves no room for an answer within {self.limit:,}; "
                "`prompt_limit` cuts prompts on their left"
            )
        if kept + longest > self.limit:
            kept = min(kept, max(self.limit - longest, self.limit // 2))
        room = min(most, self.limit - kept)
        short = [answer[:room] for answer in answers]
        for index, answer in enumerate(short):
            if answer in short[:index]:
                cut = f" once they are cut to {room:,} tokens" if max(map(len, answers)) > room else " in tokens"
                raise RecordError(f"answers {short.index(answer) + 1} and {index + 1} are the same{cut}")
        self.report.answers_cut += sum(len(answer) > room for answer in answers)
        self.report.answer_tokens_cut += sum(max(0, len(answer) - room) for answer in answers)
        return Encoded(self._cut(prompt, kept), short)

    def _cut(self, prompt: list[int], kept: int) -> list[int]:
        """The last tokens of a prompt, and its BOS."""
        if kept >= len(prompt):
            return prompt
        self.report.prompts_cut += 1
        self.report.prompt_tokens_cut += len(prompt) - kept
        opened = kept > 1 and prompt[0] == self.bos and prompt.count(self.bos) == 1
        head = prompt[:1] if opened else []
        return head + prompt[len(prompt) - kept + len(head) :]

    def _begun(self, bare: list[int], count: bool = False) -> list[int]:
        """The tokens of a plain prompt with what the tokenizer puts before a text."""
        if bare and bare[0] == self.bos and self.bos in self._opening:
            self.report.second_bos += count
            return bare
        return self._opening + bare

    def _once(self, ids: list[int], count: bool = False) -> list[int]:
        """The tokens of a conversation, without a second BOS."""
        first = 0
        while self.bos is not None and ids[first : first + 2] == [self.bos, self.bos]:
            first += 1
        self.report.second_bos += count and first > 0
        return ids[first:]

    def _find_opening(self) -> list[int]:
        """What the tokenizer puts before a text."""
        bare, whole = self._ids("a"), list(self.tokenizer("a", add_special_tokens=True)["input_ids"])
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return whole[:start]
        raise ValueError("the tokenizer splits a text otherwise where special tokens stand around it")

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _common(a: list[int], b: list[int]) -> int:
    """How many first tokens are the same."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def known_by(record: Record) -> str:
    """By what its user finds a record: its id, or the beginning of its prompt's last message."""
    asked = record.prompt if isinstance(record.prompt, str) else content(record.prompt[-1:] or "")
    return f"id {record.id!r}" if record.id else f"prompt {shortened(asked)}"
