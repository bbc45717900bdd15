"""How fast the policy that answers may move: a new version takes its place at once, or by and by.

What answers is a mixture of versions. When a new one comes, weight goes over to it, from the oldest version first, as
long as the mixture moves by at most `change`: in total variation, on average over the last contexts that were asked
about. By the triangle inequality, taking the weight r from a version moves the mixture by at most r times the distance
between that version and the new one. So each new version takes at least the weight `change`, and a mixture never has
more than 1/change + 1 versions. Without contexts there is nothing to compare on, and the new version answers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backchannel.base import State
from backchannel.serve.chooser import Chooser, Row

RECENT = 64  # contexts to compare on


class Part(NamedTuple):
    """A version and its weight; the weights of a mixture have the sum 1."""

    weight: float
    state: State
    common: np.ndarray


def mixed(chooser: Chooser, parts: Sequence[Part], row: Row, id: str) -> np.ndarray:
    """float64[options of the row]: the distribution of a mixture."""
    if len(parts) == 1:
        return chooser.distribution(parts[0].state, row, parts[0].common, id)
    each = [part.weight * chooser.distribution(part.state, row, part.common, id) for part in parts]
    return np.sum(each, axis=0)


def moved(
    chooser: Chooser, old: Sequence[Part], new: Part, recent: Sequence[tuple[str, Row]], change: float
) -> tuple[Part, ...]:
    """The mixture `old`, moved towards `new` as far as `change` allows; the newest version is the last."""
    whole = new._replace(weight=1.0)
    if change >= 1 or not recent:
        return (whole,)
    left, taken, kept = change, 0.0, []
    there = [chooser.distribution(new.state, row, new.common, id) for id, row in recent]
    for part in old:
        here = [chooser.distribution(part.state, row, part.common, id) for id, row in recent]
        far = float(np.mean([0.5 * np.abs(a - b).sum() for a, b in zip(here, there, strict=True)]))
        gone = part.weight if part.weight * far <= left else left / far
        left, taken = max(left - gone * far, 0.0), taken + gone
        if gone < part.weight:
            kept.append(part._replace(weight=part.weight - gone))
    return (*kept, new._replace(weight=taken)) if kept else (whole,)
