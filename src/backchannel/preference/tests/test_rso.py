"""RSO: proofs and contrast."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_pairs  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.hinge_norm import hinge_norm  # noqa: E402
from backchannel.preference.rso import rejection_sampling, rso, tournament, unified  # noqa: E402

LAW, REWARD = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.0, 0.5, 1.0, 1.5])


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_step_passes_accept_against_the_best_that_is_left():
    # By hand, with the same uniform numbers: one prompt after the other, candidate by candidate, as the algorithm says.
    rewards, beta, m = torch.randn(6, 9, generator=_rng(1), dtype=torch.float64), 0.4, 5
    found = rejection_sampling(rewards, beta, m, _rng(7))
    rng, accepted = _rng(7), [[] for _ in rewards]
    while any(len(each) < m for each in accepted):
        u = torch.rand(6, 9, generator=rng, dtype=torch.float64)
        for i, row in enumerate(rewards.tolist()):
            r_max = max((r for j, r in enumerate(row) if j not in accepted[i]), default=0.0)
            new = [j for j, r in enumerate(row) if j not in accepted[i] and u[i, j] < math.exp((r - r_max) / beta)]
            accepted[i] += new
    assert found.tolist() == [each[:m] for each in accepted]
    assert found.shape == (6, 5)


def test_step_a_tournament_by_hand():
    # Whatever the lot: the best of four wins twice, its final is against the best of the other pair, three pairs.
    scores, players = torch.tensor([[5.0, 1.0, 9.0, 3.0, 7.0]]), torch.tensor([[0, 1, 2, 3]])
    seen = set()
    for seed in range(40):
        found = tournament(scores, players, _rng(seed))
        pairs = list(zip(found.better.tolist(), found.worse.tolist(), strict=True))
        assert all(scores[0, a] > scores[0, b] for a, b in pairs)
        torch.testing.assert_close(found.gap, scores[0, found.better] - scores[0, found.worse])
        one, other, final = pairs
        assert {*one, *other} == {0, 1, 2, 3}
        assert final == (2, ({one[0], other[0]} - {2}).pop())
        seen.add(frozenset(map(frozenset, (one, other))))
        start = tournament(scores, players, _rng(seed), first=True)
        assert list(zip(start.better.tolist(), start.worse.tolist(), strict=True)) == [one, other]
    assert len(seen) == 3  # missed with probability 3 (2/3)^40 < 1e-6
    odd = tournament(scores, torch.tensor([[0, 1, 2]]), _rng())
    assert (len(odd.row), odd.better[-1].item()) == (2, 2)


def test_step_equal_answers_are_no_pair():
    scores = torch.tensor([[1.0, 1.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    found = tournament(scores, torch.arange(4).repeat(3, 1), _rng(1))
    assert bool((found.gap > 0).all())
    assert 1 not in found.row.tolist()
    assert found.row.tolist().count(2) == 3
    # The first of two equal ones goes on: of 0 and 1, whoever was drawn into the first place, where they meet at once.
    scores, players, seen = torch.tensor([[1.0, 1.0, 0.0]]), torch.arange(3)[None], set()
    for seed in range(40):
        drawn = torch.rand(1, 3, generator=_rng(seed)).argsort(1)[0].tolist()
        if drawn[2] == 2:
            found = tournament(scores, players, _rng(seed))
            assert (found.better.tolist(), found.worse.tolist()) == ([drawn[0]], [2])
            seen.add(drawn[0])
    assert seen == {0, 1}


def test_known_the_first_pass_draws_from_the_optimum():
    # 200,000 single acceptances of 64 candidates: the largest reward is among them but for 0.9^64 = 0.1 %. Each share
    # within 5 standard errors and 0.003 of p exp(r / beta) / Z: below 1e-5.
    n, beta = 20_000, 0.5
    target = (LAW * torch.exp(REWARD / beta)).numpy()
    target /= target.sum()
    outcome = LAW.repeat(n, 1).multinomial(64, replacement=True, generator=_rng(2))
    found = rejection_sampling(REWARD[outcome], beta, 1, _rng(3))
    share = np.bincount(outcome.gather(1, found).flatten().numpy(), minlength=4) / n
    assert (np.abs(share - target) < 5 * np.sqrt(target * (1 - target) / n) + 0.003).all()


def test_limit_the_temperature_goes_from_the_best_to_the_first():
    rewards = torch.randn(50, 12, generator=_rng(4))
    assert torch.equal(rejection_sampling(rewards, 1e-7, 5, _rng()), rewards.argsort(1, descending=True)[:, :5])
    assert torch.equal(rejection_sampling(rewards, 1e9, 5, _rng()), torch.arange(5).expand(50, 5))
    assert torch.equal(rejection_sampling(rewards, 1.0, 12, _rng()).sort(1)[0], torch.arange(12).expand(50, 12))
    best = rso(beta=1e-7, answers=12, accepted=2).select(rewards, _rng())
    assert torch.equal(best.better, rewards.argmax(1))


def test_limit_losses_are_those_of_dpo_and_hinge_norm_and_one_reads_no_reference():
    pairs = random_pairs(20, seed=5)
    torch.testing.assert_close(unified("sigmoid-norm", 0.3)(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)
    torch.testing.assert_close(unified("hinge-norm", 0.3)(pairs)[0], hinge_norm(0.3)(pairs)[0], rtol=0, atol=0)
    nothing = torch.zeros_like(pairs.policy_chosen)
    plain = Pairs(pairs.policy_chosen, pairs.policy_rejected, nothing, nothing)
    slic = unified("hinge", 0.3)
    assert not slic.reference
    torch.testing.assert_close(slic(pairs)[0], hinge_norm(0.3)(plain)[0])
    assert rso(gamma=0.3).objective.reference
    torch.testing.assert_close(rso(gamma=0.3).objective(pairs)[0], dpo(0.3)(pairs)[0])
    assert rso().mixtures == ((0.0, 1.0),)
    assert len(rso(answers=4, accepted=4).select(torch.arange(4.0)[None], _rng()).row) == 3  # all may be accepted


def test_contrast_the_likelihood_of_pairs_is_sharper_where_they_come_from_the_optimum():
    # DPO learns from pairs of p; RSO from pairs of the optimum. Of 8 answers here two are good, and rare under p: most
    # pairs of p are about answers that the optimum hardly gives. RSO compares the two good ones with each other.
    law = torch.tensor([0.1, 0.1] + [0.8 / 6] * 6)
    reward = torch.tensor([2.0, 2.5, 0.0, -0.1, -0.2, 0.1, 0.2, 0.3])
    outcome = law.repeat(4000, 1).multinomial(32, replacement=True, generator=_rng(6))
    scores = reward[outcome]

    def share(recipe):
        found = recipe.select(scores, _rng(7))
        both = outcome[found.row, found.better] + outcome[found.row, found.worse]
        good = (outcome[found.row, found.better] < 2) & (outcome[found.row, found.worse] < 2)
        assert bool((both[good] == 1).all())
        return float(good.float().mean())

    plain = share(rso(beta=1e9, answers=32, accepted=4, first=True))
    ours = share(rso(beta=0.5, answers=32, accepted=4, first=True))
    # Two draws of p are the two good ones with 0.02, and so are less than 0.03 of the pairs that are not equal; two of
    # the optimum, which gives good answers with more than 0.9, in more than 0.4 of them.
    assert plain < 0.05
    assert ours > 0.4


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"accepted": 1}, "accepted must lie in 2..64"),
        ({"accepted": 65}, "accepted must lie in 2..64"),
        ({"beta": 0}, "beta"),
        ({"gamma": 0}, "gamma"),
        ({"loss": "square"}, "loss must be sigmoid-norm"),
    ],
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        rso(**given)


def test_wrong_counts():
    for accepted in (0, 4):
        with pytest.raises(ValueError, match=r"accepted must lie in 1\.\.3"):
            rejection_sampling(torch.zeros(2, 3), 1.0, accepted, _rng())
    with pytest.raises(ValueError, match="beta"):
        rejection_sampling(torch.zeros(2, 3), 0.0, 1, _rng())
