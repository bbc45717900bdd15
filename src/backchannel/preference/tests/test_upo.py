"""UPO: proofs and contrast."""

import math

import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from torch import nn  # noqa: E402

from backchannel.parts.objectives import random_pairs  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.upo import information_gain, mc_dropout, reliable_pairs, upo  # noqa: E402


def _rng(seed=0):
    return torch.Generator().manual_seed(seed)


def _entropy(p):
    return -sum(x * math.log(x) for x in (p, 1 - p) if x > 0)


def _passes(*rows):
    """[T, 1, 2, 2] for two answers to one prompt: in each pass the probability that answer 0 beats answer 1."""
    return torch.tensor([[[[0.5, p], [1 - p, 0.5]]] for p in rows], dtype=torch.float64)


def test_step_the_gain_by_hand():
    found = information_gain(torch.tensor([[0.9, 0.2], [0.6, 1.0]], dtype=torch.float64))
    for i, (a, b) in enumerate([(0.9, 0.6), (0.2, 1.0)]):
        gain = _entropy((a + b) / 2) - (_entropy(a) + _entropy(b)) / 2
        assert float(found.mean[i]) == pytest.approx((a + b) / 2, abs=1e-12)
        assert float(found.gain[i]) == pytest.approx(gain, abs=1e-12)
        assert float(found.certainty[i]) == pytest.approx(1 - gain / math.log(2), abs=1e-12)
        alone = information_gain(torch.tensor([a, b], dtype=torch.float64))  # one pair, and no dimension for it
        assert (float(alone.mean), float(alone.gain)) == (float(found.mean[i]), float(found.gain[i]))


def test_step_candidates_and_the_loss_by_hand():
    # The reward prefers answer 1. The estimator says so with 0.9 and 0.7 (prompt 0), contradicts (prompt 1), is a tie
    # (prompt 2: kept); the reward of prompt 3 is a tie.
    scores = torch.tensor([[0.0, 2.0], [0.0, 2.0], [1.0, 1.5], [1.0, 1.0]], dtype=torch.float64)
    passes = torch.cat([_passes(0.1, 0.3), _passes(0.6, 0.8), _passes(0.5, 0.5), _passes(0.1, 0.1)], 1)
    found = reliable_pairs(scores, passes, _rng(), share=1.0)
    assert (found.row.tolist(), found.better.tolist(), found.worse.tolist()) == ([0, 2], [1, 1], [0, 0])
    torch.testing.assert_close(found.gap, torch.tensor([2.0, 0.5], dtype=torch.float64))
    certain = 1 - (_entropy(0.8) - (_entropy(0.9) + _entropy(0.7)) / 2) / math.log(2)
    torch.testing.assert_close(found.strength, torch.tensor([certain, 1.0], dtype=torch.float64))
    pairs = random_pairs(2, seed=1)._replace(strength=found.strength)
    h = 0.3 * (pairs.policy_chosen - pairs.reference_chosen - pairs.policy_rejected + pairs.reference_rejected)
    by_hand = [float(c) * math.log1p(math.exp(-float(x))) for c, x in zip(found.strength, h, strict=True)]
    loss, info = upo(0.3)(pairs)
    torch.testing.assert_close(loss, torch.tensor(by_hand, dtype=torch.float64))
    torch.testing.assert_close(info.margin, h)


def test_known_extremes_of_the_gain():
    # Passes that say 0 and 1 in turns tell all of a label's one bit; passes that agree tell nothing, whatever they say.
    torn = information_gain(torch.tensor([[0.0], [1.0]], dtype=torch.float64))
    assert float(torn.gain) == pytest.approx(math.log(2), abs=1e-12)
    assert float(torn.certainty) == 0
    for p in (0.0, 0.3, 0.5, 1.0):
        agreed = information_gain(torch.full((7, 1), p, dtype=torch.float64))
        assert float(agreed.gain) == pytest.approx(0, abs=1e-12)
        assert float(agreed.certainty) == pytest.approx(1, abs=1e-12)
    many = torch.rand(1, 1000, generator=_rng(4), dtype=torch.float64).expand(7, -1)
    assert bool((information_gain(many).gain >= 0).all())  # whatever rounding says


def test_known_the_gain_is_the_mutual_information_of_label_and_pass():
    # Brute force over the joint distribution of (pass, label): I = sum p(t, y) log p(t, y) / (p(t) p(y)).
    p = torch.rand(6, generator=_rng(3), dtype=torch.float64)
    joint = torch.stack([p, 1 - p], 1) / 6
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    exact = (joint * (joint / apart).log()).sum()
    torch.testing.assert_close(information_gain(p[:, None]).gain[0], exact)


def test_known_draws_follow_certainty_and_margin():
    # One of four candidates is kept: with m = 1 by margins 3 to 1, with m = 0 by certainties c to 1. A frequency over
    # 400 draws lies within 4.5 standard errors but for 1 seed in 100,000.
    scores = torch.tensor([[3.0, 0.0]] + [[1.0, 0.0]] * 3, dtype=torch.float64)
    passes = torch.cat([_passes(0.01, 0.999)] + [_passes(0.7, 0.7)] * 3, 1)
    c = 1 - (_entropy(0.5045) - (_entropy(0.01) + _entropy(0.999)) / 2) / math.log(2)
    assert c < 0.1
    for m in (0.0, 0.5, 1.0):
        rng = _rng(5)
        first = sum(int(reliable_pairs(scores, passes, rng, 0.25, m).row[0]) == 0 for _ in range(400))
        expected = (1 - m) * c / (c + 3) + m * 0.5
        assert abs(first / 400 - expected) < 4.5 * math.sqrt(expected * (1 - expected) / 400)


