"""Reward Reports: what a learning system optimises, for whom, and how that changed, as a living document.

A static card says what a model was when it was released. A system that learns from feedback goes on changing, and its
reward is a choice that somebody made and somebody else lives with. A Reward Report is revised with the system: its
change log is the point of it (Gilbert et al. 2022).

Sections and questions are those of the published template (six sections, 26 questions). An answer has two halves:
lines that are generated from the facts of a run, and words that only a person can write. Words that nobody has
written yet are marked, with what is asked for.

    r      = sum_i w_i m_i                   the reward: terms m_i with weights w_i, as declared
    diff   = {(path, old, new)}              every declared entry and answer that differs, and nothing else
    t      = (m' - m) / sqrt(s^2/n + s'^2/n')    drift of a metric between versions (Welch)

A metric has drifted if P(|T| > |t|) < alpha, where T has Student's law with Welch's degrees of freedom. The default
alpha = 0.0027 is the two-sided tail beyond three standard deviations: where nothing changed, one metric in 370 is
flagged, and any of m metrics with probability at most m alpha.

Steps: `reward_report(facts)` writes version 1; `update(report, facts, reason)` writes the next version, keeps people's
words, and logs the reason, the changes and the alerts. Then `to_markdown`, `to_json`, and `from_json`, which checks.

Deviations: the paper proposes no algorithm; differences and alerts are ours. The template's questions are summarised.

    >>> term = RewardTerm("clicks", 1.0, "share of shown items that are clicked")
    >>> first = RunFacts("news", date="2026-01-01", terms=[term], metrics=[Metric("clicks", 0.10, 0.02, 40)])
    >>> longer = RewardTerm("reading", 0.5, "minutes read, at most 1")
    >>> second = RunFacts("news", date="2026-02-01", terms=[term, longer], metrics=[Metric("clicks", 0.08, 0.02, 40)])
    >>> report = update(reward_report(first), second, "clicks alone rewarded bait")
    >>> [(change.path, change.old) for change in report.changelog[-1].changes]
    [('terms.reading', None)]
    >>> [alert.metric for alert in report.changelog[-1].alerts]
    ['clicks']
    >>> from_json(to_json(report)) == report
    True

References: gilbert2022reward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from backchannel.card import Card
from backchannel.rl._reward_template import QUESTIONS
from backchannel.rl._reward_template import to_markdown as to_markdown

CARD = Card(
    name="Reward Reports",
    summary="Living documentation of a learning system: what it optimises, for whom, what changed and what drifted.",
    paper="gilbert2022reward",
    row=174,
    topics=("documentation", "drift"),
    feedback=("reward",),
    first=True,
    protocol="artefact",
    engine="none",
    neighbour="",
    example={"runs": [{"system": "a bandit", "date": "2026-01-01"}]},
)
ALPHA = math.erfc(3 / math.sqrt(2))  # 0.0027: beyond three standard deviations, both sides


class Struct(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Unknown fields are an error: a typing mistake in a report is not lost in silence."""


class RewardTerm(Struct, frozen=True):
    """One term of the reward: `weight` times what `measures` says."""

    name: str
    weight: float
    measures: str = ""
    source: str = ""  # where the choice comes from


class Metric(Struct, frozen=True):
    """A measured number: the mean over `count` independent replicates (runs or days), and their deviation."""

    name: str
    mean: float
    deviation: float
    count: int
    rewarded: bool = True  # False: for oversight alone, no part of the reward

    def __post_init__(self) -> None:
        finite = math.isfinite(self.mean) and math.isfinite(self.deviation)
        if not finite or self.deviation < 0 or self.count < 2:
            raise ValueError(
                f"metric {self.name!r} needs a finite mean, a finite deviation from 0 and a count of at least 2, "
                f"not {self.mean}, {self.deviation} and {self.count}"
            )


class RunFacts(Struct, frozen=True):
    """What is known of a run. What stays empty is left to people.

    `metrics` and `date` are measured; all else is declared, and compared by `diff`.
    """

    system: str
    date: str  # ISO 8601
    terms: list[RewardTerm] = []
    metrics: list[Metric] = []
    owner: str = ""
    active: str = ""  # from when until when
    contact: str = ""
    resources: list[str] = []
    goal: str = ""
    horizon: str = ""
    feedback: list[str] = []  # kinds, as in backchannel.feedback
    affected: list[str] = []  # who is affected by decisions
    environment: str = ""
    options: list[str] = []  # what can be chosen
    algorithm: str = ""
    parameters: dict[str, str | int | float | bool] = {}
    versions: dict[str, str] = {}  # of policy, library, data
    data: str = ""
    evaluation: str = ""

    def __post_init__(self) -> None:
        for kind, named in (("reward terms", self.terms), ("metrics", self.metrics)):
            names = [entry.name for entry in named]
            if len(set(names)) < len(names):
                raise ValueError(f"{kind} need different names, not {names}")


class Change(Struct, frozen=True):
    """An entry that differs; None where it is absent."""

    path: str
    old: Any
    new: Any


class Alert(Struct, frozen=True):
    """A metric that moved by more than chance explains: `p` is how often chance alone would move it as far."""

    metric: str
    old: float
    new: float
    error: float  # standard error of the difference
    p: float


class Entry(Struct, frozen=True):
    """One line of the change log."""

    version: int
    date: str
    reason: str
    changes: list[Change] = []
    alerts: list[Alert] = []


class RewardReport(Struct, frozen=True):
    """One version of a report: the facts, people's words by question ("system_details.dates"), and the change log."""

    version: int
    facts: RunFacts
    changelog: list[Entry]
    words: dict[str, str] = {}

    def __post_init__(self) -> None:
        if [entry.version for entry in self.changelog] != list(range(1, self.version + 1)):
            raise ValueError(f"version {self.version} needs one entry of the change log for each version from 1 to it")
        if unknown := set(self.words) - set(QUESTIONS):
            raise ValueError(f"the template has no question {sorted(unknown)[0]!r}")


