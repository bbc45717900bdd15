"""What a policy may not do, whatever it has learned: its distribution over options, bent within stated limits.

In this order: options that a rule forbids get nothing; a rule that forces an option gives it all; the exploration
(what lies beside the likeliest option) is cut to `ceiling`, and to nothing once the budget of the period is spent;
every option left gets at least `floor`. Propensities are those after the guards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from backchannel.serve.records import Name, Value

Share = Annotated[float, Meta(ge=0, le=1)]


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    """Where the context is as `when` says, `force` this option, or `forbid` these."""

    when: dict[Name, Value] = {}
    force: Name | None = None
    forbid: list[Name] = []

    def holds(self, context: Mapping[str, Any]) -> bool:
        """Whether the rule is about this context."""
        return all(context.get(name) == value for name, value in self.when.items())


class Guards(msgspec.Struct, forbid_unknown_fields=True):
    """Attributes:
    floor: the least probability of every option that is not forbidden.
    ceiling: the most probability beside the likeliest option.
    budget: how many decisions of a `period` (seconds) may take another option than the likeliest.
    change: how far, in total variation and on average over recent contexts, one version may move from the one before.
    """

    floor: Share = 0.0
    ceiling: Share = 1.0
    rules: list[Rule] = []
    budget: Annotated[int, Meta(ge=0)] | None = None
    period: Annotated[float, Meta(gt=0)] = 86400.0
    change: Annotated[float, Meta(gt=0, le=1)] = 1.0

    def bend(
        self,
        probability: np.ndarray,
        names: Sequence[str],
        context: Mapping[str, Any],
        offered: np.ndarray,
        spent: bool,
    ) -> np.ndarray:
        """The distribution after the guards. ValueError if rules leave nothing to choose.

        Args:
            probability: float64[options], a distribution.
            offered: bool[options]: which of them this request offers.
            spent: whether the budget of exploration is used up.
        """
        allowed = offered.copy()
        for rule in self.rules:
            if rule.holds(context):
                allowed &= [name not in rule.forbid for name in names]
                if rule.force is not None and rule.force in names and allowed[list(names).index(rule.force)]:
                    return np.array([float(name == rule.force) for name in names])
        many = int(allowed.sum())
        if not many:
            raise ValueError("the rules of this application forbid every option that the request offers")
        bent = np.where(allowed, probability, 0.0)
        total = bent.sum()
        bent = bent / total if total > 0 else allowed / many
        best = int(bent.argmax())
        most = 0.0 if spent else self.ceiling
        beside = 1.0 - bent[best]
        if beside > most:
            bent *= most / beside
            bent[best] = 1.0 - most
        if self.floor > 0 and many > 1 and not spent:
            floor = min(self.floor, 1.0 / many)
            bent = np.where(allowed, floor + (1.0 - many * floor) * bent, 0.0)
        return bent
