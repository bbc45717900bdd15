"""What a run of `learn` knows for the reward report of one learned policy."""

from __future__ import annotations

import datetime
import math

from backchannel.decide.result import Learned, PolicyResult
from backchannel.rl.reward_reports import Metric, RewardTerm, RunFacts

NAMED = 20  # context columns that are named, of many


def best(learned: Learned, key: str | None = None) -> PolicyResult:
    """The policy `key`, or the best that the log can answer for; ValueError if there is none."""
    answered = [p for p in learned.policies if p.answered and key in (None, p.key)]
    if not answered:
        which = f"the policy {key!r}" if key else "any policy"
        raise ValueError(f"{learned.log.name} does not answer for {which}: there is nothing to report on")
    return answered[0]


def card_facts(learned: Learned, policy: PolicyResult) -> RunFacts:
    """The facts of one policy: what it optimises, from which feedback, what it is worth; the rest is for people."""
    log = learned.log
    metrics = []
    for name, found in (("estimated reward a decision", policy.value), ("lift over the log's policy", policy.lift)):
        if found is not None and math.isfinite(found.low) and math.isfinite(found.high) and log.with_feedback > 1:
            deviation = (found.high - found.low) / (2 * 1.96) * math.sqrt(log.with_feedback)
            metrics.append(Metric(name, found.value, deviation, log.with_feedback))
    span = "" if log.first_time is None or log.last_time is None else f"{_day(log.first_time)} to {_day(log.last_time)}"
    return RunFacts(
        system=f"{policy.name}, learned from {log.name}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        terms=[RewardTerm("reward", 1.0, f"the log's reward, {log.reward_low:g} to {log.reward_high:g}", log.name)],
        metrics=metrics,
        active=span,
        goal="the largest mean reward a decision",
        feedback=["reward"],
        environment=_contexts(log.contexts),
        options=log.actions,
        algorithm=policy.key,
        versions={"backchannel": learned.version},
        data=f"{log.rows:,} decisions, {log.with_feedback:,} with feedback; propensities {log.propensities}",
        evaluation=f"off-policy, {learned.estimator}; {policy.effective_rows:,.0f} effective rows. {policy.verdict}",
    )


def _contexts(columns: list[str]) -> str:
    if not columns:
        return ""
    more = f", … and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
    said = "1 column" if len(columns) == 1 else f"{len(columns)} columns"
    return f"contexts of {said}: {', '.join(columns[:NAMED])}{more}"


def _day(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
