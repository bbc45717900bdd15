"""Reward Reports: proofs and contrast."""

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from scipy import stats

from backchannel.rl._reward_template import QUESTIONS, SECTIONS
from backchannel.rl.reward_reports import (
    ALPHA,
    Change,
    Metric,
    RewardTerm,
    RunFacts,
    _student_tail,
    diff,
    drift,
    from_json,
    reward_report,
    reward_reports,
    schema,
    to_json,
    to_markdown,
    unwritten,
    update,
    write,
)

CLICKS = RewardTerm("clicks", 1.0, "share of shown items that are clicked", "the newsroom")
READING = RewardTerm("reading", 0.5, "minutes read, at most 1")
FACTS = RunFacts(
    "news",
    date="2026-01-01",
    terms=[CLICKS],
    metrics=[Metric("clicks", 0.1, 0.02, 40), Metric("complaints", 0.01, 0.002, 40, rewarded=False)],
    affected=["readers", "editors"],
    parameters={"step": 0.5, "arms": 3},
    versions={"policy": "7"},
)


def with_(**changes):
    return msgspec.structs.replace(FACTS, **changes)


def after(facts):
    return diff(reward_report(FACTS), reward_report(facts))


def test_step_an_update_by_hand():
    first = write(reward_report(FACTS), "system_details.owner", "Ada")
    louder = RewardTerm("clicks", 2.0, CLICKS.measures, CLICKS.source)
    moved = [Metric("clicks", 0.12, 0.02, 40), Metric("complaints", 0.0101, 0.002, 40, rewarded=False)]
    second = update(first, with_(date="2026-02-01", terms=[louder, READING], metrics=moved), "readers asked for it")
    assert (second.version, [e.version for e in second.changelog]) == (2, [1, 2])
    assert second.words == {"system_details.owner": "Ada"}
    entry = second.changelog[-1]
    assert (entry.date, entry.reason) == ("2026-02-01", "readers asked for it")
    new = {"name": "reading", "weight": 0.5, "measures": "minutes read, at most 1", "source": ""}
    assert entry.changes == [Change("terms.clicks.weight", 1.0, 2.0), Change("terms.reading", None, new)]
    (alert,) = entry.alerts
    error = np.sqrt(2 * 0.02**2 / 40)
    assert (alert.metric, alert.old, alert.new, alert.error) == ("clicks", 0.1, 0.12, pytest.approx(error, rel=1e-12))
    assert alert.p == pytest.approx(2 * stats.t.sf(0.02 / error, 78), rel=1e-6)


def test_step_each_declared_entry_has_its_path():
    assert after(FACTS) == []
    assert (
        after(with_(date="2027-01-01", metrics=[Metric(m.name, 9.0, 1.0, 5, m.rewarded) for m in FACTS.metrics])) == []
    )
    dropped = msgspec.to_builtins(CLICKS)
    assert after(with_(terms=[])) == [Change("terms.clicks", dropped, None)]
    assert after(with_(terms=[RewardTerm("clicks", 1.0, "x", "y")])) == [
        Change("terms.clicks.measures", CLICKS.measures, "x"),
        Change("terms.clicks.source", CLICKS.source, "y"),
    ]
    assert after(with_(metrics=FACTS.metrics[:1])) == [Change("metrics.complaints", "oversight", None)]
    rewarded = [FACTS.metrics[0], Metric("complaints", 0.01, 0.002, 40)]
    assert after(with_(metrics=rewarded)) == [Change("metrics.complaints", "oversight", "rewarded")]
    assert after(with_(affected=["readers"])) == [Change("affected", ["readers", "editors"], ["readers"])]
    assert after(with_(parameters={"step": 0.25, "arms": 3})) == [Change("parameters.step", 0.5, 0.25)]
    assert after(with_(versions={"policy": "7", "data": "2"})) == [Change("versions.data", None, "2")]
    for name in ("owner", "active", "contact", "goal", "horizon", "environment", "algorithm", "data", "evaluation"):
        assert after(with_(**{name: "new"})) == [Change(name, "", "new")]
    for name in ("resources", "feedback", "options"):
        assert after(with_(**{name: ["new"]})) == [Change(name, [], ["new"])]
    old = reward_report(FACTS)
    written = write(old, "evaluation.standards", "None.")
    assert diff(old, written) == [Change("words.evaluation.standards", None, "None.")]


def test_known_tail_of_students_law():
    for freedom in (1.0, 1.5, 2.0, 4.7, 30.0, 78.0, 1000.0, 1e5, 1e9):
        for t in (0.0, 0.3, 1.0, 3.0, 6.0, 20.0):
            assert _student_tail(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=2e-3, abs=1e-15)
    assert pytest.approx(2 * stats.norm.sf(3), rel=1e-12) == ALPHA


@pytest.mark.parametrize(("a", "b"), [((5, 1.0), (5, 1.0)), ((10, 0.5), (40, 2.0)), ((30, 1.0), (3, 3.0))])
def test_known_drift_is_welchs_test(a, b):
    rng = np.random.default_rng(a[0])
    for _ in range(20):
        x, y = rng.normal(0, a[1], a[0]), rng.normal(1, b[1], b[0])
        old, new = (
            reward_report(RunFacts("s", "d", metrics=[Metric("m", float(v.mean()), float(v.std(ddof=1)), v.size)]))
            for v in (x, y)
        )
        p = stats.ttest_ind(x, y, equal_var=False).pvalue
        (alert,) = drift(old, new, alpha=0.999999)
        assert alert.p == pytest.approx(p, rel=1e-4)
        assert len(drift(old, new, alpha=0.2)) == (p < 0.2)


