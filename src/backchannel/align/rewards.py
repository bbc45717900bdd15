"""Reward models: a score after the last token of an answer, by a model of transformers with a head of one output.

The last token is found by its position. A library that looks for the last token that is no padding finds another one
where padding and end are the same token, and rewards the answer before its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backchannel.align.examples import Example
from backchannel.align.judges import Verdict
from backchannel.align.tokens import Encoder
from backchannel.lm.answers import Rated, Text


def reward_scores(model: Any, some: Sequence[Example]) -> Tensor:
    """The score of every answer, in order: [answers]."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    rows = [each.prompt + answer for each in some for answer in each.answers]
    width, device = max(map(len, rows)), inner.device
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    last = torch.tensor([len(row) - 1 for row in rows], device=device)
    hidden = getattr(inner, inner.base_model_prefix)(input_ids=tokens, attention_mask=mask, use_cache=False)[0]
    found: Tensor = inner.score(hidden[torch.arange(len(rows), device=device), last])
    if found.shape[1] != 1:
        raise ValueError(f"a reward model has a head of one output, and this one has {found.shape[1]}: load it so")
    return found[:, 0].float()


class RewardJudge:
    """A judge by a reward model that `align` made: the higher score is the better answer."""

    def __init__(self, folder: Path, limit: int = 4096):
        """Load the model; ValueError if the folder holds none."""
        from backchannel.align.load import load_model

        self.model, tokenizer = load_model(str(folder), rewards=True)
        self.model.eval()
        self.encoder = Encoder(tokenizer, limit)

    def __call__(self, prompts: Sequence[Text], first: Sequence[str], second: Sequence[str]) -> Verdict:
        """One verdict for each pair; silent where an answer has no token."""
        pairs = [self._pair(*each) for each in zip(prompts, first, second, strict=True)]
        known = all(each is not None for each in pairs)
        wins = [None if each is None else 0.5 if each[0] == each[1] else float(each[0] > each[1]) for each in pairs]
        return Verdict(wins, [each for each in pairs if each is not None] if known else None)

    @torch.no_grad()
    def _pair(self, prompt: Text, one: str, other: str) -> tuple[float, float] | None:
        if not one.strip() or not other.strip():
            return None
        encoded = [self.encoder(Rated(prompt, answer)) for answer in (one, other)]
        some = [Example(Rated(prompt, one), each.prompt, each.answers, {}) for each in encoded]
        a, b = reward_scores(self.model, some).tolist()
        return a, b
