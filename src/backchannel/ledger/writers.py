"""Writing a log: its rows with their names still in place, and each format's way of putting them.

What a format cannot hold is said in sentences, one for each kind of loss that this log really has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from io import BufferedIOBase
from typing import Any, NamedTuple

import msgspec

from backchannel.feedback import Decision, Feedback, encode
from backchannel.ledger.problems import LogError, counted
from backchannel.ledger.store import Store
from backchannel.ledger.stored import option_names

STEP = 10_000
SPECIAL = re.compile(r"[%\s|:\x00]")  # what Vowpal Wabbit's names cannot have, and the mark that stands for it
WITH_EQUALS = re.compile(r"[%\s|:\x00=]")  # which ends the name of a text


class Row(NamedTuple):
    """One decision with its names."""

    seq: int
    action: str
    reward: float | None
    propensity: float | None
    time: float | None
    feedback_time: float | None
    position: int | None
    id: str | None
    shown: bool | None
    policy: str | None
    version: str | None
    options: list[str] | None
    features: dict[str, dict[str, Any]]
    context: dict[str, Any]


class Writer:
    """A filled store (with `text`), and what it holds; `items` are features of options that never change."""

    def __init__(self, store: Store, items: Mapping[str, Mapping[str, Any]]) -> None:
        self.store = store
        kinds = ("id", "policy", "version", "time", "feedback_time", "propensity", "reward")
        counts = ", ".join(f"count({kind})" for kind in kinds)
        found = store.one(f"SELECT {counts}, count(*) FILTER (position != 0), count(*), count(DISTINCT id) FROM log")
        self.filled = dict(zip((*kinds, "position"), map(int, found), strict=False))
        self.rows = int(found[-2])
        self.has_ids = int(found[-1]) == self.rows
        self.hidden = int(store.one("SELECT count(*) FROM log WHERE shown = false")[0])
        self.ragged = "options" in store.meanings
        self.truths = store.truths - store.texts
        self.actions = option_names(store)
        self.items = {name: _item(name, items[name]) for name in self.actions if name in items}
        self.item_features = list(dict.fromkeys(feature for each in self.items.values() for feature in each))
        self.twice: set[str] = set()  # features of items that rows have, too
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        """One thing that the target does not hold."""
        self.sentences.append(sentence)

    def said(self) -> list[str]:
        """All that was said."""
        if self.twice:
            both = ", ".join(map(repr, sorted(self.twice)[:5]))
            self.say(f"features both of rows and of items: a row's own are written, of {both}")
        return self.sentences

    def leave_items(self, features: list[str], why: str) -> None:
        """Say which features of items the target does not hold."""
        if features:
            names = ", ".join(map(repr, features[:5])) + (", ..." if len(features) > 5 else "")
            self.say(f"{why}: left out {names}; jsonl and vw-adf hold them")

    def option(self, name: str, own: Mapping[str, Any]) -> Mapping[str, Any]:
        """All features of an option in a row where it has `own` features."""
        held = self.items.get(name)
        if not held or not own:
            return held or own
        self.twice |= held.keys() & own.keys()
        return held | dict(own)

    def each(self) -> Iterator[Row]:
        """The rows, in order of time."""
        store = self.store
        absent = "coalesce({}, 0)" if store.zero else "{}"
        fixed = ["seq", "action", "reward", "propensity", "time", "feedback_time", "position", "id", "shown"]
        fixed += ["policy", "version"]
        fixed += ["options", "features"] if self.ragged and "features" in store.columns else ["NULL", "NULL"]
        cells = fixed + [absent.format(column) for column in store.numeric.values()] + list(store.categorical.values())
        wide = [(name, feature, column) for feature, held in store.wide.items() for name, column in held.items()]
        cells += [column for _, _, column in wide]
        kept = set(self.item_features)  # where a row's own 0 is not the same as nothing
        names = [*store.numeric, *store.categorical]
        truths = {name for name in names if name in self.truths}
        width = len(fixed)
        last = int(store.one("SELECT max(seq) FROM log")[0])
        for start in range(0, last + 1, STEP):
            where = f"seq BETWEEN {start} AND {start + STEP - 1}"
            part = store.db.execute(f"SELECT {', '.join(cells)} FROM log WHERE {where} ORDER BY seq").fetchall()
            for cell in part:
                context = dict(zip(names, cell[width:], strict=False))
                for name in truths:
                    context[name] = None if context[name] is None else context[name] == "true"
                options, held = cell[width - 2 : width]
                features: dict[str, dict[str, Any]] = msgspec.json.decode(held) if held else {}
                for (name, feature, _), value in zip(wide, cell[width + len(names) :], strict=True):
                    if (value or (value is not None and feature in kept)) and (options is None or name in options):
                        features.setdefault(name, {})[feature] = value
                yield Row._make((*cell[: width - 2], options, features, context))


def write_native(writer: Writer, file: BufferedIOBase) -> None:
    """JSON lines: a decision, and its reward behind it."""
    if not writer.has_ids:
        some = writer.filled["id"] > 0
        writer.say(
            f"decisions are numbered, since {'some ids are missing or repeated' if some else 'there are no ids'}"
        )
    everyone = writer.actions if writer.store.wide or writer.items else None
    for row in writer.each():
        name = row.id if writer.has_ids and row.id is not None else str(row.seq + 1)
        options: Any = row.options
        if row.features or everyone is not None:
            offered = options or everyone or ()
            options = {option: writer.option(option, row.features.get(option, {})) for option in offered}
        decision = Decision(
            id=name,
            action=row.action,
            options=options,
            context=row.context,
            propensity=row.propensity,
            time=row.time,
            policy=row.policy,
            version=None if row.version is None else int(row.version),
            position=row.position,
            shown=row.shown is not False,
        )
        file.write(encode(decision) + b"\n")
        if row.reward is not None:
            answer = Feedback(f"{name}/reward", name, "reward", row.reward, row.feedback_time)
            file.write(encode(answer) + b"\n")


def write_vw(writer: Writer, file: BufferedIOBase, blocks: bool) -> None:
    """Vowpal Wabbit's text: a line a decision, or a block."""
    store = writer.store
    lost = {
        "times": writer.filled["time"],
        "times of feedback": writer.filled["feedback_time"],
        "positions": writer.filled["position"],
        "policies": writer.filled["policy"],
        "versions": writer.filled["version"],
        "the mark of decisions that nobody saw": writer.hidden,
    }
    for what, count in lost.items():
        if count:
            writer.say(f"Vowpal Wabbit text cannot hold {what}: {counted(count, 'row has', 'rows have')} them")
    unanswered = writer.rows - writer.filled["reward"]
    if unanswered:
        writer.say(f"{counted(unanswered, 'decision', 'decisions')} without feedback left out: no cost, no label")
    missing = [] if store.zero else [f"count({column})" for column in store.numeric.values()]
    if missing and min(store.one(f"SELECT {', '.join(missing)} FROM log")) < writer.rows:
        writer.say("missing numbers of the context become 0, as whatever an example does not name")
    actions = writer.actions
    escaped = _Escape()
    names = {name: escaped(name) if blocks else name for name in actions}
    if not blocks and not all(name.isascii() and name.isdigit() and name[0] != "0" for name in actions):
        names = {name: str(index + 1) for index, name in enumerate(actions)}
        shown = ", ".join(f"{index} = {name}" for name, index in list(names.items())[:10])
        writer.say(f"actions are numbered: {shown}" + (", ..." if len(names) > 10 else ""))
    if not blocks:
        writer.leave_items(writer.item_features, "one line a decision cannot hold features of items")
    plain = {name: f"'{names[name]}{_features(writer.items.get(name, {}), escaped)}" for name in actions if blocks}
    single = features_lost = 0
    for row in writer.each():
        if row.reward is None:
            continue
        cost = 0.0 - row.reward
        label = f"{cost!r}" if row.propensity is None else f"{cost!r}:{row.propensity!r}"
        context = _features(row.context, escaped)
        tag = "" if row.id is None else f"'{escaped(row.id)}"
        if blocks:
            lines = [f"shared {tag}{context}"]
            for option in row.options or actions:
                chosen = f"0:{label} " if option == row.action else ""
                own = row.features.get(option)
                line = f"'{names[option]}{_features(writer.option(option, own), escaped)}" if own else plain[option]
                lines.append(chosen + line)
            file.write(("\n".join(lines) + "\n\n").encode())
        else:
            features_lost += any(row.features.values())
            single += row.options is not None and len(row.options) == 1
            words = [
                f"{names[option]}:{label}" if option == row.action else names[option]
                for option in row.options or [row.action]
            ]
            file.write(f"{' '.join(words)} {tag}{context}\n".encode())
    if escaped.first is not None:
        writer.say(
            "names and texts with spaces, bars, colons, percent or equals signs are percent-encoded, such as "
            f"{escaped.first!r}, and stay so when they are read: Vowpal Wabbit has no such encoding"
        )
    if features_lost:
        have = counted(features_lost, "row has", "rows have")
        writer.say(f"one line a decision cannot hold features of options: {have} them; vw-adf can")
    if single:
        writer.say(f"{counted(single, 'row offers', 'rows offer')} one option only, which is not held")


