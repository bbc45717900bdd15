"""Self-Rewarding LM: proofs and contrast."""

import math

import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_pairs  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.oaif import oaif  # noqa: E402
from backchannel.preference.self_rewarding_lm import agreement, judged, self_rewarding_lm  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_judges import POINTS, learn_to_answer_and_judge, points_of, true_points  # noqa: E402
from backchannel.tasks.tiny_tuning import drawn_twice, gold_scores, improve, ordered, tune  # noqa: E402


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_step_best_against_worst_and_no_ties():
    found = self_rewarding_lm(answers=3).select(
        torch.tensor([[2.0, 5.0, 1.0], [3.0, 3.0, 3.0], [0.0, 1.0, 4.0]]), _rng()
    )
    assert (found.row.tolist(), found.better.tolist(), found.worse.tolist()) == ([0, 2], [1, 2], [2, 0])
    torch.testing.assert_close(found.gap, torch.tensor([4.0, 4.0]))


def test_step_the_loss_by_hand():
    pairs = Pairs(*torch.tensor([[-4.0], [-6.0], [-5.0], [-5.5]], dtype=torch.float64))
    loss, info = self_rewarding_lm(0.5).objective(pairs)
    h = 0.5 * ((-4 + 5) - (-6 + 5.5))
    assert float(info.margin) == pytest.approx(h, abs=1e-12)
    assert float(loss) == pytest.approx(math.log1p(math.exp(-h)), abs=1e-12)


def test_step_agreement_by_hand():
    # Prompt 0: truth 3 > 2 > 1, own 5 > 4 > 4: right, right, tie. Prompt 1: truth 1 = 1 < 2, own 0, 3, 2: right, wrong.
    own, truth = torch.tensor([[5.0, 4.0, 4.0], [0.0, 3.0, 2.0]]), torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 2.0]])
    assert agreement(own, truth) == pytest.approx((1 + 1 + 0.5 + 1 + 0) / 5, abs=1e-12)


def test_known_mean_and_variance_of_sampled_points():
    # The mean of n = 4 judgements: expectation and variance from the distribution. Over 20,000 answers the mean lies
    # within 4.5 standard errors but for 1 seed in 100,000, and the variance within 5 % (over 5 standard errors).
    p = torch.tensor([0.05, 0.1, 0.2, 0.3, 0.25, 0.1], dtype=torch.float64)
    scale = torch.arange(6, dtype=torch.float64)
    mean = float((p * scale).sum())
    variance = (float((p * scale**2).sum()) - mean**2) / 4
    drawn = judged(p.expand(100, 200, 6), 4, _rng(3))
    assert drawn.shape == (100, 200)
    assert float(judged(p)) == pytest.approx(mean, abs=1e-12)
    assert abs(float(drawn.mean()) - mean) < 4.5 * math.sqrt(variance / 20000)
    assert float(drawn.var()) == pytest.approx(variance, rel=0.05)


def test_known_two_rounds_are_two_runs_of_dpo_each_against_the_model_before():
    # By hand: the same draws, one step of Adam a round, and in the second round the first round's model as reference.
    start = t.reference(0, width=32, layers=1, steps=60)
    models = []
    end = improve(
        start, self_rewarding_lm(0.3, answers=2), gold_scores, 2, 24, 2, 1e-3, seed=3,
        after=lambda each, model: models.append(model),
    )  # fmt: skip
    rng, last = _rng(3), start
    for each in range(2):
        prompts = t.random_prompts(24, rng)
        drawn = [last.sample(prompts, rng), last.sample(prompts, rng)]
        first, second = (t.gold(some) for some in drawn)
        told = first != second
        pairs = ordered(drawn[0].rows(told), drawn[1].rows(told), (first > second)[told])
        last = tune(last, lambda *_, pairs=pairs: pairs, dpo(0.3), 2, 1e-3, seed=0, anchor=last)
        for a, b in zip(models[each].parameters(), last.parameters(), strict=True):
            torch.testing.assert_close(a, b)
    assert end is models[1]


def test_limit_many_judgements_are_their_expectation_and_a_round_is_oaifs():
    p = torch.softmax(torch.randn(5, 6, generator=_rng(1), dtype=torch.float64), 1)
    torch.testing.assert_close(judged(p, 40000, _rng(2)), judged(p), atol=0.06, rtol=0)  # 7 standard errors or more
    pairs, scores = random_pairs(9, seed=1), torch.randn(9, 4, generator=_rng(4))
    mine, other = self_rewarding_lm(0.3), oaif(0.3, answers=4)
    torch.testing.assert_close(mine.objective(pairs)[0], other.objective(pairs)[0], rtol=0, atol=0)
    for a, b in zip(mine.select(scores, _rng()), other.select(scores, _rng()), strict=True):
        assert a is b if a is None else torch.equal(a, b)
    assert (mine.begin, mine.anchor) == ("last", "last")


def test_contrast_oaif_is_held_by_the_start_and_this_is_not():
    # Two answers, the same pair in every round, a loss followed to its end within a bound on each round: with the start
    # as the reference a round finds the margin where the last one left it; with the last model it begins at 0 again.
    # 12 rounds of 5 steps at beta = 1: log-odds that OAIF can only reach by going against a vanishing slope.
    ends = {}
    for name, recipe in (("self", self_rewarding_lm(1.0, answers=2)), ("oaif", oaif(1.0))):
        odds = torch.zeros(1, dtype=torch.float64)
        for _ in range(12):
            reference = odds.clone() if recipe.anchor == "last" else torch.zeros(1, dtype=torch.float64)
            for _ in range(5):
                now = odds.clone().requires_grad_(True)
                still = torch.zeros(1, dtype=torch.float64)
                loss = recipe.objective(Pairs(now, still, reference, still))[0].sum()
                odds = odds - torch.autograd.grad(loss, now)[0]
        ends[name] = float(odds)
    assert ends["oaif"] < 4.5
    assert ends["self"] > 12


def test_one_tiny_model_answers_and_judges():
    start = t.reference(0, width=32, layers=1, steps=60)
    one, other = drawn_twice(start, 300, _rng(1))
    model = learn_to_answer_and_judge(start, one, 80, 3e-3, seed=0)
    points = points_of(model, other)
    assert points.shape == (300, POINTS)
    torch.testing.assert_close(points.sum(1), torch.ones(300))
    before, now = (agreement(judged(points_of(m, other))[None], t.gold(other)[None]) for m in (start, model))
    assert now > 0.65 > before + 0.05
    assert float(model.log_probability(one).mean()) > float(start.log_probability(one).mean()) - 3
    told = true_points(other)
    assert told.min() >= 0
    assert told.max() < POINTS
    assert agreement(told[None].float(), t.gold(other)[None]) > 0.85


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: self_rewarding_lm(answers=1), "answers must be 2 or more, not 1"),
        (lambda: self_rewarding_lm(beta=0), "beta must"),
        (lambda: judged(torch.tensor([[0.5, 0.2]])), "sum 1"),
        (lambda: judged(torch.tensor([[0.5, 0.5], [0.5, 0.2]])), "sum 1"),
        (lambda: judged(torch.tensor([[1.0]])), "two points at least"),
        (lambda: judged(torch.tensor([[1.5, -0.5]])), "must be probabilities"),
        (lambda: judged(torch.tensor([[0.5, 0.5]]), 0), "samples must be 1"),
        (lambda: agreement(torch.zeros(1, 2), torch.zeros(1, 3)), "same answers"),
        (lambda: agreement(torch.zeros(1, 2), torch.zeros(1, 2)), "no two answers"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
