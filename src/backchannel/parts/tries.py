"""First tries: every arm is to be seen once before any estimate is trusted, and answers may be late."""

from __future__ import annotations

import numpy as np

from backchannel.engine import compiled


@compiled
def untried(counts: np.ndarray, tries: np.ndarray) -> int:
    """Of the arms without an answer (`counts` 0), the one chosen least often; -1 if every arm has been answered.

    Ties go to the lowest index, so that without delay the arms are tried in order, once each; with delay they
    take turns until their answers come.
    """
    found = -1
    for arm in range(counts.shape[0]):
        if counts[arm] == 0 and (found < 0 or tries[arm] < tries[found]):
            found = arm
    return found
