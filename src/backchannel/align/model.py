"""Log-probabilities of answers under a language model, computed as frugally as the model allows.

`Answers(model)` takes a causal model of transformers, with or without adapters of peft, and gives the log-probability
of every token of every answer, its end included:

    answers = Answers(model)
    logs = answers(prompts, [[chosen, rejected], ...])  # lists of tokens
    logs.sums()                                         # one number for each answer, in the given order

Two things are saved where they can be. Hidden states become log-probabilities in blocks, of the answers' tokens alone
(`parts/head_logs.py`). And a batch is one row without padding in which a prompt is computed once, however many answers
it has (`align/packing.py`). Neither changes a number beyond rounding.

Whether a model allows it is checked, not believed: small made-up sequences go through the model's own forward pass one
at a time, and then as a batch in each way. Where the numbers differ, or the model's configuration says that those of
another batch could, the plain way is taken, and `notes` says why: a padded row for each answer, or the model's own
logits, or both. The check draws nothing and leaves the model as it was.

A model may be sharded over processes later (torch's `fully_shard`): its weights are whole within its forward alone, and
there they are read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backchannel.align import packing
from backchannel.align.packing import Prompts, UnpackableError
from backchannel.parts.head_logs import head_logs
from backchannel.parts.sharded import is_sharded

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}  # relative, of the check; else NARROW
NARROW = 5e-2  # of 16 bits


class Logs(NamedTuple):
    """Log-probabilities of the tokens of answers, end to end."""

    tokens: Tensor  # [all tokens of all answers], float32 or float64
    lengths: Tensor  # int64[answers], on the CPU
    values: Tensor | None = None  # what a critic expects before each token, where there is one

    def each(self) -> list[Tensor]:
        """The log-probabilities of each answer's tokens; with a critic [tokens, 2], its values behind them."""
        found = self.tokens if self.values is None else torch.stack([self.tokens, self.values], 1)
        return list(found.split(self.lengths.tolist()))

    def sums(self) -> Tensor:
        """The log-probability of each answer: [answers]."""
        each = self.tokens.split(self.lengths.tolist())
        return torch.stack([tokens.sum() for tokens in each]) if len(self.lengths) else self.tokens.new_zeros(0)


