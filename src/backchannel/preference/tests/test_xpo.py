"""XPO: proofs and contrast."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, random_pairs  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.oaif import oaif  # noqa: E402
from backchannel.preference.vpo import vpo  # noqa: E402
from backchannel.preference.xpo import xpo  # noqa: E402
from backchannel.tasks import tiny_answers as t  # noqa: E402
from backchannel.tasks.tiny_tuning import (  # noqa: E402
    Labelled,
    answered,
    gold_scores,
    improve,
    tune,
)

ALPHA, BETA = 0.02, 0.3
WON = torch.tensor([1.0, 0, 1, 1, 0, 0], dtype=torch.float64)
PAIRS = random_pairs(6, seed=5)._replace(strength=WON)  # the policy's answer before the reference's


def test_step_the_loss_by_hand():
    y, other, ref_y, ref_other = (np.asarray(x) for x in PAIRS[:4])
    h = BETA * ((y - ref_y) - (other - ref_other))
    sign = np.where(WON.numpy() == 1, 1.0, -1.0)
    loss, info = xpo(ALPHA, BETA).objective(PAIRS)
    np.testing.assert_allclose(loss, np.log1p(np.exp(-sign * h)) + ALPHA * other, rtol=1e-12)
    np.testing.assert_allclose(info.margin, h, rtol=1e-12)


def test_step_one_answer_of_each_and_who_won():
    recipe = xpo(ALPHA)
    ((rows, mixtures),) = recipe.sources()
    assert list(range(5))[rows] == [0, 1, 2, 3, 4]
    assert mixtures == [(1.0, 0.0), (0.0, 1.0)]  # the policy's, then the reference's
    assert (recipe.begin, recipe.anchor) == ("last", "start")
    scores = torch.tensor([[0.2, 0.9], [1.0, 1.0], [3.0, -1.0], [-2.0, -1.0]])
    found = recipe.select(scores, torch.Generator())
    assert found.row.tolist() == [0, 2, 3]
    assert (found.better.tolist(), found.worse.tolist()) == ([0, 0, 0], [1, 1, 1])
    assert found.strength.tolist() == [0, 1, 0]


def test_known_the_losses_of_another_implementation():
    # `_compute_losses` of the XPOTrainer of TRL 0.23.1 on these pairs, DPO's losses and XPO's term added.
    theirs = [0.1518121255, 0.7735804316, -0.1429197062, 0.0218170196, 0.0882152147, -0.0775406323]
    np.testing.assert_allclose(xpo(ALPHA, BETA).objective(PAIRS)[0], theirs, rtol=0, atol=1e-9)


def test_known_how_much_better_than_the_reference_a_policy_expects_to_be():
    # (1), for random rewards and references, with J* by its definition: the value of the best policy.
    rng = torch.Generator().manual_seed(0)
    r, ref = torch.randn(2, 50, 7, generator=rng, dtype=torch.float64)
    ref = torch.log_softmax(ref, 1)
    policy = torch.log_softmax(ref + r / BETA, 1)
    value = (policy.exp() * (r - BETA * (policy - ref))).sum(1)
    expected = value - (ref.exp() * r).sum(1)
    torch.testing.assert_close(-BETA * (ref.exp() * (policy - ref)).sum(1), expected)
    assert bool((expected > 0).all())


def test_known_a_round_is_a_step_on_pairs_with_the_reference():
    # By hand, from a policy that has left the reference: draws, labels by the gold reward, a step of Adam down (3).
    start = t.reference(0, width=32, layers=1, steps=150)
    model = improve(start, xpo(ALPHA, BETA), gold_scores, 2, 24, 1, 1e-2, seed=3)
    rng, now = torch.Generator().manual_seed(3), start
    for each in range(2):
        prompts = t.random_prompts(24, rng)
        own, other = now.sample(prompts, rng), start.sample(prompts, rng)
        ahead = t.gold(own) - t.gold(other)
        told = ahead != 0
        pairs = Labelled(own.rows(told), other.rows(told), (ahead[told] > 0).float())
        now = tune(now, lambda *_, pairs=pairs: pairs, xpo(ALPHA, BETA).objective, 1, 1e-2, seed=4 + each, anchor=start)
    for a, b in zip(model.parameters(), now.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_limit_alpha_zero_is_dpo_of_the_better_answer_against_the_worse():
    first = WON == 1
    logs = [
        torch.where(first, PAIRS[i], PAIRS[j])
        for i, j in ((0, 1), (1, 0), (2, 3), (3, 2))
    ]  # fmt: skip
    ours = xpo(0.0, BETA).objective(PAIRS)[0]
    torch.testing.assert_close(ours, dpo(BETA)(Pairs(*logs))[0], rtol=0, atol=1e-14)


def test_limit_with_the_references_answer_for_calibration_it_is_optimistic_vpo():
    # Whose answer won decides where VPO finds the reference's; no one setting of VPO's is right for both.
    mine = xpo(ALPHA, BETA).objective
    for won, calibration in ((1.0, "rejected"), (0.0, "chosen")):
        pairs = PAIRS._replace(strength=torch.full_like(WON, won))
        labelled = Pairs(*PAIRS[:4]) if won else Pairs(PAIRS[1], PAIRS[0], PAIRS[3], PAIRS[2])
        theirs = vpo(ALPHA / BETA, BETA, optimistic=True, calibration=calibration)(labelled)[0]
        torch.testing.assert_close(mine(pairs)[0], theirs, rtol=0, atol=1e-12)
        wrong = "chosen" if won else "rejected"
        other = vpo(ALPHA / BETA, BETA, optimistic=True, calibration=wrong)(labelled)[0]
        assert float((mine(pairs)[0] - other).abs().min()) > 1e-3


def test_contrast_it_believes_in_what_nobody_compared():
    # Three answers, the third 1 in 1,000 under the reference and never compared; policies that are best for rewards
    # in {0, 1, 2}. After as many wins of the first over the second as of the second over the first, OAIF's loss is
    # least at the reference itself; XPO's is least where the third is the best.
    ref = torch.tensor([0.4995, 0.4995, 0.001], dtype=torch.float64).log()
    rewards = torch.tensor(list(itertools.product((0.0, 1.0, 2.0), repeat=3)), dtype=torch.float64)
    policies = torch.log_softmax(ref + rewards / BETA, 1)

    def total(objective):
        sums = torch.zeros(len(policies), dtype=torch.float64)
        for one, other in ((0, 1), (1, 0)) * 20:
            for won in (0.0, 1.0):
                logs = policies[:, one], policies[:, other], ref[one].expand(27), ref[other].expand(27)
                if won == 0.0 and objective is not mine:
                    logs = logs[1], logs[0], logs[3], logs[2]
                sums += objective(Pairs(*logs, strength=torch.full((27,), won, dtype=torch.float64)))[0]
        return sums

    mine = xpo(0.1, BETA).objective
    plain = total(oaif(BETA).objective)
    assert float(plain[0] - plain.min()) < 1e-9  # rewards of 0: the reference
    best = policies[total(mine).argmin()]
    assert float(best[2].exp()) > 0.3
    assert best[2] - ref[2] == pytest.approx(float((policies[:, 2] - ref[2]).max()))


def test_contrast_descent_lifts_only_with_optimism_what_was_not_compared():
    # A table of logits: DPO's gradient does not see the third answer, XPO's lifts it by alpha times its probability.
    logits = torch.tensor([0.5, 0.2, -3.0], dtype=torch.float64, requires_grad=True)
    logs = torch.log_softmax(logits, 0)
    pairs = Pairs(logs[:1], logs[1:2], *logs.detach()[:2, None], strength=torch.ones(1, dtype=torch.float64))
    slopes = [
        torch.autograd.grad(each(pairs)[0].sum(), logits, retain_graph=True)[0][2]
        for each in (oaif(BETA).objective, xpo(ALPHA, BETA).objective)
    ]
    assert float(slopes[0]) == pytest.approx(0, abs=1e-15)
    assert float(slopes[1]) == pytest.approx(-ALPHA * float(logs.detach()[2].exp()))


def test_contrast_the_second_answer_is_the_references():
    # The mean log-ratio to the reference is below 0 over the reference's answers and above it over the policy's, by
    # Jensen; 300 answers, each mean is more than 5 standard errors from 0: fails below once in 10^4.
    start = t.reference(0, width=32, layers=1, steps=150)
    policy = improve(start, oaif(0.1), gold_scores, 1, 48, 12, 5e-3, seed=1)
    rng = torch.Generator().manual_seed(5)
    for each, sign in zip(answered(xpo(ALPHA), policy, start, t.random_prompts(300, rng), rng), (1, -1), strict=True):
        away = sign * (policy.log_probability(each) - start.log_probability(each))
        assert float(away.mean()) > 5 * float(away.std()) / 300**0.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"alpha": -0.1}, "alpha must be at least 0, not -0.1"),
        ({"alpha": float("inf")}, "alpha must be at least 0, not inf"),
        ({"alpha": 0.1, "beta": 0}, "beta must be positive, not 0"),
    ],
)
def test_wrong_arguments(given, said):
    with pytest.raises(ValueError, match=said):
        xpo(**given)


def test_scores_are_of_two_answers():
    with pytest.raises(ValueError, match=r"of at least 2, not \(3, 1\)"):
        xpo(ALPHA).select(torch.zeros(3, 1), torch.Generator())


def test_pairs_must_say_who_won():
    with pytest.raises(ValueError, match="needs the strength of each example"):
        xpo(ALPHA).objective(PAIRS._replace(strength=None))
