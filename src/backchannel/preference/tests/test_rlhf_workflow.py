"""RLHF workflow: proofs and contrast."""

import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import random_pairs  # noqa: E402
from backchannel.preference.bradley_terry import bradley_terry  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.oaif import oaif  # noqa: E402
from backchannel.preference.rlhf_workflow import rlhf_workflow  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_tuning import (  # noqa: E402
    answered,
    drawn_twice,
    gold_scores,
    improve,
    label,
    learn_reward,
    ordered,
    tune,
)


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_step_the_best_is_compared_with_the_worst():
    scores = torch.tensor([[0.2, 0.9, -1.0, 0.5], [1.0, 1.0, 1.0, 1.0], [3.0, -1.0, 4.0, 0.0]])
    found = rlhf_workflow(answers=4).select(scores, _rng())
    assert (found.row.tolist(), found.better.tolist(), found.worse.tolist()) == ([0, 2], [1, 2], [2, 1])
    torch.testing.assert_close(found.gap, torch.tensor([1.9, 5.0]))


def test_step_mixtures_and_prices_are_what_was_asked():
    recipe = rlhf_workflow(0.2, 3, (1.0, 2.0), 0.5)
    assert recipe.sources() == [(slice(0, None), [(1.0, 0.0), (0.5, 0.0), (1.0, 0.0)])]
    assert recipe.token_price == 0.5
    assert (recipe.answers, recipe.begin, recipe.anchor) == (3, "last", "start")
    assert rlhf_workflow(answers=2).sources() == [(slice(0, None), [(1.0, 0.0)] * 2)]  # two are enough


def test_known_two_rounds_are_dpo_on_extremes_to_the_start():
    # By hand: the same prompts and answers, the best and the worst by gold less 0.1 a token, and a step of Adam.
    start = t.reference(0, width=32, layers=1, steps=150)
    model = improve(start, rlhf_workflow(0.3, 3, token_price=0.1), gold_scores, 2, 12, 1, 1e-3, seed=3)
    rng, policy = _rng(3), start
    for _ in range(2):
        prompts = t.random_prompts(12, rng)
        drawn = [policy.sample(prompts, rng) for _ in range(3)]
        worth = torch.stack([t.gold(each) - 0.1 * each.length for each in drawn])
        tokens = torch.stack([each.tokens for each in drawn])
        told = worth.max(0)[0] > worth.min(0)[0]
        best, worst = (
            t.Answers(prompts[told], tokens[pick, torch.arange(12)][told])
            for pick in (worth.argmax(0), worth.argmin(0))
        )
        pairs = ordered(best, worst, torch.ones(len(best.tokens), dtype=torch.bool))
        policy = tune(policy, lambda *_, pairs=pairs: pairs, dpo(0.3), 1, 1e-3, seed=0, anchor=start)
    for a, b in zip(model.parameters(), policy.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_limit_without_price_and_exploration_it_is_oaif_with_n_answers():
    pairs = random_pairs(9, seed=1)
    torch.testing.assert_close(rlhf_workflow(0.3).objective(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)
    start = t.reference(0, width=32, layers=1, steps=150)
    ours, theirs = (
        improve(start, recipe, gold_scores, 1, 16, 2, 1e-3, seed=1) for recipe in (rlhf_workflow(0.3, 4), oaif(0.3, 4))
    )
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_contrast_a_price_holds_a_judge_who_likes_length():
    # A judge who likes length. Of 8 answers its best are longer than its worst; with a
    # price they are not. 120 prompts: each mean difference lies more than 6 standard errors from 0.
    start = t.reference(0, width=32, layers=1, steps=150)
    rng = _rng(1)
    drawn = answered(rlhf_workflow(answers=8), start, start, t.random_prompts(120, rng), rng)
    lengths = torch.stack([each.length for each in drawn], 1).float()
    scores = gold_scores(drawn, rng) + 0.5 * lengths
    for price, sign in ((0.0, 1), (1.0, -1)):
        recipe = rlhf_workflow(answers=8, token_price=price)
        found = recipe.select(scores - recipe.token_price * lengths, rng)
        ahead = lengths[found.row, found.better] - lengths[found.row, found.worse]
        assert sign * float(ahead.mean()) > 6 * float(ahead.std()) / len(ahead) ** 0.5


def test_contrast_extremes_teach_more_than_two_answers_do():
    # The gap of gold rewards of the pairs: that of 8 answers' extremes is larger than that of two answers.
    start = t.reference(0, width=32, layers=1, steps=150)
    gaps = {}
    for name, recipe in (("extremes", rlhf_workflow(answers=8)), ("two", oaif())):
        rng = _rng(2)
        drawn = answered(recipe, start, start, t.random_prompts(120, rng), rng)
        gaps[name] = recipe.select(gold_scores(drawn, rng), rng).gap
    assert float(gaps["extremes"].mean()) > 1.5 * float(gaps["two"].mean())


def test_a_learned_reward_plays():
    start = t.reference(0, width=32, layers=1, steps=150)
    rng = _rng(1)
    proxy = learn_reward(label(*drawn_twice(start, 64, rng), rng), bradley_terry(), 3, 1e-3, seed=0)

    def judged(drawn, rng):
        return torch.stack([proxy(each) for each in drawn], 1)

    found = improve(start, rlhf_workflow(answers=3, temperatures=(1.0, 1.5)), judged, 1, 8, 1, 1e-3, seed=0)
    assert any(not torch.equal(a, b) for a, b in zip(found.parameters(), start.parameters(), strict=True))


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"answers": 1}, "answers must be 2 or more, not 1"),
        ({"beta": 0}, "beta must be positive"),
        ({"temperatures": ()}, "temperatures must be at least one number"),
        ({"temperatures": (1.0, 0.0)}, "temperature 1 must be positive"),
        ({"token_price": -1e-9}, "token_price must be at least 0"),
        ({"token_price": float("inf")}, "token_price must be at least 0"),
    ],
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        rlhf_workflow(**given)