def _item(name: str, features: Mapping[str, Any]) -> dict[str, Any]:
    """What an item has, without what is missing."""
    found = {}
    for feature, value in features.items():
        if isinstance(value, int | float) and math.isinf(value):
            raise LogError(f"the item {name!r} has the feature {feature!r} of {value}: expected a finite number")
        if value is not None and value == value:
            found[feature] = value
    return found


class _Escape:
    """Percent-encodes what Vowpal Wabbit's names and texts cannot hold; `first` is the first that it changed."""

    def __init__(self) -> None:
        self.first: str | None = None

    def __call__(self, name: str, empty: str = "%", special: re.Pattern[str] = SPECIAL) -> str:
        text = special.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), name) or empty
        if text != name and self.first is None:
            self.first = name
        return text


def _features(given: Mapping[str, Any], escaped: _Escape) -> str:
    """Namespaces and features, from the first bar on."""
    spaces: dict[str, list[str]] = {"": []}
    for name, value in given.items():
        space, mark, rest = name.partition("^")
        if not mark or not space:
            space, rest = "", name
        if isinstance(value, str | bool):
            text = value if isinstance(value, str) else str(value).lower()
            word = f"{escaped(rest, special=WITH_EQUALS)}={escaped(text, empty='')}"
        elif value is None:
            continue
        else:
            word = f"{escaped(rest)}:{float(value)!r}"
        spaces.setdefault(escaped(space, empty=""), []).append(word)
    parts = [f"|{space} {' '.join(words)}" for space, words in spaces.items() if words]
    return "".join(f"{' ' if index else ''}{part}" for index, part in enumerate(parts)) or "|"
