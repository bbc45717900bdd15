"""A simulated model: skills of stated strength in place of a language model, for tests and claims.

A *skill* is a function of the prompt and of its own luck: `skill(messages, draw) -> text`, or None if the prompt is
none of its business. It sees what a language model would see, the messages, and nothing else: no state between calls,
no word from the task or the method beside the prompt. What it knows of past trials it must have read.

`draw` gives random numbers that are a pure function of (the model's seed, the call's seed, a text): `draw(text)` is a
`random.Random`. A skill that draws on the whole prompt decides anew in every step; one that draws on the prompt's head
decides once for a trial. At temperature 0 the call's seed is ignored: the same prompt, the same answer.

    >>> from backchannel.lm.protocol import user, wait
    >>> lm = Simulated([lambda messages, draw: draw("coin").choice(["heads", "tails"])], seed=3)
    >>> replies = [wait(lm.complete([user("Toss.")], temperature=1.0, seed=i)).text for i in range(20)]
    >>> sorted(set(replies))
    ['heads', 'tails']
    >>> len({wait(lm.complete([user("Toss.")], seed=i)).text for i in range(20)})
    1
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

from backchannel.lm.protocol import LanguageModelError, Message, Reply, count_tokens

Draw = Callable[[str], random.Random]
Skill = Callable[[Sequence[Message], Draw], str | None]


class Simulated:
    """A language model made of skills; the first that has an answer gives it."""

    def __init__(self, skills: Sequence[Skill], seed: int = 0, name: str = "simulated") -> None:
        self.skills = tuple(skills)
        self.seed = seed
        self._name = name

    @property
    def name(self) -> str:
        """As given."""
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
        """What the first able skill says, cut at a stop text and at `max_tokens`."""
        luck = f"{self.seed}/{seed if temperature > 0 else None}/"

        def draw(text: str) -> random.Random:
            digest = hashlib.blake2b((luck + text).encode(), digest_size=8).digest()
            return random.Random(int.from_bytes(digest, "little"))

        for skill in self.skills:
            text = skill(messages, draw)
            if text is None:
                continue
            for end in stop:
                text = text.split(end, 1)[0]
            whole = count_tokens(text) <= max_tokens
            if not whole:
                text = text.encode()[: 3 * max_tokens].decode(errors="ignore")
            return Reply(text, count_tokens(messages), count_tokens(text), "stop" if whole else "length")
        start = messages[0].content[:80] if messages else ""
        raise LanguageModelError(f"the simulated model {self.name!r} has no skill for the prompt {start!r}")
