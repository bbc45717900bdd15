"""SFT-regularised DPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, random_pairs  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.sft_regularized_dpo import maximin, sft_regularized_dpo  # noqa: E402
from backchannel.preference.tests.trl_oracle import dpo_losses  # noqa: E402

ETA, BETA, BOUND = 0.3, 0.5, 0.5
WINS = torch.tensor([[0, 8, 5, 0], [2, 0, 6, 0], [1, 4, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)  # 3 is not covered
REFERENCE = torch.tensor([0.2, 0.4, 0.3, 0.1], dtype=torch.float64)


def _loss(reward, objective):
    """The mean of the objective over the comparisons, at the policy that is best for the reward."""
    i, j = WINS.nonzero().T
    logs = torch.log_softmax(REFERENCE.log() + reward / BETA, 0)
    ref = REFERENCE.log()
    return (objective(Pairs(logs[i], logs[j], ref[i], ref[j]))[0] * WINS[i, j]).sum() / WINS.sum()


def _minimise(objective, bound=BOUND, steps=2000, rate=1.0):
    """The reward within the bound whose policy has the least loss, and that policy."""
    reward = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(_loss(reward, objective), reward)
        reward = (reward - rate * gradient).clamp(-bound, bound).detach().requires_grad_()
    return torch.softmax(REFERENCE.log() + reward.detach() / BETA, 0)


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    h = 0.3 * (w - rw - v + rv)
    loss, info = sft_regularized_dpo(0.2, 0.3)(pairs)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-h)) - 0.06 * w, rtol=1e-12)
    np.testing.assert_allclose(info.margin, h, rtol=1e-12)


def test_known_trl_has_the_mean_over_tokens():
    # TRL 1.16: `loss_type=["sigmoid", "sft"]` with weights 1 and alpha, which took the place of `rpo_alpha`. Its alpha
    # is for the mean over tokens, so that alpha = eta beta |w| for each pair.
    pairs = random_batch(Pairs, 4, seed=2)
    ours, theirs = sft_regularized_dpo(0.2, 0.3)(pairs)[0], []
    for i in range(4):
        one = Pairs(*(x[i : i + 1] for x in pairs))
        alpha = 0.2 * 0.3 * float(pairs.chosen_length[i])
        theirs.append(dpo_losses(["sigmoid", "sft"], one, beta=0.3, loss_weights=[1.0, alpha]))
    torch.testing.assert_close(ours, torch.cat(theirs), rtol=0, atol=1e-6)


def test_known_the_least_loss_is_the_solution_of_the_game():
    base = WINS.sum(1) / WINS.sum()
    game = maximin(WINS, REFERENCE, base, ETA, BETA, BOUND, steps=3000)
    torch.testing.assert_close(_minimise(sft_regularized_dpo(ETA, BETA)), game.policy, rtol=0, atol=1e-6)
    # The solution of the game is a saddle point: its value for the policy at its worst reward equals the value of its
    # reward at the best policy, and both players are checked by themselves on random other moves.
    rng = torch.Generator().manual_seed(0)

    def value(policy, reward):
        i, j = WINS.nonzero().T
        fit = (-torch.nn.functional.logsigmoid(reward[i] - reward[j]) * WINS[i, j]).sum() / WINS.sum()
        divergence = (policy * (policy / REFERENCE).log()).sum()
        return float(ETA * (((policy - base) * reward).sum() - BETA * divergence) + fit)

    here = value(game.policy, game.reward)
    for _ in range(100):
        noise = torch.randn(4, generator=rng, dtype=torch.float64)
        assert value(torch.softmax(game.policy.log() + noise, 0), game.reward) < here + 1e-9
        assert value(game.policy, (game.reward + noise).clamp(-BOUND, BOUND)) > here - 1e-9


def test_known_the_worst_reward_damns_what_is_not_covered():
    game = maximin(WINS, REFERENCE, WINS.sum(1) / WINS.sum(), ETA, BETA, BOUND, steps=3000)
    assert float(game.reward[3]) == pytest.approx(-BOUND)
    assert float(game.policy[3]) < 0.05 < float(REFERENCE[3])


def test_limit_eta_zero_is_dpo():
    pairs = random_pairs(7, seed=3)
    torch.testing.assert_close(sft_regularized_dpo(0.0, 0.3)(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)


def test_limit_a_large_eta_imitates():
    imitation = WINS.sum(1) / WINS.sum()
    policy = _minimise(sft_regularized_dpo(300.0, BETA), bound=2.0, rate=1 / 300)
    torch.testing.assert_close(policy[:3], imitation[:3], atol=0.02, rtol=0)


def test_contrast_dpo_is_blind_to_an_answer_that_nobody_compared():
    # Whatever reward the uncovered answer gets, DPO's loss is the same, up to a policy that says nothing else.
    reward = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64)
    praised = reward + torch.tensor([0.0, 0, 0, 8], dtype=torch.float64)
    assert float(torch.softmax(REFERENCE.log() + praised / BETA, 0)[3]) > 0.99
    assert float(_loss(praised, dpo(BETA))) == pytest.approx(float(_loss(reward, dpo(BETA))), rel=1e-12)
    ours = sft_regularized_dpo(ETA, BETA)
    assert float(_loss(praised, ours)) > float(_loss(reward, ours)) + 1


@pytest.mark.parametrize(("eta", "beta", "word"), [(-1, 1, "eta"), (1, 0, "beta")])
def test_wrong_arguments(eta, beta, word):
    with pytest.raises(ValueError, match=word):
        sft_regularized_dpo(eta, beta)
    with pytest.raises(ValueError, match="bound must be positive"):
        maximin(WINS, REFERENCE, REFERENCE, 1.0, 1.0, bound=0)
