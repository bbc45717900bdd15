"""ODIN: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="reward models need torch")

from torch.nn.functional import logsigmoid  # noqa: E402

from backchannel.card import Method  # noqa: E402
from backchannel.parts.objectives import Scores  # noqa: E402
from backchannel.parts.torch_fit import fit  # noqa: E402
from backchannel.preference import odin as module  # noqa: E402
from backchannel.preference.bradley_terry import bradley_terry  # noqa: E402
from backchannel.preference.odin import Heads, Rated, correlation, front, odin  # noqa: E402
from backchannel.testing.battery import check_card  # noqa: E402


def rated(heads, features, tokens):
    return Rated(*heads(features), tokens, heads.overlap())


def world(seed, n=400, width=4):
    """Features [2, n, width] whose first is the length and whose others do not correlate with it at all, exactly;
    labelled by a truth that likes length."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2 * n, width))
    x[:, 0] = rng.integers(1, 13, 2 * n)
    tokens = x[:, 0].copy()
    x = (x - x.mean(0)) / x.std(0)
    x[:, 1:] -= np.outer(x[:, 0], x[:, 0] @ x[:, 1:]) / len(x)
    x, tokens = x.reshape(2, n, width), tokens.reshape(2, n)
    lead = (x[0] - x[1]) @ np.array([1.5, 0.8, -0.6, 0.4])
    swap = rng.random(n) > 1 / (1 + np.exp(-lead))
    x[:, swap], tokens[:, swap] = x[::-1, swap], tokens[::-1, swap]
    return torch.tensor(x), torch.tensor(tokens)


def maximum_likelihood(features):
    weight = torch.zeros(features.shape[2], dtype=torch.float64, requires_grad=True)
    fit([weight], lambda _: -logsigmoid((features[0] - features[1]) @ weight).mean(), 250, torch.optim.Adam, 0.05)
    return weight.detach()


def test_card():
    check_card(Method("odin", "preference", module.CARD, module))


def test_step_loss_by_hand():
    rng = np.random.default_rng(0)
    x, tokens = rng.standard_normal((2, 7, 3)), rng.integers(1, 9, (2, 7))
    heads = Heads(3, seed=1).double()
    heads.gain.data = torch.tensor([0.5, 2.0], dtype=torch.float64)
    directions = heads.direction.detach().numpy()
    units = directions / np.sqrt((directions**2).sum(1))[:, None]
    quality, length = x @ (0.5 * units[0]), x @ (2.0 * units[1])
    lead = (quality + length)[0] - (quality + length)[1]
    of_quality = np.corrcoef(quality.ravel(), tokens.ravel())[0, 1]
    of_length = np.corrcoef(length.ravel(), tokens.ravel())[0, 1]
    expected = np.log(1 + np.exp(-lead)).mean() + 0.7 * (abs(of_quality) - of_length) + 0.3 * abs(units[0] @ units[1])
    loss, info = odin(0.7, 0.3)(rated(heads, torch.tensor(x), torch.tensor(tokens)))
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(info.margin, lead)
    np.testing.assert_allclose(info.quality_margin, quality[0] - quality[1])
    assert info.quality_correlation.item() == pytest.approx(of_quality)
    assert info.length_correlation.item() == pytest.approx(of_length)
    assert not any(each.requires_grad for each in info)


def test_step_gradient_is_that_of_the_loss():
    features, tokens = world(1, n=6)
    heads = Heads(4, seed=2).double()

    def loss(direction, gain):
        weights = gain[:, None] * direction / direction.norm(dim=1, keepdim=True)
        both = features @ weights.T
        overlap = torch.nn.functional.cosine_similarity(direction[0], direction[1], 0).abs()
        return odin(0.7, 0.3)(Rated(both[..., 0], both[..., 1], tokens, overlap))[0]

    assert torch.autograd.gradcheck(loss, (heads.direction, heads.gain))
    ours = torch.autograd.grad(odin(0.7, 0.3)(rated(heads, features, tokens))[0], list(heads.parameters()))
    theirs = torch.autograd.grad(loss(heads.direction, heads.gain), list(heads.parameters()))
    torch.testing.assert_close(ours, theirs)


