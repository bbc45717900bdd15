"""Rationales: a pair that says why becomes a question, whose answer is its rationale.

>>> from backchannel.lm.answers import Preference
>>> asked = asked_why(Preference("2 + 2 =", " 4", " 5", rationale="Four is the sum."))
>>> print(asked.prompt + asked.answer)
Of two answers to a request, the first was preferred.
<BLANKLINE>
Request:
2 + 2 =
<BLANKLINE>
The preferred answer:
4
<BLANKLINE>
The other answer:
5
<BLANKLINE>
Why was the first preferred?
Four is the sum.
"""

from __future__ import annotations

from backchannel.align.judges import plain
from backchannel.lm.answers import Preference, Rated, Text, content
from backchannel.lm.protocol import user

QUESTION = """Of two answers to a request, the first was preferred.

Request:
{prompt}

The preferred answer:
{chosen}

The other answer:
{rejected}

Why was the first preferred?
"""


def asked_why(pair: Preference) -> Rated:
    """The question why, as plain or conversational as the pair; its answer is the rationale, which must be there."""
    if pair.rationale is None:
        raise ValueError("the pair has no rationale")
    said = {"chosen": content(pair.chosen).strip(), "rejected": content(pair.rejected).strip()}
    question = QUESTION.format(prompt=plain(pair.prompt), **said)
    prompt: Text = question if isinstance(pair.prompt, str) else [user(question.strip())]
    return Rated(prompt, pair.rationale, id=pair.id)
