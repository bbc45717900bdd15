"""Two skills for the simulated model: keeping house (`tasks.text_world`) and programming (`tasks.unit_tests`).

Both act, and both reflect when they are shown a trial and a verdict on it. How good they are is stated:

- `skill`: how well they act unaided: a step that follows the plan (housekeeper), a case that is thought of (programmer)
- `insight`: the probability that a reflection is correct; else it names the wrong thing, as surely
- `exploit`: the probability, for a whole trial, that they use what their notes say, right or wrong

Notes are whatever stands before the task in the prompt: reflections, or the transcript of an earlier trial; from
either they take facts of the same kind. So a reflection is worth no more than the trial that it is on: what a memory
of reflections gains over the last transcript is gained by its length, not by eloquence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from backchannel.lm.protocol import Message
from backchannel.lm.simulated import Draw, Skill

_VERDICT = "\n\nThe verdict:\n"


def housekeeper(exploit: float, skill: float = 1.0, insight: float = 1.0) -> Skill:
    """Searches room by room in an order of its own in each trial; remembers what was where if its notes say so."""
    _check(exploit, skill, insight)

    def act(messages: Sequence[Message], draw: Draw) -> str | None:
        text = messages[-1].content
        if _VERDICT in text:
            return _report(text, draw(text), insight) if _GOAL.search(text) else None
        head = messages[1].content if len(messages) > 1 else ""
        if not _GOAL.search(head):
            return None
        trial = draw(head)  # the luck of the trial
        notes, _, opening = head.rpartition("You stand in ")
        house = _House.read(opening)
        heeds = trial.random() < exploit
        search = list(house.rooms)
        trial.shuffle(search)
        step = draw("\n".join(message.content for message in messages))  # the luck of the step
        if step.random() >= skill:
            return f"go {step.choice(search)}"
        return _next_command(house, _facts(notes, house.thing) if heeds else _Facts(set(), ""), messages, search, step)

    return act


class _House(NamedTuple):
    start: str
    rooms: dict[str, list[str]]
    thing: str
    table: str

    @classmethod
    def read(cls, opening: str) -> _House:
        """The house that an opening describes (its first words, "You stand in ", may be missing)."""
        rooms = {
            room: [words.removeprefix("a ") for words in own.split(", ")]
            for room, own in re.findall(r"In the (\w+): ([^.]+)\.", opening)
        }
        goal = _GOAL.search(opening)
        if goal is None or not rooms:
            raise ValueError(f"not an opening of a text world: {opening[:80]!r}")
        return cls(next(iter(rooms)), rooms, goal[1], goal[2])


_GOAL = re.compile(r"Goal: put the (\w+) on the table in the (\w+)\.")


class _Facts(NamedTuple):
    excluded: set[str]  # containers without the thing
    place: str  # the container with it; "" if unknown


def _facts(text: str, thing: str) -> _Facts:
    """What a reflection or a transcript says of where the thing is."""
    excluded = {
        word for found in re.findall(rf"The {thing} is not in: ([\w, ]+)\.", text) for word in found.split(", ")
    }
    place = ""
    for container, seen in re.findall(r"You open the (\w+)\. (It is empty|You see a \w+)\.", text):
        if seen == f"You see a {thing}":
            place = container
        else:
            excluded.add(container)
    stated = re.findall(rf"The {thing} is in the (\w+)\.", text)
    return _Facts(excluded, stated[-1] if stated else place)


def _next_command(house: _House, known: _Facts, messages: Sequence[Message], search: list[str], luck: Random) -> str:
    commands = [m.content for m in messages[2:] if m.role == "assistant"]
    room = next((c[3:] for c in reversed(commands) if c.startswith("go ")), house.start)
    if f"take {house.thing}" in commands:
        return f"put {house.thing} on the table" if room == house.table else f"go {house.table}"
    here = _facts("\n".join(m.content for m in messages[2:]), house.thing)
    goals = [here.place] if here.place else [known.place] if known.place not in {"", *here.excluded} else []
    if not goals:
        goals = [c for own in house.rooms.values() for c in own if c not in here.excluded | known.excluded]
    inside = [c for c in house.rooms[room] if c in goals]
    if here.place and inside:
        return f"take {house.thing}"
    if inside and (commands or room == search[0] or len(goals) == 1):
        return f"open {luck.choice(inside)}"
    return f"go {next((r for r in search if set(goals).intersection(house.rooms[r])), house.table)}"


def _report(prompt: str, luck: Random, insight: float) -> str:
    """A reflection on a trial in the house."""
    opening, _, rest = prompt.rpartition("\n\nThe trial:\n")
    house = _House.read(opening.rpartition("You stand in ")[2])
    facts = _facts(rest, house.thing)
    if luck.random() >= insight:
        return f"The {house.thing} is in the {luck.choice([c for own in house.rooms.values() for c in own])}."
    if facts.place:
        return f"The {house.thing} is in the {facts.place}. Go there first."
    if facts.excluded:
        return f"The {house.thing} is not in: {', '.join(sorted(facts.excluded))}. Look elsewhere."
    return "I looked into nothing. Open containers."


def programmer(exploit: float, skill: float = 0.5, insight: float = 1.0) -> Skill:
    """Knows every part of the right programs, and thinks of each special case with probability `skill`.

    Asked for tests, it writes one for each case that it thinks of.
    """
    _check(exploit, skill, insight)

    def act(messages: Sequence[Message], draw: Draw) -> str | None:
        text = messages[-1].content
        signatures = re.findall(r"^def (\w+)\(", text if len(messages) < 2 else messages[1].content, re.MULTILINE)
        if not signatures or signatures[-1] not in _RECIPES:
            return None
        recipe = _RECIPES[signatures[-1]]
        luck = draw(text)
        thought = {part.case for part in recipe if part.case and luck.random() < skill}
        if _VERDICT in text:
            failed = sorted(_named(text.rpartition(_VERDICT)[2], recipe))
            if luck.random() >= insight:
                failed = [luck.choice([part.case for part in recipe if part.case])]
            return (
                " ".join(f"Mind the case {case}." for case in failed) or "Something is wrong. Think of special cases."
            )
        if "assert" in messages[0].content:
            return "\n".join(f"assert {part.test}  # {part.case}" for part in recipe if part.case in thought)
        if luck.random() < exploit:
            thought |= _named(text.rpartition("def ")[0], recipe)
        lines = [part.line if not part.case or part.case in thought else part.otherwise for part in recipe]
        return "```python\n" + "\n".join(line for line in lines if line) + "\n```"

    return act


class _Part(NamedTuple):
    line: str
    case: str = ""  # the special case that the line is for; "" if none
    test: str = ""
    otherwise: str = ""  # the line of who does not think of the case


def _named(text: str, recipe: Sequence[_Part]) -> set[str]:
    """The cases that reflections, failed tests or comments in `text` name."""
    named = set(re.findall(r"Mind the case (\w+)\.|FAILED (\w+):|# (\w+):", text))
    return {part.case for part in recipe if part.case and any(part.case in found for found in named)}


_RECIPES: dict[str, list[_Part]] = {
    "median": [
        _Part("def median(values):"),
        _Part("    values = [v for v in values if v is not None]", "gaps", "median([None, None, 3]) == 3"),
        _Part("    if not values:\n        return None", "empty", "median([]) is None"),
        _Part("    values = sorted(values)", "unsorted", "median([9, 1, 5]) == 5"),
        _Part("    middle = len(values) // 2"),
        _Part(
            "    if len(values) % 2 == 0:\n        return (values[middle - 1] + values[middle]) / 2",
            "even",
            "median([1, 2]) == 1.5",
        ),
        _Part("    return values[middle]"),
    ],
    "clip": [
        _Part("def clip(x, low, high):"),
        _Part("    if x is None:\n        return None", "missing", "clip(None, 1, 3) is None", "    x = float(x)"),
        _Part("    low, high = min(low, high), max(low, high)", "swapped", "clip(9, 3, 1) == 3"),
        _Part("    if x < low:\n        return low", "below", "clip(0, 1, 3) == 1"),
        _Part("    if x > high:\n        return high", "above", "clip(9, 1, 3) == 3"),
        _Part("    return x"),
    ],
    "initials": [
        _Part("def initials(name):"),
        _Part("    if name is None:\n        return ''", "missing", "initials(None) == ''"),
        _Part("    name = name.replace('-', ' ')", "hyphen", "initials('Jean-Luc Picard') == 'J.L.P.'"),
        _Part(
            "    parts = name.split()", "spaces", "initials(' Ada  Lovelace') == 'A.L.'", "    parts = name.split(' ')"
        ),
        _Part(
            "    return ''.join(part[0].upper() + '.' for part in parts)",
            "lower",
            "initials('ada lovelace') == 'A.L.'",
            "    return ''.join(part[0] + '.' for part in parts)",
        ),
    ],
    "runs": [
        _Part("def runs(items):"),
        _Part("    if items is None:\n        return []", "missing", "runs(None) == []"),
        _Part("    items = list(items)", "iterator", "runs(iter('aab')) == [['a', 2], ['b', 1]]"),
        _Part("    if len(items) == 0:\n        return []", "empty", "runs('') == []"),
        _Part("    found = [[items[0], 1]]\n    for item in items[1:]:"),
        _Part(
            "        if item.lower() == found[-1][0].lower():",
            "case",
            "runs('aAb') == [['a', 2], ['b', 1]]",
            "        if item == found[-1][0]:",
        ),
        _Part("            found[-1][1] += 1\n        else:\n            found.append([item, 1])\n    return found"),
    ],
}


def _check(exploit: float, skill: float, insight: float) -> None:
    for name, value in (("exploit", exploit), ("skill", skill), ("insight", insight)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is a probability, in [0, 1], not {value}")
