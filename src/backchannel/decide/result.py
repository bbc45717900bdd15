"""What `learn` found: plain records, from which the terminal's table, the page and `--json` are made."""

from __future__ import annotations

import msgspec


class Estimate(msgspec.Struct):
    """A value with an interval that holds 95 times in 100, in the log's own unit of reward."""

    value: float
    low: float
    high: float


class Curve(msgspec.Struct):
    """Learning as it goes: after so many rows, the estimated mean reward of the choices so far."""

    label: str
    rows: list[int]
    value: list[float]
    low: list[float]
    high: list[float]


class Bars(msgspec.Struct):
    """A histogram: `edges` has one entry more than `counts`."""

    edges: list[float]
    counts: list[float]


class PolicyResult(msgspec.Struct):
    """One learned policy, frozen as it was at the end of the log.

    Attributes:
        value: by the estimator that `Learned.estimator` names, cut to the range of rewards.
        lift: its value less what the log's own policy earned.
        estimates: by every estimator; one that could not be computed, or is not right for this log, is missing.
            Intervals are the bootstrap's up to 100,000 rows, and Student's beyond.
        effective_rows: (sum w)^2 / sum w^2: how many rows of its own this many logged rows are worth.
        true_value: where it is known (a replayed classification table); else None.
        unsupported: share of rows whose logged choice the policy would never make; those rows say nothing of it.
        rows_to_settle: how many rows would tell it from the log's own policy; None if they are alike or already told.
        shares: how often it takes each option, in the order of `LogFacts.actions`; empty if options are ragged.
        answered: whether the log can answer at all: at least 100 effective rows.
        verdict: a sentence or two.
    """

    key: str
    name: str
    value: Estimate | None
    lift: Estimate | None
    estimates: dict[str, Estimate]
    effective_rows: float
    largest_weight: float
    mean_weight: float
    unsupported: float
    true_value: float | None
    rows_to_settle: int | None
    regret: Estimate | None
    shares: list[float]
    weights: Bars | None
    curve: Curve | None
    answered: bool
    verdict: str


class LogFacts(msgspec.Struct):
    """The log itself. `earned` is the mean reward of its rows: what the logging policy really got."""

    name: str
    rows: int
    with_feedback: int
    actions: list[str]
    contexts: list[str]
    ragged: bool
    reward_low: float
    reward_high: float
    earned: Estimate
    first_time: float | None
    last_time: float | None
    shares: list[float]
    propensities: str  # "logged", or "estimated" where any is missing
    notes: list[str]


class Against(msgspec.Struct):
    """The policy of another log, estimated from this one and set against what it really earned there."""

    name: str
    estimate: Estimate
    effective_rows: float
    earned: Estimate


class Told(msgspec.Struct):
    """What late, lost, bought or false feedback costs: estimated mean reward while learning, by channel and policy."""

    channel: str
    policy: str
    told: int
    value: Estimate | None


class Calibration(msgspec.Struct):
    """The reward model's predictions in ten groups of equal size: mean predicted, mean seen, rows."""

    predicted: list[float]
    seen: list[float]
    rows: list[int]


class Learned(msgspec.Struct):
    """Everything, best policy first."""

    version: str
    log: LogFacts
    estimator: str
    policies: list[PolicyResult]
    warnings: list[str]
    against: list[Against] = []
    told: list[Told] = []
    calibration: Calibration | None = None
    seconds: float = 0.0
    command: str = ""
