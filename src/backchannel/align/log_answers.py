"""A feedback log (`feedback.py`) as records of answers, and back.

A decision's context holds the prompt, a text or a list of messages, and its options are texts of answers. Of the
feedback on it

    comparison          is a pair; a tie is a pair of strength 1/2
    ranking             is a ranking
    rating, reward      is an answer with a score
    reaction            is an answer that is good or bad, where it is one of the reactions below
    correction          is a pair: what should have been said, before what was
    critique            is the rationale of what the same source said of the same decision

A retraction takes back what it names. The decision's id, the source and the rest of the context are the record's id,
annotator and `meta`. A log has no words for a strength other than 1/2, of which it keeps who is likelier the better
one, a gap, a ranking's scores and demonstrations; the answers to a conversation come back as messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from backchannel.align.messages import messages_of
from backchannel.feedback import Decision, Feedback, decode, encode
from backchannel.ledger.problems import LogError, Problems, shortened
from backchannel.ledger.sources import Source
from backchannel.lm.answer_kinds import left_out
from backchannel.lm.answers import Preference, Ranked, Rated, Record, Text, answers_of, content
from backchannel.lm.protocol import assistant

GOOD, BAD = "👍", "👎"
REACTIONS = {GOOD: True, "like": True, "thumbs_up": True, BAD: False, "dislike": False, "thumbs_down": False}
USED = ("comparison", "ranking", "rating", "reward", "reaction", "correction", "critique", "retraction")


def read_log(source: Source, prompt: str, problems: Problems, said: list[str]) -> Iterator[Record]:
    """The records of a log, in the order of its decisions; what was left out goes to `said` at the end.

    Args:
        prompt: which column of the context holds the prompt.
    """
    about: dict[str, list[Feedback]] = {}
    back: set[str] = set()
    left: Counter[str] = Counter()
    for _, record in _parsed(source, problems):
        if isinstance(record, Feedback):
            if record.kind == "retraction":
                back.add(str(record.value))
            elif record.kind in USED:
                about.setdefault(record.decision, []).append(record)
            else:
                left[f"feedback of kind {record.kind!r}"] += 1
    quiet = Problems(problems.skip)  # what cannot be read was counted above
    for number, decision in _parsed(source, quiet):
        if not isinstance(decision, Decision):
            continue
        given = [each for each in about.pop(decision.id, []) if each.id not in back]
        if decision.context.get(prompt) is None:
            left[f"decisions whose context has no {prompt!r}"] += 1
            continue
        try:
            found = list(_records(decision, given, prompt, left))
        except ValueError as error:
            problems.add(f"{source.name}, row {number}: {error}")
            continue
        if not found:
            left["decisions of which nothing was said"] += 1
        yield from found
    left["feedback on decisions that are not there"] += sum(map(len, about.values()))
    said += left_out(left)


def _parsed(source: Source, problems: Problems) -> Iterator[tuple[int, Decision | Feedback]]:
    with source.opened() as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                found = " ".join(str(error).split())
                problems.add(f"{source.name}, row {number}: expected a decision or a feedback as JSON, but {found}")
            else:
                yield number, record


def _records(decision: Decision, given: list[Feedback], prompt: str, left: Counter[str]) -> Iterator[Record]:
    asked = decision.context[prompt]
    text: Text = asked if isinstance(asked, str) else messages_of(asked)
    continues = bool(decision.context.get("continues", False))
    meta = {name: value for name, value in decision.context.items() if name not in (prompt, "continues")}
    reasons: dict[str | None, list[str]] = {}
    for each in given:
        if each.kind == "critique":
            reasons.setdefault(each.source, []).append(str(each.value))

    def answer(option: Any) -> Text:
        if not isinstance(option, str):
            raise ValueError(f"expected the text of an answer, found {shortened(option)}")
        return [assistant(option)] if isinstance(text, list) else option

    def acted() -> Text:
        action = decision.action
        return answer(action[0] if isinstance(action, list) and len(action) == 1 else action)

    rated: dict[str | None, dict[str, Any]] = {}
    for each in given:
        value = each.value
        why = reasons.get(each.source, [])
        more: dict[str, Any] = {
            "annotator": each.source or None,
            "id": decision.id,
            "continues": continues,
            "meta": meta,
        }
        more["rationale"] = "\n".join(why) or None
        if each.kind == "comparison":
            if isinstance(value, dict) and isinstance(value.get("tie"), list) and len(value["tie"]) == 2:
                first, second = map(answer, value["tie"])
                yield Preference(text, first, second, 0.5, **more)
            elif isinstance(value, dict) and "better" in value and "worse" in value:
                yield Preference(text, answer(value["better"]), answer(value["worse"]), **more)
            else:
                raise ValueError(f"a comparison names a better and a worse option, or a tie, not {shortened(value)}")
        elif each.kind == "ranking":
            if not isinstance(value, list):
                raise ValueError(f"a ranking is a list of options, not {shortened(value)}")
            yield Ranked(text, [answer(option) for option in value], **more)
        elif each.kind == "correction":
            if [value] == [decision.action] or [value] == decision.action:
                left["corrections that change nothing"] += 1
            else:
                yield Preference(text, answer(value), acted(), **more)
        elif each.kind in ("rating", "reward"):
            rated.setdefault(each.source, more)["score"] = float(value)
        elif each.kind == "reaction":
            if value not in REACTIONS:
                left["reactions that say neither good nor bad"] += 1
                continue
            rated.setdefault(each.source, more)["good"] = REACTIONS[value]
    for more in rated.values():
        yield Rated(text, acted(), **more)


def fits(record: Record) -> bool:
    """Whether a log can hold it: a demonstration is an answer of which nothing is said."""
    return not isinstance(record, Rated) or record.good is not None or record.score is not None


def log_lines(records: Iterable[Record], said: list[str]) -> Iterator[bytes]:
    """Lines of a log; what it cannot hold goes to `said` at the end."""
    lost: Counter[str] = Counter()
    ids: Counter[str] = Counter()
    for number, record in enumerate(records, 1):
        if not fits(record):
            lost["demonstrations"] += 1
            continue
        if record.id is None:
            lost["missing ids, in whose place are numbers"] += 1
        id = record.id or str(number)
        ids[id] += 1
        if ids[id] > 1:
            lost["ids that repeat, behind which is a number"] += 1
            id = f"{id}/{ids[id]}"
        for value in _written(record, id, lost):
            yield encode(value) + b"\n"
    said += [f"a log cannot hold {name} ({count:,})" for name, count in lost.items() if count]


def _written(record: Record, id: str, lost: Counter[str]) -> Iterator[Decision | Feedback]:
    for name in {"prompt", "continues"} & record.meta.keys():
        raise LogError(f"a log cannot hold {name!r} in meta: the context has one of its own (record {id!r})")
    prompt = record.prompt if isinstance(record.prompt, str) else msgspec.to_builtins(record.prompt)
    context = {"prompt": prompt, **({"continues": True} if record.continues else {}), **record.meta}
    texts = [content(answer) for answer in answers_of(record)]
    action = texts[0] if len(texts) == 1 else texts
    yield Decision(id, action, None if len(texts) == 1 else texts, context)

    def feedback(kind: Any, value: Any) -> Feedback:
        return Feedback(f"{id}/{kind}", id, kind, value, source=record.annotator)

    if isinstance(record, Preference):
        strength = 1.0 if record.strength is None else record.strength
        better, worse = texts if strength > 0.5 else texts[::-1]
        yield feedback("comparison", {"tie": texts} if record.tie else {"better": better, "worse": worse})
        lost["strengths"] += record.strength is not None and not record.tie
        lost["gaps"] += record.gap is not None
    elif isinstance(record, Ranked):
        yield feedback("ranking", texts)
        lost["scores of rankings"] += record.scores is not None
    else:
        if record.score is not None:
            yield feedback("rating", record.score)
        if record.good is not None:
            yield feedback("reaction", GOOD if record.good else BAD)
    if record.rationale is not None:
        yield feedback("critique", record.rationale)
