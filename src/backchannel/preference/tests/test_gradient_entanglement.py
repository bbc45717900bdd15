"""Gradient entanglement: proofs and contrast."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.card import Method  # noqa: E402
from backchannel.parts.objectives import (  # noqa: E402
    Pairs,
    random_batch,
    random_pairs,
)
from backchannel.preference import gradient_entanglement as module  # noqa: E402
from backchannel.preference.cpo import cpo  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.gradient_entanglement import (  # noqa: E402
    RATIOS,
    Entanglement,
    Pulls,
    alone,
    gradient_entanglement,
    moves,
    normalized,
    part,
    pulls,
    ratio,
    surrogate,
    unshared,
)
from backchannel.preference.ipo import ipo  # noqa: E402
from backchannel.preference.orpo import orpo  # noqa: E402
from backchannel.preference.sft_regularized_dpo import sft_regularized_dpo  # noqa: E402
from backchannel.preference.simpo import simpo  # noqa: E402
from backchannel.preference.slic import slic  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.testing.battery import check_card  # noqa: E402


def test_card():
    check_card(Method("gradient_entanglement", "preference", module.CARD, module))


def _softmax_pairs():
    """Two pairs of single tokens over one table of logits: the gradient of log p(y) is e_y - p."""
    theta = torch.tensor([0.3, -1.0, 0.7, 0.0, 1.1], dtype=torch.float64, requires_grad=True)
    logs = torch.log_softmax(theta, 0)
    return theta, logs[torch.tensor([1, 2])], logs[torch.tensor([4, 0])]


def test_step_inner_products_and_moves_by_hand():
    theta, chosen, rejected = _softmax_pairs()
    found = gradient_entanglement(chosen, rejected, [theta])
    p = np.exp(theta.detach().numpy())
    p /= p.sum()
    gradients = np.eye(5)[[1, 2, 4, 0]] - p
    np.testing.assert_allclose(found.gram, gradients @ gradients.T, rtol=1e-12)
    np.testing.assert_allclose(found.chosen, [g @ g for g in gradients[:2]], rtol=1e-12)
    np.testing.assert_allclose(found.rejected, [g @ g for g in gradients[2:]], rtol=1e-12)
    inner = [gradients[0] @ gradients[2], gradients[1] @ gradients[3]]
    np.testing.assert_allclose(found.inner, inner, rtol=1e-12)
    norms = np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(found.cosine, inner / (norms[:2] * norms[2:]), rtol=1e-12)
    pull = Pulls(torch.tensor([0.3, 0.7], dtype=torch.float64), torch.tensor([0.2, 0.9], dtype=torch.float64))
    step = 0.1 * (0.3 * gradients[0] + 0.7 * gradients[1] - 0.2 * gradients[2] - 0.9 * gradients[3]) / 2
    found = moves(found, pull, 0.1)
    np.testing.assert_allclose(found.chosen, gradients[:2] @ step, rtol=1e-12)
    np.testing.assert_allclose(found.rejected, gradients[2:] @ step, rtol=1e-12)


def test_step_a_pair_alone_by_its_two_conditions():
    # |g_w|^2 = 1, <g_w, g_l> = 2, |g_l|^2 = 5; q = d_w / d_l. w rises where q > 2, l falls where q < 2.5.
    even = Entanglement(torch.tensor([[1.0, 2.0], [2.0, 4.0]]))  # at q = 2 nothing moves: neither rises nor falls
    assert [bool(each) for each in alone(even, Pulls(torch.tensor([2.0]), torch.ones(1)))] == [False, False]
    found = Entanglement(torch.tensor([[1.0, 2.0], [2.0, 5.0]]))
    for q, expected in ((1.0, (False, True)), (2.2, (True, True)), (3.0, (True, False))):
        seen = alone(found, Pulls(torch.tensor([q]), torch.ones(1)))
        assert (bool(seen.rises), bool(seen.falls)) == expected
        move = moves(found, Pulls(torch.tensor([q]), torch.ones(1)), 1.0)
        torch.testing.assert_close(move.chosen, torch.tensor([q - 2]))
        torch.testing.assert_close(move.rejected, torch.tensor([2 * q - 5]))


def test_step_pulls_and_normalised_pulls_by_hand():
    pairs = random_pairs(6, seed=1)
    found = pulls(sft_regularized_dpo(0.5, 0.2), pairs)
    h = 0.2 * (pairs.policy_chosen - pairs.reference_chosen - pairs.policy_rejected + pairs.reference_rejected)
    torch.testing.assert_close(found.rejected, 0.2 * torch.sigmoid(-h))
    torch.testing.assert_close(found.chosen, 0.2 * torch.sigmoid(-h) + 0.1)
    # Two pairs, orthogonal gradients of lengths 2, 3 and 4, 5: |G_w| = |(2, 3 x 3)| / 2, |G_l| = |(4, 5)| x 2 / 2.
    gram = torch.diag(torch.tensor([4.0, 9.0, 16.0, 25.0]))
    both = normalized(Entanglement(gram), Pulls(torch.tensor([1.0, 3.0]), torch.full((2,), 2.0)))
    torch.testing.assert_close(both.chosen, torch.tensor([1.0, 3.0]) * 2 / (85**0.5 / 2))
    torch.testing.assert_close(both.rejected, torch.full((2,), 2.0) * 2 / 41**0.5)


def _tiny(seed=0):
    """A small model in float64 and four pairs of answers that it drew, in which the second copies the first's start."""
    model, rng = t.fresh(seed, width=16, layers=1).double(), torch.Generator().manual_seed(seed)
    prompts = t.random_prompts(4, rng)
    return model, t.writer(prompts, rng), t.writer(prompts, rng)


