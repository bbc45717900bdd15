"""Samplers: answers of a model to prompts in tokens. `Transformers` draws them with the model's own cache of keys.

A sampler is `sample(prompts, count, seed) -> [prompt][count] answers in tokens`, each with its end if it came to one;
so that one that asks a server of its own can stand in its place.

`Transformers(...).mixing(a, b)` draws token by token from p(token) proportional to policy(token)^a reference(token)^b:
some recipes ask for that. The reference is the model before its tuning.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from backchannel.align.reference import as_reference
from backchannel.align.start import room


class Sampler(Protocol):
    """Draws answers."""

    def __call__(self, prompts: Sequence[list[int]], count: int, seed: int) -> list[list[list[int]]]:
        """`count` answers to each prompt."""


class Transformers:
    """Answers of a causal model of transformers, in batches of prompts of much the same length."""

    def __init__(
        self,
        model: Any,
        ends: Sequence[int],
        pad: int,
        most: int = 128,
        temperature: float = 1.0,
        limit: int | None = None,
        batch: int = 16,
    ):
        """Take a model as it is: with its adapter on or off.

        Args:
            model: of transformers, or with an adapter of peft.
            ends: tokens that end an answer.
            pad: token to fill up with, behind a mask.
            most: tokens of an answer.
            temperature: 0 takes the likeliest token.
            limit: tokens of prompt and answer; None: as many as the model has positions.
            batch: answers at a time.
        """
        if most < 1 or temperature < 0:
            raise ValueError(f"most must be 1 or more and temperature at least 0, not {most} and {temperature}")
        self.model, self.ends, self.pad = model, list(ends), pad
        self.most, self.temperature, self.batch, self.limit = most, temperature, batch, limit
        self.weights = 1.0, 0.0  # of the policy and of the reference

    def mixing(self, policy: float, reference: float) -> Transformers:
        """The same, of a mixture of the model and of its reference, for which it must have an adapter."""
        if reference and not hasattr(self.model, "disable_adapter"):
            raise ValueError("a mixture with the reference needs a model with an adapter: that can be turned off")
        other = copy.copy(self)
        other.weights = policy, reference
        return other

    def __call__(self, prompts: Sequence[list[int]], count: int, seed: int) -> list[list[list[int]]]:
        """`count` answers to each prompt. Torch's own generator is left as it was."""
        jobs = sorted((len(prompt), i) for i, prompt in enumerate(prompts) for _ in range(count))
        found: list[list[list[int]]] = [[] for _ in prompts]
        training = self.model.training
        self.model.eval()
        device = self.model.device
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                for start in range(0, len(jobs), self.batch):
                    some = [i for _, i in jobs[start : start + self.batch]]
                    for i, answer in zip(some, self._answers([prompts[i] for i in some]), strict=True):
                        found[i].append(answer)
        finally:
            self.model.train(training)
        return found

    @torch.no_grad()
    def _answers(self, prompts: list[list[int]]) -> list[list[int]]:
        from transformers import GenerationConfig

        width = max(map(len, prompts))
        positions = room(self.model, self.limit or width + self.most)
        if width >= positions:
            raise ValueError(f"a prompt of {width:,} tokens leaves no room for an answer within {positions:,}")
        rows = torch.tensor([[self.pad] * (width - len(each)) + each for each in prompts], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts], device=rows.device)
        how: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            how = {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        asked = GenerationConfig(
            max_new_tokens=min(self.most, positions - width), eos_token_id=self.ends, pad_token_id=self.pad,
            use_cache=True, **how,
        )  # fmt: skip
        with _plain(self.model):
            drawn = self.model.generate(
                input_ids=rows,
                attention_mask=mask,
                logits_processor=None if self.weights == (1.0, 0.0) else [_Mixture(self.model, mask, *self.weights)],
                generation_config=asked,
            )
        return [self._ended(row) for row in drawn[:, width:].tolist()]

    def _ended(self, answer: list[int]) -> list[int]:
        """Up to the first end, which is the answer's own; what fills up behind it is not."""
        last = next((i + 1 for i, token in enumerate(answer) if token in self.ends), len(answer))
        return answer[:last]


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """Without the settings that a model brings along: a penalty or a banned token would draw from another model."""
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, base.generation_config = base.generation_config, GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = own


class _Mixture:
    """Logits of a mixture: the reference reads what was drawn along with the policy, with a cache of its own."""

    def __init__(self, model: Any, mask: Tensor, policy: float, reference: float):
        self.model, self.mask, self.weights = model, mask, (policy, reference)
        self.cache, self.read = None, 0  # what the reference has read: its cache, and how many tokens

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """tokens [n, t], the policy's logits of the next one [n, vocabulary] -> the mixture's."""
        a, b = self.weights
        return a * logits + b * self._reference(tokens) if b else a * logits

    def _reference(self, tokens: Tensor) -> Tensor:
        grown = tokens.shape[1] - self.mask.shape[1]
        mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), grown)], 1)
        places = (mask.cumsum(1) - 1).clamp_min(0)  # prompts are filled up on their left
        with as_reference(self.model):
            out = self.model(
                input_ids=tokens[:, self.read :],
                attention_mask=mask,
                position_ids=places[:, self.read :],
                past_key_values=self.cache,
                use_cache=True,
            )
        self.cache, self.read = out.past_key_values, tokens.shape[1]
        last: Tensor = out.logits[:, -1].float()
        return last
