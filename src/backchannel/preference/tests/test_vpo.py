"""VPO: proofs and contrast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_pairs  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.sft_regularized_dpo import sft_regularized_dpo  # noqa: E402
from backchannel.preference.vpo import linear_vpo, value, vpo  # noqa: E402

BETA, PROMPTS, ANSWERS, DIMENSION = 0.4, 2, 4, 3


def _problem(seed, *lead):
    """Features, wins, log reference and calibration."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*lead, *shape, generator=rng, dtype=torch.float64)

    features = draw(PROMPTS, ANSWERS, DIMENSION)
    wins = (3 * draw(PROMPTS, ANSWERS, ANSWERS)).clamp_min(0).floor()
    reference, calibration = (torch.log_softmax(draw(PROMPTS, ANSWERS), -1) for _ in range(2))
    return features, wins, reference, calibration.exp()


def _loss(theta, problem, alpha, sign, ridge=1.0):
    """(2) with the ridge, plainly."""
    features, wins, reference, calibration = problem
    total = ridge / 2 * theta @ theta
    for s in range(PROMPTS):
        r = features[s] @ theta
        r = r - calibration[s] @ r
        for a in range(ANSWERS):
            for b in range(ANSWERS):
                total = total - wins[s, a, b] * torch.nn.functional.logsigmoid(r[a] - r[b])
        best = reference[s].exp() * (r / BETA).exp()
        total = total - sign * alpha * BETA * best.sum().log() / PROMPTS
    return total


def test_step_loss_by_hand():
    pairs = random_pairs(7, seed=1)
    w, v, rw, rv = (np.asarray(x) for x in pairs[:4])
    h = 0.3 * (w - rw - v + rv)
    for optimistic, sign in ((True, 1), (False, -1)):
        for calibration, answer in (("chosen", w), ("rejected", v), ("both", (w + v) / 2)):
            loss, info = vpo(0.2, 0.3, optimistic, calibration)(pairs)
            np.testing.assert_allclose(loss, np.log1p(np.exp(-h)) + sign * 0.06 * answer, rtol=1e-12)
            np.testing.assert_allclose(info.margin, h, rtol=1e-12)


def test_step_the_linear_loss_by_hand():
    for sign in (1, -1):
        problem = _problem(1)
        theta = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64)
        found = linear_vpo(*problem, 2.0, BETA, sign > 0, starts=theta, steps=0)
        torch.testing.assert_close(found.loss, _loss(theta[0], problem, 2.0, sign))
        features, _, reference, calibration = problem
        r = features @ theta[0]
        torch.testing.assert_close(found.log_policy, torch.log_softmax(reference + r / BETA, -1))
        assert calibration.shape == r.shape


def test_known_the_value_of_a_reward():
    # J* is what the best policy gets, what no other gets, and (3) for every calibration policy.
    _, _, reference, calibration = _problem(2)
    rng = torch.Generator().manual_seed(0)
    r = torch.randn(PROMPTS, ANSWERS, generator=rng, dtype=torch.float64)
    best = torch.log_softmax(reference + r / BETA, 1)
    star = value(r, reference, BETA)

    def worth(log_policy):
        p = log_policy.exp()
        return (p * (r - BETA * (log_policy - reference))).sum(1)

    torch.testing.assert_close(star, worth(best))
    for _ in range(50):
        other = torch.log_softmax(best + torch.randn(best.shape, generator=rng, dtype=torch.float64), 1)
        assert bool((worth(other) < star).all())
    centred = r - (calibration * r).sum(1, keepdim=True)
    by_policy = -BETA * (calibration * (best - reference)).sum(1)
    torch.testing.assert_close(value(centred, reference, BETA), by_policy)


@pytest.mark.parametrize("optimistic", [False, True])
def test_known_newton_ends_where_the_gradient_is_zero(optimistic):
    problem, sign = _problem(3), 1 if optimistic else -1
    found = linear_vpo(*problem, 2.0, BETA, optimistic, steps=60)
    theta = found.parameter.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_loss(theta, problem, 2.0, sign), theta)
    assert float(gradient.abs().max()) < 1e-6
    torch.testing.assert_close(found.loss, _loss(found.parameter, problem, 2.0, sign))


@pytest.mark.parametrize("optimistic", [False, True])
def test_step_of_newton_by_hand(optimistic):
    # Autograd's gradient and curvature; an optimist's is that of the convex part, alpha = 0.
    problem, sign = _problem(6), 1 if optimistic else -1
    theta = torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(_loss(theta, problem, 2.0, sign), theta)
    curved = torch.autograd.functional.hessian(lambda at: _loss(at, problem, 0.0 if optimistic else 2.0, sign), theta)
    after = theta.detach() - torch.linalg.solve(curved, gradient)
    assert float(_loss(after, problem, 2.0, sign)) < float(_loss(theta.detach(), problem, 2.0, sign))
    found = linear_vpo(*problem, 2.0, BETA, optimistic, theta.detach()[None], steps=1)
    torch.testing.assert_close(found.parameter, after)


