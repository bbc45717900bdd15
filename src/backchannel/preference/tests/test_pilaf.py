"""PILAF: proofs and contrast."""

import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import random_pairs  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.ipo import ipo  # noqa: E402
from backchannel.preference.oaif import oaif  # noqa: E402
from backchannel.preference.pilaf import alignment, leaning, own_pairs, pair_probabilities, pilaf  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_tuning import answered, gold_scores, improve  # noqa: E402

BETA = 0.7


def _bandit(seed, spread=1.5, error=0.1, prompts=4, answers=6):
    """Policy, reference and true rewards whose implied rewards have the spread, and err by `error`."""
    rng = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(prompts, answers, generator=rng, dtype=torch.float64)  # noqa: E731
    reference = torch.log_softmax(draw(), 1)
    policy = torch.log_softmax(reference + spread / BETA * draw(), 1)
    return policy, reference, BETA * (policy - reference) + error * draw()


def test_step_pairs_by_hand():
    policy, reference, _ = _bandit(0, prompts=2, answers=3)
    p, ref = policy.exp().numpy(), reference.exp().numpy()
    raw = p ** (1 + BETA) * ref**-BETA, p ** (1 - BETA) * ref**BETA
    plus, minus, z = leaning(policy, reference, BETA)
    for found, each in ((plus, raw[0]), (minus, raw[1])):
        assert found.numpy() == pytest.approx(each / each.sum(1, keepdims=True))
    assert z.numpy() == pytest.approx(raw[0].sum(1) * raw[1].sum(1))
    theory, half = (pair_probabilities(policy, reference, BETA, theory=each) for each in (True, False))
    weight = 1 + z
    for s in range(2):
        for a in range(3):
            for b in range(3):
                own = float(p[s, a] * p[s, b])
                cross = float(plus[s, a] * minus[s, b] + minus[s, a] * plus[s, b]) / 2
                assert float(half[s, a, b]) == pytest.approx((own + cross) / 4)
                share = float(z[s] / (1 + z[s]))
                expected = float(weight[s] / weight.sum()) * ((1 - share) * own + share * cross)
                assert float(theory[s, a, b]) == pytest.approx(expected)


def test_step_the_recipe_draws_what_it_says():
    recipe = pilaf(0.3)
    assert recipe.answers == 2
    (first, own), (second, leans) = recipe.sources()
    assert list(range(6))[first] == [0, 2, 4]
    assert list(range(6))[second] == [1, 3, 5]
    assert own == [(1.0, 0.0), (1.0, 0.0)]
    assert leans == [(1.3, -0.3), (0.7, 0.3)]
    found = recipe.select(torch.tensor([[1.0, 2.0], [3.0, 3.0], [5.0, 4.0]]), torch.Generator())
    assert (found.row.tolist(), found.better.tolist(), found.worse.tolist()) == ([0, 2], [1, 0], [0, 1])


def test_known_gradients_are_those_of_autograd():
    # (2) and (3) by differentiating the expected loss of DPO, and J, in the policy's logits.
    policy, reference, truth = _bandit(1, error=0.5)
    pairs = pair_probabilities(policy, reference, BETA)
    logits = policy.clone().requires_grad_()
    logs = torch.log_softmax(logits, 1)
    h = BETA * (logs - reference)
    apart = h[:, :, None] - h[:, None, :]
    wins = torch.sigmoid(truth[:, :, None] - truth[:, None, :])
    loss = -(
        pairs * (wins * torch.nn.functional.logsigmoid(apart) + (1 - wins) * torch.nn.functional.logsigmoid(-apart))
    )
    (down,) = torch.autograd.grad(-loss.sum(), logits, retain_graph=True)
    goal = ((logs.exp() * truth).sum(1) - BETA * (logs.exp() * (logs - reference)).sum(1)).mean()
    (climb,) = torch.autograd.grad(goal, logits)
    cosine = (down * climb).sum() / (down.norm() * climb.norm())
    torch.testing.assert_close(alignment(policy, reference, truth, BETA, pairs), cosine, rtol=1e-10, atol=1e-10)


def test_known_the_theorys_pairs_climb_the_true_reward_to_first_order():
    # 1 - cosine is of second order in the error: a tenth of the error, a hundredth of it.
    missing = []
    for error in (1e-2, 1e-3):
        policy, reference, truth = _bandit(2, error=error)
        missing.append(
            1 - float(alignment(policy, reference, truth, BETA, pair_probabilities(policy, reference, BETA)))
        )
    assert 0 < missing[0] < 1e-4
    assert missing[1] == pytest.approx(missing[0] / 100, rel=0.2)


def test_limit_at_the_reference_all_pairs_are_the_policys_own():
    policy, reference, _ = _bandit(3)
    for theory in (True, False):
        found = pair_probabilities(reference, reference, BETA, theory)
        torch.testing.assert_close(found, own_pairs(reference), rtol=1e-12, atol=1e-15)
        assert float(pair_probabilities(policy, reference, BETA, theory).sum()) == pytest.approx(1)
    pairs = random_pairs(9, seed=1)
    torch.testing.assert_close(pilaf(0.3).objective(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)
    other = ipo(0.2)
    assert pilaf(objective=other).objective is other


def test_contrast_pairs_of_the_policy_alone_do_not():
    # However small the error, (2) of own pairs points elsewhere.
    for seed in range(20):
        policy, reference, truth = _bandit(seed, spread=2.0, error=1e-3)
        own = float(alignment(policy, reference, truth, BETA, own_pairs(policy)))
        theory = float(alignment(policy, reference, truth, BETA, pair_probabilities(policy, reference, BETA)))
        assert theory > 1 - 1e-5
        assert own < 0.999
        assert own < theory


def test_contrast_the_first_answer_of_every_second_pair_is_bolder():
    # The mean log-ratio to the reference: of the policy's own pairs it is the same on both sides, of the others not.
    # 80 pairs of either kind; 5 standard errors fail below once in 10^4, and the others are near 10.
    start = t.reference(0, width=32, layers=1, steps=150)
    policy = improve(start, oaif(0.1), gold_scores, 1, 48, 12, 5e-3, seed=1)
    rng = torch.Generator().manual_seed(5)
    one, other = answered(pilaf(0.5), policy, start, t.random_prompts(160, rng), rng)
    ratio = [policy.log_probability(each) - start.log_probability(each) for each in (one, other)]
    gap = ratio[0] - ratio[1]
    own, leans = gap[0::2], gap[1::2]
    error = [float(each.std()) / len(each) ** 0.5 for each in (own, leans)]
    assert abs(float(own.mean())) < 5 * error[0]
    assert float(leans.mean()) > 5 * error[1]


@pytest.mark.parametrize("beta", [0, -1, float("inf")])
def test_wrong_arguments(beta):
    with pytest.raises(ValueError, match="beta must be positive"):
        pilaf(beta)
    with pytest.raises(ValueError, match="beta must be positive"):
        leaning(torch.zeros(1, 2), torch.zeros(1, 2), beta)
