"""Alignment asymptotics: proofs and contrast."""

import itertools

import numpy as np
import pytest
from scipy import optimize, special

from backchannel.card import Method
from backchannel.parts.best_of_n import log_ratio
from backchannel.preference import alignment_asymptotics as module
from backchannel.preference.alignment_asymptotics import (
    alignment_asymptotics,
    cumulant,
    rate,
    renyi_cross_entropy,
    tilted,
    types,
)
from backchannel.testing.battery import check_card

P, R = np.array([0.5, 0.2, 0.3]), np.array([0.1, 1.0, 0.4])


def divergence(a, b):
    return float(a @ np.log(a / b))


def test_card():
    check_card(Method("alignment_asymptotics", "preference", module.CARD, module))


def test_step_tilt_and_budget_by_hand():
    phi = P * np.exp(1.7 * R)
    phi /= phi.sum()
    np.testing.assert_allclose(tilted(P, R, 1.7), phi, rtol=1e-13)
    found = alignment_asymptotics(P, R, divergence(phi, P))
    assert found.tilt == pytest.approx(1.7, rel=1e-10)
    np.testing.assert_allclose(found.law, phi, rtol=1e-10)
    assert found.reward == pytest.approx(phi @ R, rel=1e-10)
    assert found.divergence == pytest.approx(divergence(phi, P), rel=1e-10)


def test_known_best_of_n_by_enumeration_of_draws():
    # All 4^3 draws; outcomes 1 and 3 tie, and a tie is broken evenly among the draws that have it.
    p, r = np.array([0.4, 0.3, 0.1, 0.2]), np.array([0.0, 0.1 + 0.2, 1.0, 0.3])
    law = np.zeros(4)
    for draw in itertools.product(range(4), repeat=3):
        best = [y for y in draw if abs(r[y] - r[list(draw)].max()) < 1e-12]
        for y in best:
            law[y] += p[list(draw)].prod() / len(best)
    np.testing.assert_allclose(p * np.exp(log_ratio(p, r, 3)), law, rtol=1e-12)


def test_known_optimum_is_the_best_law_within_the_budget():
    found = alignment_asymptotics(P, R, 0.15)
    best = optimize.minimize(
        lambda z: -special.softmax(z) @ R,
        np.zeros(3),
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda z: 0.15 - divergence(special.softmax(z), P)},
        options={"ftol": 1e-13},
    )
    assert found.reward == pytest.approx(-best.fun, abs=1e-6)
    assert found.divergence == pytest.approx(0.15, rel=1e-9)


def test_known_price_of_another_policy():
    # (3), for a policy that is neither.
    psi, found = np.array([0.2, 0.35, 0.45]), alignment_asymptotics(P, R, 0.15)
    expected = divergence(psi, P) - 0.15 + found.tilt * (found.reward - psi @ R)
    assert divergence(psi, found.law) == pytest.approx(expected, rel=1e-9)


def test_known_types_are_all_sequences():
    counts, logs = types(P, 5)
    assert len(counts) == 21
    assert set(counts.sum(1)) == {5}
    found = {tuple(c): np.exp(each) for c, each in zip(counts.tolist(), logs, strict=True)}
    total = dict.fromkeys(found, 0.0)
    for word in itertools.product(range(3), repeat=5):
        total[tuple(np.bincount(word, minlength=3).tolist())] += P[list(word)].prod()
    for key, value in total.items():
        assert found[key] == pytest.approx(value, rel=1e-12)


def test_known_rate_is_the_divergence_and_the_legendre_transform():
    a, t = 0.8, 0.7
    b = optimize.brentq(lambda x: tilted(P, R, x) @ R - t, -50, 50, xtol=1e-13)
    assert rate(P, R, a, t) == pytest.approx(divergence(tilted(P, R, b), tilted(P, R, a)), rel=1e-9)
    best = optimize.minimize_scalar(lambda s: cumulant(P, R, a, s) - s * t, bounds=(-20, 20), method="bounded")
    assert rate(P, R, a, t) == pytest.approx(-best.fun, rel=1e-6)
    assert rate(P, R, a, float(tilted(P, R, a) @ R)) == pytest.approx(0, abs=1e-12)


def test_known_cumulants_of_a_sequence_are_those_of_a_symbol():
    a, s, m = 0.8, 1.3, 7
    counts, logs = types(tilted(P, R, a), m)
    assert cumulant(P, R, a, s) == pytest.approx(special.logsumexp(logs + s * (counts @ R)) / m, rel=1e-12)
    q = special.softmax(R)
    shift = np.log(np.exp(R).sum())
    by_entropies = -(a + s) * renyi_cross_entropy(P, q, 1 + a + s) + a * renyi_cross_entropy(P, q, 1 + a) + s * shift
    assert cumulant(P, R, a, s) == pytest.approx(by_entropies, rel=1e-12)
    assert renyi_cross_entropy(P, q, 1) == pytest.approx(renyi_cross_entropy(P, q, 1 + 1e-7), rel=1e-5)


def test_limit_one_draw_changes_nothing_and_many_take_the_best():
    np.testing.assert_allclose(log_ratio(P, R, 1), 0, atol=1e-12)
    law = P * np.exp(log_ratio(P, R, 1e9))
    np.testing.assert_allclose(law, [0, 1, 0], atol=1e-12)
    assert alignment_asymptotics(P, R, 1.6).law[1] > 0.99
    m = 60  # probabilities down to 1e-42: the law still sums to 1 and stays within the divergence of n draws
    counts, logs = types(P, m)
    for n in (2.0, 1e3, 1e12):
        ratio = log_ratio(np.exp(logs), counts @ R, n)
        law = np.exp(logs + ratio)
        assert law.sum() == pytest.approx(1, rel=1e-9)
        assert law @ np.where(law > 0, ratio, 0) <= np.log(n) - (n - 1) / n + 1e-9


def test_contrast_best_of_n_has_the_divergence_and_less_reward():
    # On one symbol best-of-n is not a tilted law: for its own divergence the optimum has strictly more reward. On long
    # sequences the difference per symbol vanishes, as log(m) / m.
    law = P * np.exp(log_ratio(P, R, 3))
    optimum = alignment_asymptotics(P, R, divergence(law, P))
    assert optimum.reward - law @ R > 0.003
    gaps = []
    for m in (10, 400):
        counts, logs = types(P, m)
        reward = counts @ R
        ratio = log_ratio(np.exp(logs), reward, 2.0 ** (m / 5))
        long = np.exp(logs + ratio)
        spent = long @ np.where(long > 0, ratio, 0) / m
        gaps.append(alignment_asymptotics(P, R, spent).reward - long @ reward / m)
    assert 0 < gaps[1] < gaps[0] / 4


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: alignment_asymptotics(P, R, 0.0), "budget"),
        (lambda: alignment_asymptotics(P, R, 1.61), "budget"),  # log 5
        (lambda: alignment_asymptotics([0.5, 0.25, 0.25], [0, 1, 1], 0.7), "budget"),  # log 2
        (lambda: alignment_asymptotics([0.5, 0.6], [0, 1], 0.1), "law"),
        (lambda: alignment_asymptotics([0.5, 0.5], [1, 1], 0.1), "equal"),
        (lambda: log_ratio(P, R, 0.5), "n must"),
        (lambda: types(P, 0), "length"),
        (lambda: rate(P, R, 1.0, 1.0), "level"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