def test_known_newton_comes_back_from_far_away():
    # The pessimistic loss is convex, and full steps from here overshoot: it takes halved ones.
    problem = _problem(3)
    far = torch.tensor([[30.0, -30.0, 30.0]], dtype=torch.float64)
    found, other = (linear_vpo(*problem, 2.0, BETA, starts=starts, steps=60) for starts in (None, far))
    torch.testing.assert_close(other.parameter, found.parameter, rtol=0, atol=1e-8)
    # Beside a problem that halves nothing the far one halves as it does alone; each has a policy of its own.
    twice = [torch.stack([each, each]) for each in problem]
    both = linear_vpo(*twice, 2.0, BETA, starts=torch.stack([torch.zeros_like(far), far]), steps=4)
    alone = [linear_vpo(*problem, 2.0, BETA, starts=starts, steps=4) for starts in (None, far)]
    for now, *then in zip(both, *alone, strict=True):
        torch.testing.assert_close(now, torch.stack(then))


def test_known_the_policys_loss_and_the_rewards_have_the_same_minimum():
    # (4) with the calibration's exact mean, over the same log-linear policies, is least where (2) is.
    features, wins, reference, calibration = problem = _problem(4)
    alpha, ridge = 3.0, 1e-3
    found = linear_vpo(*problem, alpha, BETA, False, ridge=ridge, steps=60)
    s, a, b = wins.nonzero().T
    objective, n = dpo(BETA), wins.sum()
    theta = found.parameter.clone().requires_grad_()
    logs = torch.log_softmax(reference + features @ theta / BETA, 1)
    fit = objective(Pairs(logs[s, a], logs[s, b], reference[s, a], reference[s, b]))[0]
    calibrated = (calibration * logs).sum(1).mean()
    loss = (fit * wins[s, a, b]).sum() / n - alpha / n * BETA * calibrated + ridge / n / 2 * theta @ theta
    (gradient,) = torch.autograd.grad(loss, theta)
    assert float(gradient.abs().max()) < 1e-8


def test_known_problems_apart_are_solved_apart_and_the_best_start_is_taken():
    many = _problem(5, 4)
    starts = torch.randn(4, 6, DIMENSION, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    found = linear_vpo(*many, 30.0, BETA, True, starts)
    ends = [
        [linear_vpo(*(x[i] for x in many), 30.0, BETA, True, starts[i, j : j + 1]) for j in range(6)] for i in range(4)
    ]
    losses = torch.stack([torch.stack([each.loss for each in row]) for row in ends])
    torch.testing.assert_close(found.loss, losses.min(1)[0])
    assert float((losses.max(1)[0] - losses.min(1)[0]).max()) > 0.1  # there are several bottoms


def test_limit_alpha_zero_is_dpo_and_chosen_answers_are_rpo():
    pairs = random_pairs(7, seed=3)
    torch.testing.assert_close(vpo(0.0, 0.3, True)(pairs)[0], dpo(0.3)(pairs)[0], rtol=0, atol=0)
    ours, theirs = vpo(0.2, 0.3)(pairs)[0], sft_regularized_dpo(0.2, 0.3)(pairs)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


def test_contrast_optimism_praises_what_nobody_compared_and_pessimism_damns_it():
    # Three answers of which the third was never compared: DPO leaves its reward at 0, RPO can only be pessimistic.
    features = torch.eye(3, dtype=torch.float64)[None]
    wins = torch.zeros(1, 3, 3, dtype=torch.float64)
    wins[0, 0, 1], wins[0, 1, 0] = 30, 10
    even = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    calibration = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    rewards = {}
    for name, alpha, optimistic in (("none", 0.0, False), ("bold", 5.0, True), ("careful", 5.0, False)):
        found = linear_vpo(features, wins, even.log(), calibration, alpha, 0.3, optimistic, steps=60)
        r = found.parameter - found.parameter[:2].mean()
        rewards[name] = float(r[2])
    assert abs(rewards["none"]) < 1e-6
    assert rewards["bold"] > 2
    assert rewards["careful"] < -0.3


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"alpha": -1e-9}, "alpha must be at least 0"),
        ({"alpha": float("inf")}, "alpha must be at least 0"),
        ({"beta": 0}, "beta"),
        ({"calibration": "best"}, "calibration must be"),
    ],
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        vpo(**({"alpha": 0.1, "beta": 0.1} | given))


def test_wrong_numbers():
    with pytest.raises(ValueError, match="beta must be positive"):
        value(torch.zeros(1, 2), torch.zeros(1, 2), 0)
    for given, word in (({"ridge": 0}, "ridge must be positive"), ({"alpha": -1e-9}, "alpha must be at least 0")):
        with pytest.raises(ValueError, match=word):
            linear_vpo(*_problem(0), **({"alpha": 1.0, "beta": BETA} | given))
