"""Overoptimisation laws: proofs and contrast."""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="preference objectives need torch")

from scipy import optimize  # noqa: E402

from backchannel.card import Method  # noqa: E402
from backchannel.parts.best_of_n import divergence_bound  # noqa: E402
from backchannel.preference import daa_overoptimisation_laws as module  # noqa: E402
from backchannel.preference.apo_zero import apo_zero  # noqa: E402
from backchannel.preference.daa_overoptimisation_laws import (  # noqa: E402
    Law,
    daa_overoptimisation_laws,
    nodes,
    tree_logs,
    tree_run,
)
from backchannel.preference.dpo import dpo  # noqa: E402
from backchannel.preference.ipo import ipo  # noqa: E402
from backchannel.testing.battery import check_card  # noqa: E402

KL = np.array([0.04, 0.3, 1.0, 2.5, 6.0, 9.0])
GAIN = np.array([0.2, 0.7, 0.9, 1.1, 0.8, 0.1])


def test_card():
    check_card(Method("daa_overoptimisation_laws", "preference", module.CARD, module))


@pytest.mark.parametrize("form", ["log", "linear", "quadratic"])
def test_step_least_squares_by_the_normal_equations(form):
    d = np.sqrt(KL)
    falls = {"log": d * np.log(d), "linear": d * d, "quadratic": KL**2}[form]
    columns = np.stack([KL if form == "quadratic" else d, -falls], 1)
    alpha, beta = np.linalg.solve(columns.T @ columns, columns.T @ GAIN)
    law = daa_overoptimisation_laws(KL, GAIN, form)
    assert (law.alpha, law.beta) == pytest.approx((alpha, beta), rel=1e-9)
    error = GAIN - columns @ [alpha, beta]
    assert law.rmse == pytest.approx(math.sqrt((error**2).mean()), rel=1e-9)
    assert law.r2 == pytest.approx(1 - (error**2).sum() / ((GAIN - GAIN.mean()) ** 2).sum(), rel=1e-9)
    np.testing.assert_allclose(law.at(KL), columns @ [alpha, beta], rtol=1e-9)


def test_step_paths_of_a_tree_by_hand():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(nodes(3, 2), 2, generator=rng, dtype=torch.float64)
    found = tree_logs(logits, 3)
    p = torch.softmax(logits, 1)
    for path, (a, b, c) in enumerate(itertools.product(range(2), repeat=3)):
        expected = p[0, a] * p[1 + a, b] * p[3 + 2 * a + b, c]
        assert float(found[path].exp()) == pytest.approx(float(expected), rel=1e-12)


def test_step_of_dpo_on_a_tree_by_hand():
    # Depth 1, a table: the gradient of log p(w) - log p(l) by the logits is e_w - e_l, and DPO's pull is beta / 2.
    masses = tree_run(dpo(0.4), [0], [2], torch.eye(1, dtype=torch.float64), 3, 1, 1, 0.5)
    logits = 0.5 * 0.4 / 2 * np.array([1.0, 0.0, -1.0])
    p = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose([each[0] for each in masses], [1 / 3] * 3, rtol=1e-12)
    np.testing.assert_allclose([each[1] for each in masses], [p[0], p[2], p[1]], rtol=1e-12)


def test_step_two_steps_on_a_tree_by_hand():
    # Depth 2, three choices, one feature shared by all four nodes, and a loss that reads both levels of a pair. A node
    # on a path pulls with e_choice - p. Path 0 is chosen twice, path 1 rejected twice: each counts once in the masses.
    features = np.array([[1.0], [-0.5], [2.0], [0.7]])
    chosen, rejected, beta, rate = [0, 0, 4], [1, 2, 1], 0.6, 0.8
    ways = [((0, a), (1 + a, b)) for a in range(3) for b in range(3)]
    theta, reference = np.zeros((1, 3)), math.log(1 / 9)
    expected = []
    for _ in range(3):
        p = np.exp(features @ theta)
        p /= p.sum(1, keepdims=True)
        logs = [sum(math.log(p[node, choice]) for node, choice in way) for way in ways]
        law = np.exp(logs)
        expected.append([law[0] + law[4], law[1] + law[2], law[3] + law[5:].sum()])
        down = np.zeros_like(features @ theta)
        for path, side in [*((path, -1) for path in chosen), *((path, 1) for path in rejected)]:
            s = 1 / (1 + math.exp(-beta * (logs[path] - reference)))
            for node, choice in ways[path]:
                down[node] += side * beta * s * (1 - s) * (np.eye(3)[choice] - p[node]) / len(chosen)
        theta = theta - rate * features.T @ down
    masses = tree_run(apo_zero(beta), chosen, rejected, torch.tensor(features), 3, 2, 2, rate)
    np.testing.assert_allclose(torch.stack(masses, 1), expected, rtol=1e-12)