def test_limit_without_dropout_it_is_dpo_on_the_pairs_where_both_agree():
    scores = torch.randn(20, 4, generator=_rng(1))
    wins = torch.sigmoid(torch.randn(1, 20, 4, 4, generator=_rng(2)))
    found = reliable_pairs(scores, wins, _rng(), share=1.0)
    assert bool((found.strength == 1).all())
    agree = (scores[:, :, None] > scores[:, None, :]) & (wins[0] >= 0.5)
    assert torch.equal(torch.stack([found.row, found.better, found.worse], 1), agree.nonzero())
    pairs = random_pairs(9, seed=1)
    plain = upo(0.3)(pairs._replace(strength=torch.ones(9, dtype=torch.float64)))[0]
    torch.testing.assert_close(plain, dpo(0.3)(pairs)[0], rtol=0, atol=0)


def test_limit_passes_differ_by_dropped_units_alone():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)).eval()
    x, state = torch.randn(5, 3, generator=_rng(1)), torch.get_rng_state()
    passes = mc_dropout(net, lambda: net(x), 20, seed=3)
    assert passes.shape == (20, 5, 1)
    assert float(passes.std(0).min()) > 0
    assert not any(each.training for each in net.modules())
    assert torch.equal(net[0].running_mean, torch.zeros(3))  # batch normalisation did not train
    torch.testing.assert_close(passes, mc_dropout(net, lambda: net(x), 20, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    net[2].p = 0.0
    same = mc_dropout(net, lambda: net(x), 2, seed=3)
    torch.testing.assert_close(same[0], net(x).detach())
    torch.testing.assert_close(same[0], same[1])


def test_contrast_dpo_follows_a_wrong_label_as_far_as_a_right_one():
    # Two pairs with labels that the reward gave. Of the second the estimator's passes say everything and its opposite.
    # DPO's gradients at the start are the same for both; UPO hardly moves for the second.
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    passes = torch.cat([_passes(0.95, 0.9), _passes(0.999, 0.01)], 1)
    found = reliable_pairs(scores, passes, _rng(), share=1.0)
    slopes = {}
    for name, objective in (("upo", upo(1.0)), ("dpo", dpo(1.0))):
        logs = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        still = torch.zeros(2, dtype=torch.float64)
        pairs = random_pairs(2, 0)._replace(
            policy_chosen=logs, policy_rejected=still, reference_chosen=still, reference_rejected=still,
            strength=found.strength,
        )  # fmt: skip
        (slopes[name],) = torch.autograd.grad(objective(pairs)[0].sum(), logs)
    torch.testing.assert_close(slopes["dpo"], torch.tensor([-0.5, -0.5], dtype=torch.float64))
    assert float(slopes["upo"][0]) < -0.49
    assert -0.05 < float(slopes["upo"][1]) <= 0


def test_nothing_to_learn_from_is_nothing():
    found = reliable_pairs(torch.zeros(2, 2), torch.full((3, 2, 2, 2), 0.5), _rng())
    assert len(found.row) == 0
    # Passes that say 0 and 1 in turns leave no certainty: by it nothing can be drawn, by margins all can.
    scores, torn = torch.tensor([[2.0, 0.0]] * 3), torch.cat([_passes(0.0, 1.0)] * 3, 1)
    assert len(reliable_pairs(scores, torn, _rng(), 1.0, by_margin=0.0).row) == 0
    found = reliable_pairs(scores, torn, _rng(), 1.0, by_margin=0.5)
    assert (found.row.tolist(), found.strength.tolist()) == ([0, 1, 2], [0, 0, 0])
    # Of one torn pair among certain ones, what is certain alone.
    mixed = torch.cat([_passes(0.0, 1.0), _passes(0.8, 0.8), _passes(0.6, 0.6)], 1)
    found = reliable_pairs(scores, mixed, _rng(), 1.0, by_margin=0.0)
    assert found.row.tolist() == [1, 2]
    assert found.strength.dtype == scores.dtype


def test_step_how_many_are_kept():
    # The share of the candidates, rounded down but for rounding errors (0.29 x 100 is 28.999...), and at least one.
    scores, passes = torch.tensor([[2.0, 0.0]] * 100), torch.cat([_passes(0.9, 0.8)] * 100, 1)
    for share, number in ((0.29, 29), (0.299, 29), (1.0, 100), (0.001, 1)):
        found = reliable_pairs(scores, passes, _rng(), share)
        assert len(found.row) == number
        assert bool((found.row.diff() > 0).all())  # each once, in order


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: upo(0.0), "beta must"),
        (lambda: mc_dropout(nn.Linear(1, 1), lambda: torch.zeros(1), 0, 0), "passes must be 1 or more"),
        (lambda: information_gain(torch.tensor([[0.5], [1.2]])), "must be probabilities"),
        (lambda: information_gain(torch.tensor([[0.5], [-0.2]])), "must be probabilities"),
        (lambda: information_gain(torch.tensor(0.5)), "one row for each pass"),
        (lambda: information_gain(torch.zeros(0, 2)), "one pass at least"),
        (lambda: reliable_pairs(torch.zeros(1, 2), torch.zeros(1, 1, 3, 3), _rng()), r"must be \[T, 1, 2, 2\]"),
        (lambda: reliable_pairs(torch.zeros(1, 2), torch.zeros(1, 1, 2, 2), _rng(), share=0), "share must lie"),
        (lambda: reliable_pairs(torch.zeros(1, 2), torch.zeros(1, 1, 2, 2), _rng(), by_margin=2), "by_margin"),
        (lambda: reliable_pairs(torch.tensor([[0.0, math.nan]]), torch.zeros(1, 1, 2, 2), _rng()), "not finite"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
