"""OSP: proofs and contrast."""

import math

import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_pairs  # noqa: E402
from backchannel.preference.oaif import oaif  # noqa: E402
from backchannel.preference.osp import both_orders, osp, ranked_pairs  # noqa: E402
from backchannel.preference.soft_dpo import soft_dpo  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_judges import PairJudge, learn_to_judge  # noqa: E402
from backchannel.tasks.tiny_tuning import drawn_twice, ordered  # noqa: E402


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_step_a_ranking_by_hand():
    # J(0, 1) = 0.9 and J(1, 0) = 0.3: p(0, 1) = (0.9 + 0.7) / 2 = 0.8. J(0, 2) = 0.2 and J(2, 0) = 0.5: p = 0.35.
    # J(1, 2) = 0.4 and J(2, 1) = 0.2: p(1, 2) = 0.6. The means are 0.575, 0.4 and 0.525: the ranking is 0, 2, 1, its
    # pairs 0-2, 0-1 and 2-1 have the strengths 0.35, 0.8 and 0.4, and it overrules two judgements.
    judged = torch.tensor([[[0.0, 0.9, 0.2], [0.3, math.nan, 0.4], [0.5, 0.2, 1.0]]])
    found = ranked_pairs(judged)
    assert found.row.tolist() == [0, 0, 0]
    assert found.better.tolist() == [0, 0, 2]
    assert found.worse.tolist() == [2, 1, 1]
    torch.testing.assert_close(found.strength, torch.tensor([0.35, 0.8, 0.4]))


def test_step_scores_are_log_odds():
    found = osp(answers=2, scale=2.0).select(torch.tensor([[0.5, 1.0], [3.0, 3.0]]), _rng())
    assert (found.row.tolist(), found.better.tolist(), found.worse.tolist()) == ([0, 1], [1, 0], [0, 1])
    torch.testing.assert_close(found.strength, torch.tensor([1 / (1 + math.exp(-1.0)), 0.5]))


