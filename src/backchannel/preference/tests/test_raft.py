"""RAFT: proofs and contrast."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.best_of_n import log_ratio  # noqa: E402
from backchannel.parts.objectives import random_batch  # noqa: E402
from backchannel.parts.recipes import Recipe, best_and_worst  # noqa: E402
from backchannel.preference.raft import collect, raft  # noqa: E402
from backchannel.preference.rest_em import rest_em  # noqa: E402
from backchannel.preference.sft import sft  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_tuning import Judged, gold_scores, improve, tune  # noqa: E402

LAW, REWARD = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05]), torch.tensor([0.0, 2.0, 1.0, 4.0, 3.0])


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _kept(recipe, scores, seed=0):
    found = recipe.select(scores, _rng(seed))
    torch.testing.assert_close(found.score, scores[found.row, found.answer])
    return sorted(zip(found.row.tolist(), found.answer.tolist(), strict=True))


def test_step_the_best_of_each_prompt_or_of_all():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.2], [5.0, 4.0, 3.0, -1.0], [0.3, 0.2, 0.7, 0.0]])
    assert _kept(raft(4), scores) == [(0, 1), (1, 0), (2, 2)]
    assert _kept(raft(4, share=0.5), scores) == [(0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 2)]
    assert _kept(raft(4, ranking="global"), scores) == [(1, 0), (1, 1), (1, 2)]
    assert _kept(raft(4, share=0.34, ranking="global"), scores) == [(0, 1), (1, 0), (1, 1), (1, 2)]
    assert _kept(raft(4, share=0.01), scores) == [(0, 1), (1, 0), (2, 2)]  # at least one


def test_step_ties_are_broken_by_lot():
    # 200 rounds of 4 equal answers: one of them is never kept with probability 4 (3/4)^200 < 1e-24.
    for recipe in (raft(4), raft(4, ranking="global")):
        seen = {place for seed in range(200) for place in _kept(recipe, torch.ones(1, 4), seed)}
        assert seen == {(0, 0), (0, 1), (0, 2), (0, 3)}


def test_step_collect_takes_the_price_off_and_asks_for_answers_alone():
    said = iter(["aa", "b", "", "cccc", "d", "eee"])

    def draw(prompts, rng):
        return [next(said) for _ in prompts]

    def reward(prompts, answers):
        return torch.tensor([len(prompt) + float(len(answer)) for prompt, answer in zip(prompts, answers, strict=True)])

    def away(prompts, answers):
        return torch.tensor([4.0 if answer == "cccc" else 0.0 for answer in answers])

    found = collect(raft(3), ["p", "qq"], draw, reward, _rng(), price=0.5, log_ratio=away)
    assert (found.prompts, found.answers) == (["p", "qq"], ["aa", "eee"])  # cccc earns 2 + 4 - 0.5 * 4 < 2 + 3
    assert found.scores.tolist() == [3.0, 5.0]
    said = iter(["aa", "b", "", "cccc", "d", "eee"])
    assert collect(raft(3), ["p", "qq"], draw, reward, _rng()).answers == ["aa", "cccc"]


def test_known_what_is_kept_is_the_law_of_best_of_k():
    # Exact probabilities (parts/best_of_n.py); 40,000 prompts. Each share is within 5.3 standard errors except with
    # probability 1.2e-7 for each of 10 shares: below 1e-4.
    n, ratio = 40_000, log_ratio(LAW.double().numpy() / float(LAW.double().sum()), REWARD.numpy(), 3)
    law = LAW.numpy() * np.exp(ratio)
    for seed in (0, 1):
        outcome = LAW.repeat(n, 1).multinomial(3, replacement=True, generator=_rng(seed))
        found = raft(3).select(REWARD[outcome], _rng(seed))
        share = np.bincount(outcome[found.row, found.answer].numpy(), minlength=5) / n
        assert (np.abs(share - law) < 5.3 * np.sqrt(law * (1 - law) / n)).all()


def test_known_a_round_is_imitation_of_the_best_answers():
    start = t.reference(0, width=16, layers=1, steps=80)
    model = improve(start, raft(3), gold_scores, 1, 20, 1, 1e-3, seed=3)
    rng = _rng(3)
    prompts = t.random_prompts(20, rng)
    drawn = [start.sample(prompts, rng) for _ in range(3)]
    best = torch.stack([t.gold(each) for each in drawn], 1).max(1, keepdim=True)[0]
    tied = (torch.stack([t.gold(each) for each in drawn], 1) == best).sum(1) > 1
    rows = [(i, drawn[j]) for j in range(3) for i in range(20) if not tied[i] and t.gold(drawn[j])[i] == best[i, 0]]
    found = collect(
        raft(3),
        [(i, prompts[i]) for i in range(20)],
        lambda some, rng: list(t.Answers(prompts, start.sample(prompts, rng).tokens).tokens),
        lambda some, answers: t.gold(t.Answers(prompts, torch.stack(answers))),
        _advanced(3, prompts),
    )
    by_hand = {i: answers.tokens[i].tolist() for i, answers in rows}
    assert len(by_hand) > 8
    assert all(found.answers[i].tolist() == tokens for i, tokens in by_hand.items())
    data = Judged(t.Answers(prompts, torch.stack(found.answers)))
    once = tune(start, lambda *_: data, sft(), 1, 1e-3, seed=0)
    for a, b in zip(model.parameters(), once.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def _advanced(seed, prompts):
    """The generator as it is after the prompts were drawn."""
    rng = _rng(seed)
    assert torch.equal(t.random_prompts(len(prompts), rng), prompts)
    return rng


def test_limit_the_loss_is_that_of_sft_and_a_share_of_1_keeps_all():
    recipe = raft(4, share=1.0)
    assert isinstance(recipe, Recipe)
    assert (recipe.begin, recipe.mixtures) == ("last", ((1.0, 0.0),))
    batch = random_batch(sft().reads, 6, seed=0)
    torch.testing.assert_close(recipe.objective(batch)[0], sft()(batch)[0], rtol=0, atol=0)
    torch.testing.assert_close(recipe.objective.weight(batch), sft().weight(batch), rtol=0, atol=0)
    assert not recipe.objective.reference
    for ranking in ("local", "global"):
        scores = torch.randn(5, 4, generator=_rng(1))
        assert _kept(raft(4, 1.0, ranking), scores) == [(i, j) for i in range(5) for j in range(4)]


def test_contrast_imitating_all_of_ones_answers_stays_where_one_is():
    # A table: training on what was kept makes its frequencies the policy. Imitation of everything is a draw around the
    # start, within 4.5 standard errors (7e-6); of the best of 4 in three rounds it comes near the best answer.
    def rounds(recipe):
        law = LAW
        for seed in range(3):
            outcome = law.repeat(4000, 1).multinomial(4, replacement=True, generator=_rng(seed))
            found = recipe.select(REWARD[outcome], _rng(seed))
            law = torch.bincount(outcome[found.row, found.answer], minlength=5).float()
            law = law / law.sum()
        return float(law @ REWARD)

    start = float(LAW @ REWARD)
    spread = math.sqrt(float(LAW @ REWARD.square()) - start**2)
    assert abs(rounds(raft(4, share=1.0)) - start) < 4.5 * spread * math.sqrt(3 / 16_000)
    assert rounds(raft(4)) > 3.9


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"answers": 1}, "answers must be 2 or more, not 1"),
        ({"share": 0}, "share"),
        ({"share": 1.5}, "share"),
        ({"ranking": "all"}, "ranking must be local or global"),
    ],
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        raft(**given)


def test_wrong_collections():
    def fail(*_):
        raise AssertionError("nothing is drawn")

    refused = "price must be at least 0"
    for price, word in ((-1e-9, refused), (math.inf, refused), (0.5, "log-ratio")):
        with pytest.raises(ValueError, match=word):
            collect(raft(2), ["p"], fail, fail, _rng(), price=price)
    pairs = Recipe(2, lambda scores, rng: best_and_worst(scores), sft())
    for other in (pairs, rest_em(2)):  # of which the second keeps no scores
        with pytest.raises(ValueError, match="keeps single answers"):
            collect(other, ["p"], lambda *_: ["a"], lambda *_: torch.tensor([1.0]), _rng())
