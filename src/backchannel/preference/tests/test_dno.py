"""DNO: proofs and contrast."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.nash import averages, bradley_terry_rewards, even, exploitability, normalised, solve  # noqa: E402
from backchannel.parts.objectives import Pairs, random_pairs, swapped  # noqa: E402
from backchannel.preference.dno import (  # noqa: E402
    classification,
    dno,
    gap_bound,
    large_margin_pairs,
    sample_win_rates,
    tabular,
)
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.rl.selfplay_spo import selfplay_spo  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.preference_matrices import games, random_game  # noqa: E402
from backchannel.tasks.tiny_contest import Contest  # noqa: E402
from backchannel.tasks.tiny_tuning import Labelled, improve, tune  # noqa: E402


def _policy(seed, *shape):
    return normalised(np.random.default_rng(seed).standard_normal(shape))


def test_step_loss_by_hand():
    pairs, eta = random_pairs(9, seed=0), 0.2
    gap = torch.linspace(-0.8, 0.9, 9, dtype=torch.float64)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    h = eta * np.log(np.exp(w - rw) / np.exp(v - rv))
    s, q = 1 / (1 + np.exp(-gap.numpy())), 1 / (1 + np.exp(-h))
    loss, info = classification(eta)(pairs._replace(gap=gap))
    np.testing.assert_allclose(loss, -s * np.log(q) - (1 - s) * np.log(1 - q), rtol=1e-9)
    np.testing.assert_allclose(info.margin, h, rtol=1e-9)


def test_step_of_the_table_by_hand():
    matrix, p = random_game(4, 0), np.exp(_policy(0, 4))
    expected = p * np.exp(matrix @ p / 0.3)
    np.testing.assert_allclose(
        np.exp(tabular(0.3).step(matrix, even(4), np.log(p), 2)), expected / expected.sum(), rtol=1e-12
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_known_minimiser_is_the_step_of_the_table(seed):
    # (2) over all pairs drawn from p_t, minimised over all policies by Newton's method: (3).
    matrix, p, eta = random_game(5, seed), _policy(1, 5), 0.3
    a, b = (x.flatten() for x in np.meshgrid(np.arange(5), np.arange(5), indexing="ij"))
    weight, rates = torch.from_numpy(np.exp(p)[a] * np.exp(p)[b]), torch.from_numpy(matrix @ np.exp(p))
    fixed = torch.from_numpy(p)

    def loss(x):
        policy = torch.log_softmax(x, -1)
        return (
            weight * classification(eta)(Pairs(policy[a], policy[b], fixed[a], fixed[b], gap=rates[a] - rates[b]))[0]
        ).sum()

    x = fixed.clone()
    for _ in range(20):
        leaf = x.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        x = (x - torch.linalg.pinv(torch.autograd.functional.hessian(loss, x.detach())) @ gradient).detach()
    found = torch.log_softmax(x, -1).numpy()
    np.testing.assert_allclose(found, tabular(eta).step(matrix, even(5), p, 0), atol=1e-8)


def test_known_win_rates_of_a_sample_are_unbiased():
    # Three answers drawn from p: given the first, the mean of its shares over the others is P(. > p). By enumeration.
    matrix, p = random_game(3, 2), np.exp(_policy(2, 3))
    for first in range(3):
        mean = 0.0
        for j in range(3):
            for k in range(3):
                among = [first, j, k]
                wins = torch.from_numpy(matrix[np.ix_(among, among)])[None]
                mean += p[j] * p[k] * float(sample_win_rates(wins)[0, 0])
        assert mean == pytest.approx((matrix @ p)[first], rel=1e-12)


@pytest.mark.parametrize("kind", ["cyclic", "random"])
def test_known_the_mean_policy_is_within_the_bound(kind):
    matrix = games(kind, 7, 10, seed=3)
    for horizon, eta in ((50, 2.0), (1000, 8.0)):
        mean = averages(solve(tabular(eta), matrix, even(10, 7), horizon - 1))[-1]
        assert (2 * exploitability(matrix, np.log(mean)) <= gap_bound(7, horizon, eta)).all()
    best = np.sqrt(100 / (8 * np.log(7)))
    assert gap_bound(7, 100, best) == pytest.approx(2 * np.sqrt(np.log(7) / 200))


def test_known_each_policy_is_preferred_to_the_one_before():
    # Monotonic improvement: P(p_{t+1} > p_t) >= 1/2.
    policies = np.exp(solve(tabular(1.0), random_game(6, 4), _policy(3, 6), 50))
    wins = np.array([b @ random_game(6, 4) @ a for a, b in itertools.pairwise(policies)])
    assert (wins > 0.5).all()


def test_limit_certain_pairs_are_those_of_dpo():
    pairs = random_pairs(9, seed=5)
    torch.testing.assert_close(classification(0.3, certain=True)(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)
    sure = pairs._replace(gap=torch.full((9,), 50.0, dtype=torch.float64))
    torch.testing.assert_close(classification(0.3)(sure)[0], dpo(0.3)(pairs)[0])


def test_limit_the_order_of_a_pair_does_not_matter():
    pairs = random_pairs(9, seed=6)._replace(gap=torch.linspace(-1, 1, 9, dtype=torch.float64))
    torch.testing.assert_close(classification(0.3)(swapped(pairs))[0], classification(0.3)(pairs)[0])


def test_limit_with_exact_win_rates_it_is_hedge_against_oneself():
    matrix = random_game(5, 5)
    one = solve(tabular(4.0), matrix, even(5), 30)
    other = solve(selfplay_spo(5, 30, step_size=0.25), matrix, even(5), 30)
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_contrast_dpo_takes_sides_in_a_cycle():
    # DPO's minimiser on pairs from the first policy is its tilt by the rewards of Bradley and Terry: whoever these put
    # first is beaten, however small the price; where the price is large the first policy stays, which is beaten too.
    game, first = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 1.0], [0.8, 0.0, 0.5]]), np.log([0.7, 0.2, 0.1])
    rewards = bradley_terry_rewards(game, first)
    gaps = [2 * exploitability(game, normalised(first + rewards / beta)) for beta in np.geomspace(0.01, 1e4, 100)]
    ours = 2 * exploitability(game, np.log(averages(solve(tabular(20.0), game, first, 1999))[-1]))
    assert min(gaps) > 0.2
    assert ours < 0.05


def test_step_recipe_selects_clear_pairs_with_their_gap():
    found = dno(0.1, answers=3, margin=0.5).select(torch.tensor([[0.5, 0.5, 0.5], [0.0, 1.0, 0.5]]), torch.Generator())
    each = (found.row, found.better, found.worse, found.gap)
    assert [x.tolist() for x in each] == [[1, 1, 1], [1, 1, 2], [0, 2, 0], [1.0, 0.5, 0.5]]
    with pytest.raises(ValueError, match="answer 1 to prompt 0"):
        dno(0.1).select(torch.tensor([[0.0, float("nan"), 0.0, 0.0]]), torch.Generator())


def test_known_rounds_of_the_recipe_are_dpo_against_the_last_round():
    # By hand: three answers, three judgements, clear pairs, a step of Adam down DPO; the round before is the reference.
    start, judge, rng = t.reference(0, width=16, layers=1, steps=80), Contest(), torch.Generator().manual_seed(3)

    def feedback(drawn, luck):
        return sample_win_rates(judge.judged(drawn, luck))

    model = improve(start, dno(0.3, answers=3, margin=0.5), feedback, 2, 8, 2, 1e-3, seed=3)
    last = start
    for _ in range(2):
        prompts = t.random_prompts(8, rng)
        drawn = [last.sample(prompts, rng) for _ in range(3)]
        rates = feedback(drawn, rng)
        clear = [(i, a, b) for i in range(8) for a in range(3) for b in range(3) if rates[i, a] - rates[i, b] >= 0.5]
        sides = [torch.stack([drawn[each[k]].tokens[each[0]] for each in clear]) for k in (1, 2)]
        asked = torch.stack([prompts[i] for i, _, _ in clear])
        pairs = Labelled(*(t.Answers(asked, each) for each in sides))
        last = tune(last, lambda *_, pairs=pairs: pairs, dpo(0.3), 2, 1e-3, seed=0)
    for a, b in zip(model.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_limit_without_certainty_the_recipe_has_the_loss_of_win_rates():
    pairs = random_pairs(9, seed=7)._replace(gap=torch.linspace(-1, 1, 9, dtype=torch.float64))
    one, other = dno(0.3, certain=False).objective, dno(0.3).objective
    torch.testing.assert_close(one(pairs)[0], classification(0.3)(pairs)[0])
    torch.testing.assert_close(other(pairs)[0], dpo(0.3)(pairs)[0])
    assert (dno(0.3).anchor, dno(0.3).begin, dno(0.3, answers=6).answers) == ("last", "last", 6)


def test_pairs_with_a_clear_margin():
    rates = torch.tensor([[1.0, 0.5, 0.0], [0.5, 0.625, 0.5]])
    prompt, better, worse = large_margin_pairs(rates, 0.5)
    assert list(zip(prompt.tolist(), better.tolist(), worse.tolist(), strict=True)) == [(0, 0, 1), (0, 0, 2), (0, 1, 2)]
    assert len(large_margin_pairs(rates, 0.51)[0]) == 1


def test_wrong_arguments():
    with pytest.raises(ValueError, match="eta"):
        dno(0.0)
    with pytest.raises(ValueError, match="margin"):
        dno(0.1, margin=0.0)
    with pytest.raises(ValueError, match="answers"):
        dno(0.1, answers=1)
    with pytest.raises(ValueError, match="eta"):
        tabular(0.0)
    with pytest.raises(ValueError, match="margin"):
        large_margin_pairs(torch.zeros(1, 2), 0.0)
    with pytest.raises(ValueError, match="2 answers"):
        sample_win_rates(torch.zeros(3, 1, 1))
    with pytest.raises(ValueError, match=r"\[n, k, k\].*not \(2, 2\)"):
        sample_win_rates(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="outside"):
        sample_win_rates(torch.tensor([[[0.5, 1.2], [-0.2, 0.5]]]))
    unknown = torch.tensor([[[torch.nan, 0.8], [0.2, torch.nan]]])  # an answer against itself
    torch.testing.assert_close(sample_win_rates(unknown), torch.tensor([[0.8, 0.2]]))
    with pytest.raises(ValueError, match="gap"):
        classification(0.3)(random_pairs(2, seed=0))
