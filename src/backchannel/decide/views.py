"""What learners see of a row: compiled builders of their contexts over a `Block`, and the options that it offers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from backchannel.decide.features import Block, add_hashed
from backchannel.engine import compiled
from backchannel.parts.counter_random import mix
from backchannel.parts.sparse import Sparse


@compiled
def options_of(block: Block, i: int) -> int:
    """How many options row i has."""
    if block.x.shape[0] == 0:
        return block.offered[i + 1] - block.offered[i]
    return block.name.shape[0]


@compiled
def first_of(block: Block, i: int) -> int:
    """Where row i's options begin in a flat array of those of all rows."""
    return block.offered[i] if block.x.shape[0] == 0 else i * block.name.shape[0]


@compiled
def offered_of(block: Block, i: int) -> int:
    """How many options row i offers."""
    if block.offered.shape[0] > 0:
        return block.offered[i + 1] - block.offered[i]
    return block.name.shape[0]


@compiled
def nothing_seen(block: Block, i: int, only: int) -> np.ndarray:
    """The context of learners without contexts."""
    return block.rows[0, :0]


@compiled
def rows_seen(block: Block, i: int, only: int) -> np.ndarray:
    """float64[options, d], nan where an option is not offered; with `only` >= 0 just that option's row is filled in."""
    options = options_of(block, i)
    if block.x.shape[0] > 0:
        if only >= 0:
            block.rows[only, :] = block.x[i]
        elif block.offered.shape[0] == 0:
            for o in range(options):
                block.rows[o, :] = block.x[i]
        else:
            block.rows[:, :] = np.nan
            for j in range(block.offered[i], block.offered[i + 1]):
                block.rows[block.option[j], :] = block.x[i]
        return block.rows[:options]
    for o in range(options):
        if only < 0 or o == only:
            _own_row(block, i, o)
    return block.rows[:options]


@compiled
def _own_row(block, i, o):
    """The context's features (one of them is the constant), the option's own and their products, hashed."""
    block.rows[o, :] = 0.0
    for f in range(block.key.shape[1]):
        if block.key[i, f] != 0:
            add_hashed(block.rows, o, block.key[i, f], block.value[i, f])
    j = block.offered[i] + o
    for a in range(block.start[j], block.start[j + 1]):
        own = block.option_key[a]
        add_hashed(block.rows, o, own, block.option_value[a])
        for f in range(1, block.key.shape[1]):
            if block.key[i, f] != 0:
                crossed = mix(own ^ mix(block.key[i, f]))
                add_hashed(block.rows, o, crossed, block.option_value[a] * block.value[i, f])
    for k in range(block.rows.shape[1]):
        block.rows[o, k] /= math.sqrt(block.rows.shape[1])


@compiled
def sparse_seen(block: Block, i: int, only: int) -> Sparse:
    """Sparse features of the options that row i offers; with `only` >= 0, of all options, those of the others empty."""
    start, index, value, mask = block.sparse_start, block.sparse_index, block.sparse_value, block.mask[0]
    mixed, told, key, many = block.mixed, block.told, block.key[i], 0
    for f in range(key.shape[0]):  # what is known of the context, once for all options
        if key[f] != 0:
            mixed[many], told[many] = mix(key[f]), block.value[i, f]
            many += 1
    mixed, told = mixed[:many], told[:many]
    named, items, own = block.x.shape[0] > 0, block.item_start.shape[0] > 0, block.start.shape[0] > 0
    offered = only < 0 and named and block.offered.shape[0] > 0
    options, first, at = offered_of(block, i) if offered else options_of(block, i), first_of(block, i), 0
    for place in range(options):
        start[place] = at
        if only >= 0 and place != only:
            continue
        o = block.option[block.offered[i] + place] if offered else place
        # With each feature of the context (one of them is the constant): the option's name, or what all options share.
        at = _cross(mixed, told, block.name[o] if named else key[0], 1.0, mask, index, value, at)
        if items:
            for a in range(block.item_start[o], block.item_start[o + 1]):
                at = _cross(mixed, told, block.item_key[a], block.item_value[a], mask, index, value, at)
        if own:
            for a in range(block.start[first + o], block.start[first + o + 1]):
                at = _cross(mixed, told, block.option_key[a], block.option_value[a], mask, index, value, at)
    start[options] = at
    return Sparse(start[: options + 1], index[:at], value[:at])


@compiled
def _cross(mixed, told, own, amount, mask, index, value, at):
    for f in range(mixed.shape[0]):
        index[at] = np.int64(mix(own ^ mixed[f]) & mask)
        value[at] = amount * told[f]
        at += 1
    return at


@compiled
def keep_offered(block: Block, i: int, out: np.ndarray) -> None:
    """`out` holds the probabilities of all options: what lies on those not offered is shared among those that are.

    In proportion; equally, where nothing lies on any that is offered.
    """
    first, stop = block.offered[i], block.offered[i + 1]
    if stop - first == out.shape[0]:
        return  # all are offered: to the last bit what a batch without restrictions makes of this row
    kept, total = np.empty(stop - first), 0.0
    for j in range(first, stop):
        kept[j - first] = out[block.option[j]]
        total += kept[j - first]
    out[:] = 0.0
    for j in range(first, stop):
        out[block.option[j]] = kept[j - first] / total if total > 0.0 else 1.0 / (stop - first)


@compiled
def spread_offered(block: Block, i: int, out: np.ndarray) -> None:
    """`out` begins with the probabilities of the options offered, in their order: each goes to its option's place."""
    first, stop = block.offered[i], block.offered[i + 1]
    offered = out[: stop - first].copy()
    out[:] = 0.0
    for j in range(first, stop):
        out[block.option[j]] = offered[j - first]


class View(NamedTuple):
    """What learners of one kind of context see of a row that offers a part of the options, and what they answer."""

    seen: Any  # (block, i, only) -> context
    options: Any  # (block, i) -> how many options it has
    restrict: Any  # (block, i, out) -> None: their probabilities become those of all options


VIEWS = {
    "none": View(nothing_seen, options_of, keep_offered),
    "rows": View(rows_seen, options_of, keep_offered),
    "sparse": View(sparse_seen, offered_of, spread_offered),
}
