"""DPH: proofs and contrast."""

import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.card import Method  # noqa: E402
from backchannel.parts.objectives import Pairs, Scores, random_batch  # noqa: E402
from backchannel.preference import dph as module  # noqa: E402
from backchannel.preference.bradley_terry import bradley_terry  # noqa: E402
from backchannel.preference.cdpo import cdpo  # noqa: E402
from backchannel.preference.dph import Head, Prior, dph  # noqa: E402
from backchannel.tasks.tiny_answers import ASKED, VOCABULARY, Answers, fresh, imitate, random_prompts, writer  # noqa: E402
from backchannel.testing.objective_battery import OBJECTIVE_CHECKS  # noqa: E402


def log_sigmoid(x):
    return -np.log(1 + np.exp(-x))


def minimiser(loss, start):
    """By gradient descent, in float64."""
    r = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        (gradient,) = torch.autograd.grad(loss(r), r)
        r = (r - gradient).detach().requires_grad_()
    return r.detach()


@pytest.mark.parametrize("check", OBJECTIVE_CHECKS, ids=lambda check: check.__name__)
def test_battery_of_the_contrastive_loss(check):
    card = replace(module.CARD, example={"smoothing": 0.1, "contrastive": True})
    check(Method("dph", "preference", card, module))


def test_step_both_losses_by_hand():
    scores = random_batch(Scores, 9, seed=0)
    w, v = scores.chosen.numpy(), scores.rejected.numpy()
    separable = -0.8 * (log_sigmoid(w) + log_sigmoid(-v)) - 0.2 * (log_sigmoid(-w) + log_sigmoid(v))
    contrastive = -0.8 * log_sigmoid(w - v) - 0.2 * log_sigmoid(v - w)
    np.testing.assert_allclose(dph(0.2)(scores)[0], separable, rtol=1e-10)
    loss, info = dph(0.2, contrastive=True)(scores)
    np.testing.assert_allclose(loss, contrastive, rtol=1e-10)
    np.testing.assert_allclose(info.margin, w - v)