def test_known_the_split_of_maximum_likelihood_reaches_the_least_value_of_every_term():
    # Where one feature is the length and no other correlates with it, W_L = the likelihood's weight of the length and
    # W_Q = the rest attain -1 and 0 in (2) and (3) beside the likelihood's own optimum: no loss can be lower.
    features, tokens = world(2)
    best = maximum_likelihood(features)
    assert best[0] > 1
    least = -logsigmoid((features[0] - features[1]) @ best).mean() - 0.7
    heads = Heads(4).double()
    heads.direction.data = torch.stack([best * torch.tensor([0.0, 1, 1, 1]), best * torch.tensor([1.0, 0, 0, 0])])
    heads.gain.data = heads.direction.data.norm(dim=1)
    loss, info = odin(0.7, 0.3)(rated(heads, features, tokens))
    assert loss.item() == pytest.approx(least.item(), abs=1e-9)
    assert info.quality_correlation.item() == pytest.approx(0, abs=1e-12)
    assert info.length_correlation.item() == pytest.approx(1)
    kept = heads.reward()
    heads.gain.data *= 2  # what is kept is the head as it was
    torch.testing.assert_close(kept.weight[0], best * torch.tensor([0.0, 1, 1, 1]))
    assert not kept.weight.requires_grad


def test_known_training_finds_that_split():
    features, tokens = world(3)
    best = maximum_likelihood(features)
    heads = Heads(4, seed=3).double()
    objective = odin(0.7, 0.3)
    parameters = list(heads.parameters())
    for rate in (0.05, 0.01, 0.002):  # the loss has kinks
        fit(parameters, lambda _: objective(rated(heads, features, tokens))[0], 150, torch.optim.Adam, rate)
    found = heads.weights().detach()
    torch.testing.assert_close(found[0], best * torch.tensor([0.0, 1, 1, 1]), atol=0.02, rtol=0)
    torch.testing.assert_close(found[1], best * torch.tensor([1.0, 0, 0, 0]), atol=0.02, rtol=0)


def test_known_front_by_brute_force():
    rng = torch.Generator().manual_seed(4)
    length, score = (torch.randint(0, 6, (40,), generator=rng).float() for _ in range(2))
    beaten = [
        any(
            (a <= length[i] and b > score[i]) or (a < length[i] and b >= score[i])
            for a, b in zip(length, score, strict=True)
        )
        for i in range(40)
    ]
    assert front(length, score).tolist() == [not each for each in beaten]
    assert front(torch.tensor([3.0, 3.0]), torch.tensor([1.0, 1.0])).tolist() == [True, True]


def test_limit_without_weights_it_is_bradley_terry_on_the_sum():
    features, tokens = world(5)
    heads = Heads(4, seed=5).double()
    both = heads(features)
    total = both.quality + both.length
    loss, info = odin(0.0, 0.0)(rated(heads, features, tokens))
    plain, told = bradley_terry()(Scores(total[0], total[1]))
    torch.testing.assert_close(loss, plain.mean())
    torch.testing.assert_close(info.margin, told.margin)


def test_limit_neither_the_unit_of_length_nor_the_size_of_heads_matters_to_their_terms():
    features, tokens = world(6)
    heads, large = Heads(4, seed=6).double(), Heads(4, seed=6).double()
    large.gain.data *= 5
    large.direction.data *= 3
    only = [odin(1.0, 1.0)(rated(each, features, tokens))[0] - odin(0.0, 0.0)(rated(each, features, tokens))[0]
            for each in (heads, large)]  # fmt: skip
    torch.testing.assert_close(only[0], only[1])
    torch.testing.assert_close(correlation(features[..., 1], tokens), correlation(features[..., 1], 7 * tokens - 3))


def test_limit_answers_of_one_length_correlate_with_nothing():
    features, _ = world(7, n=5)
    heads = Heads(4, seed=7).double()
    loss, info = odin()(rated(heads, features, torch.full((2, 5), 4)))
    assert info.quality_correlation.item() == 0
    heads.gain.data[0] = 0  # and a reward that is the same for all answers
    constant, info = odin()(rated(heads, *world(7, n=5)))
    assert info.quality_correlation.item() == 0
    (loss + constant).backward()
    assert bool(torch.isfinite(heads.direction.grad).all())


def test_contrast_bradley_terry_rewards_length_and_the_kept_head_does_not():
    features, tokens = world(8)
    best = maximum_likelihood(features)
    heads = Heads(4, seed=8).double()
    objective = odin()
    fit(heads.parameters(), lambda _: objective(rated(heads, features, tokens))[0], 200, torch.optim.Adam, 0.03)
    kept = heads.reward()(features)[..., 0]
    assert correlation(features @ best, tokens) > 0.7  # 0.81 for the truth
    assert correlation(kept, tokens).abs() < 0.05
    both = heads(features)
    agree = ((both.quality + both.length)[0] > (both.quality + both.length)[1]).double().mean()
    plain = ((features[0] - features[1]) @ best > 0).double().mean()
    assert agree == pytest.approx(plain.item(), abs=0.03)  # and the sum explains the labels as well


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: odin(length_weight=-1.0), "length_weight"),
        (lambda: odin(orthogonal_weight=float("inf")), "orthogonal_weight"),
        (lambda: correlation(torch.zeros(3), torch.zeros(2)), "as many numbers"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
