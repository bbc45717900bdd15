"""P3O: proofs and contrast."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_batch, swapped  # noqa: E402
from backchannel.preference import p3o as module  # noqa: E402
from backchannel.preference.p3o import p3o  # noqa: E402
from backchannel.preference.ppo import generalised_advantage, ppo  # noqa: E402
from backchannel.preference.rloo import leave_one_out, rloo  # noqa: E402
from backchannel.tasks.tiny_answers import gold, random_prompts, reference  # noqa: E402
from backchannel.tasks.tiny_policy_gradient import Critic, among, expected, measured, roll  # noqa: E402
from backchannel.testing.objective_battery import OBJECTIVE_CHECKS, check_card  # noqa: E402

KINDS = ("separate", "joint")


def _pairs(n=12, seed=0, spread=0.1):
    """Ratios on both sides of the clip, differences of both signs."""
    pairs = random_batch(Pairs, n, seed)
    rng = torch.Generator().manual_seed(seed + 1)
    near = [spread * torch.randn(n, generator=rng, dtype=torch.float64) for _ in range(2)]
    return pairs._replace(
        policy_chosen=pairs.reference_chosen + near[0],
        policy_rejected=pairs.reference_rejected + near[1],
        gap=torch.randn(n, generator=rng, dtype=torch.float64) * (torch.arange(n) % 5 > 0),  # a fifth are equal
    )


def _gradients(objective, pairs):
    learned = [pairs.policy_chosen.clone().requires_grad_(), pairs.policy_rejected.clone().requires_grad_()]
    batch = pairs._replace(policy_chosen=learned[0], policy_rejected=learned[1])
    return [each.numpy() for each in torch.autograd.grad(objective(batch)[0].sum(), learned)]


def test_step_separate_clipping_by_hand():
    pairs, eps = _pairs(40), 0.1
    rho = [np.exp((a - b).numpy()) for a, b in ((pairs[0], pairs[2]), (pairs[1], pairs[3]))]
    gap = pairs.gap.numpy()
    losses, both, gradients = [], [], [[], []]
    for i in range(40):
        total, past = 0.0, []
        for side, sign in ((0, 1), (1, -1)):
            gain, ratio = sign * gap[i] * rho[1 - side][i], rho[side][i]
            total -= min(gain * ratio, gain * np.clip(ratio, 1 - eps, 1 + eps)) / 2
            stop = (gain > 0 and ratio > 1 + eps) or (gain < 0 and ratio < 1 - eps)
            past.append(stop)
            gradients[side].append(0.0 if stop else -gain * ratio / 2)
        losses.append(total)
        both.append(all(past))
    loss, info = p3o(eps, "separate").objective(pairs)
    np.testing.assert_allclose(loss, losses, rtol=1e-10, atol=1e-14)
    assert info.clipped.tolist() == both
    assert 0 < sum(both) < 40
    for found, by_hand in zip(_gradients(p3o(eps, "separate").objective, pairs), gradients, strict=True):
        np.testing.assert_allclose(found, by_hand, rtol=1e-10)


def test_step_joint_clipping_by_hand():
    pairs, eps = _pairs(40), 0.1
    logs = [(a - b).numpy() for a, b in ((pairs[0], pairs[2]), (pairs[1], pairs[3]))]
    h, weight = logs[0] - logs[1], np.exp(logs[0] + logs[1]) * pairs.gap.numpy()
    stop = ((weight > 0) & (h > eps)) | ((weight < 0) & (h < -eps))
    loss, info = p3o(eps, "joint").objective(pairs)
    np.testing.assert_allclose(loss, -np.minimum(weight * h, weight * np.clip(h, -eps, eps)) / 2, rtol=1e-10)
    np.testing.assert_allclose(info.log_ratio, h, rtol=1e-10)
    assert info.clipped.tolist() == stop.tolist()
    assert 0 < stop.sum() < 40
    one, other = _gradients(p3o(eps, "joint").objective, pairs)
    np.testing.assert_allclose(one, np.where(stop, 0, -weight / 2), rtol=1e-10)
    np.testing.assert_allclose(other, -one, rtol=1e-12)


@pytest.mark.parametrize("clipping", KINDS)
def test_known_expected_gradient_over_all_pairs_of_answers(clipping):
    # Four answers, every pair of draws from an older policy with its probability: the gradient of the expected reward.
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    old = torch.log_softmax(logits.detach() + torch.tensor([0.02, -0.03, 0.01, 0.0]), 0)
    policy = torch.log_softmax(logits, 0)
    (exact,) = torch.autograd.grad((policy.exp() * reward).sum(), logits, retain_graph=True)
    i, j = (each.flatten() for each in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
    pairs = Pairs(policy[i], policy[j], old[i], old[j], gap=reward[i] - reward[j])
    loss = ((old[i] + old[j]).exp() * p3o(0.5, clipping).objective(pairs)[0]).sum()
    (found,) = torch.autograd.grad(-loss, logits)
    torch.testing.assert_close(found, exact)


@pytest.mark.parametrize("clipping", KINDS)
def test_known_the_order_of_the_two_answers_is_of_no_matter(clipping):
    pairs, objective = _pairs(), p3o(0.1, clipping).objective
    torch.testing.assert_close(objective(swapped(pairs))[0], objective(pairs)[0])


@pytest.mark.parametrize("clipping", KINDS)
def test_limit_on_fresh_answers_it_is_rloo_with_two(clipping):
    start = reference(0, width=16, layers=1, steps=40)
    model = reference(0, width=16, layers=1, steps=40).requires_grad_(True)
    rng = torch.Generator().manual_seed(0)
    rolled, every = roll(model, start, gold, random_prompts(12, rng), 2, 0.1, rng), torch.arange(12)
    ours, theirs = (
        torch.autograd.grad(objective(measured(model, None, rolled, credited, every))[0].mean(), model.head.weight)[0]
        for objective, credited in (
            (p3o(0.2, clipping).objective, None),
            (rloo(0.2), among(leave_one_out)(rolled)),
        )
    )
    assert float(ours.abs().max()) > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_contrast_what_a_prompt_adds_to_its_rewards_moves_ppo_alone():
    start = reference(0, width=16, layers=1, steps=40)
    model = reference(0, width=16, layers=1, steps=40).requires_grad_(True)
    critic = Critic(start)

    def shifted(answers):
        return gold(answers) + answers.prompts[:, 1].float()  # the first topic that was asked for

    def gradient(objective, credit, reward):
        rng = torch.Generator().manual_seed(0)
        rolled = roll(model, start, reward, random_prompts(24, rng), 2, 0.1, rng)
        data = measured(model, critic, rolled, None if credit is None else credit(rolled), torch.arange(24))
        (found,) = torch.autograd.grad(objective(data)[0].mean(), model.head.weight)
        return found

    rule = partial(generalised_advantage, discount=1.0, trace=0.95)
    away = {}
    for name, objective, credit in (
        ("separate", p3o(0.2, "separate").objective, None),
        ("joint", p3o(0.2, "joint").objective, None),
        ("ppo", ppo(0.2, 0.5), expected(critic, rule)),
    ):
        plain, moved = (gradient(objective, credit, reward) for reward in (gold, shifted))
        away[name] = float((moved - plain).norm() / plain.norm())
    assert max(away["separate"], away["joint"]) < 1e-4  # float32 sums of rewards about 10
    assert away["ppo"] > 0.1


def test_a_round_takes_every_pair_that_differs_and_the_policy_that_drew_it():
    recipe = p3o()
    found = recipe.select(torch.tensor([[0.0, 2.0], [1.0, 1.0], [3.0, -1.0]]), torch.Generator())
    assert (found.row.tolist(), found.better.tolist(), found.gap.tolist()) == ([0, 2], [1, 0], [2.0, 4.0])
    assert (recipe.answers, recipe.anchor, recipe.begin) == (2, "last", "last")


@pytest.mark.parametrize("check", [each for each in OBJECTIVE_CHECKS if each is not check_card])
@pytest.mark.parametrize("clipping", KINDS)
def test_its_loss_is_an_objective(check, clipping):
    check(SimpleNamespace(key="p3o", module=module, example=lambda: p3o(0.2, clipping).objective))


@pytest.mark.parametrize(
    ("given", "word"), [((1.0, "joint"), "epsilon"), ((0.0, "joint"), "epsilon"), ((0.2, "both"), "clipping")]
)
def test_wrong_arguments(given, word):
    with pytest.raises(ValueError, match=word):
        p3o(*given)
    with pytest.raises(ValueError, match="needs the gap"):
        p3o().objective(random_batch(Pairs, 3, seed=0)._replace(gap=None))
