"""CPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, random_pairs  # noqa: E402
from backchannel.preference.cpo import cpo  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.tests.trl_oracle import cpo_losses  # noqa: E402


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v = (np.asarray(x) for x in pairs[:2])
    loss, info = cpo(0.3)(pairs)
    np.testing.assert_allclose(info.margin, 0.3 * (w - v), rtol=1e-12)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-0.3 * (w - v))) - w, rtol=1e-12)


def test_known_trl_has_the_preference_term():
    pairs = random_batch(Pairs, 7, seed=2)
    ours = cpo(0.3)(pairs)[0] + pairs.policy_chosen
    torch.testing.assert_close(ours, cpo_losses(pairs, "sigmoid", beta=0.3), rtol=0, atol=1e-6)


def test_limit_against_an_even_reference_it_is_dpo_and_imitation():
    pairs = random_pairs(7, seed=3)
    even = torch.full((7,), -20.0, dtype=torch.float64)
    flat = pairs._replace(reference_chosen=even, reference_rejected=even)
    torch.testing.assert_close(cpo(0.3)(flat)[0], dpo(0.3)(flat)[0] - flat.policy_chosen)


def test_known_what_leaving_out_the_reference_saves():
    # Where the reference is right about a pair, DPO's margin is lower by beta (log ref(w) - log ref(l)), and
    # -log sigmoid falls with a slope between 0 and 1.
    pairs = random_pairs(200, seed=4)
    right = pairs.reference_chosen > pairs.reference_rejected
    gap = 0.3 * (pairs.reference_chosen - pairs.reference_rejected)
    preference = cpo(0.3)(pairs)[0] + pairs.policy_chosen
    difference = (dpo(0.3)(pairs)[0] - preference)[right]
    assert bool((difference >= 0).all())
    assert bool((difference <= gap[right]).all())


def test_contrast_where_the_reference_errs_dpo_is_satisfied_too_soon():
    # The reference prefers the wrong answer by 20 nats. A policy that still does, by 10, has DPO's margin at +10.
    pairs = Pairs(*(torch.tensor([x], dtype=torch.float64) for x in (-30.0, -20.0, -40.0, -20.0)))
    assert float(dpo(1.0)(pairs)[0]) < 1e-4
    assert float(cpo(1.0)(pairs)[0] + pairs.policy_chosen) == pytest.approx(10, abs=1e-4)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        cpo(0)
