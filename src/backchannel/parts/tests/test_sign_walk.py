"""Walks along signs: exact, the same however weights are cut, and refused where floats are too coarse."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="weights are tensors")

from backchannel.parts import sign_walk  # noqa: E402
from backchannel.parts.torch_random import words  # noqa: E402

KEY = torch.tensor([0x1234567])


def _weights(dtype, count=5000):
    """Of both signs and of magnitudes from 1e-9 to the largest that the perturbation allows."""
    generator = torch.Generator().manual_seed(3)
    size = torch.exp(torch.empty(count, dtype=torch.float64).uniform_(-20, 4.8, generator=generator))
    sign = 1 - 2 * torch.randint(0, 2, (count,), generator=generator)
    return torch.nn.Parameter((size * sign).clamp(-120, 120).to(dtype))


@pytest.mark.parametrize(("dtype", "length"), [(torch.float32, 2**-10), (torch.float64, 2**-10), (torch.bfloat16, 1.0)])
def test_settled_weights_come_back_to_the_last_bit(dtype, length):
    weights = _weights(dtype)
    before = weights.detach().clone()
    whole = sign_walk.pieces([{"params": [weights]}])
    sign_walk.settle(whole, length)
    start = weights.detach().clone()
    moved = (start.double() - before.double()).abs()
    coarse = (before.double().abs() + length) * torch.finfo(dtype).eps
    assert bool((moved <= coarse / 2).all())  # rounded once
    sign_walk.settle(whole, length)
    assert torch.equal(weights.detach(), start)  # and not again
    with torch.no_grad():
        for times in (1, -2):
            sign_walk.walk(whole, KEY, times * length)
            off = (weights.double() - start.double()).abs()
            assert bool((off == length).all())  # the neighbours are exactly there
        sign_walk.walk(whole, KEY, length)
    assert torch.equal(weights.detach(), start)


def test_without_settling_they_do_not_come_back():
    weights = _weights(torch.float32)
    before, whole = weights.detach().clone(), sign_walk.pieces([{"params": [weights]}])
    with torch.no_grad():
        for times in (1, -2, 1):
            sign_walk.walk(whole, KEY, times * 2**-10)
    assert not torch.equal(weights.detach(), before)


def test_signs_are_the_bits_of_the_hash_however_weights_are_cut():
    # A span holds 2^18 weights: these cross its border, within a parameter.
    cuts = [7, 0, 2**18 - 100, 300, 1]
    parameters = [torch.nn.Parameter(torch.zeros(count)) for count in cuts]
    with torch.no_grad():
        sign_walk.walk(sign_walk.pieces([{"params": parameters[:2]}, {"params": parameters[2:]}]), KEY, 1.0)
    found = torch.cat([p.detach() for p in parameters])
    bits = np.unpackbits(words(KEY, 0, sum(cuts) // 64 + 1).numpy().view(np.uint8), bitorder="little")
    np.testing.assert_array_equal(found, 2.0 * bits[: sum(cuts)] - 1)
    assert abs(float(found.mean())) < 5 / sum(cuts) ** 0.5  # a fixed key: nothing is left to luck


def test_both_ways_to_unpack_are_one():
    packed = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(sign_walk.unpacked(packed, True), sign_walk.unpacked(packed, False))


def test_a_step_is_the_exact_sum_in_any_order():
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 1000)) for _ in range(2)]
    keys, levels = list(torch.arange(50)[:, None]), [(37 * i) % 255 - 127 for i in range(50)]
    signs = np.stack([2.0 * np.unpackbits(words(k, 0, 16).numpy().view(np.uint8), bitorder="little") - 1 for k in keys])
    expected = weights[0].detach().numpy() - np.float32(0.001) * (np.array(levels) @ signs[:, :1000]).astype(np.float32)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1)).tolist()
    with torch.no_grad():
        for each, some in zip(weights, (range(50), order), strict=True):
            whole = sign_walk.pieces([{"params": [each]}])
            sign_walk.step(whole, [keys[i] for i in some], [levels[i] for i in some], [0.001])
    np.testing.assert_array_equal(weights[0].detach(), expected)
    assert torch.equal(*weights)


def test_what_cannot_be_walked_is_refused():
    def settle(value, dtype, length):
        sign_walk.settle(
            sign_walk.pieces([{"params": [torch.nn.Parameter(torch.tensor([value], dtype=dtype))]}]), length
        )

    settle(2.0**14 - 1, torch.float32, 2**-10)
    with pytest.raises(
        ValueError, match=r"a perturbation of 0\.0009765625 is lost in the rounding .* take one 1 times"
    ):
        settle(2.0**14, torch.float32, 2**-10)
    with pytest.raises(ValueError, match="or keep the weights in float32"):
        settle(1.0, torch.bfloat16, 2**-10)
    with pytest.raises(ValueError, match="a weight is not finite"):
        settle(float("nan"), torch.float32, 2**-10)
    with pytest.raises(ValueError, match=r"of shape \(3, 2\) is not a contiguous tensor of floats"):
        sign_walk.pieces([{"params": [torch.nn.Parameter(torch.zeros(2, 3).T)]}])
    with pytest.raises(ValueError, match="there is no parameter that requires a gradient"):
        sign_walk.pieces([{"params": [torch.zeros(2)]}])
    with pytest.raises(ValueError, match="65536 directions are the most in one step, not 65537"):
        sign_walk.step([], [KEY] * 65537, [1] * 65537, [1.0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU with the CPU; the next test holds the CPU")
def test_a_gpu_has_the_same_weights_to_the_last_bit():
    def last(device):
        weights = torch.nn.Parameter(_weights(torch.float32, 300_001).detach().to(device))
        whole = sign_walk.pieces([{"params": [weights]}])
        with torch.no_grad():
            sign_walk.settle(whole, 2**-10)
            sign_walk.walk(whole, KEY, 2**-10)
            sign_walk.step(whole, [KEY, KEY + 1], [100, -37], [1e-4])
            sign_walk.settle(whole, 2**-10)
        return weights.detach().cpu(), sign_walk.digest(whole)

    (here, digest), (there, other) = last("cpu"), last("cuda")
    assert torch.equal(here, there)
    assert digest == other
