"""The point that counts as neither good nor bad, for losses of single answers: found anew before each step.

KTO measures an answer against answers to other prompts, BCO against the middle between good and bad ones. Both are
means over the model as it is, without a gradient, and must be the same for all examples of a step. Here they are means
over `count` answers, which take turns from step to step: where a step falls is all that decides which, so that neither
the split of a step nor a resumed run changes a number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from backchannel.align.examples import Example
from backchannel.ledger.problems import counted
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


def mismatched(examples: Sequence[Example], notes: list[str] | None = None) -> list[Example]:
    """Prompts with answers to other prompts, good and bad in the shares of the data, as a whole and in each part.

    Every answer is used once: prompt after prompt in a circle, and each meets the answer half the way round. Where one
    prompt has more than half of all answers, those to the others come again, good and bad as they are among them. An
    answer is cut where prompt and answer would be longer than the longest example. The reference's word is not known.

    Args:
        examples: with what is said of them.
        notes: is told of answers that were cut, and of shares that are others.

    Raises:
        ValueError: if there is one prompt alone.
    """
    of: dict[tuple[int, ...], list[Example]] = {}
    for each in examples:
        of.setdefault(tuple(each.prompt), []).append(each)
    if len(of) < 2:
        raise ValueError("this objective compares with answers to other prompts, and there is one prompt alone")
    much = max(of.values(), key=len)
    others = [each for group in of.values() if group is not much for each in group]
    circle, half = much + others, len(examples) // 2
    if len(much) <= half:
        pairs = zip(circle, circle[half:] + circle[:half], strict=True)
    else:
        answers = [*itertools.islice(itertools.cycle(spread(others)), len(much)), *spread(much)[: len(others)]]
        pairs = zip(circle, answers, strict=True)
        if notes is not None:
            notes.append(
                f"one prompt has {len(much):,} of {len(examples):,} answers: there are few to others to compare "
                "with, good and bad in shares of their own"
            )
    most, cut, found = max(len(each.prompt) + max(map(len, each.answers)) for each in examples), 0, []
    for asked, answered in pairs:
        room = most - len(asked.prompt)
        cut += len(answered.answers[0]) > room
        short = [answer[:room] for answer in answered.answers]
        found.append(asked._replace(answers=short, facts=answered.facts, before=()))
    if cut and notes is not None:
        kinds = "answer was cut behind another prompt", "answers were cut behind other prompts"
        notes.append(f"to be compared with, {counted(cut, *kinds)}, where both are longer than any example")
    return spread(found)


def spread(examples: Sequence[Example]) -> list[Example]:
    """The same, good and bad in even turns: each part has the shares of the whole, whatever the order was."""
    sides: dict[bool, list[Example]] = {True: [], False: []}
    for each in examples:
        sides[bool(each.facts.get("good"))].append(each)
    placed = [((i + 0.5) / len(side), each) for side in sides.values() for i, each in enumerate(side)]
    return [each for _, each in sorted(placed, key=lambda one: one[0])]


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
