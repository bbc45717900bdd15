"""The battery of solvers, on every solver of the family, and on solvers that are wrong."""

from types import SimpleNamespace

import numpy as np
import pytest

from backchannel.card import discover
from backchannel.parts.nash import Solver, normalised, win_rates
from backchannel.testing import game_battery
from backchannel.testing.game_battery import GAME_CHECKS

METHODS = [method for method in discover("games") if method.card.protocol == "solver"]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.key)
@pytest.mark.parametrize("check", GAME_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_every_solver(check, method):
    check(method)


WRONG = {
    "check_policies": lambda m, mu, p, t: normalised(p + 0.1 * win_rates(m, p)) - 1e-6,
    "check_games_are_independent": lambda m, mu, p, t: normalised(p + 0.1 * win_rates(m, p) * (1 + p.size / 20)),
    "check_names_do_not_matter": lambda m, mu, p, t: normalised(p + 0.1 * win_rates(m, p) * np.arange(1, 6)),
    "check_better_answers_gain": lambda m, mu, p, t: normalised(p - 0.1 * win_rates(m, p)),
    "check_harder_to_beat": lambda m, mu, p, t: p,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_solver_does_not_pass(name):
    method = SimpleNamespace(key="wrong", example=lambda: Solver(WRONG[name], 1))
    with pytest.raises(AssertionError):
        getattr(game_battery, name)(method)
