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
from backchannel.align.judges import SELDOM, Hearing, Verdict, compared, number
from backchannel.align.start import room
from backchannel.align.tokens import Encoder
from backchannel.lm.answers import Rated, Text, content


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
    """A judge by a reward model that `align` made: the higher score is the better answer.

    It reads what it was trained on: with the chat template if that was applied (`--chat`), and cut as there where a
    prompt and an answer are longer than it reads.
    """

    def __init__(self, folder: Path, limit: int = 4096):
        """Load the model; ValueError if the folder, or the `model` within it, holds none."""
        from backchannel.align.load import load_rewards

        self.model, tokenizer, use = load_rewards(folder)
        self.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        limit = room(self.model, limit)
        self.encoder = Encoder(tokenizer, limit, prompt_limit=limit - 1, chat=use.get("chat", False))
        self.hearing = Hearing(tries=1, patience=SELDOM)

    def __call__(self, prompts: Sequence[Text], first: Sequence[str], second: Sequence[str]) -> Verdict:
        """One verdict for each pair; silent where an answer has no token, or a score is no finite number."""
        return compared([self._pair(*each) for each in zip(prompts, first, second, strict=True)])

    @property
    def notes(self) -> list[str]:
        """What a user should know."""
        cut = self.encoder.report.prompts_cut + self.encoder.report.answers_cut
        return self.hearing.notes("answers") + (["the reward model read some answers cut to its limit"] if cut else [])

    def _pair(self, prompt: Text, one: str, other: str) -> tuple[float | None, float | None]:
        return self._score(prompt, one), self._score(prompt, other)

    def _score(self, prompt: Text, answer: str) -> float | None:
        if not answer.strip():
            return None
        return self.hearing(lambda attempt: self._scored(Rated(prompt, answer)))

    @torch.no_grad()
    def _scored(self, record: Rated) -> float:
        encoded = self.encoder(record)
        score = reward_scores(self.model, [Example(record, encoded.prompt, encoded.answers, {})])[0]
        return number(score, content(record.answer))
