"""Compressors: shorter messages in place of vectors, with the constant that theory asks of each.

Two classes, for a vector x of dimension d and the compressor's own luck:

    contractive   E |C(x) - x|^2 <= (1 - alpha) |x|^2,  0 < alpha <= 1      (may be biased)
    unbiased      E C(x) = x  and  E |C(x) - x|^2 <= omega |x|^2

| compressor        | sends                                       | alpha       | omega     |
|-------------------|---------------------------------------------|-------------|-----------|
| `identity()`      | everything                                  | 1           | 0         |
| `top_k(k)`        | the k entries of largest magnitude          | k / d       |           |
| `rand_k(k)`       | k random entries, times d / k               |             | d / k - 1 |
| `natural()`       | signs and exponents, rounded at random      | 7 / 8       | 1 / 8     |
| `contractive(C)`  | an unbiased C, divided by 1 + omega         | 1/(1+omega) |           |

A compressor works on rows, one for each worker that lives in this process, each with its own key
(`parts/torch_random.py`). `bits` counts what `pack` really writes, in whole bytes, without writing it; `unpack`
reads it back. `identity` and `top_k` are positively homogeneous, C(c x) = c C(x) for every c > 0, whatever the
key; `rand_k` is, for one key; `natural` is not.

Sources: Beznosikov et al. 2023 (classes, Top-k, Rand-k, the division by 1 + omega); Horvath et al. 2022 (natural).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from backchannel.parts.torch_random import uniform


class Message(NamedTuple):
    """What a row becomes: `values` [rows, m], at `places` [rows, m] of a vector of dimension `dimension`."""

    values: Tensor
    places: Tensor | None  # int64; None: all entries, in order
    dimension: int


class Compressor(NamedTuple):
    """A compressor's functions and constants.

    - `compress(x, keys) -> Message`: x is [rows, d], keys int64[rows] (ignored where nothing is random).
    - `decompress(message) -> Tensor`: [rows, d].
    - `bits(message) -> int`: the length of all rows' packed messages, in bits.
    - `pack(message) -> list[bytes]`: one a row.
    - `unpack(packed, dimension, dtype) -> Message`: `pack` undone.
    - `contraction(dimension)`: alpha, or None where the compressor is not contractive.
    - `variance(dimension)`: omega, or None where it is biased.
    """

    compress: Callable[[Tensor, Tensor], Message]
    decompress: Callable[[Message], Tensor]
    bits: Callable[[Message], int]
    pack: Callable[[Message], list[bytes]]
    unpack: Callable[[Sequence[bytes], int, torch.dtype], Message]
    contraction: Callable[[int], float | None]
    variance: Callable[[int], float | None]


def identity() -> Compressor:
    """Nothing is lost and nothing is saved."""

    def compress(x: Tensor, keys: Tensor) -> Message:
        return Message(x, None, x.shape[1])

    return _sparse(compress, lambda d: d, lambda d: 1.0, lambda d: 0.0, sends_places=False)


def top_k(k: int) -> Compressor:
    """The `k` entries of largest magnitude (of ties, any), with their places."""
    _check(k)

    def compress(x: Tensor, keys: Tensor) -> Message:
        index = x.abs().topk(min(k, x.shape[1]), dim=1).indices
        return Message(x.gather(1, index), index, x.shape[1])

    return _sparse(compress, lambda d: min(k, d), lambda d: min(k, d) / d, lambda d: None)


def rand_k(k: int) -> Compressor:
    """`k` entries drawn without replacement, times d / k, with their places.

    Sender and receiver could draw the places from a common seed and send values only; here places are sent.
    """
    _check(k)

    def compress(x: Tensor, keys: Tensor) -> Message:
        d = x.shape[1]
        index = uniform(keys, d).topk(min(k, d), dim=1).indices
        return Message(x.gather(1, index) * (d / min(k, d)), index, d)

    return _sparse(compress, lambda d: min(k, d), lambda d: None, lambda d: d / min(k, d) - 1)


def natural() -> Compressor:
    """Each entry is rounded to a power of two, up or down at random, so that its mean stays: sign and exponent.

    Magnitudes below the smallest normal number become 0, and those at the largest exponent are rounded down.
    """

    def compress(x: Tensor, keys: Tensor) -> Message:
        tiny, huge = _limits(x.dtype)
        mantissa, exponent = torch.frexp(x.abs())  # |x| = mantissa 2^exponent, 1/2 <= mantissa < 1
        up = uniform(keys, x.shape[1]) < 2 * mantissa - 1
        power = (exponent - 1 + up.to(exponent.dtype)).clamp(max=huge)
        value = torch.where(x.abs() < 2.0**tiny, 0.0, torch.ldexp(torch.ones_like(x), power))
        return Message(torch.copysign(value, x), None, x.shape[1])

    def decompress(message: Message) -> Tensor:
        return message.values

    def bits(message: Message) -> int:
        rows, d = message.values.shape
        return rows * _whole(d * _natural_width(message.values.dtype))

    def pack(message: Message) -> list[bytes]:
        tiny, _ = _limits(message.values.dtype)
        width = _natural_width(message.values.dtype)
        _, exponent = torch.frexp(message.values.abs())
        code = torch.where(message.values == 0, 0, exponent - tiny)  # 1 for the smallest power, 0 for zero
        code = code + (torch.signbit(message.values).to(code.dtype) << (width - 1))
        return _to_bytes([_to_bits(code.numpy().astype(np.uint64), width)])

    def unpack(packed: Sequence[bytes], dimension: int, dtype: torch.dtype) -> Message:
        tiny, _ = _limits(dtype)
        width = _natural_width(dtype)
        (stream,) = _from_bytes(packed, [dimension * width])
        code = torch.from_numpy(_from_bits(stream, width).astype(np.int64))
        power = code & ((1 << (width - 1)) - 1)
        value = torch.where(power == 0, 0.0, torch.ldexp(torch.ones(code.shape, dtype=dtype), power + tiny - 1))
        return Message(torch.where(code >> (width - 1) == 1, -value, value), None, dimension)

    return Compressor(compress, decompress, bits, pack, unpack, lambda d: 7 / 8, lambda d: 1 / 8)


def contractive(compressor: Compressor) -> Compressor:
    """An unbiased compressor divided by 1 + omega: contractive with alpha = 1 / (1 + omega), and no longer unbiased.

    The division is done by the sender, so that the message must be able to hold any value (`natural` is not).
    """
    if compressor.variance(2) is None:
        raise ValueError("contractive() takes an unbiased compressor, and this one is biased")

    def factor(d: int) -> float:
        omega = compressor.variance(d)
        assert omega is not None
        return 1 / (1 + omega)

    def compress(x: Tensor, keys: Tensor) -> Message:
        message = compressor.compress(x, keys)
        return message._replace(values=message.values * factor(x.shape[1]))

    return compressor._replace(compress=compress, contraction=factor, variance=lambda d: None)


def _sparse(
    compress: Callable[[Tensor, Tensor], Message],
    kept: Callable[[int], int],
    contraction: Callable[[int], float | None],
    variance: Callable[[int], float | None],
    sends_places: bool = True,
) -> Compressor:
    """A compressor whose messages are `kept(d)` floating-point values and, unless all are kept, their places."""

    def decompress(message: Message) -> Tensor:
        if message.places is None:
            return message.values
        out = message.values.new_zeros(message.values.shape[0], message.dimension)
        return out.scatter_(1, message.places, message.values)

    def bits(message: Message) -> int:
        rows, m = message.values.shape
        width = 8 * message.values.element_size() + (_place_width(message.dimension) if sends_places else 0)
        return rows * _whole(m * width)

    def pack(message: Message) -> list[bytes]:
        values = message.values.contiguous().numpy()
        streams = [_to_bits(values.view(f"u{values.itemsize}").astype(np.uint64), 8 * values.itemsize)]
        if message.places is not None:
            streams.append(_to_bits(message.places.numpy().astype(np.uint64), _place_width(message.dimension)))
        return _to_bytes(streams)

    def unpack(packed: Sequence[bytes], dimension: int, dtype: torch.dtype) -> Message:
        size, m, width = torch.empty(0, dtype=dtype).element_size(), kept(dimension), _place_width(dimension)
        raw, where = _from_bytes(packed, [8 * size * m, width * m if sends_places else 0])
        values = torch.from_numpy(_from_bits(raw, 8 * size).astype(f"u{size}").view(f"f{size}"))
        index = torch.from_numpy(_from_bits(where, width).astype(np.int64)) if sends_places else None
        return Message(values, index, dimension)

    return Compressor(compress, decompress, bits, pack, unpack, contraction, variance)


def _check(k: int) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")


def _place_width(dimension: int) -> int:
    return max(1, (dimension - 1).bit_length())


def _whole(bits: int) -> int:
    return -(-bits // 8) * 8


def _limits(dtype: torch.dtype) -> tuple[int, int]:
    """The exponents of the smallest and largest power of two that are normal numbers."""
    about = torch.finfo(dtype)
    return math.frexp(about.tiny)[1] - 1, math.frexp(about.max)[1] - 1


def _natural_width(dtype: torch.dtype) -> int:
    tiny, huge = _limits(dtype)
    return 1 + (huge - tiny + 1).bit_length()  # a sign, and an exponent or zero: 12 bits for float64, 9 for float32


def _to_bits(codes: np.ndarray, width: int) -> np.ndarray:
    """[rows, m] integers below 2^width -> [rows, m * width] zeros and ones."""
    ones = codes[:, :, None] >> np.arange(width, dtype=np.uint64) & np.uint64(1)
    return ones.astype(np.uint8).reshape(len(codes), -1)


def _from_bits(stream: np.ndarray, width: int) -> np.ndarray:
    ones = stream.reshape(len(stream), -1, width).astype(np.uint64)
    return np.bitwise_or.reduce(ones << np.arange(width, dtype=np.uint64), axis=2)


def _to_bytes(streams: list[np.ndarray]) -> list[bytes]:
    return [row.tobytes() for row in np.packbits(np.concatenate(streams, axis=1), axis=1)]


def _from_bytes(packed: Sequence[bytes], lengths: list[int]) -> list[np.ndarray]:
    rows = np.unpackbits(np.stack([np.frombuffer(one, np.uint8) for one in packed]), axis=1)
    edges = np.cumsum([0, *lengths])
    return [rows[:, a:b] for a, b in itertools.pairwise(edges)]
