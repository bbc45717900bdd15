"""cDPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_pairs, swapped  # noqa: E402
from backchannel.preference.cdpo import cdpo  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402


def _at(h):
    zero = torch.zeros(1, dtype=torch.float64)
    return Pairs(zero + h, zero, zero, zero)


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    h = 0.3 * ((w - rw) - (v - rv))
    expected = 0.8 * np.log1p(np.exp(-h)) + 0.2 * np.log1p(np.exp(h))
    loss, info = cdpo(0.2, 0.3)(pairs)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(info.margin, h, rtol=1e-12)


def test_known_minimiser_is_the_log_odds_of_the_rate():
    h = torch.tensor(np.log(0.9 / 0.1), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(cdpo(0.1, 1.0)(_at(h))[0].sum(), h)
    assert abs(float(gradient)) < 1e-14


def test_known_swapping_the_answers_is_the_other_rate():
    pairs = random_pairs(9, seed=3)
    w, v, rw, rv = (np.asarray(x) for x in swapped(pairs)[:4])
    h = 0.3 * ((w - rw) - (v - rv))
    # l_eps(l, w) = l_{1-eps}(w, l), whose formula is written out here because the rate is above 1/2
    np.testing.assert_allclose(
        cdpo(0.2, 0.3)(pairs)[0], 0.2 * np.log1p(np.exp(-h)) + 0.8 * np.log1p(np.exp(h)), rtol=1e-12
    )


def test_limit_rate_zero_is_dpo_and_rate_half_ignores_labels():
    pairs = random_pairs(9, seed=2)
    torch.testing.assert_close(cdpo(0.0, 0.3)(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)
    half = cdpo(0.5, 0.3)
    torch.testing.assert_close(half(pairs)[0], half(swapped(pairs))[0])


def test_contrast_a_wrong_label_pulls_dpo_for_ever():
    # Nine pairs say w and one says l. Weighted by count, DPO's margin goes to log 9; cDPO at rate 0.1 stops at
    # sigmoid(h) = 0.9 * 0.9 + 0.1 * 0.1 = 0.82: it does not believe that the tenth label says anything.
    def minimiser(objective):
        h = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        for _ in range(300):
            loss = 0.9 * objective(_at(h))[0] + 0.1 * objective(swapped(_at(h)))[0]
            (gradient,) = torch.autograd.grad(loss.sum(), h)
            h = (h - 2 * gradient).detach().requires_grad_()
        return float(torch.sigmoid(h.detach()))

    assert minimiser(dpo(1.0)) == pytest.approx(0.9, abs=1e-6)
    assert minimiser(cdpo(0.1, 1.0)) == pytest.approx(0.82, abs=1e-6)


@pytest.mark.parametrize(("rate", "beta", "word"), [(0.6, 1, "flip_rate"), (-0.1, 1, "flip_rate"), (0.1, 0, "beta")])
def test_wrong_arguments(rate, beta, word):
    with pytest.raises(ValueError, match=word):
        cdpo(rate, beta)