def test_known_the_loss_is_least_at_the_policy_of_the_judges_rewards():
    # Five answers, all drawn evenly and compared: the minimiser of (4) is ref exp(r / beta) / Z, in closed form.
    beta, rewards = 0.3, torch.tensor([[0.4, -1.0, 0.9, 0.0, 0.2]], dtype=torch.float64)
    recipe = osp(beta, answers=5)
    found = recipe.select(rewards, _rng())
    reference = torch.log_softmax(torch.tensor([0.3, 0.1, -0.5, 0.0, 1.0], dtype=torch.float64), 0)
    free = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    stepper = torch.optim.LBFGS([free], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        stepper.zero_grad()
        log = torch.log_softmax(free, 0)
        batch = Pairs(log[found.better], log[found.worse], reference[found.better], reference[found.worse])
        value = recipe.objective(batch._replace(strength=found.strength))[0].mean()
        value.backward()
        return value

    stepper.step(closure)
    best = torch.softmax(reference + rewards[0] / beta, 0)
    torch.testing.assert_close(torch.softmax(free.detach(), 0), best, atol=1e-6, rtol=0)


def test_known_the_loss_is_that_of_soft_labels():
    pairs = random_pairs(9, seed=1)._replace(strength=torch.linspace(0, 1, 9, dtype=torch.float64))
    torch.testing.assert_close(osp(0.3).objective(pairs)[0], soft_dpo(0.3)(pairs)[0], rtol=0, atol=0)
    torch.testing.assert_close(osp(0.3).objective(pairs)[1].margin, soft_dpo(0.3)(pairs)[1].margin, rtol=0, atol=0)


def test_limit_a_judge_that_looks_at_the_place_alone_says_nothing():
    # J = 0.8 for whoever is shown first: with both orders all strengths are 1/2, and the gradient at the start is 0.
    judged = torch.full((2, 4, 4), 0.8)
    torch.testing.assert_close(both_orders(judged), torch.full((2, 4, 4), 0.5))
    found = ranked_pairs(judged)
    assert len(found.row) == 12
    torch.testing.assert_close(found.strength, torch.full((12,), 0.5))
    logs = torch.zeros(1, requires_grad=True)
    still = torch.zeros(1)
    osp(0.1).objective(Pairs(logs, still, still, still, strength=torch.tensor([0.5])))[0].sum().backward()
    assert float(logs.grad) == 0


def test_limit_a_certain_judge_of_two_answers_is_online_dpo():
    scores = torch.randn(30, 2, generator=_rng(4))
    certain = (scores[:, :, None] > scores[:, None, :]).float()
    found, plain = osp(0.2, answers=2).select(certain, _rng()), oaif(0.2).select(scores, _rng())
    for name in ("row", "better", "worse"):
        assert torch.equal(getattr(found, name), getattr(plain, name))
    assert bool((found.strength == 1).all())
    pairs = random_pairs(30, seed=2)
    soft, hard = osp(0.2).objective(pairs._replace(strength=found.strength.double())), oaif(0.2).objective(pairs)
    torch.testing.assert_close(soft[0], hard[0])


def test_contrast_online_dpo_pulls_apart_what_the_judge_can_hardly_tell_apart():
    # Two answers, p = 0.55. OSP's margin settles at log(0.55 / 0.45) = 0.2; DPO's, with the label for certain, is ten
    # times that after the same steps and still growing.
    ends = {}
    for name, recipe in (("osp", osp(1.0, answers=2)), ("oaif", oaif(1.0))):
        found = recipe.select(torch.tensor([[math.log(0.55 / 0.45), 0.0]]), _rng())
        h = torch.zeros(1, requires_grad=True)
        still = torch.zeros(1)
        path = []
        for _ in range(60):
            batch = Pairs(h, still, still, still, strength=found.strength)
            (slope,) = torch.autograd.grad(recipe.objective(batch)[0].sum(), h)
            h = (h - slope).detach().requires_grad_(True)
            path.append(float(h.detach()))
        ends[name] = path
    assert abs(ends["osp"][-1] - 0.2007) < 1e-3
    assert ends["oaif"][-1] > 2
    assert ends["oaif"][-1] > ends["oaif"][-2] + 0.005


def test_the_tiny_judge_learns_from_pairs_and_its_table_is_its_comparisons():
    start = t.reference(0, width=32, layers=1, steps=60)
    one, other = drawn_twice(start, 200, _rng(1))
    data = ordered(one, other, t.gold(one) > t.gold(other))
    judge = learn_to_judge(start, data, 60, 3e-3, seed=0)
    fresh = drawn_twice(start, 50, _rng(2))
    table = judge.table(list(fresh))
    assert table.shape == (50, 2, 2)
    torch.testing.assert_close(table[:, 0, 1], torch.sigmoid(judge(*fresh)))
    torch.testing.assert_close(table[:, 1, 0], torch.sigmoid(judge(fresh[1], fresh[0])))
    told = (judge(data.chosen, data.rejected) > 0).float().mean()
    untold = (PairJudge(start, 0)(data.chosen, data.rejected) > 0).float().mean()
    assert float(told) > 0.7 > float(untold) + 0.05
    state = torch.get_rng_state()
    learn_to_judge(start, data, 1, 3e-3, seed=0, dropout=0.5)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("given", "word"),
    [({"answers": 1}, "answers must be 2"), ({"beta": 0}, "beta must"), ({"scale": -1.0}, "scale must")],
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        osp(**given)


def test_judgements_that_are_no_probabilities_are_refused():
    with pytest.raises(ValueError, match=r"answers 0 and 1 to prompt 0 must be a probability, not 1\.5"):
        osp().select(torch.tensor([[[0.5, 1.5], [0.5, 0.5]]]), _rng())
    with pytest.raises(ValueError, match="answers 1 and 0 to prompt 0"):
        osp().select(torch.tensor([[[0.5, 0.5], [float("nan"), 0.5]]]), _rng())
    for shape in ((2, 3, 2), (3, 3), (2, 1, 1), (1, 2, 2, 2)):
        with pytest.raises(ValueError, match=r"must be \[prompts, N, N\]"):
            ranked_pairs(torch.zeros(shape))
    with pytest.raises(ValueError, match="must have a row for each prompt"):
        osp().select(torch.zeros(4), _rng())