def _logs(model, chosen, rejected):
    return model.log_probability(chosen), model.log_probability(rejected)


@pytest.mark.parametrize("cure", [False, True])
def test_known_a_small_step_of_a_transformer_moves_as_predicted(cure):
    model, chosen, rejected = _tiny()
    now = _logs(model, chosen, rejected)
    pairs = Pairs(*now, now[0] + 0.5, now[1] - 0.2, chosen.length, rejected.length)
    for loss in (dpo(0.3), simpo(2.0, 0.5), cpo(0.3), orpo(0.4)):
        other = copy.deepcopy(model)
        logs = _logs(other, chosen, rejected)
        found = gradient_entanglement(*logs, other.parameters())
        pull = pulls(loss, pairs)
        pull = normalized(found, pull) if cure else pull
        step = (
            surrogate(*logs, pull)
            if cure
            else loss(pairs._replace(policy_chosen=logs[0], policy_rejected=logs[1]))[0].mean()
        )
        step.backward()
        rate = 1e-7
        _descend(other, rate)
        expected = moves(found, pull, rate)
        for before, after, move in zip(now, _logs(other, chosen, rejected), expected, strict=True):
            torch.testing.assert_close(after - before, move, rtol=1e-4, atol=1e-4 * float(move.abs().max()))


def test_known_closed_ratios_are_those_of_the_losses():
    pairs = random_batch(Pairs, 40, seed=3)
    losses = {
        "dpo": (dpo(0.3), {}),
        "ipo": (ipo(0.2), {}),
        "simpo": (simpo(2.0, 0.5), {}),
        "slic": (slic(1.0, 0.5), {"delta": 1.0, "weight": 0.5}),
        "cpo": (cpo(0.3), {"beta": 0.3}),
        "sft_regularized_dpo": (sft_regularized_dpo(0.5, 0.3), {"eta": 0.5, "beta": 0.3}),
    }
    assert set(losses) == set(RATIOS)
    for name, (loss, settings) in losses.items():
        pull = pulls(loss, pairs)
        torch.testing.assert_close(ratio(name, pairs, **settings), pull.chosen / pull.rejected, msg=name)
    hinge = ratio("slic", pairs, delta=1.0, weight=0.5)
    assert {1.5, float("inf")} == set(hinge.tolist())


def test_known_softmax_tokens_repel_each_other_where_both_are_likely():
    # Two answers of one token over one softmax: <g_w, g_l> = |p|^2 - p_w - p_l, so the mask that leaves a pair only
    # the token in which it differs leaves nothing to drag the chosen answer down.
    theta, chosen, rejected = _softmax_pairs()
    p = torch.softmax(theta.detach(), 0)
    inner = gradient_entanglement(chosen, rejected, [theta]).inner
    torch.testing.assert_close(inner, (p @ p) - p[[1, 2]] - p[[4, 0]])


def test_limit_without_shared_parameters_every_positive_pull_is_right():
    one, other = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_().unbind()
    found = gradient_entanglement(one[:2] * 3, other[:2] * 5, [one, other])
    assert found.inner.tolist() == [0, 0]
    seen = alone(found, Pulls(torch.tensor([0.01, 7.0]), torch.tensor([9.0, 0.1])))
    assert bool((seen.rises & seen.falls).all())


def test_limit_a_shared_prefix_cancels_from_the_margin_and_not_from_the_inner_product():
    model, chosen, _ = _tiny(1)
    tokens = chosen.tokens.clone()
    tokens[:, 3:] = t.END
    one, other = tokens.clone(), tokens.clone()
    one[:, 2], other[:, 2] = t.WORD, t.BAD
    pair = [t.Answers(chosen.prompts, each) for each in (one, other)]
    masks = [unshared(a.tolist(), b.tolist()) for a, b in zip(one, other, strict=True)]
    whole, masked = [], []
    for side in (0, 1):
        every = model.log_probabilities(pair[side])
        keep = torch.tensor([mask[side] for mask in masks])
        assert keep[:, 2].all()
        assert not keep[:, :2].any()
        whole.append(every[:, :3].sum(1))
        masked.append((every * keep).sum(1))
    torch.testing.assert_close(whole[0] - whole[1], masked[0] - masked[1])
    entangled = [gradient_entanglement(*logs, model.parameters()) for logs in (whole, masked)]
    apart = [found.chosen + found.rejected - 2 * found.inner for found in entangled]
    torch.testing.assert_close(apart[0], apart[1])  # |g_w - g_l|^2: the step of a loss of the margin is the same
    assert bool((entangled[0].inner > entangled[1].inner + 1e-3).all())


