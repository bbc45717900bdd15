"""Elastic Reset: proofs and contrast."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="weights are torch's")

from backchannel.card import Method  # noqa: E402
from backchannel.preference import elastic_reset as module  # noqa: E402
from backchannel.preference.elastic_reset import area, elastic_reset, frontier  # noqa: E402
from backchannel.testing.battery import check_card  # noqa: E402


def _weights(seed=0, sizes=((3,), (2, 4)), dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=rng, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]


@torch.no_grad()
def _move(weights, rng):
    for each in weights:
        each += torch.randn(each.shape, generator=rng, dtype=torch.float64).to(each.dtype)


def test_card():
    check_card(Method("elastic_reset", "preference", module.CARD, module))


def test_step_by_hand():
    weights, rng = _weights(), torch.Generator().manual_seed(1)
    elastic = elastic_reset(weights, decay=0.8, every=3)
    start = [each.detach().numpy().copy() for each in weights]
    ema = [each.copy() for each in start]
    assert not any(each.requires_grad for each in elastic.average + elastic.start)
    for step in range(1, 8):
        _move(weights, rng)
        theta = [each.detach().numpy().copy() for each in weights]
        ema = [0.8 * e + 0.2 * t for e, t in zip(ema, theta, strict=True)]
        assert elastic.step() == (step % 3 == 0)
        if step % 3 == 0:
            theta, ema = ema, [each.copy() for each in start]
        for own, by_hand in zip([*weights, *elastic.average], [*theta, *ema], strict=True):
            np.testing.assert_allclose(own.detach(), by_hand, rtol=1e-12)


def test_known_weights_that_lie_still_keep_a_known_share():
    (weight,) = _weights(sizes=((5,),))
    elastic, first = elastic_reset([weight], decay=0.9, every=7), weight.detach().clone()
    with torch.no_grad():
        weight += 2.0
    for _ in range(7):
        elastic.step()
    torch.testing.assert_close(weight.detach(), first + (1 - 0.9**7) * 2.0)


def test_known_gradient_descent_on_a_bowl_goes_round_and_round():
    # On a^2 / 2 around 1 with rate 0.1 the distance e to 1 is multiplied by 0.9 each step, and a cycle is an affine
    # map e -> share_of_start * e_0 + share_of_now * e: iterated, it ends in its fixed point.
    n, decay, rate = 5, 0.7, 0.1
    keep = 1 - rate
    start_share = decay**n
    now_share = sum((1 - decay) * decay ** (n - k) * keep**k for k in range(1, n + 1))
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer, elastic = torch.optim.SGD([weight], lr=rate), elastic_reset([weight], decay, n)
    away = 1.0
    for step in range(60 * n):
        optimizer.zero_grad()
        (0.5 * (weight - 1) ** 2).sum().backward()
        optimizer.step()
        if elastic.step():
            away = start_share * 1.0 + now_share * away
            assert 1 - weight.item() == pytest.approx(away, rel=1e-12)
            assert step % n == n - 1
    assert 1 - weight.item() == pytest.approx(start_share / (1 - now_share), rel=1e-9)


def test_limit_without_memory_nothing_happens_and_before_a_reset_neither():
    rng = torch.Generator().manual_seed(2)
    weights = _weights()
    elastic = elastic_reset(weights, decay=0.0, every=1)
    for _ in range(4):
        _move(weights, rng)
        before = [each.detach().clone() for each in weights]
        assert elastic.step()
        for own, then in zip(weights, before, strict=True):
            torch.testing.assert_close(own.detach(), then, rtol=0, atol=0)
    late = elastic_reset(weights, decay=0.5, every=100)
    _move(weights, rng)
    before = [each.detach().clone() for each in weights]
    assert not late.step()
    for own, then in zip(weights, before, strict=True):
        assert torch.equal(own, then)


def test_limit_with_a_long_memory_it_is_a_reset_to_the_start():
    weights, rng = _weights(), torch.Generator().manual_seed(3)
    elastic = elastic_reset(weights, decay=1 - 1e-12, every=4)
    first = [each.detach().clone() for each in weights]
    for _ in range(4):
        _move(weights, rng)
        elastic.step()
    for own, then in zip(weights, first, strict=True):
        torch.testing.assert_close(own.detach(), then)


def test_contrast_an_average_that_is_not_reset_forgets_where_it_began():
    # Resetting the weights alone lets the average follow them away, since what it goes on from is what it was.
    def far(elastic):
        weight = torch.zeros(1, dtype=torch.float64)
        resets = module.Elastic([weight], decay=0.9, every=10)
        for _ in range(300):
            weight += 0.1
            kept = resets.average[0].clone()
            if resets.step() and not elastic:
                resets.average[0].copy_(0.9 * kept + 0.1 * weight)
        return weight.item()

    assert far(elastic=True) < 1.5
    assert far(elastic=False) > 3 * far(elastic=True)


def test_a_checkpoint_goes_on_as_if_nothing_had_been():
    one, other = _weights(), _weights(seed=7)  # begun elsewhere: the start is part of the state
    ahead, behind = elastic_reset(one, 0.8, 3), elastic_reset(other, 0.8, 3)
    rng = torch.Generator().manual_seed(4)
    for _ in range(4):
        _move(one, rng)
        ahead.step()
    with torch.no_grad():
        for a, b in zip(one, other, strict=True):
            b.copy_(a)
    saved = ahead.state_dict()
    copied = copy.deepcopy(saved)
    behind.load_state_dict(saved)
    rngs = [torch.Generator().manual_seed(5) for _ in range(2)]
    for _ in range(5):
        _move(one, rngs[0])
        _move(other, rngs[1])
        assert ahead.step() == behind.step()
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)
    assert saved["steps"] == 4
    for name in ("average", "start"):  # what was saved does not move along
        assert all(torch.equal(a, b) for a, b in zip(saved[name], copied[name], strict=True))
    with pytest.raises(ValueError, match="other shapes"):
        elastic_reset(_weights(sizes=((3,),))).load_state_dict(saved)


def test_averages_of_half_precision_do_not_stand_still():
    (weight,) = _weights(sizes=((4,),), dtype=torch.bfloat16)
    elastic = elastic_reset([weight], decay=0.999, every=1000)
    with torch.no_grad():
        weight += 1
    for _ in range(300):
        elastic.step()
    moved = (elastic.average[0] - elastic.start[0].float()) / (weight.detach().float() - elastic.start[0].float())
    torch.testing.assert_close(moved, torch.full((4,), 1 - 0.999**300), rtol=1e-3, atol=0)


def test_the_frontier_and_its_area_by_hand():
    drift, reward = np.array([0.0, 1.0, 2.0, 3.0, 6.0]), np.array([0.5, 1.0, 0.8, 2.0, 9.0])
    assert frontier(drift, reward, np.array([0, 0.9, 1, 2.5, 3, 5])).tolist() == [0.5, 0.5, 1.0, 1.0, 2.0, 2.0]
    assert area(drift, reward, 4.0) == pytest.approx((0.5 + 1.0 + 1.0 + 2.0) / 4)
    assert area(drift, reward, 3.5) == pytest.approx((0.5 + 1.0 + 1.0 + 0.5 * 2.0) / 3.5)
    assert area(drift[::-1], reward[::-1], 4.0) == area(drift, reward, 4.0)
    assert frontier(drift[1:], reward[1:], np.array([0.5])).tolist() == [-np.inf]
    for some in (slice(1, None), slice(0)):
        with pytest.raises(ValueError, match="the start"):
            area(drift[some], reward[some], 4.0)
    with pytest.raises(ValueError, match="most must be positive"):
        area(drift, reward, 0.0)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), not 1.0"),
        ({"every": 0}, "every must be 1 or more steps, not 0"),
        ({"parameters": []}, "at least one tensor"),
    ],
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        elastic_reset(**({"parameters": _weights()} | given))
