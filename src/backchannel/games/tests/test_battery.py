"""The battery of solvers, on every solver of the family."""

import pytest

from backchannel.card import discover
from backchannel.testing.game_battery import GAME_CHECKS

METHODS = [method for method in discover("games") if method.card.protocol == "solver"]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.key)
@pytest.mark.parametrize("check", GAME_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_every_solver(check, method):
    check(method)
