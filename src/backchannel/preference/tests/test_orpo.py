"""ORPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch  # noqa: E402
from backchannel.preference.orpo import orpo  # noqa: E402
from backchannel.preference.simpo import simpo  # noqa: E402
from backchannel.preference.tests.trl_oracle import odds_losses  # noqa: E402


def _single_tokens(chosen, rejected):
    one = torch.ones(chosen.shape, dtype=torch.int64)
    return Pairs(chosen, rejected, chosen.detach(), rejected.detach(), one, one)


def test_step_loss_by_hand():
    pairs = random_batch(Pairs, 7, seed=1)
    w, v, _, _, nw, nv = (np.asarray(x) for x in pairs[:6])
    p, q = np.exp(w / nw), np.exp(v / nv)
    ratio = np.log(p / (1 - p) / (q / (1 - q)))
    loss, info = orpo(0.3)(pairs)
    np.testing.assert_allclose(loss, -w / nw + 0.3 * np.log1p(np.exp(-ratio)), rtol=1e-10)
    np.testing.assert_allclose(info.margin, ratio, rtol=1e-10)


def test_known_trl_has_the_odds_ratio():
    # Its odds ratio is in float32, whatever it is given. Its cross-entropy counts the prompt's tokens, ours does not.
    pairs = random_batch(Pairs, 7, seed=2)
    cross_entropy = -pairs.policy_chosen / pairs.chosen_length
    torch.testing.assert_close(
        (orpo(0.3)(pairs)[0] - cross_entropy).float(), odds_losses(pairs, 0.3), rtol=0, atol=1e-6
    )


def test_known_gradient_is_that_of_the_paper():
    # Section 4.3: d(-log sigmoid(log odds ratio)) = -(1 + odds(w) / odds(l))^-1 (dw / (1 - P(w)) - dl / (1 - P(l))).
    w, v = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (-0.7, -1.3))
    gradient = torch.autograd.grad(orpo(1.0)(_single_tokens(w, v))[0].sum(), (w, v))
    p, q = float(w.detach().exp()), float(v.detach().exp())
    pull = 1 / (1 + (p / (1 - p)) / (q / (1 - q)))
    assert float(gradient[0]) == pytest.approx(-1 - pull / (1 - p), rel=1e-12)
    assert float(gradient[1]) == pytest.approx(pull / (1 - q), rel=1e-12)


def test_limit_of_rare_answers_the_odds_are_probabilities():
    # Far from certainty 1 - P is 1, and the penalty is SimPO's without a margin, at beta 1.
    pairs = random_batch(Pairs, 7, seed=3)
    rare = pairs._replace(
        policy_chosen=pairs.policy_chosen - 30 * pairs.chosen_length,
        policy_rejected=pairs.policy_rejected - 30 * pairs.rejected_length,
    )
    penalty = orpo(1.0)(rare)[0] + rare.policy_chosen / rare.chosen_length
    torch.testing.assert_close(penalty, simpo(1.0, 0.0)(rare)[0])


def test_limit_a_certain_token_costs_a_finite_number():
    logs = torch.tensor([0.0], requires_grad=True)
    (loss, _) = orpo(0.1)(_single_tokens(torch.tensor([-1.0]), logs))
    assert 1 < float(loss.detach()) < 3.5
    assert bool(torch.isfinite(torch.autograd.grad(loss.sum(), logs)[0]))


def test_contrast_simpo_lets_both_answers_fall():
    # Both answers become rarer by 3 nats a token: SimPO's loss stays as it was, ORPO's cross-entropy does not.
    pairs = random_batch(Pairs, 5, seed=4)
    rarer = pairs._replace(
        policy_chosen=pairs.policy_chosen - 3 * pairs.chosen_length,
        policy_rejected=pairs.policy_rejected - 3 * pairs.rejected_length,
    )
    torch.testing.assert_close(simpo(2.0, 0.5)(rarer)[0], simpo(2.0, 0.5)(pairs)[0])
    assert bool((orpo(0.1)(rarer)[0] - orpo(0.1)(pairs)[0] > 2.5).all())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="weight must be positive, not 0"):
        orpo(0)
    with pytest.raises(ValueError, match="needs the chosen length"):
        orpo(0.1)(Pairs(*torch.zeros(4, 2)))
