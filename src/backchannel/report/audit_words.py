"""What an audit found, in words: what to look at, and a table for the terminal and the page."""

from __future__ import annotations

from backchannel.align.audit import Audited, Share
from backchannel.preference.audit_card import LEVEL, WIDE
from backchannel.report.words import NOTHING, many
from backchannel.report.words import share as percent

LOW_ALPHA = 0.2  # Krippendorff's alpha below which annotators hardly agree more than chance
OFTEN = 0.1  # of an annotator's own repeated judgements that conflict
COLUMNS = ("what", "found", "95 % interval", "of")


def span(found: Share) -> str:
    """Its interval."""
    if found.low is None or found.high is None:
        return NOTHING
    return f"{percent(found.low)} to {percent(found.high)}"


def full(found: Share) -> str:
    """The share with its interval in brackets."""
    return NOTHING if found.value is None else f"{percent(found.value)} (95 % interval {span(found)})"


def headline(found: Audited) -> str:
    """How many things there are to look at."""
    seen = remarks(found)
    if not seen:
        return f"Nothing stands out in {many(found.votes, 'vote')} on {many(found.prompts, 'prompt')}."
    return f"{many(len(seen), 'thing')} to look at in {many(found.votes, 'vote')} on {many(found.prompts, 'prompt')}."


def remarks(found: Audited) -> list[str]:
    """What to look at before anything is tuned on these data; a sentence or two each."""
    return [*_of_rows(found), *_of_choices(found), *_of_people(found), *_of_leakage(found)]


def _of_rows(found: Audited) -> list[str]:
    said = [
        f"{many(count, 'row was', 'rows were')} left out: {kind}. The first: {found.first_bad[kind]}."
        for kind, count in found.bad.items()
    ]
    twice = found.duplicates
    if twice.votes:
        said.append(
            f"{many(twice.votes, 'vote repeats', 'votes repeat')} an earlier one: same prompt, answers, choice and "
            "annotator. A model learns them twice."
        )
    if twice.prompts:
        nearly = many(twice.prompts, "prompt is", "prompts are")
        said.append(f"{nearly} nearly the same as another one: do not hold out one of them and train on the other.")
    if twice.answers:
        pair = many(twice.answers, "pair of answers differs", "pairs of answers differ")
        said.append(f"{pair} in spaces, capitals or punctuation alone.")
    return said


def _of_choices(found: Audited) -> list[str]:
    said, longer, order = [], found.length.longer, found.position
    if longer.low is not None and longer.high is not None and not longer.low <= 0.5 <= longer.high:
        which = "longer" if longer.low > 0.5 else "shorter"
        value = longer if longer.low > 0.5 else _other(longer)
        text = f"The {which} answer was chosen in {full(value)}: a model may learn length instead of what was meant."
        if found.length.beside is not None and found.length.beside_error is not None:
            kept = abs(found.length.beside) > 2 * found.length.beside_error
            text += " Length tells choices also beside the ratings." if kept else " Ratings account for it."
        said.append(text)
    if order.low is not None and order.high is not None and not order.low <= 0.5 <= order.high:
        which = "first" if order.low > 0.5 else "second"
        said.append(f"The answer shown {which} was chosen in {full(order if order.low > 0.5 else _other(order))}.")
    if found.conflicts.own.value is not None and found.conflicts.own.value > OFTEN:
        said.append(f"Asked again, annotators contradicted themselves in {full(found.conflicts.own)}.")
    if found.ratings.contradict.value:
        said.append(f"Ratings and choices of the same pair contradict each other in {full(found.ratings.contradict)}.")
    return said


def _of_people(found: Audited) -> list[str]:
    said: list[str] = []
    card = found.card
    if card is None:
        return said
    if card.triples.triples and card.triples.low > 0 and card.triples.high - card.triples.low <= WIDE:
        low, high = percent(card.triples.low), percent(card.triples.high)
        said.append(
            f"Choices go round in {percent(card.triples.rate)} of triples (95 % interval {low} to {high}), noise taken "
            "out: no reward can agree with them."
        )
    if card.scalar.p <= LEVEL:
        said.append(f"One reward for each answer does not explain the choices (p = {card.scalar.p:.3g}).")
    if card.agreement.pairs and card.agreement.high < LOW_ALPHA:
        said.append(f"Annotators hardly agree more than chance: Krippendorff's alpha is {card.agreement.value:.2f}.")
    for seen, kind in ((card.groups, "groups of annotators"), (card.contexts, "contexts")):
        if seen.pairs and seen.p <= LEVEL:
            moved = f"by {seen.value:.2f} in probability, p = {seen.p:.3g}"
            said.append(f"Choices differ between {kind}, {moved}: one reward will be right for none of them.")
    return said


def _of_leakage(found: Audited) -> list[str]:
    leak = found.leakage
    if leak is None or not (leak.prompts.value or leak.near):
        return []
    nearly = f", and {leak.near:,} nearly" if leak.near else ""
    return [f"{percent(leak.prompts.value or 0.0)} of prompts are also in {leak.name}{nearly}: it cannot judge fairly."]


def table(found: Audited) -> list[list[str]]:
    """What was counted: `COLUMNS` of each."""
    rows = [
        _row("the longer answer was chosen", found.length.longer, "votes on uneven pairs"),
        _row("the answer shown first was chosen", found.position, "votes with a known order"),
        _row("ratings contradict choices", found.ratings.contradict, "votes on rated pairs"),
        _row("pairs judged both ways", found.conflicts.pairs, "pairs judged again"),
        _row("... by the same annotator", found.conflicts.own, "pairs judged again by one"),
        ["votes that repeat an earlier one", f"{found.duplicates.votes:,}", NOTHING, f"{found.votes:,} votes"],
        ["prompts nearly like another", f"{found.duplicates.prompts:,}", NOTHING, f"{found.prompts:,} prompts"],
        ["pairs of nearly equal answers", f"{found.duplicates.answers:,}", NOTHING, f"{found.votes:,} votes"],
        [
            "bad rows",
            f"{sum(found.bad.values()):,}",
            NOTHING,
            f"{sum([*found.bad.values(), *found.kinds.values()]):,} rows",
        ],
    ]
    card = found.card
    if card is not None:
        three, agreed = card.triples, card.agreement
        if three.triples:
            value = percent(three.rate) if three.high - three.low <= WIDE else "cannot tell"
            within = f"{percent(three.low)} to {percent(three.high)}"
            rows.append(["triples truly intransitive", value, within, many(three.triples, "triple")])
        p = f"{card.scalar.p:.3g}" if card.scalar.freedom else NOTHING
        cycles = many(card.scalar.freedom, "cycle") if card.scalar.freedom else "no cycles"
        rows.append(["one reward for each answer: p", p, NOTHING, cycles])
        if agreed.pairs:
            within = f"{agreed.low:.2f} to {agreed.high:.2f}"
            rows.append(["Krippendorff's alpha", f"{agreed.value:.2f}", within, many(agreed.pairs, "pair")])
    if found.leakage is not None:
        rows.append(_row("prompts also in the other file", found.leakage.prompts, "prompts"))
        rows.append(_row("pairs also in the other file", found.leakage.pairs, "pairs"))
    return rows


def _row(what: str, found: Share, of: str) -> list[str]:
    if found.value is None:
        return [what, NOTHING, NOTHING, f"no {of}"]
    return [what, percent(found.value), span(found), f"{found.count:,} {of}"]


def _other(found: Share) -> Share:
    """The share of the others."""
    value, low, high = (None if each is None else 1 - each for each in (found.value, found.high, found.low))
    return Share(value, low, high, found.count)
