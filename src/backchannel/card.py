"""Cards: what a method says of itself, and how methods are found.

Every method's file holds a `CARD`. Its key is the file's name, its family the folder's, its factory the public
function of the same name; nothing is registered by hand. `discover` walks the package and imports what it
finds; `index` reads the list that `make sync` generated, and imports nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from types import ModuleType
from typing import Any

import msgspec

FAMILIES = (
    "online",
    "games",
    "rl",
    "preference",
    "language",
    "communication",
    "distributed",
    "continual",
    "recommend",
)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a method says of itself.

    Attributes:
        name: as the paper writes it.
        summary: one line: what it does, for whom.
        paper: key in refs.bib of the paper that the file follows.
        row: id in the list of papers that the library sets out to cover; None for a classical reference.
        topics: a few tags from docs/glossary.md.
        feedback: what it needs: "bandit", "full", "graph", "asked", "reward", "comparison", "critique", "gradient" ...
        protocol: what its factory returns: "learner", "objective", "exchange", "outer" (workers that train alone
            and meet now and then), "optimizer" (a torch.optim.Optimizer,
            made of parameters and the example), "solver" (of preference games, `parts.nash.Solver`), "recipe"
            (learning from answers that the model draws), "agent" or "artefact".
        engine: "numba", "jax", "torch", "async" or "none".
        neighbour: key of the nearest method, which its contrast test is against; empty for an artefact without one.
        example: arguments with which the battery instantiates it.
        context: what a learner's `context` is: "none", "rows" (float64[arms, dimension]) or "sparse"
            (parts/sparse.py); a learner with "none" ignores it.
        strength: "simple", "default" or "strong" among those with the same feedback.
        first: of those with the same feedback, context and strength, the one to begin with.
        extras: optional dependencies that it needs, as in `pip install backchannel[torch]`.
    """

    name: str
    summary: str
    paper: str
    topics: tuple[str, ...]
    feedback: tuple[str, ...]
    protocol: str
    engine: str
    neighbour: str
    example: dict[str, Any]
    row: int | None = None
    context: str = "none"
    strength: str = "default"
    first: bool = False
    extras: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Method:
    """A card in its place."""

    key: str
    family: str
    card: Card
    module: ModuleType

    @property
    def factory(self) -> Callable[..., Any]:
        """The public function: named as the file."""
        function: Callable[..., Any] = getattr(self.module, self.key)
        return function

    def example(self) -> Any:
        """What the factory makes of the card's example arguments."""
        return self.factory(**self.card.example)


def discover(family: str | None = None) -> Iterator[Method]:
    """Import every method (of a family) and yield it, sorted by family and key."""
    for each in FAMILIES if family is None else (family,):
        package = importlib.import_module(f"backchannel.{each}")
        for found in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
            if found.name in ("claims", "tests") or found.name.startswith("_"):
                continue
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            if not hasattr(module, "CARD"):
                raise TypeError(f"{module.__name__} lies among methods but has no CARD")
            yield Method(found.name, each, module.CARD, module)


def find(key: str, family: str | None = None) -> Method:
    """The method with this key, its module imported; KeyError with the nearest keys if there is none.

    With `family` the file is looked for there, listed or not; else the list that `make sync` wrote is asked.
    """
    places = {entry["key"]: entry["family"] for entry in index()} if family is None else {key: family}
    if key not in places:
        from difflib import get_close_matches

        near = get_close_matches(key, places, n=3, cutoff=0.3)
        raise KeyError(f"no method is called {key!r}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    module = importlib.import_module(f"backchannel.{places[key]}.{key}")
    return Method(key, places[key], module.CARD, module)


def index() -> list[dict[str, Any]]:
    """What `make sync` wrote of every card: plain facts and the computed status. Imports no method."""
    text = resources.files("backchannel").joinpath("index.json").read_bytes()
    entries: list[dict[str, Any]] = msgspec.json.decode(text)
    return entries


STRENGTHS = ("simple", "default", "strong")
LATE = "delayed feedback"  # the topic of methods that are made for it
SIZES = {"arms", "horizon", "dimension"}  # what everybody can say of decisions


def needs_training(protocol: str, extras: Sequence[str]) -> bool:
    """Whether a card with these is a learner whose network is trained beforehand: it is this that takes an extra."""
    return protocol == "learner" and bool(extras)


def begin(entries: list[dict[str, Any]], feedback: str, context: bool, late: bool = False) -> dict[str, dict[str, Any]]:
    """Which methods to begin with: at most one of each strength, of those with this feedback.

    Of those that learn from chosen losses, none that needs more than that and sizes: a kernel, costs, a training. What
    other kinds of feedback need belongs to them, as edges to a graph.

    Args:
        entries: of `index`.
        context: whether something is known before each choice.
        late: whether feedback comes late. Every learner can be told late; those made for it come first.
    """
    if feedback == "bandit":
        entries = [
            entry
            for entry in entries
            if SIZES.issuperset(entry["required"]) and not needs_training(entry["protocol"], entry["extras"])
        ]
    found: dict[str, dict[str, Any]] = {}
    for strength in STRENGTHS:
        fits = [
            entry
            for entry in entries
            if (entry["strength"], entry["feedback"][0], entry["context"] != "none") == (strength, feedback, context)
        ]
        if fits:
            found[strength] = max(fits, key=lambda entry: (late and LATE in entry["topics"], entry["first"]))
    return found
