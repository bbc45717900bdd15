"""Recipes: selections by scores."""

import pytest

torch = pytest.importorskip("torch", reason="recipes are torch's")

from backchannel.parts.recipes import Compared, Kept, Recipe, best_and_worst, scored  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_tuning import Judged, Labelled, gold_scores, improve, selected  # noqa: E402


def test_best_against_worst_and_ties_are_left_out():
    found = best_and_worst(torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0], [0.0, -1.0, 4.0]]))
    assert found.row.tolist() == [0, 2]
    assert found.better.tolist() == [1, 2]
    assert found.worse.tolist() == [0, 1]
    assert found.gap.tolist() == [2, 5]


def test_what_are_no_scores():
    with pytest.raises(ValueError, match="the score of answer 1 to prompt 0 is not finite"):
        scored(torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(
        ValueError, match=r"a row for each prompt and a column for each answer, of at least 1, not \(3,\)"
    ):
        scored(torch.zeros(3))


def test_selected_answers_are_those_that_were_named():
    rng = torch.Generator().manual_seed(0)
    prompts = t.random_prompts(4, rng)
    drawn = [t.writer(prompts, rng) for _ in range(3)]
    pick = torch.tensor([3, 0])
    pairs = selected(drawn, Compared(pick, torch.tensor([2, 0]), torch.tensor([1, 2]), gap=torch.tensor([0.5, 1.0])))
    assert isinstance(pairs, Labelled)
    assert torch.equal(pairs.chosen.tokens, torch.stack([drawn[2].tokens[3], drawn[0].tokens[0]]))
    assert torch.equal(pairs.rejected.tokens, torch.stack([drawn[1].tokens[3], drawn[2].tokens[0]]))
    assert torch.equal(pairs.chosen.prompts, prompts[pick])
    kept = selected(drawn, Kept(pick, torch.tensor([1, 1]), score=torch.tensor([1.0, 2.0])))
    assert isinstance(kept, Judged)
    assert torch.equal(kept.answers.tokens, drawn[1].tokens[pick])
    assert kept.score.tolist() == [1, 2]


def test_a_recipe_improves_the_model_and_rounds_begin_where_it_says():
    start, seen = t.reference(0, width=32, layers=1, steps=150), []
    recipe = Recipe(4, lambda scores, rng: best_and_worst(scores), dpo(0.3))
    model = improve(start, recipe, gold_scores, 2, 64, 15, 2e-3, seed=0, after=lambda i, model: seen.append(model))
    before, after = (t.standing(each, start, 500, seed=5) for each in (start, model))
    assert after.gold > before.gold + 5 * (before.error + after.error)
    assert after.divergence > t.standing(seen[0], start, 500, seed=5).divergence
    none = improve(
        start, Recipe(2, lambda scores, rng: best_and_worst(0 * scores), dpo(0.3)), gold_scores, 1, 8, 2, 1e-3, 0
    )
    assert none is start  # nothing was selected


def test_mixtures_are_taken_in_turns():
    start, seen = t.reference(0, width=32, layers=1, steps=150), []

    def select(scores, rng):
        return best_and_worst(scores)

    def feedback(drawn, rng):
        seen.append(drawn)
        return gold_scores(drawn, rng)

    cold = Recipe(2, select, dpo(0.3), mixtures=((1e5, 0.0), (1.0, 0.0)))
    improve(start, cold, feedback, 1, 40, 1, 1e-3, seed=0)
    (drawn,) = seen
    same = (drawn[0].prompts == drawn[0].prompts[0]).all(1).nonzero()[:, 0]
    assert bool((drawn[0].tokens[same] == drawn[0].tokens[same[0]]).all())  # a temperature near 0 does not vary
    assert len(drawn[1].tokens.unique(dim=0)) > len(drawn[0].tokens.unique(dim=0))