def test_limit_normalised_pulls_are_right_for_every_batch():
    # Batches of 1 and 3 pairs: gradients with cosines from -1 to nearly 1 and lengths from 0.01 to 100. What is weighed
    # by the pulls rises and falls, always; one pair alone by (4).
    rng = torch.Generator().manual_seed(2)
    for trial in range(60):
        n, share = (1, 3)[trial % 2], (-1.0, 0.0, 10.0, 1000.0)[trial % 4]
        size = 10 ** (4 * torch.rand(2 * n, 1, generator=rng, dtype=torch.float64) - 2)
        common, own = torch.randn(8, generator=rng).double(), torch.randn(2 * n, 8, generator=rng).double()
        g = size * (own + share * common)
        found, d = Entanglement(g @ g.T), torch.rand(n, generator=rng).double() + 0.01
        pull = normalized(found, Pulls(d, d))
        move = moves(found, pull, 1.0)
        assert float(d @ move.chosen) > 0 > float(d @ move.rejected)
        if n == 1:
            seen = alone(found, pull)
            assert bool(seen.rises & seen.falls)
            torch.testing.assert_close(pull.chosen, d / found.chosen.sqrt())


def test_contrast_dpo_lowers_both_where_the_normalised_step_parts_them():
    # Answers of the same words but for one: the rejected one has the longer gradient, and drags the chosen one down.
    # DPO's step says so beforehand, and does it; the normalised one does not.
    model, rng = t.fresh(1, width=16, layers=1).double(), torch.Generator().manual_seed(1)
    tokens = torch.tensor([[t.FILL] * 11 + [t.END]] * 2)
    tokens[0, 5] = t.TOPIC
    chosen, rejected = (t.Answers(t.random_prompts(1, rng), each[None]) for each in tokens)
    rejected = t.Answers(chosen.prompts, rejected.tokens)
    logs = _logs(model, chosen, rejected)
    found = gradient_entanglement(*logs, model.parameters())
    assert float(found.cosine) > 0.9
    pull = pulls(dpo(0.1), Pairs(*(each.detach() for each in (*logs, *logs))))
    before = alone(found, pull)
    assert (bool(before.rises), bool(before.falls)) == (False, True)
    for way, rises in ((pull, False), (normalized(found, pull), True)):
        other = copy.deepcopy(model)
        surrogate(*_logs(other, chosen, rejected), way).backward()
        _descend(other, 1e-6)
        after = _logs(other, chosen, rejected)
        assert bool(after[0] > logs[0]) is rises
        assert bool(after[1] < logs[1])


def _descend(model, rate):
    with torch.no_grad():
        for each in model.parameters():
            if each.grad is not None:
                each -= rate * each.grad


def test_known_the_parted_gradient_is_that_of_normalised_pulls():
    model, chosen, rejected = _tiny(3)
    logs = _logs(model, chosen, rejected)
    pull = Pulls(*torch.rand(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    found = gradient_entanglement(*logs, model.parameters())
    by_pulls = torch.autograd.grad(
        surrogate(*logs, normalized(found, pull)), list(model.parameters()), retain_graph=True, materialize_grads=True
    )
    part(*logs, pull, model.parameters())
    for each, expected in zip(model.parameters(), by_pulls, strict=True):
        torch.testing.assert_close(each.grad, expected)


def test_unshared_tokens():
    assert unshared([1, 2, 3, 9], [1, 2, 4, 9]) == ([False, False, True, False], [False, False, True, False])
    assert unshared([1, 2], [3]) == ([True, True], [True])
    assert unshared([5, 1, 2], [1, 2]) == ([True, False, False], [False, False])


def test_parameters_that_are_not_used_count_as_zeros():
    theta, unused = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    both = gradient_entanglement(theta[:1], theta[1:] * 2, [theta, unused])
    torch.testing.assert_close(both.gram, torch.diag(torch.tensor([1.0, 4.0])))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="chosen and rejected must be"):
        gradient_entanglement(torch.zeros(2), torch.zeros(3), [])
    with pytest.raises(ValueError, match="method must be one of dpo, ipo"):
        ratio("kto", random_pairs(2, seed=0))
    with pytest.raises(ValueError, match="rejected length"):
        ratio("simpo", random_pairs(2, seed=0))
