"""NCA-pair: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, random_pairs  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.nca_pair import nca_pair  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    up, down = 0.3 * (w - rw), 0.3 * (v - rv)
    loss, info = nca_pair(0.3)(pairs)
    expected = np.log1p(np.exp(-up)) + 0.5 * np.log1p(np.exp(up)) + 0.5 * np.log1p(np.exp(down))
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(info.margin, up - down, rtol=1e-12)


def test_known_trl():
    pairs = random_batch(Pairs, 6, seed=2)
    torch.testing.assert_close(nca_pair(0.3)(pairs)[0], dpo_losses("nca_pair", pairs, beta=0.3), rtol=0, atol=1e-6)


def test_known_the_chosen_answer_settles_at_twice_its_odds():
    # The chosen answer's terms are least at sigmoid(r) = 1 / (1 + 1/2): pi(w) = 2 ref(w) at beta = 1.
    r = torch.tensor([np.log(2)], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(nca_pair(1.0)(Pairs(r, zero, zero, zero))[0].sum(), r)
    assert abs(float(gradient)) < 1e-15


def test_limit_the_pulls_at_the_reference():
    r = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(nca_pair(0.4)(Pairs(r[:1], r[1:], zero, zero))[0].sum(), r)
    torch.testing.assert_close(gradient, torch.tensor([-0.1, 0.1], dtype=torch.float64))


def test_contrast_both_answers_may_fall_under_dpo():
    pairs = random_pairs(6, seed=3)
    fallen = pairs._replace(policy_chosen=pairs.policy_chosen - 40, policy_rejected=pairs.policy_rejected - 40)
    torch.testing.assert_close(dpo(0.3)(fallen)[0], dpo(0.3)(pairs)[0])
    assert bool((nca_pair(0.3)(fallen)[0] > nca_pair(0.3)(pairs)[0] + 1).all())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        nca_pair(0)
