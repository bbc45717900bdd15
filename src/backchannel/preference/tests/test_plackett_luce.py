"""Plackett-Luce DPO: proofs and contrast."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from backchannel.parts.objectives import Pairs, Rankings, random_batch  # noqa: E402
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.plackett_luce import plackett_luce  # noqa: E402


def test_step_loss_by_hand():
    batch = random_batch(Rankings, 5, seed=1)
    r = 0.3 * (np.asarray(batch.policy) - np.asarray(batch.reference))
    expected = []
    for row in np.exp(r):
        expected.append(-sum(np.log(row[k] / row[k:].sum()) for k in range(3)))
    loss, info = plackett_luce(0.3)(batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-10)
    np.testing.assert_allclose(info.margin, r[:, 0] - r[:, -1], rtol=1e-12)


def test_known_chances_of_all_rankings_sum_to_one():
    policy, reference = random_batch(Rankings, 1, seed=2)[:2]
    orders = torch.tensor(list(itertools.permutations(range(4))))
    loss, _ = plackett_luce(0.3)(Rankings(policy[0][orders], reference[0][orders]))
    assert float(torch.exp(-loss).sum()) == pytest.approx(1, rel=1e-12)


def test_known_chance_to_be_first_is_a_softmax():
    policy, reference = random_batch(Rankings, 1, seed=3)[:2]
    orders = torch.tensor(list(itertools.permutations(range(4))))
    chance = torch.exp(-plackett_luce(0.3)(Rankings(policy[0][orders], reference[0][orders]))[0])
    first = torch.zeros(4, dtype=torch.float64).index_add_(0, orders[:, 0], chance)
    torch.testing.assert_close(first, torch.softmax(0.3 * (policy - reference)[0], 0))


def test_limit_of_two_answers_it_is_dpo():
    policy, reference = (x[:, :2] for x in random_batch(Rankings, 6, seed=4)[:2])
    pairs = Pairs(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1])
    torch.testing.assert_close(plackett_luce(0.3)(Rankings(policy, reference))[0], dpo(0.3)(pairs)[0])


def test_contrast_dpo_on_best_and_worst_ignores_the_middle():
    policy, reference = random_batch(Rankings, 4, seed=5)[:2]
    other = policy.clone()
    other[:, 1], other[:, 2] = policy[:, 2], policy[:, 1]
    reference = torch.zeros_like(reference)

    def ends(p):
        return dpo(0.3)(Pairs(p[:, 0], p[:, -1], reference[:, 0], reference[:, -1]))[0]

    torch.testing.assert_close(ends(policy), ends(other), rtol=0, atol=0)
    ours = plackett_luce(0.3)
    difference = ours(Rankings(policy, reference))[0] - ours(Rankings(other, reference))[0]
    assert bool(((policy[:, 1] > policy[:, 2]) == (difference < 0)).all())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="beta must be positive, not 0"):
        plackett_luce(0)
