"""The battery of objectives, on every objective of the family."""

import pytest

pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.card import discover
from backchannel.testing.objective_battery import OBJECTIVE_CHECKS
from backchannel.testing.recipe_battery import RECIPE_CHECKS

METHODS = [method for method in discover("preference") if method.card.protocol == "objective"]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.key)
@pytest.mark.parametrize("check", OBJECTIVE_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_every_objective(check, method):
    check(method)


RECIPES = [method for method in discover("preference") if method.card.protocol == "recipe"]


@pytest.mark.parametrize("method", RECIPES, ids=lambda method: method.key)
@pytest.mark.parametrize("check", RECIPE_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_every_recipe(check, method):
    check(method)