def test_step_head_reads_the_last_token_by_hand():
    head = Head(3, seed=1)
    head.value.weight.data = torch.tensor([[1.0, -2.0, 0.5]])
    hidden = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    matrix, bias = (each.detach().numpy() for each in (head.pooler.weight, head.pooler.bias))
    expected = [np.tanh(matrix @ hidden[i, t].numpy() + bias) @ [1.0, -2.0, 0.5] for i, t in ((0, 3), (1, 1))]
    np.testing.assert_allclose(head(hidden, torch.tensor([3, 1])).detach(), expected, rtol=1e-5)
    assert Head(3, seed=1)(hidden, torch.tensor([0, 0])).tolist() == [0.0, 0.0]
    state = torch.get_rng_state()
    assert torch.equal(Head(3, seed=1).pooler.weight, head.pooler.weight)
    assert not torch.equal(Head(3, seed=2).pooler.weight, head.pooler.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_step_prior_is_half_the_squared_way():
    weights = [torch.ones(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
    prior = Prior(weights, strength=0.5)
    assert prior().item() == 0
    with torch.no_grad():
        weights[0] += torch.tensor([1.0, -2.0])
        weights[1] += 3.0
    prior().backward()
    assert prior().item() == pytest.approx(0.25 * (1 + 4 + 9))
    assert weights[0].grad.tolist() == [0.5, -1.0]
    assert weights[1].grad.tolist() == [1.5]


def test_known_optima_of_what_is_always_chosen():
    for eps in (0.1, 0.3):
        level = math.log((1 - eps) / eps)
        found = minimiser(lambda r, eps=eps: dph(eps)(Scores(r[:1], r[1:]))[0].sum(), [0.0, 1.0])
        np.testing.assert_allclose(found, [level, -level], atol=1e-6)
        found = minimiser(lambda r, eps=eps: dph(eps, contrastive=True)(Scores(r[:1], r[1:]))[0].sum(), [0.0, 1.0])
        assert (found[0] - found[1]).item() == pytest.approx(level, abs=1e-6)


def test_known_separable_optimum_of_frequencies():
    # An answer that is chosen with frequency p, rated apart from the others: sigmoid(r) = eps + (1 - 2 eps) p.
    eps, p, still = 0.2, 0.7, torch.zeros(1, dtype=torch.float64)

    def loss(r):
        return (p * dph(eps)(Scores(r, still))[0] + (1 - p) * dph(eps)(Scores(still, r))[0]).sum()

    assert torch.sigmoid(minimiser(loss, [0.0])).item() == pytest.approx(eps + (1 - 2 * eps) * p, abs=1e-9)


def test_limit_contrastive_on_log_ratios_is_cdpo():
    rng = torch.Generator().manual_seed(2)
    pairs = Pairs(*torch.randn(4, 8, generator=rng, dtype=torch.float64))
    rewards = Scores(0.3 * (pairs.policy_chosen - pairs.reference_chosen),
                     0.3 * (pairs.policy_rejected - pairs.reference_rejected))  # fmt: skip
    torch.testing.assert_close(dph(0.15, contrastive=True)(rewards)[0], cdpo(0.15, 0.3)(pairs)[0])


def test_limit_contrastive_without_smoothing_is_bradley_terry():
    scores = random_batch(Scores, 8, seed=3)._replace(tie=None)
    torch.testing.assert_close(dph(0.0, contrastive=True)(scores)[0], bradley_terry()(scores)[0])


def test_contrast_bradley_terry_knows_no_level_and_no_end():
    # The same two rewards moved up by 5: Bradley and Terry's likelihood sees nothing, the separable loss pulls down.
    scores = random_batch(Scores, 6, seed=4)._replace(tie=None)
    moved = scores._replace(chosen=scores.chosen + 5, rejected=scores.rejected + 5)
    torch.testing.assert_close(bradley_terry()(scores)[0], bradley_terry()(moved)[0])
    assert bool((dph(0.1)(moved)[0] != dph(0.1)(scores)[0]).all())
    # And a margin of 6, beyond log 9: likelihood widens it still, smoothed labels narrow it.
    far = torch.tensor([3.0, -3.0], dtype=torch.float64, requires_grad=True)
    pushes = [
        torch.autograd.grad(-objective(Scores(far[:1], far[1:]))[0].sum(), far)[0][0].item()
        for objective in (bradley_terry(), dph(0.1), dph(0.1, contrastive=True))
    ]
    assert pushes[0] > 0
    assert pushes[1] < 0
    assert pushes[2] < 0


def test_contrast_a_head_on_a_still_body_changes_no_probability_and_dpo_does():
    # The same pairs: one step of the head alone leaves the language model's log-probabilities as they were.
    rng = torch.Generator().manual_seed(5)
    model = fresh(5, width=16, layers=1)
    prompts = random_prompts(64, rng)
    good = writer(prompts, rng)
    bad = Answers(prompts, torch.randint(1, VOCABULARY, good.tokens.shape, generator=rng))
    imitate(model, good, 20, 3e-3, 5)
    before = model.log_probability(good).detach()
    head = Head(16, seed=5)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)

    def rewards(answers: Answers):
        seen = torch.cat([answers.prompts, answers.tokens], 1)
        return head(model.hidden(seen).detach(), ASKED + answers.length)

    for _ in range(30):
        loss = dph(0.1)(Scores(rewards(good), rewards(bad)))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (rewards(good) > rewards(bad)).float().mean() > 0.6
    assert torch.equal(model.log_probability(good).detach(), before)
    now = [model.log_probability(each) for each in (good, bad)]
    loss = cdpo(0.1, 0.1)(Pairs(*now, before, now[1].detach()))[0].mean()
    loss.backward()
    assert model.head.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("call", "word"),
    [(lambda: dph(smoothing=0.5), "smoothing"), (lambda: dph(-0.1), "smoothing"), (lambda: Prior([], 0.0), "strength")],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
