"""The battery of recipes: what must hold for every method that learns from answers that the model draws.

Recipes are tried on made-up scores, and their losses on made-up batches. A check raises AssertionError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import torch

from backchannel.card import Method
from backchannel.parts.objectives import Objective, Pairs, Rankings, Rollouts, Singles
from backchannel.parts.recipes import Compared, Recipe
from backchannel.testing.battery import check_card
from backchannel.testing.objective_battery import OBJECTIVE_CHECKS

Check = Callable[[Method], None]


def check_parts(method: Method) -> None:
    """It is a recipe whose parts fit together."""
    recipe: Recipe = method.example()
    assert recipe.answers >= 1
    assert isinstance(recipe.objective, Objective)
    assert recipe.objective.reads in (Pairs, Singles, Rankings, Rollouts)
    assert recipe.mixtures, f"{method.key}: no distribution to draw from"
    assert all(a + b > 0 for a, b in recipe.mixtures + recipe.second), f"{method.key}: a mixture of no weight"
    assert recipe.begin in ("last", "start")
    assert 0 <= recipe.share <= 1


def check_objective(method: Method) -> None:
    """Its loss is an objective: what must hold for those, holds."""
    module = ModuleType(method.key)
    vars(module).update(vars(method.module) | {method.key: lambda: method.example().objective})
    for check in OBJECTIVE_CHECKS:
        if check is not check_card:
            check(Method(method.key, method.family, replace(method.card, example={}), module))


def check_selection(method: Method) -> None:
    """What is selected are answers that there are; a better one is not worse, and no other than the worse one."""
    recipe: Recipe = method.example()
    for seed in range(5):
        scores = _scores(recipe, seed)
        found = recipe.select(scores, torch.Generator().manual_seed(seed))
        assert bool(((found.row >= 0) & (found.row < len(scores))).all()), f"{method.key}: there is no such prompt"
        columns = [found.better, found.worse] if isinstance(found, Compared) else [found.answer]
        for each in columns:
            assert each.shape == found.row.shape, f"{method.key}: one answer for each row"
            assert bool(((each >= 0) & (each < recipe.answers)).all()), f"{method.key}: there is no such answer"
        if isinstance(found, Compared):
            assert recipe.objective.reads is Pairs, f"{method.key}: selects pairs, and its objective reads none"
            assert bool((found.better != found.worse).all()), f"{method.key}: an answer is better than itself"
            if found.gap is not None:
                ahead = scores[found.row, found.better] - scores[found.row, found.worse]
                torch.testing.assert_close(found.gap, ahead, msg=f"{method.key}: gap is not that of the scores")
            if found.strength is not None:
                inside = (found.strength >= 0) & (found.strength <= 1)
                assert bool(inside.all()), f"{method.key}: strength is no probability"
        else:
            assert recipe.objective.reads is Singles, f"{method.key}: selects answers, and its objective reads none"
            if found.good is not None:
                assert found.good.dtype == torch.bool


def check_luck(method: Method) -> None:
    """The same generator, the same selection; torch's own is not touched."""
    recipe: Recipe = method.example()
    scores, before = _scores(recipe, 7), torch.get_rng_state()
    one, other = (recipe.select(scores, torch.Generator().manual_seed(3)) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        same = a is b if a is None or b is None else torch.equal(a, b)
        assert same, f"{method.key}: luck from elsewhere"
    assert torch.equal(torch.get_rng_state(), before), f"{method.key}: torch's own generator was used"


def check_bad_scores(method: Method) -> None:
    """A score that is no number is refused, in one sentence that says where it is."""
    recipe: Recipe = method.example()
    for wrong in (float("nan"), float("inf")):
        scores = _scores(recipe, 1)
        scores[2, recipe.answers - 1] = wrong
        said = _refusal(recipe, scores)
        assert said is not None, f"{method.key}: takes a score of {wrong}"
        assert "2" in said, f"{method.key}: does not say which prompt"


RECIPE_CHECKS: tuple[Check, ...] = (
    check_card,
    check_parts,
    check_objective,
    check_selection,
    check_luck,
    check_bad_scores,
)


def _scores(recipe: Recipe, seed: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(40, recipe.answers, generator=rng)


def _refusal(recipe: Recipe, scores: torch.Tensor) -> str | None:
    try:
        recipe.select(scores, torch.Generator().manual_seed(0))
    except ValueError as error:
        return str(error)
    return None
