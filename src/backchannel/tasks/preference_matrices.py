"""Preference matrices by name: who beats whom among answers, with or without cycles; the win rates are exact.

P[a, b] is the probability that answer a beats answer b, P + P' = 1 (`parts.preferences` has the classes and winners).

- `random_game`: every probability is uniform in [0, 1], independently: cycles everywhere;
- `cyclic_game`: around a circle every answer beats the half that follows, by margins of its own;
- `mixture_game`: a crowd of a few kinds of judges, each with utilities of its own: transitive judges, whose
  vote need not be (Condorcet);
- `bradley_terry_game`: one judge with utilities: no cycle;
- `rock_paper_scissors`: the circle of three, for certain.

`games` stacks several that differ in their seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backchannel.parts.preferences import bradley_terry, checked_preferences, cyclic


def random_game(actions: int, seed: int) -> np.ndarray:
    """Independent uniform probabilities: float64[actions, actions]."""
    upper = np.triu(np.random.default_rng(seed).random((actions, actions)), 1)
    return checked_preferences(upper + np.tril(1 - upper.T, -1) + np.diag(np.full(actions, 0.5)))


def cyclic_game(actions: int, seed: int) -> np.ndarray:
    """A circle of an odd number of answers, margins uniform in [0.1, 0.5], in a random order."""
    rng = np.random.default_rng(seed)
    margins = np.triu(rng.uniform(0.1, 0.5, (actions, actions)), 1)
    matrix = 0.5 + (margins + margins.T) * np.sign(cyclic(actions, 0.5) - 0.5)
    order = rng.permutation(actions)
    return checked_preferences(matrix[np.ix_(order, order)])


def mixture_game(actions: int, seed: int, judges: int = 3, scale: float = 3.0) -> np.ndarray:
    """The mean of Bradley-Terry matrices with normal utilities of standard deviation `scale`, as many as `judges`."""
    utilities = scale * np.random.default_rng(seed).standard_normal((judges, actions))
    return checked_preferences(np.mean([bradley_terry(each) for each in utilities], 0))


def bradley_terry_game(actions: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """One judge, with normal utilities."""
    return mixture_game(actions, seed, 1, scale)


def rock_paper_scissors() -> np.ndarray:
    """Each of three beats the next for certain."""
    return cyclic(3, 0.5)


GAMES: dict[str, Callable[[int, int], np.ndarray]] = {
    "random": random_game,
    "cyclic": cyclic_game,
    "mixture": mixture_game,
    "bradley-terry": bradley_terry_game,
}
"""By name: each a function of the number of actions and a seed."""


def games(name: str, actions: int, count: int, seed: int) -> np.ndarray:
    """`count` independent games of one kind: float64[count, actions, actions]."""
    if name not in GAMES:
        raise ValueError(f"there is no game {name!r}; known are {', '.join(GAMES)}")
    seeds = np.random.SeedSequence(seed).generate_state(count)
    return np.stack([GAMES[name](actions, int(each)) for each in seeds])
