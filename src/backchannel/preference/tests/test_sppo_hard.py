"""SPPO-hard: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, random_pairs  # noqa: E402
from backchannel.preference.ipo import ipo  # noqa: E402
from backchannel.preference.sppo_hard import sppo_hard  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    loss, info = sppo_hard(3.0)(pairs)
    np.testing.assert_allclose(loss, (w - rw - 1.5) ** 2 + (v - rv + 1.5) ** 2, rtol=1e-12)
    np.testing.assert_allclose(info.margin, w - rw - v + rv, rtol=1e-12)


def test_known_trl():
    pairs = random_batch(Pairs, 6, seed=2)
    expected = dpo_losses("sppo_hard", pairs, beta=0.4)
    torch.testing.assert_close(sppo_hard(1 / 0.4)(pairs)[0], expected, rtol=0, atol=1e-6)


def test_known_minimiser_is_the_multiplicative_weights_step():
    # Three answers, each pair met alike; a beats b beats c, a beats c: chances to win, the answer itself at a half,
    # would be 5/6, 1/2, 1/6. Over its pairs an answer's mean label, (wins - losses) / 2, times eta, is the minimiser:
    # 3/2 of eta (chance - 1/2), for an answer never meets itself.
    r = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    w, v = torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2])
    for _ in range(200):
        loss = sppo_hard(2.0)(Pairs(r[w], r[v], *torch.zeros(2, 3, dtype=torch.float64)))[0].sum()
        r = (r - 0.1 * torch.autograd.grad(loss, r)[0]).detach().requires_grad_()
    chance = torch.tensor([5 / 6, 1 / 2, 1 / 6], dtype=torch.float64)
    torch.testing.assert_close(r.detach(), 1.5 * 2.0 * (chance - 0.5))


def test_limit_half_of_ipo_where_both_answers_move_alike():
    # With log-ratios r and -r: 2 (r - eta / 2)^2, and IPO's is (2 r - 1 / (2 tau))^2: twice that at 1 / (2 tau) = eta.
    r = torch.linspace(-3, 3, 13, dtype=torch.float64)
    pairs = Pairs(r, -r, *torch.zeros(2, 13, dtype=torch.float64))
    torch.testing.assert_close(2 * sppo_hard(2.0)(pairs)[0], ipo(0.25)(pairs)[0])


def test_contrast_ipo_lets_both_answers_drift():
    pairs = random_pairs(6, seed=3)
    moved = pairs._replace(policy_chosen=pairs.policy_chosen - 40, policy_rejected=pairs.policy_rejected - 40)
    torch.testing.assert_close(ipo(0.25)(moved)[0], ipo(0.25)(pairs)[0])
    assert bool((sppo_hard(2.0)(moved)[0] > sppo_hard(2.0)(pairs)[0] + 100).all())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="eta must be positive, not 0"):
        sppo_hard(0)
