"""Little programs: values by hand, a verifier that looks at the end, a crowd as sloppy as it is said to be."""

import pytest

torch = pytest.importorskip("torch", reason="the tiny language model needs torch")

from backchannel.tasks import tiny_programs as t  # noqa: E402


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_values_by_hand():
    plus, minus, mix, stop = range(t.PLUS, t.STOP + 1)
    problems = torch.tensor([[7, plus, 5, minus, 4, mix, 9], [1, mix, 0, minus, 6, stop, 0]])
    solutions = t.solve(problems)
    assert solutions.tokens.tolist() == [[2, 8, 3], [3, 7, 7]]
    assert t.verify(solutions).tolist() == [1, 1]
    lucky = t.Solutions(problems, torch.tensor([[0, 0, 3], [3, 7, 6]]))
    assert t.verify(lucky).tolist() == [1, 0]
    assert solutions.length.tolist() == [3, 3]


def test_problems_stop_early_where_they_are_shorter():
    problems = t.random_problems(500, _rng(), steps=2)
    assert bool((problems[:, 5] == t.STOP).all())
    assert bool((problems[:, 6] == 0).all())
    assert bool((problems[:, [1, 3]] < t.STOP).all())
    assert set(t.random_problems(500, _rng())[:, [1, 3, 5]].flatten().tolist()) == {10, 11, 12}
    solved = t.solve(problems).tokens
    assert torch.equal(solved[:, 1], solved[:, 2])


def test_the_crowd_is_right_as_often_as_it_is_said_to_be():
    # First values of 40,000 problems. Where the crowd is mistaken it is right with 0.3 + 0.02, elsewhere with
    # 0.8 + 0.02; of 300 instructions the share that is mistaken has a standard deviation of 0.026, so that overall
    # 0.67 +- 0.07 is more than 5 of them. What it says of one instruction is, mostly, one value.
    problems = t.random_problems(40_000, _rng(1))
    said = t.crowd(problems, 0, _rng(2)).tokens[:, 0]
    right = (said == t.solve(problems).tokens[:, 0]).float()
    assert 0.60 < float(right.mean()) < 0.74
    key = (problems[:, 1] - t.PLUS) * 100 + problems[:, 0] * 10 + problems[:, 2]
    each = torch.zeros(300).scatter_add(0, key, right) / key.bincount(minlength=300)
    # Shares of about 133 with standard errors below 0.043: 0.58 is 6 from 0.32, and more than 5 from 0.82.
    mistaken = each < 0.58
    assert 0.15 < float(mistaken.float().mean()) < 0.45
    counts = torch.zeros(300, 10).index_put((key, said), torch.ones(len(key)), accumulate=True)
    top = counts.max(1)[0] / counts.sum(1)
    assert float(top[mistaken].mean()) == pytest.approx(0.52, abs=0.05)
    assert float(top[~mistaken].mean()) == pytest.approx(0.82, abs=0.03)
    assert torch.equal(t.crowd(problems, 0, _rng(2)).tokens[:, 0], said)


def test_a_model_says_what_its_probabilities_say():
    model = t.first_model(0, width=16, steps=60)
    problem = t.random_problems(1, _rng(3))
    every = torch.cartesian_prod(*[torch.arange(10)] * 3)
    law = model.log_probability(t.Solutions(problem.expand(1000, -1), every)).exp()
    assert float(law.sum()) == pytest.approx(1, abs=1e-4)
    drawn = model.sample(problem.expand(20_000, -1), _rng(4)).tokens
    share = (drawn * torch.tensor([100, 10, 1])).sum(1).bincount(minlength=1000) / 20_000
    # A total variation of 1,000 shares of 20,000 draws is at most about 0.09 in the mean, and hardly varies.
    assert float((share - law).abs().sum()) / 2 < 0.13
    likely = model.sample(problem).tokens[0]
    first = model.logits(problem)[0, -1].argmax()
    assert int(likely[0]) == int(first)


def test_imitation_teaches():
    start = t.first_model(0, width=16, steps=60)
    problems = t.random_problems(40, _rng(5))
    data = t.solve(problems)
    from backchannel.preference.sft import sft

    tuned = t.imitate(start, data, sft(), 100, 1e-2, 0)
    with torch.no_grad():
        assert float(tuned.log_probability(data).mean()) > float(start.log_probability(data).mean()) + 1
