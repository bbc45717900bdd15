"""`backchannel new FAMILY NAME`: the three files of a method, ready to be filled in.

The skeleton is a working method (follow the leader with a uniform share of exploration), so that the battery passes
before the first line is changed; its proofs are missing, and say so by failing. The first method of a family brings
the test that runs the battery.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from backchannel.card import FAMILIES

_METHOD = '''"""TITLE: one line that says what it does, for whom.

The idea, in two or three sentences.

Equations, in the numbering of the paper:

    ...                                                                                      (1)

Steps: ...

Deviations: none yet; name every one.

    >>> from backchannel import play
    >>> from backchannel.FAMILY.KEY import KEY
    >>> from backchannel.tasks.bernoulli import bernoulli
    >>> result = play(KEY(arms=2), bernoulli([0.2, 0.8]), horizon=500)
    >>> result.final("regret").shape
    (1,)

References: lattimore2020bandit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backchannel.base import Learner
from backchannel.card import Card
from backchannel.engine import compiled
from backchannel.parts.sampling import draw

CARD = Card(
    name="TITLE",
    summary="One line that says what it does, for whom.",
    paper="lattimore2020bandit",
    topics=("stochastic",),
    feedback=("bandit",),
    protocol="learner",
    engine="numba",
    neighbour="exp3",
    example={"arms": 3},
)


class State(NamedTuple):
    """What the next step needs, and nothing else."""

    pulls: np.ndarray  # float64[arms]
    losses: np.ndarray  # float64[arms]: sums
    probabilities: np.ndarray  # float64[arms]
    exploration: np.ndarray  # float64[1]


def KEY(arms: int, exploration: float = 0.1) -> Learner:
    """TITLE for `arms` arms with losses in [0, 1].

    Args:
        arms: K, at least 1.
        exploration: share of rounds in which the arm is drawn evenly.
    """
    if arms < 1 or not 0 <= exploration <= 1:
        raise ValueError(f"arms must be at least 1 and exploration in [0, 1], not {arms} and {exploration}")
    state = State(np.zeros(arms), np.zeros(arms), np.full(arms, 1 / arms), np.array([exploration]))
    return Learner(state, _act, _update, _probabilities)


@compiled
def _act(state, context, rng):
    action = draw(state.probabilities, rng)
    return action, state.probabilities[action]


@compiled
def _update(state, context, action, propensity, loss):
    state.pulls[action] += 1.0
    state.losses[action] += loss
    leader = 0
    least = np.inf
    for arm in range(state.pulls.shape[0]):
        mean = state.losses[arm] / state.pulls[arm] if state.pulls[arm] > 0 else 0.0
        if mean < least:
            leader, least = arm, mean
    state.probabilities[:] = state.exploration[0] / state.pulls.shape[0]
    state.probabilities[leader] += 1 - state.exploration[0]


@compiled
def _probabilities(state, context, out):
    out[:] = state.probabilities
'''

_TESTS = '''"""TITLE: proofs and contrast. Each says what it must become; none passes until it is written."""

import pytest


def test_step_by_hand():
    pytest.fail("one or more steps by hand, in NumPy, from the equations")


def test_known_value():
    pytest.fail("a known value, fixed point, closed form, brute force or an independent implementation")


def test_limit_or_equivalence():
    pytest.fail("a limit or an equivalence: a parameter at its end gives another method")


def test_contrast_with_its_neighbour():
    pytest.fail("a case where the nearest neighbour fails and this method does not")
'''

_CLAIM = '''"""The headline in one sentence.

The paper: ... Ours, in miniature: ...
"""

from __future__ import annotations

from backchannel.claim import Evidence, Table, at_most, mean_and_error
from backchannel.FAMILY.KEY import KEY
from backchannel.loop import play
from backchannel.online.exp3 import exp3
from backchannel.tasks.bernoulli import bernoulli


def claim(seed: int, full: bool) -> Evidence:
    """Method and baseline on the same task, with the same seeds."""
    task, horizon, replicates = bernoulli([0.3, 0.5, 0.7]), 5000, 400 if full else 100
    ours = play(KEY(3), task, horizon, replicates=replicates, seed=seed).final()
    theirs = play(exp3(3, horizon), task, horizon, replicates=replicates, seed=seed).final()
    rows = [
        [name, "{:.1f} +- {:.1f}".format(*mean_and_error(regret))]
        for name, regret in (("TITLE", ours), ("Exp3", theirs))
    ]
    return Evidence(
        statement="The headline in one sentence.",
        checks=[at_most("regret / Exp3's", ours.mean() / theirs.mean(), 1.0, "state it")],
        tables=[Table("regret after 5,000 rounds", ["method", "regret"], rows)],
    )
'''


_BATTERY = '''"""The battery, on every learner of the family."""

import pytest

from backchannel.card import discover
from backchannel.testing.battery import CHECKS

METHODS = [method for method in discover("FAMILY") if method.card.protocol == "learner"]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.key)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_every_learner(check, method):
    check(method)
'''


def write_skeleton(package: Path, family: str, key: str) -> list[Path]:
    """Write the three files of `family`/`key` under `package`, and a fourth if no test there runs a battery.

    Raises:
        ValueError: if the name does not serve, or is taken.
    """
    if not package.is_dir():
        raise ValueError(f"there is no folder {package}: expected the one where the package lies")
    if family not in FAMILIES:
        raise ValueError(f"there is no family {family!r}; one of {', '.join(FAMILIES)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", key) or keyword.iskeyword(key):
        raise ValueError(f"{key!r} cannot name a method: lower-case letters, digits and underscores, as in exp3_ix")
    title = key.replace("_", " ").capitalize()
    folder = package / family
    files = {
        folder / f"{key}.py": _METHOD,
        folder / "tests" / f"test_{key}.py": _TESTS,
        folder / "claims" / f"{key}.py": _CLAIM,
    }
    if not any("battery" in path.read_text() for path in (folder / "tests").glob("test_*.py")):
        files[folder / "tests" / "test_battery.py"] = _BATTERY
    taken = [path for path in files if path.exists()]
    if taken:
        raise ValueError(f"{taken[0]} exists already")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_sorted_imports(text.replace("FAMILY", family).replace("KEY", key).replace("TITLE", title)))
    return list(files)


def _sorted_imports(text: str) -> str:
    """The library's own imports, where a name was filled in, in their order again."""
    block = re.search(r"(^from backchannel\..*\n)+", text, re.MULTILINE)
    return text if block is None else text.replace(block[0], "".join(sorted(block[0].splitlines(keepends=True))))
