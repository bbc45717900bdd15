"""The point that counts as neither good nor bad, for losses of single answers: found anew before each step.

KTO measures an answer against answers to other prompts, BCO against the middle between good and bad ones. Both are
means over the model as it is, without a gradient, and must be the same for all examples of a step. Here they are means
over `count` answers, which take turns from step to step: where a step falls is all that decides which, so that neither
the split of a step nor a resumed run changes a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backchannel.align.examples import Example
from backchannel.parts.objectives import Baseline


class Yardstick:
    """Finds the baseline of a step.

    Args:
        kind: how.
        others: answers to measure: `mismatched` or `alternating` examples, with `before`.
        count: of answers in a step.
    """

    def __init__(self, kind: Baseline, others: Sequence[Example], count: int):
        self.kind, self.others, self.count = kind, others, count

    def __call__(self, logs: Callable[[Sequence[Example]], Tensor], step: int) -> float:
        """The number, at a step; `logs` as of the model now."""
        some = [self.others[(step * self.count + i) % len(self.others)] for i in range(self.count)]
        with torch.no_grad():
            now = logs(some)
        before = torch.tensor([each.before[0] for each in some], dtype=now.dtype, device=now.device)
        good = torch.tensor([bool(each.facts["good"]) for each in some], device=now.device)
        return float(self.kind.value(now - before, good))


def mismatched(examples: Sequence[Example]) -> list[Example]:
    """Each prompt with the answer of the next other prompt; what the reference says of it is not known.

    Raises:
        ValueError: if there is one prompt alone.
    """
    n, found = len(examples), []
    for i, each in enumerate(examples):
        ahead = (examples[(i + j) % n] for j in range(1, n))
        other = next((one for one in ahead if one.prompt != each.prompt), None)
        if other is None:
            raise ValueError("this objective compares with answers to other prompts, and there is one prompt alone")
        found.append(each._replace(answers=other.answers, before=()))
    return found


def alternating(examples: Sequence[Example]) -> list[Example]:
    """Good and bad examples in turns; of which there are fewer, they come again.

    Raises:
        ValueError: if all are good, or all bad.
    """
    good = [each for each in examples if each.facts["good"]]
    bad = [each for each in examples if not each.facts["good"]]
    if not good or not bad:
        raise ValueError(f"this objective needs good and bad answers, and all are {'good' if good else 'bad'}")
    return [side[i % len(side)] for i in range(max(len(good), len(bad))) for side in (good, bad)]
