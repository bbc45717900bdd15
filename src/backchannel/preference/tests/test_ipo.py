"""IPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, swapped  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.ipo import ipo  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402


def _at(x):
    zero = torch.zeros(1, dtype=torch.float64)
    return Pairs(zero + x, zero, zero, zero)


def test_step_loss_by_hand():
    pairs = random_batch(Pairs, 7, seed=1)
    w, v, rw, rv, nw, nv = (np.asarray(x) for x in pairs[:6])
    loss, info = ipo(0.2)(pairs)
    np.testing.assert_allclose(loss, ((w - rw) - (v - rv) - 2.5) ** 2, rtol=1e-12)
    np.testing.assert_allclose(info.margin, 0.2 * ((w - rw) - (v - rv)), rtol=1e-12)
    loss, info = ipo(0.2, per_token=True)(pairs)
    np.testing.assert_allclose(loss, ((w - rw) / nw - (v - rv) / nv - 2.5) ** 2, rtol=1e-12)
    np.testing.assert_allclose(info.margin, 0.2 * ((w - rw) / nw - (v - rv) / nv), rtol=1e-12)


def test_known_trl_averages_over_tokens():
    # TRL 1.16 takes label_smoothing with this loss and ignores it.
    pairs = random_batch(Pairs, 5, seed=2)
    torch.testing.assert_close(
        ipo(0.3, per_token=True)(pairs)[0], dpo_losses("ipo", pairs, beta=0.3), rtol=0, atol=1e-6
    )
    one = pairs._replace(chosen_length=torch.ones(5, dtype=torch.int64), rejected_length=torch.ones(5).long())
    torch.testing.assert_close(ipo(0.3)(pairs)[0], dpo_losses("ipo", one, beta=0.3), rtol=0, atol=1e-6)


def test_known_minimiser_is_the_optimum_of_preference_less_divergence():
    # Two answers, a even reference, a preferred with p: on a grid of policies, p(pi beats ref) - tau KL(pi, ref).
    p, tau = 0.8, 0.3
    share = torch.linspace(0.001, 0.999, 200_001, dtype=torch.float64)
    wins = share * (0.5 + p) / 2 + (1 - share) * (0.5 + 1 - p) / 2
    divergence = share * (2 * share).log() + (1 - share) * (2 - 2 * share).log()
    best = share[(wins - tau * divergence).argmax()]
    x = torch.tensor((2 * p - 1) / (2 * tau), dtype=torch.float64, requires_grad=True)
    loss = p * ipo(tau)(_at(x))[0] + (1 - p) * ipo(tau)(swapped(_at(x)))[0]
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert abs(float(gradient)) < 1e-12
    assert float(torch.logit(best)) == pytest.approx(float(x.detach()), abs=1e-4)


def test_limit_a_high_price_stays_at_the_reference():
    x = torch.zeros(1, dtype=torch.float64)
    assert float(ipo(1e6)(_at(x))[0]) < 1e-12 < float(ipo(1e6)(_at(x + 0.1))[0])


def test_contrast_certain_labels_drive_dpo_without_end():
    # Gheshlaghi Azar et al., section 5: a pair that was labelled one way each time.
    for x in (2.0, 6.0, 20.0):
        x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        (ours,) = torch.autograd.grad(ipo(0.25)(_at(x))[0].sum(), x)
        (theirs,) = torch.autograd.grad(dpo(0.25)(_at(x))[0].sum(), x)
        assert float(ours) == pytest.approx(2 * (float(x.detach()) - 2))  # 0 at 1 / (2 tau) = 2, then back
        assert float(theirs) < 0


def test_wrong_arguments():
    with pytest.raises(ValueError, match="tau must be positive, not 0"):
        ipo(0)
    with pytest.raises(ValueError, match="needs the chosen length"):
        ipo(0.1, per_token=True)(_at(torch.zeros(1)))
