"""The template of a Reward Report: its sections and questions, the lines that facts answer them with, and Markdown.

Sections and titles are those of the published template (github.com/RewardReports/reward-reports); what each asks for is
summarised in our own words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backchannel.rl.reward_reports import Entry, RewardReport, RunFacts

# section -> its title, and question -> (title, what a person is asked for)
SECTIONS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "system_details": (
        "System Details",
        {
            "owner": ("System Owner", "who deploys the system, and who completes this report"),
            "dates": ("Dates", "from when until when this reward is, or is meant to be, active"),
            "contact": ("Feedback & Communication", "how to reach those responsible"),
            "resources": ("Other Resources", "where to read more; papers that the system rests on"),
        },
    ),
    "optimization_intent": (
        "Optimization Intent",
        {
            "goal": ("Goal of Reinforcement", "purpose, scope and horizon; why learn rather than write the rules down"),
            "metrics": ("Defined Performance Metrics", "why these metrics are in the reward, and where they come from"),
            "oversight": ("Oversight Metrics", "what is watched but not rewarded, and why not"),
            "failures": (
                "Known Failure Modes",
                "known cases of gamed rewards in this field, and what is done about them",
            ),
        },
    ),
    "institutional_interface": (
        "Institutional Interface",
        {
            "agency": ("Deployment Agency", "whose roles and decisions the system takes over"),
            "stakeholders": ("Stakeholders", "who else is affected, and what say they have in this report"),
            "explainability": (
                "Explainability & Transparency",
                "how far decisions are explained, to whom and what for",
            ),
            "recourse": ("Recourse", "how a decision can be contested, and what happens then"),
        },
    ),
    "implementation": (
        "Implementation",
        {
            "reward": ("Reward Details", "how the reward was made, and how its terms were weighed against each other"),
            "environment": ("Environment Details", "what is observed and can be done; which dynamics are left outside"),
            "measurement": ("Measurement Details", "how reward and observations are measured; when that is biased"),
            "algorithm": ("Algorithmic Details", "policy, learning algorithm and infrastructure; what else was tried"),
            "data": ("Data Flow", "how data is collected, kept, filtered and used again; how often it is learned from"),
            "limitations": ("Limitations", "choices forced by computation, statistics or measurement"),
            "tricks": ("Engineering Tricks", "details of the implementation that matter more than one would think"),
        },
    ),
    "evaluation": (
        "Evaluation",
        {
            "environment": ("Evaluation Environment", "how the system is evaluated before it is deployed"),
            "offline": ("Offline Evaluations", "results, also of specifications that were not chosen"),
            "validity": (
                "Evaluation Validity",
                "how far these results speak for the deployed system; surprises so far",
            ),
            "standards": ("Performance standards", "what is required of the system, by whom, and how it is verified"),
        },
    ),
    "system_maintenance": (
        "System Maintenance",
        {
            "cadence": ("Reporting Cadence", "how often this report is revised, and why so often"),
            "triggers": ("Update Triggers", "events that call for a revision before its time"),
            "changelog": ("Changelog", "what was learned from each change"),
        },
    ),
}
QUESTIONS: dict[str, tuple[str, str]] = {
    f"{section}.{name}": question for section, (_, own) in SECTIONS.items() for name, question in own.items()
}


def generated(report: RewardReport) -> dict[str, list[str]]:
    """For each question the lines that the facts answer it with; questions without any are left out."""
    f = report.facts
    rewarded = [f"{m.name}: {m.mean:.4g} (deviation {m.deviation:.3g} over {m.count})" for m in f.metrics if m.rewarded]
    watched = [
        f"{m.name}: {m.mean:.4g} (deviation {m.deviation:.3g} over {m.count})" for m in f.metrics if not m.rewarded
    ]
    terms = [f"`{t.name}`, weight {t.weight:g}" + (f", from {t.source}" if t.source else "") for t in f.terms]
    lines: dict[str, Sequence[object]] = {
        "system_details.owner": [f.owner],
        "system_details.dates": [f.active, f"Date of this version: {f.date}"],
        "system_details.contact": [f.contact],
        "system_details.resources": f.resources,
        "optimization_intent.goal": [f.goal, f.horizon and f"Horizon: {f.horizon}"],
        "optimization_intent.metrics": rewarded,
        "optimization_intent.oversight": watched,
        "institutional_interface.stakeholders": [f"Affected: {who}" for who in f.affected],
        "implementation.reward": [_formula(f), *terms],
        "implementation.environment": [f.environment, f.options and f"Can be chosen: {', '.join(f.options)}"],
        "implementation.measurement": [
            f.feedback and f"Feedback: {', '.join(f.feedback)}",
            *(f"`{t.name}` is {t.measures}" for t in f.terms if t.measures),
        ],
        "implementation.algorithm": [
            f.algorithm,
            *(f"{name} = {value}" for name, value in f.parameters.items()),
            *(f"{name}, version {version}" for name, version in f.versions.items()),
        ],
        "implementation.data": [f.data],
        "evaluation.environment": [f.evaluation],
        "system_maintenance.changelog": [line for entry in report.changelog for line in _logged(entry)],
    }
    return {question: kept for question, all_ in lines.items() if (kept := [str(line) for line in all_ if line])}


def to_markdown(report: RewardReport) -> str:
    """The report for people. What only a person can write, and nobody has yet, is marked."""
    answers = generated(report)
    out = [f"# Reward Report: {report.facts.system}", "", f"Version {report.version}, {report.facts.date}"]
    for section, (heading, own) in SECTIONS.items():
        out += ["", f"## {heading}"]
        for name, (title, asked) in own.items():
            question = f"{section}.{name}"
            out += ["", f"### {title}", ""]
            if question in answers:
                out += [*(line if line.startswith("  ") else f"- {line}" for line in answers[question]), ""]
            out.append(report.words.get(question) or f"[to be written by a person: {asked}]")
    return "\n".join(out) + "\n"


def _formula(facts: RunFacts) -> str:
    """The reward as declared."""
    if not facts.terms:
        return ""
    parts = [f"{'-' if t.weight < 0 else '+'} {abs(t.weight):g} {t.name}" for t in facts.terms]
    return f"reward = {' '.join(parts).removeprefix('+ ')}"


def _logged(entry: Entry) -> Iterator[str]:
    """The lines of one entry of the change log."""
    yield f"Version {entry.version}, {entry.date}: {entry.reason}"
    for change in entry.changes:
        yield f"  - `{change.path}`: {_short(change.old)} -> {_short(change.new)}"
    for alert in entry.alerts:
        apart = (
            f"{abs(alert.new - alert.old) / alert.error:.1f} standard errors" if alert.error else "without any spread"
        )
        yield f"  - drift of `{alert.metric}`: {alert.old:.4g} -> {alert.new:.4g} ({apart}, p = {alert.p:.2g})"


def _short(value: object) -> str:
    return "(absent)" if value is None else "(empty)" if value in ("", []) else str(value)
