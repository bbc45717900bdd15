"""RLUF: proofs and contrast."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="reward models need torch")

from torch.nn.functional import logsigmoid  # noqa: E402

from backchannel.card import Method  # noqa: E402
from backchannel.parts.objectives import Scores  # noqa: E402
from backchannel.parts.torch_fit import fit  # noqa: E402
from backchannel.preference import rluf as module  # noqa: E402
from backchannel.preference.bradley_terry import bradley_terry  # noqa: E402
from backchannel.preference.rluf import (  # noqa: E402
    Signals,
    corrected,
    love_loss,
    reliability,
    rluf,
    spreading,
    user_weights,
)
from backchannel.testing.battery import check_card  # noqa: E402


def test_card():
    check_card(Method("rluf", "preference", module.CARD, module))


def test_step_loss_and_weights_by_hand():
    logit = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0], dtype=torch.float64)
    loved = torch.tensor([True, False, True, True, False])
    user = torch.tensor([2, 0, 2, 2, 2])  # three hearts of user 2, none of user 0
    weight = user_weights(user, loved, cap=2.0)
    np.testing.assert_allclose(weight, [2 / 3, 1, 2 / 3, 2 / 3, 2 / 3], rtol=1e-6)
    r, sign = logit.numpy(), np.where(loved.numpy(), 1, -1)
    expected = np.log(1 + np.exp(-sign * r))
    np.testing.assert_allclose(love_loss(logit, loved), expected)
    np.testing.assert_allclose(love_loss(logit, loved, weight.double()), weight.numpy() * expected, rtol=1e-6)
    assert user_weights(user, loved, cap=5.0).tolist() == [1.0] * 5


def test_step_mix_by_hand():
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=(3, 20)), rng.normal(size=(3, 4))
    before[2] = 1.0  # does not vary
    mix = rluf(0.3, 0.5, 0.2, Signals(*torch.tensor(before)))
    middle, deviation = before.mean(1), before.std(1, ddof=1)
    expected = 0.3 * (now[0] - middle[0]) / deviation[0] + 0.5 * (now[1] - middle[1]) / deviation[1]
    np.testing.assert_allclose(mix(Signals(*torch.tensor(now))), expected + 0.2 * (now[2] - 1))


def test_known_correction_makes_subsampled_logits_calibrated():
    # One kind of answer, loved with probability p; of those without a heart a share is kept. Maximum likelihood on what
    # is kept has the odds p / (kept (1 - p)); corrected, those of all answers, exactly.
    for p, kept in ((0.02, 0.1), (0.3, 0.5), (0.02, 1.0)):
        trained = torch.tensor(math.log(p / (kept * (1 - p))), dtype=torch.float64)
        share = torch.sigmoid(trained).item()
        slope = torch.autograd.functional.jacobian(
            lambda r, s=share: s * love_loss(r, torch.tensor(True)) + (1 - s) * love_loss(r, torch.tensor(False)),
            trained,
        )
        assert slope.item() == pytest.approx(0, abs=1e-12)
        assert torch.sigmoid(corrected(trained, kept)).item() == pytest.approx(p, rel=1e-9)


def test_known_reliability_and_area():
    probability = torch.tensor([0.1, 0.2, 0.2, 0.7, 0.8, 0.9], dtype=torch.float64)
    loved = torch.tensor([False, False, True, False, True, True])
    found = reliability(probability, loved, groups=2)
    np.testing.assert_allclose(found.predicted, [0.5 / 3, 0.8])
    np.testing.assert_allclose(found.observed, [1 / 3, 2 / 3])
    assert found.error == pytest.approx((1 / 6 + 0.4 / 3) / 2)
    pairs = [(a > b) + 0.5 * (a == b) for a in probability[loved] for b in probability[~loved]]
    assert found.area == pytest.approx(float(sum(pairs)) / 9)
    assert math.isnan(reliability(probability, torch.zeros(6, dtype=torch.bool), groups=2).area)


def test_known_spreading_token_and_its_z():
    before = torch.tensor([[1, 2], [1, 1], [3, 2], [0, 2]])
    after = torch.tensor([[3, 3], [3, 1], [3, 2]])
    found = spreading(before, after, vocabulary=5)
    assert found.token[0] == 3
    assert (found.before[0].item(), found.after[0].item()) == (0.25, 1.0)
    pooled = 4 / 7
    assert found.z[0].item() == pytest.approx(0.75 / math.sqrt(pooled * (1 - pooled) * (1 / 4 + 1 / 3)))
    assert found.z[found.token == 4].item() == 0  # in neither
    assert bool((found.z.diff() <= 0).all())


def test_limit_one_weight_and_no_scale_is_that_reward():
    signals = Signals(*torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    for i in range(3):
        weights = [0.0, 0.0, 0.0]
        weights[i] = 1.0
        torch.testing.assert_close(rluf(*weights)(signals), signals[i])


def test_limit_everything_kept_and_no_cap_is_plain_likelihood():
    logit, loved = torch.randn(9, generator=torch.Generator().manual_seed(1)), torch.arange(9) % 3 == 0
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logit, loved.float(), reduction="none")
    weight = user_weights(torch.arange(9), loved, cap=1.0)
    torch.testing.assert_close(love_loss(corrected(logit, 1.0), loved, weight), plain)


def test_contrast_comparisons_of_loved_answers_know_no_rate():
    # Two policies' answers: a loved 3 percent of the time, b 1 percent. Bradley and Terry's model on pairs of a loved
    # and an unloved answer finds the odds ratio; how often either is loved, which an offline score must say, it cannot.
    share = torch.tensor([0.03, 0.01], dtype=torch.float64)
    love, pair = (torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    every = torch.tensor([True, True])

    def reactions(_):
        return (share * love_loss(love, every) + (1 - share) * love_loss(love, ~every)).sum()

    def comparisons(_):
        weight = share[:, None] * (1 - share[None, :])  # chosen i, rejected j
        scores = Scores(pair[:, None].expand(2, 2).flatten(), pair[None, :].expand(2, 2).flatten())
        return (weight.flatten() * bradley_terry()(scores)[0]).sum() / weight.sum()

    for loss, parameter in ((reactions, love), (comparisons, pair)):
        for rate in (0.3, 0.02):
            fit([parameter], loss, 200, torch.optim.Adam, rate)
    torch.testing.assert_close(torch.sigmoid(love.detach()), share, rtol=1e-3, atol=0)
    odds = torch.log(share / (1 - share))
    assert (pair[0] - pair[1]).item() == pytest.approx((odds[0] - odds[1]).item(), abs=0.01)
    assert (torch.sigmoid(pair.detach()) > 0.2).all()  # no rate of hearts


def test_contrast_without_a_cap_one_user_turns_the_model():
    # 100 users love what is good now and then; one gives 50 hearts to what is bad. Capped, good is loved more.
    good = torch.tensor([True] * 2000 + [False] * 2000 + [False] * 60)
    loved = torch.zeros(4060, dtype=torch.bool)
    loved[:40] = True  # 2 percent of the good ones
    loved[4000:4050] = True
    user = torch.cat([torch.arange(4000) % 100, torch.full((60,), 100)])

    def advantage(weight):
        share = [(weight * loved)[part].sum() / weight[part].sum() for part in (good, ~good)]
        return float(share[0] - share[1])  # what maximum likelihood on one feature fits

    assert advantage(torch.ones(4060)) < 0
    assert advantage(user_weights(user, loved, cap=2.0)) > 0.015


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: rluf(-1.0, 0.0, 0.0), "love"),
        (lambda: rluf(0.0, 0.0, 0.0), "positive"),
        (lambda: corrected(torch.zeros(1), 0.0), "kept"),
        (lambda: user_weights(torch.zeros(1, dtype=torch.int64), torch.tensor([True]), 0.0), "cap"),
        (lambda: reliability(torch.zeros(3), torch.zeros(3, dtype=torch.bool), 4), "groups"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()


def test_rewards_keep_their_dtype_and_gradient():
    love = torch.zeros(2, requires_grad=True)
    mixed = rluf(1.0, 1.0, 1.0)(Signals(love, torch.ones(2), torch.ones(2)))
    assert mixed.dtype == torch.float32
    mixed.sum().backward()
    assert love.grad.tolist() == [1.0, 1.0]
    assert logsigmoid(mixed).isfinite().all()
