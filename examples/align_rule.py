"""The rule by which the demo of `align` prefers answers: one plain sentence of about fifteen words."""

from __future__ import annotations

import re
from typing import Any

WORDS = 15


def score(prompt: Any, answer: str) -> float:
    """Higher is better: -1 for every three words off fifteen, -2 for more sentences or a list, -3 without an end."""
    text = answer.strip()
    words = len(text.split())
    sentences = len(re.findall(r"[.!?](?:\s|$)", text))
    off = abs(words - WORDS) / 3
    plain = 2.0 * (sentences > 1 or "\n" in text)
    return -(off + plain + 3.0 * (not re.search(r"[.!?]$", text)))
