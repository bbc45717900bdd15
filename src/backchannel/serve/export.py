"""The ledger as a log that `backchannel learn` reads: JSON lines of decisions and feedback.

A slate is one decision for each place, with its position; the options of a place are those that the places before it
left. Deferred decisions that nobody saw are written as not shown. Feedback that says a number, by the application's
rules, is written as a reward.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from backchannel.feedback import Decision, Feedback, encode
from backchannel.serve.app import App
from backchannel.serve.ledger import Kept
from backchannel.serve.records import Decided, Given
from backchannel.serve.rewards import joined

PAGE = 1000
_decided = msgspec.json.Decoder(Decided)
_given = msgspec.json.Decoder(Given)


def exported(app: App) -> Iterator[bytes]:
    """Lines, in the order of the decisions; each decision's reward is as known now."""
    after = 0
    columns = [*app.chooser.policy.encoder.numeric, *app.chooser.policy.encoder.categorical]
    while entries := app.ledger.read(app.name, after, PAGE):
        after = entries[-1].seq
        decisions = [kept for kept in entries if kept.entry.kind == "decision"]
        about: dict[str, list[Kept]] = {kept.entry.id: [] for kept in decisions}
        for kept in app.ledger.about(app.name, list(about)):
            about[kept.entry.about].append(kept)
        for kept in decisions:
            yield from _lines(app, kept, about[kept.entry.id], columns)


def _lines(app: App, kept: Kept, about: list[Kept], columns: list[str]) -> Iterator[bytes]:
    decided = _decided.decode(kept.entry.body)
    shown_by = kept.entry.time + app.config.activation
    shown = not decided.deferred or any(each.entry.kind == "shown" and each.entry.time <= shown_by for each in about)
    given = [_given.decode(each.entry.body) for each in about if each.entry.kind == "feedback"]
    rules = app.config.reward
    rewards = joined(decided, given, rules) if rules.kept(decided.id) else {}
    options = decided.options if decided.options is not None else app.chooser.policy.encoder.actions
    context = dict.fromkeys(columns) | decided.context
    for place, slot in enumerate(decided.slots):
        id = decided.id if len(decided.slots) == 1 else f"{decided.id}/{place}"
        yield (
            encode(
                Decision(
                    id=id,
                    action=slot.action,
                    options=options,
                    context=context,
                    propensity=slot.propensity if decided.logged else None,
                    time=kept.entry.time,
                    policy=decided.policy or None,
                    version=decided.version,
                    position=place if len(decided.slots) > 1 else None,
                    shown=shown,
                )
            )
            + b"\n"
        )
        if place in rewards:
            last = max(each.time for each in given)
            yield encode(Feedback(f"{id}/reward", id, "reward", rewards[place], max(last, kept.entry.time))) + b"\n"
        if isinstance(options, dict):
            options = {name: features for name, features in options.items() if name != slot.action}
        else:
            options = [name for name in options if name != slot.action]