def test_known_peaks_are_the_highest_points():
    for law in (
        Law("log", 1.2, 0.7, 0, 1),
        Law("linear", 1.2, 0.3, 0, 1),
        Law("log", -0.5, 0.4, 0, 1),
        Law("quadratic", 0.8, 0.1, 0, 1),
    ):
        found = optimize.minimize_scalar(
            lambda d, law=law: -float(law.at([d * d])[0]), bounds=(1e-6, 50), method="bounded"
        )
        assert law.peak.distance == pytest.approx(found.x, abs=1e-4)
        assert law.peak.gain == pytest.approx(-found.fun, rel=1e-6)


def test_known_laws_are_found_again():
    d = np.linspace(0.1, 3, 30)
    for form, true in (("log", d * (0.9 - 0.5 * np.log(d))), ("linear", d * (0.9 - 0.5 * d))):
        law = daa_overoptimisation_laws(d * d, true, form)
        assert (law.alpha, law.beta) == pytest.approx((0.9, 0.5), rel=1e-9)
        assert law.r2 == pytest.approx(1)


def test_known_divergence_of_the_best_of_n():
    # KL of the density n u^(n-1) from the uniform one, by quadrature.
    for n in (2, 16):
        u = (np.arange(200_000) + 0.5) / 200_000
        density = n * u ** (n - 1)
        assert divergence_bound(n) == pytest.approx(float((density * np.log(density)).mean()), abs=1e-4)


def test_limit_no_divergence_no_gain_and_no_fall_no_peak():
    law = daa_overoptimisation_laws([0.0, -1e-3, 1.0, 4.0], [0.0, 0.0, 1.0, 2.0])
    assert law.at([0.0]).tolist() == [0]
    assert law.beta == pytest.approx(0, abs=1e-12)
    assert Law("log", 1.0, -0.1, 0, 1).peak == (math.inf, math.inf)
    assert divergence_bound(1) == 0


def test_limit_one_node_with_all_features_is_the_table():
    # Features that are an invertible map of the table's change the steps and not the fixed points of IPO.
    rng = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=rng, dtype=torch.float64))[0]
    runs = [
        tree_run(ipo(0.3), [0, 7], [8, 2], each, 3, 2, 60, 0.2) for each in (torch.eye(4, dtype=torch.float64), turn)
    ]
    for one, other in zip(*runs, strict=True):
        torch.testing.assert_close(one, other)


def test_contrast_shared_features_lead_to_paths_that_nobody_compared():
    # One comparison, three choices, depth 4. A table moves most probability to the chosen path; one feature shared by
    # all 40 nodes moves it to paths that nobody compared, and the chosen path ends below where it began (1 / 81),
    # though DPO's margin grows in both.
    size = nodes(4, 3)
    shared = torch.randn(size, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    table = tree_run(dpo(0.1), [5], [70], torch.eye(size, dtype=torch.float64), 3, 4, 200, 10.0)
    narrow = tree_run(dpo(0.1), [5], [70], shared, 3, 4, 200, 4.0)
    assert float(table.chosen[-1]) > 0.7
    assert float(table.others[-1]) < 0.3
    assert float(narrow.others[-1]) > 0.95
    assert float(narrow.chosen[-1]) < 1 / 81
    for run in (table, narrow):
        assert float(run.chosen[-1] / run.rejected[-1]) > 10
        torch.testing.assert_close(run.chosen + run.rejected + run.others, torch.ones(201, dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: daa_overoptimisation_laws([1.0, 2.0], [1.0, 2.0]), "3 numbers"),
        (lambda: daa_overoptimisation_laws(np.ones((3, 2)), np.ones((3, 2))), "3 numbers"),
        (lambda: daa_overoptimisation_laws([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0]), "3 numbers"),
        (lambda: daa_overoptimisation_laws([1.0, 2.0, math.nan], [1.0, 2.0, 3.0]), "finite"),
        (lambda: daa_overoptimisation_laws([1.0, 2.0, 3.0], [1.0, math.inf, 3.0]), "finite"),
        (lambda: daa_overoptimisation_laws(KL, GAIN, form="cubic"), "form"),  # type: ignore[arg-type]
        (lambda: divergence_bound(0.5), "n must"),
        (lambda: tree_run(dpo(0.1), [0], [1], torch.eye(3), 2, 3, 1, 0.1), "7 nodes"),
    ],
)
def test_wrong_arguments(call, word):
    with pytest.raises(ValueError, match=word):
        call()