def test_known_template():
    # The six sections of the published template and how many questions each has.
    counts = {title: len(own) for title, own in SECTIONS.values()}
    assert counts == {
        "System Details": 4,
        "Optimization Intent": 4,
        "Institutional Interface": 4,
        "Implementation": 7,
        "Evaluation": 4,
        "System Maintenance": 3,
    }
    lines = to_markdown(reward_report(FACTS)).split("\n")
    headings = [line[3:] for line in lines if line.startswith("## ")]
    assert headings == list(counts)
    assert [line[4:] for line in lines if line.startswith("### ")] == [title for title, _ in QUESTIONS.values()]


def test_limit_without_any_spread_a_difference_is_certain():
    def one(mean):
        return reward_report(RunFacts("s", "d", metrics=[Metric("m", mean, 0.0, 2)]))

    assert drift(one(1.0), one(1.0)) == []
    assert [(alert.p, alert.error) for alert in drift(one(1.0), one(1.1))] == [(0.0, 0.0)]
    report = update(one(1.0), RunFacts("s", "d", metrics=[Metric("m", 1.1, 0.0, 2)]), "why")
    assert "without any spread" in to_markdown(report)
    assert from_json(to_json(report)) == report


def test_limit_update_without_a_change_logs_the_reason_alone():
    report = update(reward_report(FACTS), with_(date="2026-03-01"), "as planned")
    assert report.changelog[-1].changes == []
    assert report.changelog[-1].alerts == []


def test_contrast_a_static_card_does_not_know_what_changed():
    # The last version's facts are what a model card would say: they are the same whatever came before.
    last = with_(date="2026-02-01", terms=[READING])
    reports = [reward_reports([with_(terms=[first]), last], ["why"])[-1] for first in (CLICKS, READING)]
    assert reports[0].facts == reports[1].facts
    assert [change.path for change in reports[0].changelog[-1].changes] == ["terms.clicks", "terms.reading"]
    assert reports[1].changelog[-1].changes == []
    assert "`terms.clicks`" in to_markdown(reports[0])


def test_json_round_trip_and_schema():
    report = update(write(reward_report(FACTS), "evaluation.validity", "Not far."), with_(terms=[READING]), "why")
    assert from_json(to_json(report)) == report
    document = json.loads(to_json(report))
    assert set(document) == set(schema()["$defs"]["RewardReport"]["properties"])
    assert schema()["$defs"]["RewardReport"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: d.pop("facts"), "missing required field `facts`"),
        (lambda d: d.update(extra=1), "unknown field `extra`"),
        (lambda d: d.update(version=5), "one entry of the change log for each version"),
        (lambda d: d["facts"]["terms"][0].update(weight="1"), r"Expected `float`, got `str` - at `\$.facts.terms"),
        (lambda d: d["facts"]["terms"].append(d["facts"]["terms"][0]), "reward terms need different names"),
        (lambda d: d["facts"]["metrics"][0].update(count=1), "a count of at least 2"),
        (lambda d: d.update(words={"system_details.shoes": "9"}), "no question 'system_details.shoes'"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(damage, said):
    document = json.loads(to_json(reward_report(FACTS)))
    damage(document)
    with pytest.raises(ValueError, match=said):
        from_json(json.dumps(document))


def test_places_for_people_are_marked_until_they_are_filled():
    report = reward_report(FACTS)
    assert len(unwritten(report)) == 25
    assert to_markdown(report).count("[to be written by a person: ") == 26
    filled = write(report, "institutional_interface.recourse", "Write to the editor.")
    assert "institutional_interface.recourse" not in unwritten(filled)
    assert "Write to the editor." in to_markdown(filled)
    assert to_markdown(filled).count("[to be written by a person: ") == 25
    with pytest.raises(ValueError, match="no question"):
        write(report, "recourse", "x")


def test_markdown_says_what_is_optimised_from_which_feedback_and_for_whom():
    facts = with_(terms=[CLICKS, RewardTerm("complaints", -0.25, "", "law")], feedback=["reward"], owner="A desk")
    text = to_markdown(reward_report(facts))
    for line in (
        "- reward = 1 clicks - 0.25 complaints",
        "- `complaints`, weight -0.25, from law",
        "- Affected: readers",
        "- Feedback: reward",
        "- `clicks` is share of shown items that are clicked",
        "- policy, version 7",
        "- step = 0.5",
        "- A desk",
        "- complaints: 0.01 (deviation 0.002 over 40)",
        "Version 1, 2026-01-01",
    ):
        assert line in text.split("\n"), line


def test_updates_are_refused_with_a_sentence():
    report = reward_report(FACTS)
    with pytest.raises(ValueError, match="on 'news', and the facts are on 'shop'"):
        update(report, with_(system="shop"), "why")
    with pytest.raises(ValueError, match="needs a reason"):
        update(report, FACTS, " ")
    with pytest.raises(ValueError, match="2 runs need a reason each but the first, not 0 reasons"):
        reward_reports([FACTS, FACTS])
    with pytest.raises(ValueError, match="alpha is a rate"):
        drift(report, report, alpha=1.0)


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, backchannel.rl.reward_reports; print([m for m in ('numpy', 'numba', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
