"""SimPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.orpo import orpo  # noqa: E402
from backchannel.preference.simpo import simpo  # noqa: E402
from backchannel.preference.tests.trl_oracle import cpo_losses  # noqa: E402


def test_step_loss_by_hand():
    pairs = random_batch(Pairs, 7, seed=1)
    w, v, _, _, nw, nv = (np.asarray(x) for x in pairs[:6])
    loss, info = simpo(2.5, 0.7)(pairs)
    np.testing.assert_allclose(info.margin, 2.5 * (w / nw - v / nv), rtol=1e-12)
    np.testing.assert_allclose(loss, np.log1p(np.exp(0.7 - 2.5 * (w / nw - v / nv))), rtol=1e-12)


def test_known_trl():
    pairs = random_batch(Pairs, 7, seed=2)
    expected = cpo_losses(pairs, "simpo", beta=2.5, gamma=0.7)
    torch.testing.assert_close(simpo(2.5, 0.7)(pairs)[0], expected, rtol=0, atol=1e-6)


def test_known_a_pair_at_its_margin_costs_log_two():
    length = torch.tensor([5])
    pairs = Pairs(torch.tensor([-5.0]), torch.tensor([-7.5]), *torch.zeros(2, 1), length, length)
    assert float(simpo(2.0, 1.0)(pairs)[0]) == pytest.approx(np.log(2))


def test_limit_against_an_even_reference_it_is_dpo_for_equal_lengths():
    pairs = random_batch(Pairs, 7, seed=3)
    length, even = torch.full((7,), 8), torch.full((7,), -30.0, dtype=torch.float64)
    same = Pairs(pairs.policy_chosen, pairs.policy_rejected, even, even, length, length)
    torch.testing.assert_close(simpo(2.0, 0.0)(same)[0], dpo(0.25)(same)[0])


def test_contrast_orpo_goes_on_where_simpo_has_its_margin():
    # The pair is 20 nats a token apart: SimPO is done, whatever becomes of the chosen answer; ORPO fits it still.
    w = torch.tensor([-10.0], requires_grad=True)
    pairs = Pairs(w, torch.tensor([-300.0]), *torch.zeros(2, 1), torch.tensor([10]), torch.tensor([10]))
    (ours,) = torch.autograd.grad(simpo(2.0, 1.0)(pairs)[0].sum(), w)
    (theirs,) = torch.autograd.grad(orpo(0.1)(pairs)[0].sum(), w)
    assert abs(float(ours)) < 1e-12
    assert float(theirs) == pytest.approx(-0.1, rel=1e-3)


def test_contrast_a_longer_answer_is_not_better_for_being_longer():
    # The same tokens twice over: DPO's margin doubles, SimPO's stays.
    pairs = random_batch(Pairs, 4, seed=5)
    double = Pairs(*(2 * x for x in pairs[:6]))
    torch.testing.assert_close(simpo(2.0, 0.5)(double)[1].margin, simpo(2.0, 0.5)(pairs)[1].margin)
    torch.testing.assert_close(dpo(0.1)(double)[1].margin, 2 * dpo(0.1)(pairs)[1].margin)


@pytest.mark.parametrize(("beta", "gamma", "word"), [(0, 1, "beta"), (1, -1, "gamma")])
def test_wrong_arguments(beta, gamma, word):
    with pytest.raises(ValueError, match=word):
        simpo(beta, gamma)
