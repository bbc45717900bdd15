"""Sparse option features: what a learner with card.context "sparse" receives as its context.

Option o of the round has the features `index[start[o] : start[o + 1]]`, hashed into a table of weights, with the
values beside them. Dense features are the same with index = 0..d-1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backchannel.engine import compiled


class Sparse(NamedTuple):
    """One round's options. An index may occur twice in an option (a collision of hashes): its values add."""

    start: np.ndarray  # int64[options + 1]
    index: np.ndarray  # type: ignore[assignment]  # int64[features], each in 0..table size - 1 (shadows tuple.index)
    value: np.ndarray  # float64[features]


@compiled
def predict(weights: np.ndarray, context: Sparse, option: int) -> float:
    """The inner product of the option's features with `weights`."""
    total = 0.0
    for j in range(context.start[option], context.start[option + 1]):
        total += weights[context.index[j]] * context.value[j]
    return total
