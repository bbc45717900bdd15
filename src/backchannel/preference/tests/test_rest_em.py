"""ReST-EM: proofs and contrast."""

import itertools
import math

import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import random_batch  # noqa: E402
from backchannel.preference.raft import raft  # noqa: E402
from backchannel.preference.rest_em import pass_at_k, rest_em  # noqa: E402
from backchannel.preference.sft import sft  # noqa: E402
from backchannel.tasks import tiny_programs as t  # noqa: E402

LAW = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.9, 0.02, 0.04, 0.04]])
RIGHT = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]])


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_step_right_solutions_up_to_the_cap_by_lot():
    scores = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    seen = set()
    for seed in range(100):  # each of three pairs is missed with probability (2/3)^100
        found = rest_em(4, cap=2).select(scores, _rng(seed))
        assert found.row.tolist() == [0, 0, 2]
        assert found.answer[2].item() == 1
        assert bool(found.good.all())
        seen.add(tuple(found.answer[:2].tolist()))
    assert seen == {(0, 2), (0, 3), (2, 3)}
    assert rest_em(4, cap=9).select(scores, _rng()).answer.tolist() == [0, 2, 3, 1]
    assert rest_em(4, cap=1).select(scores, _rng()).row.tolist() == [0, 2]
    assert rest_em(1, cap=1).select(scores[:, :1], _rng()).row.tolist() == [0]
    graded = rest_em(4, passing=0.7).select(torch.tensor([[0.6, 0.7, 0.8, -1.0]]), _rng())
    assert graded.answer.tolist() == [1, 2]


def test_step_a_round_trains_the_first_model_on_what_passed():
    # By hand, with the same luck: two rounds; the second draws from the first round's model and begins anew.
    start = t.first_model(0, width=16, steps=60)
    problems = t.random_problems(30, _rng(1))
    recipe = rest_em(6, cap=2)
    seen = []
    model = t.self_train(start, recipe, problems, 2, 5, 1e-2, 3, after=lambda each, now: seen.append(now))
    rng, last = _rng(3), start
    for each in range(2):
        drawn = [last.sample(problems, rng) for _ in range(6)]
        right = torch.stack([some.tokens[:, -1] == t.solve(problems).tokens[:, -1] for some in drawn], 1)
        kept = recipe.select(right.float(), rng)
        assert bool(right[kept.row, kept.answer].all())
        assert kept.row.bincount(minlength=30).tolist() == right.sum(1).clamp_max(2).tolist()
        tokens = torch.stack([drawn[j].tokens[i] for i, j in zip(kept.row.tolist(), kept.answer.tolist(), strict=True)])
        last = t.imitate(start, t.Solutions(problems[kept.row], tokens), sft(), 5, 1e-2, 4 + each)
        for a, b in zip(seen[each].parameters(), last.parameters(), strict=True):
            torch.testing.assert_close(a, b)
    assert model is seen[1]


def test_known_what_passes_is_the_posterior():
    # 60,000 draws for each problem; each share within 5 standard errors of p r / Z: below 1e-5 for 5 shares.
    n = 60_000
    outcome = LAW.multinomial(n, replacement=True, generator=_rng(2))
    found = rest_em(n, cap=n).select(RIGHT.gather(1, outcome), _rng())
    for row in range(2):
        posterior = LAW[row] * RIGHT[row] / (LAW[row] * RIGHT[row]).sum()
        taken = outcome[row, found.answer[found.row == row]]
        share = taken.bincount(minlength=4) / len(taken)
        assert bool(((share - posterior).abs() <= 5 * (posterior * (1 - posterior) / len(taken)).sqrt()).all())


def test_known_pass_at_k_by_enumeration():
    for n, k in ((5, 1), (5, 3), (6, 6), (4, 2)):
        found = pass_at_k(torch.arange(n + 1), n, k)
        for c in range(n + 1):
            draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
            assert found[c].item() == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)
    large = pass_at_k(torch.tensor([3]), 1000, 100)
    assert large.item() == pytest.approx(1 - math.comb(997, 100) / math.comb(1000, 100), rel=1e-12)


def test_limit_where_all_pass_it_imitates_all():
    recipe = rest_em(5, cap=5, passing=-1.0)
    found = recipe.select(torch.zeros(3, 5), _rng())
    assert (found.row * 5 + found.answer).tolist() == list(range(15))
    assert recipe.begin == "start"
    batch = random_batch(sft().reads, 6, seed=0)
    torch.testing.assert_close(recipe.objective(batch)[0], sft()(batch)[0], rtol=0, atol=0)
    torch.testing.assert_close(recipe.objective.weight(batch), sft().weight(batch), rtol=0, atol=0)


def test_contrast_ranking_imitates_wrong_solutions_where_none_is_right():
    # RAFT keeps the best of each problem, which may be wrong; a verified solution never is, and unsolved problems teach
    # nothing. With 2 problems of 50 solved RAFT's data are nearly all wrong.
    scores = torch.zeros(50, 4)
    scores[3, 1] = scores[3, 2] = scores[8, 0] = 1
    ranked = raft(4).select(scores, _rng())
    verified = rest_em(4).select(scores, _rng())
    assert float(scores[ranked.row, ranked.answer].mean()) == pytest.approx(2 / 50)
    assert bool((scores[verified.row, verified.answer] == 1).all())
    assert verified.row.tolist() == [3, 3, 8]
    assert len(rest_em(4).select(torch.zeros(5, 4), _rng()).row) == 0


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"answers": 0}, "answers and cap must be 1 or more"),
        ({"cap": 0}, "answers and cap must be 1 or more"),
        ({"passing": float("nan")}, "passing must be a number"),
        ({"passing": float("inf")}, "passing must be a number"),
        ({"passing": -float("inf")}, "passing must be a number"),
    ],
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        rest_em(**given)


def test_wrong_k():
    for k in (0, 4):
        with pytest.raises(ValueError, match=r"k must lie in 1\.\.3"):
            pass_at_k(torch.tensor([1]), 3, k)
