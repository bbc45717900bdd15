"""Strengths of records, for an objective that reads how certain a label is."""

import pytest

torch = pytest.importorskip("torch", reason="objectives are those of torch")

from backchannel.align.certainty import by_probability  # noqa: E402
from backchannel.parts.objectives import Pairs, random_batch, swapped  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.soft_dpo import soft_dpo  # noqa: E402
from backchannel.preference.upo import upo  # noqa: E402


def test_a_low_probability_is_a_certain_label_the_other_way_round():
    pairs = random_batch(Pairs, 5, seed=1)._replace(strength=torch.tensor([1.0, 0.9, 0.5, 0.2, 0.0]).double())
    loss, info = by_probability(upo(0.1))(pairs)
    likelier = Pairs(*(torch.cat([a[:3], b[3:]]) for a, b in zip(pairs, swapped(pairs), strict=True)))
    expected, other = upo(0.1)(likelier._replace(strength=torch.tensor([1.0, 0.8, 0.0, 0.6, 1.0]).double()))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(info.margin, torch.cat([other.margin[:3], -other.margin[3:]]))  # of pairs as labelled
    torch.testing.assert_close(by_probability(upo(0.1))(swapped(pairs))[0], loss)
    torch.testing.assert_close(info.margin, dpo(0.1)(pairs)[1].margin)


def test_gradients_follow_who_is_likelier():
    slopes = []
    for p in (0.9, 0.5, 0.1):
        logs = torch.full((1,), -9.0, requires_grad=True)
        still = torch.full((1,), -9.0)
        pairs = Pairs(logs, still, still, still, strength=torch.tensor([p]))
        slopes += torch.autograd.grad(by_probability(upo(1.0))(pairs)[0].sum(), logs)[0].tolist()
    assert slopes == pytest.approx([-0.4, 0.0, 0.4])


def test_objectives_that_read_a_probability_or_nothing_stay_as_they_are():
    for objective in (soft_dpo(0.1), dpo(0.1)):
        assert by_probability(objective) is objective
    once = by_probability(upo(0.1))
    assert by_probability(once) is once
    with pytest.raises(ValueError, match="needs the strength of each example"):
        once(random_batch(Pairs, 5, seed=1)._replace(strength=None))
