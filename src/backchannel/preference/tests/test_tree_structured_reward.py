"""Tree-structured rewards: proofs and contrast."""

import numpy as np
import pytest

from backchannel.card import Method
from backchannel.parts.graphs import laplacian, resistances
from backchannel.preference import tree_structured_reward as module
from backchannel.preference.tree_structured_reward import (
    Network,
    chain,
    predicted,
    tree_structured_reward,
    uncertainty,
)
from backchannel.testing.battery import check_card

SPREAD = np.array([1.0, 0.5, 0.7])


def covariance(spread):
    """(1) entry by entry."""
    levels = len(spread)
    words = [format(x, f"0{levels}b") for x in range(2**levels)]
    shared = [[next((k for k in range(levels) if x[k] != y[k]), levels) for y in words] for x in words]
    return np.array([[sum(spread[:c]) for c in row] for row in shared])


def test_card():
    check_card(Method("tree_structured_reward", "preference", module.CARD, module))


def test_step_posterior_by_hand():
    # The whole table of 8 answers, conditioned on three margins.
    pairs, tests = np.array([[0, 5], [2, 3], [5, 7]]), np.array([[0, 7], [1, 6], [4, 4]])
    margins = np.array([0.3, -1.0, 0.2])
    table = covariance(SPREAD)
    a = np.zeros((3, 8))
    a[np.arange(3), pairs[:, 0]], a[np.arange(3), pairs[:, 1]] = 1, -1
    gain = table @ a.T @ np.linalg.inv(a @ table @ a.T + 0.25 * np.eye(3))
    mean, rest = gain @ margins, table - gain @ a @ table
    x, y = tests.T
    network = Network(SPREAD, 0.25)
    np.testing.assert_allclose(predicted(pairs, margins, tests, network), mean[x] - mean[y], atol=1e-12)
    np.testing.assert_allclose(uncertainty(pairs, tests, network), rest[x, x] + rest[y, y] - 2 * rest[x, y], atol=1e-12)


def test_step_tree_compares_once_at_each_parting():
    pairs = tree_structured_reward(7, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(pairs[:4], [[0, 1], [2, 3], [4, 5], [6, 7]])
    np.testing.assert_array_equal(pairs[4:6] // 4, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(pairs[4:6] // 2, [[0, 1], [2, 3]])
    np.testing.assert_array_equal(pairs[6:] // 4, [[0, 1]])
    for n in (1, 2, 5, 12):
        odd = tree_structured_reward(n, 10, np.random.default_rng(n))
        assert odd.shape == (n, 2)
        edges = np.arange(n + 2) * 1024 // (n + 1)
        beginnings = np.searchsorted(edges, odd, side="right") - 1
        assert set(beginnings.ravel()) == set(range(n + 1))  # joined in one piece: n edges on n + 1 answers
        reached = {0}
        for _ in range(n):
            reached |= {int(v) for pair in beginnings if reached & {*pair.tolist()} for v in pair}
        assert len(reached) == n + 1


def test_step_either_side_stands_for_both_evenly():
    # 1,000 draws of answers 0 to 3: odd ones meet at the root half the time, standard error 0.016; 5 of them.
    rng = np.random.default_rng(0)
    met = np.array([tree_structured_reward(3, 2, rng)[2] for _ in range(1000)])
    assert abs((met % 2).mean(0) - 0.5).max() < 0.08


def test_known_uncertainty_is_the_effective_resistance():
    rng = np.random.default_rng(1)
    spread, noise = rng.uniform(0.3, 2, 4), 0.4
    pairs = np.array([[0, 9], [3, 4], [15, 2], [9, 10]])
    # Nodes of the prefix tree, as heaps number them: 1 is the root, 16 + x is answer x. Edges up, and comparisons.
    up = [(node // 2 - 1, node - 1, 1 / spread[node.bit_length() - 2]) for node in range(2, 32)]
    edges = np.array([(a, b) for a, b, _ in up] + [(15 + a, 15 + b) for a, b in pairs])
    weights = np.array([w for *_, w in up] + [1 / noise] * len(pairs))
    tests = np.array([[0, 15], [1, 9], [6, 7], [3, 4]])
    expected = resistances(laplacian(edges, 31, weights), 15 + tests)
    np.testing.assert_allclose(uncertainty(pairs, tests, Network(spread, noise)), expected, rtol=1e-10)


def test_known_mean_square_error_is_the_uncertainty():
    # Rewards and margins drawn from the model: 4,000 draws of one difference, standard error 2.2 %; 5 of them.
    rng = np.random.default_rng(2)
    pairs, tests, network = chain(6, 3, rng), np.array([[1, 6]]), Network(SPREAD, 0.3)
    rewards = np.linalg.cholesky(covariance(SPREAD)) @ rng.normal(size=(8, 4000))
    margins = rewards[pairs[:, 0]] - rewards[pairs[:, 1]] + 0.3**0.5 * rng.normal(size=(6, 4000))
    error = predicted(pairs, margins, tests, network)[0] - (rewards[1] - rewards[6])
    assert np.mean(error**2) == pytest.approx(uncertainty(pairs, tests, network)[0], rel=0.12)


def test_limit_loud_comparisons_say_nothing_and_certain_ones_all():
    pairs, tests = np.array([[0, 5], [5, 3]]), np.array([[0, 3], [1, 6], [0, 5]])
    loud = uncertainty(pairs, tests, Network(SPREAD, 1e9))
    np.testing.assert_allclose(loud, [2 * 1.2, 2 * 2.2, 2 * 2.2], rtol=1e-6)
    sure = uncertainty(pairs, tests, Network(SPREAD, 1e-9))
    assert sure[0] < 1e-8
    assert sure[2] < 1e-8
    assert sure[1] > 1


def test_contrast_tree_and_chain_each_win_where_the_other_loses():
    # Clear comparisons and prefixes that matter alike: the tree knows more. Noise of a margin's own size and first
    # words that decide: its single comparison at the root is not enough, and the chain knows far more.
    rng = np.random.default_rng(3)
    tests = rng.integers(2**16, size=(400, 2))
    alike, early = Network(np.ones(16), 0.001), Network(0.65 ** np.arange(16), 0.3)
    ratio = {}
    for name, network in (("alike", alike), ("early", early)):
        known = [
            [uncertainty(draw(255, 16, rng), tests, network).mean() for _ in range(3)]
            for draw in (tree_structured_reward, chain)
        ]
        ratio[name] = np.mean(known[0]) / np.mean(known[1])
    assert ratio["alike"] < 0.99
    assert ratio["early"] > 1.5


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: tree_structured_reward(8, 3, np.random.default_rng(0)), "answers"),
        (lambda: chain(0, 3, np.random.default_rng(0)), "comparisons"),
        (lambda: chain(3, 50, np.random.default_rng(0)), "depth"),
        (lambda: uncertainty(np.array([[0, 8]]), np.array([[0, 1]]), Network(SPREAD, 1.0)), "answers from 0"),
        (lambda: uncertainty(np.array([[0, 1]]), np.array([[0, 1]]), Network(SPREAD, 0.0)), "noise"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