def reward_reports(runs: Sequence[RunFacts | Mapping[str, Any]], reasons: Sequence[str] = ()) -> list[RewardReport]:
    """Every version of the report on a system: one for each run, with `reasons` for the second and later ones."""
    facts = [run if isinstance(run, RunFacts) else msgspec.convert(run, RunFacts) for run in runs]
    if not facts or len(reasons) != len(facts) - 1:
        raise ValueError(f"{len(facts)} runs need a reason each but the first, not {len(reasons)} reasons")
    reports = [reward_report(facts[0])]
    for run, reason in zip(facts[1:], reasons, strict=True):
        reports.append(update(reports[-1], run, reason))
    return reports


def reward_report(facts: RunFacts) -> RewardReport:
    """Version 1."""
    return RewardReport(1, facts, [Entry(1, facts.date, "first report")])


def update(report: RewardReport, facts: RunFacts, reason: str, alpha: float = ALPHA) -> RewardReport:
    """The next version: new facts, the same words, and what changed and drifted (`alpha`: see `drift`) in the log."""
    if facts.system != report.facts.system:
        raise ValueError(f"this report is on {report.facts.system!r}, and the facts are on {facts.system!r}")
    if not reason.strip():
        raise ValueError("an update needs a reason: it is what the change log is for")
    new = msgspec.structs.replace(report, facts=facts)
    entry = Entry(report.version + 1, facts.date, reason, diff(report, new), drift(report, new, alpha))
    return msgspec.structs.replace(new, version=entry.version, changelog=[*report.changelog, entry])


def write(report: RewardReport, question: str, words: str) -> RewardReport:
    """The same version with a person's answer to a question of the template ("optimization_intent.goal")."""
    return msgspec.structs.replace(report, words=report.words | {question: words})


def unwritten(report: RewardReport) -> list[str]:
    """The questions that still wait for a person."""
    return [
        question
        for question in QUESTIONS
        if not report.words.get(question) and question != "system_maintenance.changelog"
    ]


def diff(old: RewardReport, new: RewardReport) -> list[Change]:
    """Every declared entry and every answer that differs, by path; reward terms come first."""
    before, after = _declared(old), _declared(new)
    return [
        change
        for path in sorted({*before, *after}, key=lambda path: (not path.startswith("terms."), path))
        if before.get(path) != after.get(path)
        for change in _finer(path, before.get(path), after.get(path))
    ]


def drift(old: RewardReport, new: RewardReport, alpha: float = ALPHA) -> list[Alert]:
    """The metrics of both versions whose means differ by more than chance explains, at the false-alarm rate `alpha`."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is a rate of false alarms, in (0, 1), not {alpha}")
    before = {metric.name: metric for metric in old.facts.metrics}
    alerts = []
    for b in new.facts.metrics:
        if (a := before.get(b.name)) is None:
            continue
        va, vb = a.deviation**2 / a.count, b.deviation**2 / b.count
        error, apart = math.sqrt(va + vb), abs(b.mean - a.mean)
        if error > 0:
            freedom = (va + vb) ** 2 / (va**2 / (a.count - 1) + vb**2 / (b.count - 1))
            p = _student_tail(apart / error, freedom)
        else:
            p = float(apart == 0)  # without any spread, a difference is no chance
        if p < alpha:
            alerts.append(Alert(b.name, a.mean, b.mean, error, p))
    return alerts


def to_json(report: RewardReport) -> str:
    """The report for programs."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def from_json(text: str | bytes) -> RewardReport:
    """The report that `to_json` wrote; ValueError says what does not fit the schema, and where."""
    return msgspec.json.decode(text, type=RewardReport)


def schema() -> dict[str, Any]:
    """The JSON schema of a report."""
    return msgspec.json.schema(RewardReport)


def _declared(report: RewardReport) -> dict[str, Any]:
    """Path -> value of everything that people or programs chose; measured numbers and dates are left out."""
    facts: dict[str, Any] = msgspec.to_builtins(report.facts)
    terms, metrics = facts.pop("terms"), facts.pop("metrics")
    del facts["date"]
    flat: dict[str, Any] = {f"terms.{term['name']}": term for term in terms}
    flat |= {f"metrics.{metric['name']}": "rewarded" if metric["rewarded"] else "oversight" for metric in metrics}
    for name, value in facts.items():
        flat |= {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, dict) else {name: value}
    return flat | {f"words.{question}": words for question, words in report.words.items()}


def _finer(path: str, old: Any, new: Any) -> list[Change]:
    """A reward term that is in both is compared field by field."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [Change(path, old, new)]
    return [Change(f"{path}.{field}", old[field], new[field]) for field in old if old[field] != new[field]]


def _student_tail(t: float, freedom: float) -> float:
    """P(|T| > t) for Student's law: with T = sqrt(freedom) tan x, the integral of cos(x)^(freedom - 1), by Simpson."""
    freedom, pieces = min(freedom, 1e7), 400
    low, high = math.atan(t / math.sqrt(freedom)), math.pi / 2
    if freedom > 1:  # cos(x)^k < exp(-k x^2 / 2): nothing is left beyond
        high = min(high, (t + 14) / math.sqrt(freedom - 1))
    width = (high - low) / pieces
    heights = [max(math.cos(low + i * width), 0.0) ** (freedom - 1) for i in range(pieces + 1)]
    integral = width / 3 * (heights[0] + 4 * sum(heights[1::2]) + 2 * sum(heights[2:-1:2]) + heights[-1])
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(math.pi)
    return min(1.0, 2 * math.exp(constant) * integral)
