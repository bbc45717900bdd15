"""A small text world: rooms, containers, things, and one thing to be brought to one table. Deterministic from a seed.

The agent stands in the first room. It may `go ROOM`, `open CONTAINER` (in its room), `take THING` (from a container
that it opened in this episode and beside which it stands) and `put THING on the table`. What the containers hold is
not said: the thing that is wanted lies in one of them, and an episode is too short to open more than a few. What one
episode has shown is worth something in the next, since the same world begins anew.

    >>> from backchannel.lm.protocol import wait
    >>> world = text_world(seed=1, rooms=2, containers=1, steps=3)
    >>> print(world.opening)
    You stand in the hall. The rooms: hall, library.
    In the hall: a bucket. In the library: a jar.
    Goal: put the brush on the table in the library. You have 3 steps.
    >>> wait(world.start().step("open bucket")).text
    'You open the bucket. You see a brush.'
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from backchannel.lm.agent import Outcome

ROOMS = ("attic", "cellar", "hall", "kitchen", "library", "pantry", "studio", "workshop")
CONTAINERS = (
    *(
        "barrel",
        "basket",
        "bin",
        "box",
        "bucket",
        "cabinet",
        "case",
        "cask",
        "chest",
        "closet",
        "coffer",
        "crate",
        "cupboard",
    ),
    *(
        "desk",
        "drawer",
        "hamper",
        "jar",
        "kettle",
        "locker",
        "pot",
        "sack",
        "safe",
        "shelf",
        "suitcase",
        "tin",
        "trunk",
    ),
    *("urn", "vase", "wardrobe", "wallet", "pouch", "tub"),
)
THINGS = ("apple", "brush", "candle", "coin", "key", "knife", "lamp", "letter", "mug", "ring", "rope", "spoon")
INSTRUCTIONS = (
    "You act in a house. Answer with one command and nothing else: go ROOM, open CONTAINER, take THING, or "
    "put THING on the table. Every command is a step."
)


class TextWorld(NamedTuple):
    """One house, and what is wanted. The first room is where an episode starts."""

    rooms: dict[str, list[str]]  # room -> its containers
    holds: dict[str, str]  # container -> the thing in it; a container that is not named is empty
    thing: str
    table: str  # the room of the table
    steps: int

    @property
    def instructions(self) -> str:
        """The commands."""
        return INSTRUCTIONS

    @property
    def opening(self) -> str:
        """The house as seen from outside its containers, and the goal."""
        inside = " ".join(f"In the {room}: {', '.join('a ' + c for c in own)}." for room, own in self.rooms.items())
        return (
            f"You stand in the {next(iter(self.rooms))}. The rooms: {', '.join(self.rooms)}.\n{inside}\n"
            f"Goal: put the {self.thing} on the table in the {self.table}. You have {self.steps} steps."
        )

    def start(self) -> House:
        """A new episode."""
        return House(self)

    async def verify(self, actions: Sequence[str]) -> bool:
        """Whether the actions, replayed, reach the goal."""
        house, score = self.start(), 0.0
        for action in actions:
            score = (await house.step(action)).score
        return score >= 1


class House:
    """One episode: where the agent is, what it opened, what it holds."""

    def __init__(self, world: TextWorld) -> None:
        self.world = world
        self.room = next(iter(world.rooms))
        self.opened: set[str] = set()
        self.taken: set[str] = set()
        self.left = world.steps
        self.solved = False

    async def step(self, action: str) -> Outcome:
        """One command. The score is 1/2 once the thing is in hand and 1 once it is on the table."""
        if self.left == 0 or self.solved:
            raise ValueError("this episode is over: start a new one")
        self.left -= 1
        text = self._do(action.strip().lower())
        score = 1.0 if self.solved else 0.5 if self.world.thing in self.taken else 0.0
        return Outcome(text, self.solved or self.left == 0, score)

    def _do(self, action: str) -> str:
        verb, _, rest = action.partition(" ")
        world = self.world
        if verb == "go" and rest in world.rooms:
            self.room = rest
            return f"You are in the {rest}."
        if verb == "open" and rest in world.rooms[self.room]:
            self.opened.add(rest)
            thing = world.holds.get(rest)
            seen = f"You see a {thing}." if thing and thing not in self.taken else "It is empty."
            return f"You open the {rest}. {seen}"
        if verb == "take" and any(world.holds.get(c) == rest for c in self.opened.intersection(world.rooms[self.room])):
            self.taken.add(rest)
            return f"You take the {rest}."
        if verb == "put" and rest == f"{world.thing} on the table" and world.thing in self.taken:
            if self.room == world.table:
                self.solved = True
                return f"You put the {world.thing} on the table. That was the goal."
            return "There is no table here."
        return "That does not work here."


def text_world(seed: int, rooms: int = 6, containers: int = 4, steps: int = 6) -> TextWorld:
    """The house of this seed.

    Args:
        seed: decides what is where, and what is wanted.
        rooms: from 2 to 8.
        containers: in each room.
        steps: commands in an episode; a house whose thing is known to lie elsewhere than the start needs 5.
    """
    if not 2 <= rooms <= len(ROOMS) or not 1 <= rooms * containers <= len(CONTAINERS):
        limits = f"2 to {len(ROOMS)} rooms and 1 to {len(CONTAINERS)} containers"
        raise ValueError(f"a house has {limits}, not {rooms} and {rooms * containers}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    rng = random.Random(seed)
    names, kinds = rng.sample(ROOMS, rooms), rng.sample(CONTAINERS, rooms * containers)
    layout = {room: kinds[i * containers : (i + 1) * containers] for i, room in enumerate(names)}
    thing, *others = rng.sample(THINGS, len(THINGS))
    place, *rest = rng.sample(kinds, len(kinds))
    holds = {place: thing} | dict(zip(rest[: len(rest) // 3], others, strict=False))
    return TextWorld(layout, holds, thing, rng.choice(names), steps)