class Answers(nn.Module):
    """A causal language model as log-probabilities of answers.

    Attributes:
        model: as given; no parameter is changed.
        config: the model's, or the part of it that is about text.
        notes: why something is not computed the frugal way; empty if all is.
    """

    def __init__(self, model: Any, critic: nn.Module | None = None) -> None:
        """Find the model's parts and check what it allows.

        Args:
            model: a causal model of transformers, or one of peft around it. Where it can be packed, its attention is
                replaced by one that computes the same (`packing.install`).
            critic: from the last hidden states, [n, width], to what is to be expected there, [n, 1].
        """
        super().__init__()
        self.model, self.critic = model, critic
        self.notes: tuple[str, ...] = ()
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        if getattr(base.config, "is_encoder_decoder", False):
            raise ValueError("the model must be a causal one, and this is an encoder with a decoder")
        adapters = getattr(model, "peft_config", None) or {}
        if isinstance(adapters, dict) and any(each.is_prompt_learning for each in adapters.values()):
            raise ValueError("adapters that put tokens before the prompt are not supported: use LoRA")
        self.config = base.config.get_text_config()
        self._window = packing.window(self.config)
        self._scale, self._softcap = _logit_scale(self.config), getattr(self.config, "final_logit_softcapping", None)
        self._headed = self._packs = False
        self._asked = 0  # layers that came for attention in the last packed row
        with evaluating(model), torch.no_grad():
            self._check()
        if critic is not None and not self._headed:
            raise ValueError("a critic reads a model's last hidden states, and those of this one are not to be had")

    def forward(self, prompts: Prompts, answers: packing.Answers) -> Logs:
        """The log-probabilities of the answers' tokens, in the given order.

        Args:
            prompts: the tokens of each.
            answers: of each prompt, the tokens of each of its answers, their ends included; none is empty.
        """
        packing.checked(prompts, answers)
        if not prompts:
            return Logs(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        sharded = is_sharded(self.model)
        if sharded:
            found: Logs = redirected(self.model, self.model, self._found, prompts, answers)
            return found
        return self._found(prompts, answers)

    def _found(self, prompts: Prompts, answers: packing.Answers) -> Logs:
        width = packing.longest(prompts, answers)
        if self._packs and (self._window is None or width <= self._window):
            return self._packed(prompts, answers)
        return self._padded(prompts, answers)

    @property
    def device(self) -> torch.device:
        """Where tokens must be: where the model's embedding is."""
        found: torch.device = self._base().get_input_embeddings().weight.device
        return found

    def _base(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def _packed(self, prompts: Prompts, answers: packing.Answers) -> Logs:
        batch = packing.pack(prompts, answers, self.device)
        with packing.packing() as asked:
            hidden = self._hidden(input_ids=batch.tokens, position_ids=batch.positions, answer_segments=batch.segments)
        self._asked = len(asked)
        return self._logs(hidden, batch)

    def _padded(self, prompts: Prompts, answers: packing.Answers) -> Logs:
        batch = packing.pad(prompts, answers, self.device)
        if self._headed:
            return self._logs(self._hidden(input_ids=batch.tokens), batch)
        logits = self.model(input_ids=batch.tokens, use_cache=False).logits
        rows = logits.flatten(0, 1)[batch.reads.to(logits.device)]
        rows = torch.log_softmax(rows if rows.dtype == torch.float64 else rows.float(), 1)
        return Logs(rows.gather(1, batch.targets.to(rows.device)[:, None])[:, 0], batch.lengths)

    def _hidden(self, **inputs: Any) -> Tensor:
        """The last hidden states, row after row: [rows x length, width]."""
        base = self._base()
        found: Tensor = getattr(base, base.base_model_prefix)(**inputs, use_cache=False).last_hidden_state
        return found.flatten(0, 1)

    def _logs(self, hidden: Tensor, batch: packing.Packed | packing.Padded) -> Logs:
        head = self._base().get_output_embeddings()
        states = hidden[batch.reads.to(hidden.device)].to(head.weight.device)
        targets = batch.targets.to(states.device)
        logs = head_logs(states, head.weight, targets, head.bias, self._scale, self._softcap)
        values = None if self.critic is None else self.critic(states)[:, 0].to(logs.dtype)
        return Logs(logs, batch.lengths, values)

    def _check(self) -> None:
        """Compare the ways to compute; note those that must not be taken."""
        base, dtype = self._base(), self._base().get_input_embeddings().weight.dtype
        close = TOLERANCE.get(dtype, NARROW)
        prompts, answers = _made_up(self.config.vocab_size)
        alone = [self._padded([p], [[a]]).tokens for p, given in zip(prompts, answers, strict=True) for a in given]
        own = torch.cat(alone)
        notes = []

        def differs(found: Tensor) -> str | None:
            gap = float(((found.to(own) - own).abs() / (1 + own.abs())).max())
            return None if gap <= close else f"log-probabilities differ by {gap:.1g}"

        why = differs(self._padded(prompts, answers).tokens)
        if why is not None:
            raise ValueError(f"the model is not causal: with other sequences in the batch its {why}")
        backbone, head = getattr(base, base.base_model_prefix, None), base.get_output_embeddings()
        if backbone is None or backbone is base or type(head) is not nn.Linear:
            why = "its head is not one matrix over the last hidden states"
        else:
            self._headed = True
            why = differs(self._padded(prompts, answers).tokens)
        if why is not None:
            self._headed = False
            notes.append(f"all logits of a batch are held, as the model's own forward pass makes them: {why}")
        else:
            why = packing.obstacle(self.config) or _closed(base, backbone)
            if why is None:
                undo = packing.install(self.model)
                try:
                    why = differs(self._packed(prompts, answers).tokens)
                    if self._asked < self.config.num_hidden_layers:
                        why = f"only {self._asked} of its {self.config.num_hidden_layers} layers use that attention"
                except UnpackableError as failure:
                    why = str(failure)
                if why is not None:
                    undo()
            self._packs = why is None
            if why is not None:
                notes.append(f"answers are computed in padded rows, each with its prompt: {why}")
            elif self._window is not None:
                notes.append(
                    f"batches with a sequence of more than {self._window} tokens are computed in padded rows: "
                    "some layers see no further"
                )
        self.notes = tuple(notes)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation, and afterwards each of its modules as it was."""
    before = [(each, each.training) for each in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for each, training in before:
            each.training = training


def redirected(wrapper: nn.Module, inner: nn.Module, compute: Callable[..., Any], *given: Any) -> Any:
    """`compute(*given)`, called by way of `wrapper`'s own forward, which calls that of `inner`.

    Wrappers that share gradients or parameters among processes begin and end their work in their `forward`; what goes
    past it would be trained on one process alone, without a word, or on the parameters' shards.
    """
    forward = inner.forward

    def once(*_: Any, **__: Any) -> Any:
        inner.forward = forward
        return compute(*given)

    inner.forward = once
    try:
        return wrapper()
    finally:
        inner.forward = forward


def _closed(base: Any, backbone: Any) -> str | None:
    """Why a row cannot be described to a model; None if it can."""
    if not base._can_set_attn_implementation():
        return "its attention cannot be replaced"
    taken = inspect.signature(backbone.forward).parameters
    if "position_ids" not in taken:
        return "it counts positions by itself"
    if not any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        return "it hands nothing on to its attention"
    return None


def _logit_scale(config: Any) -> float:
    """What the model multiplies its logits with."""
    if getattr(config, "logits_scaling", None):
        return 1 / float(config.logits_scaling)
    return float(getattr(config, "logit_scale", None) or 1)


def _made_up(vocabulary: int) -> tuple[list[list[int]], list[list[list[int]]]]:
    """A small batch of prompts with three answers, two and one, of uneven lengths."""

    def tokens(many: int, first: int) -> list[int]:
        return [vocabulary // 4 + (first + 7919 * i) % max(1, vocabulary // 2) for i in range(many)]

    prompts = [tokens(5, 1), tokens(3, 11), tokens(1, 5)]
    return prompts, [[tokens(4, 2), tokens(6, 3), tokens(1, 4)], [tokens(3, 6), tokens(7, 7)], [tokens(2, 8)]]
