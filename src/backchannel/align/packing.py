"""The layout of a batch without padding: a prompt once, then each of its answers, and attention that knows it.

A batch is prompts, each with one answer or more. They lie in one row,

    tokens     prompt 1 | answer 1.1 | answer 1.2 | prompt 2 | answer 2.1 | ...
    positions  0 .. p-1 | p ..       | p ..       | 0 ..     | p ..

A prompt attends to what of it came before, an answer to its prompt and to what of itself came before, and to nothing
else. The prompt's hidden states are then those that it has before any of its answers, so that they are computed once;
the last of them predicts the first token of each answer. An answer's last token predicts nothing and is left out.

`segment_attention` is this attention for models of transformers that take theirs from its `AttentionInterface`. It
calls torch's `scaled_dot_product_attention` for each segment: a prompt with its first answer is a plain causal
sequence; every other answer goes in blocks of `QUERIES` tokens over prompt and answer, with one mask [QUERIES, longest
sequence] for all. No mask of all tokens by all tokens exists.

Where another kind of attention, a state from token to token, or positions counted by the model itself would see through
the segments, `obstacle` says so by the model's configuration; a window shorter than a sequence is `window`'s to tell.
What no configuration says, `backchannel.align.model` finds by comparing both layouts. `pad` is the other layout: one
row for each answer, padded on the right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "backchannel_segments"  # of the attention, in transformers' registry
QUERIES = 256
Prompts = Sequence[Sequence[int]]
Answers = Sequence[Sequence[Sequence[int]]]  # the answers to each prompt

_packing: ContextVar[list[torch.nn.Module] | None] = ContextVar("packing", default=None)


class UnpackableError(Exception):
    """What a model asks of its attention cannot be done by segments."""


class Group(NamedTuple):
    """A prompt and its answers in a row."""

    start: int
    prompt: int  # tokens
    answers: tuple[int, ...]  # tokens of each, without its last


class Segments(NamedTuple):
    """Where prompts and answers lie in a row, for the attention of every layer."""

    groups: tuple[Group, ...]
    mask: Tensor  # bool[QUERIES, longest]: its lower right corners are the masks of all blocks


class Packed(NamedTuple):
    """A batch in one row."""

    tokens: Tensor  # int64[1, row]
    positions: Tensor  # int64[1, row]
    segments: Segments
    reads: Tensor  # int64[answer tokens]: the place whose hidden state predicts each token of the answers
    targets: Tensor  # int64[answer tokens]
    lengths: Tensor  # int64[answers], on the CPU


class Padded(NamedTuple):
    """A batch with one row for each answer."""

    tokens: Tensor  # int64[answers, longest]
    reads: Tensor  # as in `Packed`, of rows laid end to end
    targets: Tensor
    lengths: Tensor


def checked(prompts: Prompts, answers: Answers) -> None:
    """ValueError for a batch that has no log-probabilities."""
    if len(prompts) != len(answers):
        raise ValueError(f"there must be answers for each prompt: {len(prompts)} prompts, {len(answers)} with answers")
    for i, (prompt, given) in enumerate(zip(prompts, answers, strict=True)):
        if len(prompt) == 0:
            raise ValueError(f"prompt {i} is empty: nothing predicts the first token of its answers")
        if len(given) == 0:
            raise ValueError(f"prompt {i} has no answers")
        for j, answer in enumerate(given):
            if len(answer) == 0:
                raise ValueError(f"answer {j} to prompt {i} is empty: it must end with a token, if only the end")


def longest(prompts: Prompts, answers: Answers) -> int:
    """Tokens of the longest sequence that a model must read: a prompt and an answer without its last token."""
    return max((len(p) + len(a) - 1 for p, given in zip(prompts, answers, strict=True) for a in given), default=0)


def pack(prompts: Prompts, answers: Answers, device: torch.device | str = "cpu") -> Packed:
    """A batch in one row, prompts computed once."""
    tokens: list[int] = []
    positions: list[int] = []
    reads: list[int] = []
    targets: list[int] = []
    groups = []
    for prompt, given in zip(prompts, answers, strict=True):
        start, last = len(tokens), len(tokens) + len(prompt) - 1
        tokens += prompt
        positions += range(len(prompt))
        for answer in given:
            reads += [last, *range(len(tokens), len(tokens) + len(answer) - 1)]
            targets += answer
            tokens += answer[:-1]
            positions += range(len(prompt), len(prompt) + len(answer) - 1)
        groups.append(Group(start, len(prompt), tuple(len(answer) - 1 for answer in given)))
    later = [g.prompt + length for g in groups for length in g.answers[1:] if length]
    mask = torch.ones(QUERIES, max(later, default=0), dtype=torch.bool, device=device)
    return Packed(
        torch.tensor([tokens], device=device),
        torch.tensor([positions], device=device),
        Segments(tuple(groups), mask.tril(mask.shape[1] - QUERIES)),
        torch.tensor(reads, device=device),
        torch.tensor(targets, device=device),
        torch.tensor([len(answer) for given in answers for answer in given]),
    )


def pad(prompts: Prompts, answers: Answers, device: torch.device | str = "cpu") -> Padded:
    """A batch of rows, one for each answer, filled up on the right: what is causal needs no mask for that."""
    whole = [([*p, *a], len(p)) for p, given in zip(prompts, answers, strict=True) for a in given]
    width = max(len(row) for row, _ in whole) - 1
    tokens = torch.zeros(len(whole), width, dtype=torch.int64)
    reads: list[int] = []
    targets: list[int] = []
    for i, (row, prompt) in enumerate(whole):
        tokens[i, : len(row) - 1] = torch.tensor(row[:-1])
        reads += range(i * width + prompt - 1, i * width + len(row) - 1)
        targets += row[prompt:]
    return Padded(
        tokens.to(device),
        torch.tensor(reads, device=device),
        torch.tensor(targets, device=device),
        torch.tensor([len(row) - prompt for row, prompt in whole]),
    )


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    answer_segments: Segments | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention by segments; without `answer_segments`, what transformers calls sdpa.

    Args:
        module: the layer that asks.
        query: [1, heads, row, width].
        key: [1, heads of keys, row, width].
        value: as `key`.
        attention_mask: of another layout; unused with segments.
        dropout: the share of attention weights that are dropped.
        scaling: of the products; None: 1 / sqrt(width).
        answer_segments: given to the model's forward pass, which hands it on.
        others: what else the layer asks for.
    """
    if answer_segments is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        whole: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **others
        )
        return whole
    asked = _packing.get()
    if asked is not None:  # it is None when gradient checkpointing calls again
        asked.append(module)
    odd = [name for name in ("softcap", "s_aux", "position_bias", "head_mask") if others.get(name) is not None]
    if odd:
        raise UnpackableError(f"its attention uses {odd[0]}")
    causal = others.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise UnpackableError("its attention looks ahead")

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        grouped = k.shape[1] != q.shape[1]
        if grouped and mask is not None and q.is_cuda:  # there, masked kernels want as many keys as queries
            k, v = (each.repeat_interleave(q.shape[1] // each.shape[1], 1) for each in (k, v))
            grouped = False
        return scaled_dot_product_attention(
            q, k, v, mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )

    found = []
    for start, prompt, answers in answer_segments.groups:
        stop = start + prompt + answers[0]
        first = slice(start, stop)
        found.append(attend(query[:, :, first], key[:, :, first], value[:, :, first], None))
        for length in answers[1:]:
            shared, own = slice(start, start + prompt), slice(stop, stop + length)
            keys, values = (torch.cat([each[:, :, shared], each[:, :, own]], 2) for each in (key, value))
            for i in range(0, length, QUERIES):
                j = min(i + QUERIES, length)
                mask = answer_segments.mask[QUERIES - (j - i) :, answer_segments.mask.shape[1] - (prompt + j) :]
                block = query[:, :, stop + i : stop + j]
                found.append(attend(block, keys[:, :, : prompt + j], values[:, :, : prompt + j], mask))
            stop += length
    return torch.cat(found, 2).transpose(1, 2).contiguous(), None


def _mask(**given: Any) -> Tensor | None:
    """None for a packed row; for all else what transformers makes for sdpa."""
    if _packing.get() is not None:
        return None
    from transformers.masking_utils import sdpa_mask

    found: Tensor | None = sdpa_mask(**given)
    return found


@contextmanager
def packing() -> Iterator[list[torch.nn.Module]]:
    """While a packed row goes forward: no masks are made, and layers that come for attention are listed."""
    asked: list[torch.nn.Module] = []
    token = _packing.set(asked)
    try:
        yield asked
    finally:
        _packing.reset(token)


def install(model: torch.nn.Module) -> Callable[[], None]:
    """Let all layers of a model use `segment_attention`; call what is returned to undo it.

    It stays in place, since gradient checkpointing calls layers again in the backward pass. Everything but packed rows
    is computed as by transformers' sdpa.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, segment_attention)
    AttentionMaskInterface.register(NAME, _mask)
    configs = {id(each.config): each.config for each in model.modules() if hasattr(each, "config")}
    before = [(each, each._attn_implementation) for each in configs.values() if hasattr(each, "_attn_implementation")]
    for config, _ in before:
        config._attn_implementation = NAME

    def undo() -> None:
        for config, name in before:
            config._attn_implementation = name

    return undo


def obstacle(config: Any) -> str | None:
    """Why a model of this configuration cannot be packed, as far as the configuration says it."""
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder with a decoder"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention scores are capped"
    if getattr(config, "alibi", False):
        return "its attention is biased by distance"
    if getattr(config, "attn_temperature_tuning", False):
        return "its attention depends on the place in the row"
    known = {"full_attention", "sliding_attention", "chunked_attention"}
    other = sorted(set(getattr(config, "layer_types", None) or ()) - known)
    if other:
        return f"it has layers of {other[0]}"
    return None


def window(config: Any) -> int | None:
    """The longest sequence that all layers see whole; None: any."""
    kinds = getattr(config, "layer_types", None)
    if kinds and set(kinds) == {"full_attention"}:
        return None
    names = ["attention_chunk_size", "window_size", "attention_window"]
    if getattr(config, "use_sliding_window", True):
        names.append("sliding_window")
    widths = [getattr(config, name, None) for name in names]
    return min((each for each in widths if isinstance(each, int) and each > 0), default=None)
