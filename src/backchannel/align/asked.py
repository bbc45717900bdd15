"""Held-out prompts that a model answers before and after, and what the answers show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from backchannel.align.evaluate import drawn
from backchannel.align.judges import Judge, tried
from backchannel.align.model import Answers, evaluating
from backchannel.align.reference import reference_logs
from backchannel.align.result import Drawn
from backchannel.align.sampler import Sampler
from backchannel.lm.answers import Text


class Asked:
    """Prompts, and who answers them."""

    def __init__(
        self, prompts: Sequence[tuple[Text, list[int]]], draw: Sampler, tokenizer: Any, ends: Sequence[int], seed: int
    ):
        """Take prompts as texts and in tokens; each different one is asked once."""
        different = {tuple(tokens): (text, tokens) for text, tokens in reversed(prompts)}
        self.prompts = list(different.values())[::-1]
        self.draw, self.tokenizer, self.ends, self.seed = draw, tokenizer, list(ends), seed

    def answers(self) -> list[list[int]]:
        """One answer to each, in tokens."""
        if not self.prompts:
            return []
        return [each[0] for each in self.draw([tokens for _, tokens in self.prompts], 1, self.seed)]

    def tried(self, early: list[list[int]], judge: Judge | None, name: str) -> None:
        """See that a judge works on answers from before; ValueError if it fails on them."""
        tried(judge, name, [text for text, _ in self.prompts], [text for text, _, _ in self._read(early)])

    def shown(
        self, early: list[list[int]], judge: Judge | None, name: str, model: Answers, notes: list[str]
    ) -> Drawn | None:
        """What answers from before and now show; None where nothing was asked, or a signal came (`notes` say so)."""
        if not self.prompts:
            return None
        try:
            late = self.answers()
            found = drawn([text for text, _ in self.prompts], self._read(early), self._read(late), judge, name)
            found.divergence = self._divergence(model, late)
        except KeyboardInterrupt:
            notes.append("a signal came before answers from after training were drawn and judged: none are shown")
            return None
        return found

    def _read(self, answers: list[list[int]]) -> list[tuple[str, int, bool]]:
        texts = [self.tokenizer.decode(answer, skip_special_tokens=True) for answer in answers]
        return [
            (text, len(each), bool(each) and each[-1] in self.ends) for text, each in zip(texts, answers, strict=True)
        ]

    def _divergence(self, model: Answers, answers: list[list[int]]) -> float | None:
        """The mean log-ratio of answers to the model without its adapter; None where it has none."""
        if not hasattr(model.model, "peft_config"):
            return None
        return away(model, [(prompt, answer) for (_, prompt), answer in zip(self.prompts, answers, strict=True)])


@torch.no_grad()
def away(model: Answers, answers: Sequence[tuple[list[int], list[int]]]) -> float:
    """The mean log-ratio to the reference of answers, each with its prompt before it, in tokens.

    Of answers that the model drew it estimates its divergence from the reference, in nats.
    """
    found = []
    with evaluating(model):
        for prompt, answer in answers:
            now, then = model([prompt], [[answer]]), reference_logs(model, [prompt], [[answer]])
            found.append(float(now.sums() - then.sums()))
    return sum(found) / len(found)
