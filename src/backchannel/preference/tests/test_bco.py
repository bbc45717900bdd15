"""BCO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, Singles, random_batch, random_pairs  # noqa: E402
from backchannel.preference.bco import bco, middle  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.kto import kto  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402


def _singles(pairs, shift=0.0):
    """Both answers of each pair: first the good ones, then the bad ones."""
    policy = torch.cat([pairs.policy_chosen, pairs.policy_rejected])
    reference = torch.cat([pairs.reference_chosen, pairs.reference_rejected])
    n = len(pairs.policy_chosen)
    return Singles(policy, reference, good=torch.arange(2 * n) < n, baseline=torch.full_like(policy, shift))


def test_step_loss_by_hand():
    batch = random_batch(Singles, 8, seed=1)
    policy, reference, good, shift = (np.asarray(batch[i]) for i in (0, 1, 3, 5))
    logit = 0.3 * (policy - reference) - 0.3 * shift
    loss, info = bco(0.3)(batch)
    np.testing.assert_allclose(loss, np.log1p(np.exp(np.where(good, -logit, logit))), rtol=1e-12)
    np.testing.assert_allclose(info.reward, 0.3 * (policy - reference), rtol=1e-12)


def test_step_the_middle_weighs_good_and_bad_alike():
    ratios = torch.tensor([1.0, 2.0, 3.0, -10.0], requires_grad=True)
    shift = middle(ratios, torch.tensor([True, True, True, False]))
    assert float(shift) == -4
    assert not shift.requires_grad


def test_known_trl_has_it_for_pairs_without_the_shift():
    # TRL 1.16's `bco_pair` leaves delta out, which earlier versions estimated.
    pairs = random_batch(Pairs, 6, seed=2)
    good, bad = bco(0.3)(_singles(pairs))[0].chunk(2)
    torch.testing.assert_close(good + bad, dpo_losses("bco_pair", pairs, beta=0.3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [-3.0, 0.0, 2.0])
def test_known_it_bounds_the_loss_of_dpo(shift):
    pairs = random_pairs(200, seed=3)
    good, bad = bco(0.3)(_singles(pairs, shift))[0].chunk(2)
    assert bool((good + bad > dpo(0.3)(pairs)[0]).all())


def test_known_minimiser_is_the_log_odds():
    # An answer that is good with probability p: r - delta = log p / (1 - p).
    r = torch.full((2,), np.log(0.8 / 0.2) / 0.5 + 3, dtype=torch.float64, requires_grad=True)
    batch = Singles(r, torch.zeros_like(r), good=torch.tensor([True, False]), baseline=torch.full_like(r, 3))
    loss = (torch.tensor([0.8, 0.2], dtype=torch.float64) * bco(0.5)(batch)[0]).sum()
    assert abs(float(torch.autograd.grad(loss, r)[0].sum())) < 1e-14


def test_limit_no_baseline_is_a_baseline_of_zero():
    batch = random_batch(Singles, 6, seed=4)
    zero = batch._replace(baseline=torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(bco(0.3)(batch._replace(baseline=None))[0], bco(0.3)(zero)[0], rtol=0, atol=0)


def test_contrast_an_answer_ruled_out_is_brought_back_by_bco_alone():
    # The policy starts 80 nats below the reference on a good answer; 400 steps on its log-ratio with rate 10.
    def train(objective):
        r = torch.tensor([-80.0], dtype=torch.float64, requires_grad=True)
        for _ in range(400):
            batch = Singles(r, torch.zeros(1, dtype=torch.float64), good=torch.tensor([True]))
            (gradient,) = torch.autograd.grad(objective(batch)[0].sum(), r)
            r = (r - 10 * gradient).detach().requires_grad_()
        return float(r.detach())

    assert train(bco(0.2)) > 0
    assert train(kto(0.2)) < -79


def test_wrong_arguments():
    with pytest.raises(ValueError, match="beta must be positive, not -1"):
        bco(-1)
    with pytest.raises(ValueError, match="needs both"):
        middle(torch.zeros(2), torch.tensor([True, True]))
