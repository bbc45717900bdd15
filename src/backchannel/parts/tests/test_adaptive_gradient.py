"""The gradient step: by hand, free of units, and never past its target."""

import numpy as np
import pytest

from backchannel.parts.adaptive_gradient import (
    empty_table,
    learn_logistic,
    learn_squared,
    margin_of,
    sigmoid,
)
from backchannel.parts.sparse import Sparse


def one_option(index, value):
    return Sparse(np.array([0, len(index)]), np.array(index, np.int64), np.array(value, float))


def by_hand(examples, step, slope_of, solve, size=8):
    """The equations of the module's docstring, with dense vectors."""
    w, squares, scale = np.zeros(size), np.zeros(size), np.zeros(size)
    t = n = 0.0
    for index, value, target in examples:
        x = np.zeros(size)
        x[index] = value
        grown = abs(x) > scale
        w[grown] *= scale[grown] / abs(x[grown])
        scale = np.maximum(scale, abs(x))
        used = x != 0
        t, n = t + 1, n + ((x[used] / scale[used]) ** 2).sum()
        margin = w @ x
        slope = slope_of(margin, target)
        squares += (slope * x) ** 2
        rate = np.zeros(size)
        rate[used] = step * np.sqrt(t / n) / (scale[used] * np.sqrt(squares[used]))
        reach = (rate * x * x).sum()
        w -= rate * x * slope_of(solve(margin, target, reach), target)
    return w


EXAMPLES = [
    ([0, 3], [1.0, -2.0], 1.0),
    ([0, 5], [1.0, 0.5], 0.0),
    ([3, 5], [-6.0, 0.1], 0.25),
    ([0, 3, 7], [2.0, 1.0, 3.0], 1.0),
    ([0, 7], [1.0, 1.0], 0.0),
]


def root(margin, target, reach):
    """u + reach (sigma(u) - target) = margin, by bisection."""
    low, high = margin - reach, margin + reach
    for _ in range(200):
        u = (low + high) / 2
        low, high = (low, u) if u + reach * (1 / (1 + np.exp(-u)) - target) > margin else (u, high)
    return u


@pytest.mark.parametrize(
    ("learn", "slope_of", "solve"),
    [
        (learn_squared, lambda m, y: m - y, lambda m, y, r: (m + r * y) / (1 + r)),
        (learn_logistic, lambda m, y: 1 / (1 + np.exp(-m)) - y, root),
    ],
)
def test_five_steps_by_hand(learn, slope_of, solve):
    table, clock = empty_table(3), np.zeros(2)
    for index, value, target in EXAMPLES:
        learn(table, clock, one_option(index, value), 0, target, 0.7)
    np.testing.assert_allclose(table[:, 0], by_hand(EXAMPLES, 0.7, slope_of, solve), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("learn", [learn_squared, learn_logistic])
def test_units_do_not_matter(learn):
    rng, units = np.random.default_rng(0), np.array([1.0, 1e-3, 50.0, 1e4])
    plain, scaled = (empty_table(2), np.zeros(2)), (empty_table(2), np.zeros(2))
    for _ in range(200):
        x, target = rng.standard_normal(4), float(rng.random() < 0.5)
        learn(*plain, one_option(range(4), x), 0, target, 0.5)
        learn(*scaled, one_option(range(4), x * units), 0, target, 0.5)
    np.testing.assert_allclose(scaled[0][:, 0] * units, plain[0][:, 0], rtol=1e-6)


@pytest.mark.parametrize(("learn", "link"), [(learn_squared, float), (learn_logistic, sigmoid)])
@pytest.mark.parametrize("step", [0.01, 0.5, 1e6])
def test_no_step_size_overshoots(learn, link, step):
    rng, table, clock = np.random.default_rng(1), empty_table(4), np.zeros(2)
    for _ in range(100):  # values of one size: a new scale would change the model before the step
        example, target = one_option(rng.choice(16, 5, False), rng.choice([-2.0, 2.0], 5)), rng.random()
        before = link(margin_of(table, example, 0))
        learn(table, clock, example, 0, target, step)
        after = link(margin_of(table, example, 0))
        assert min(before, target) - 1e-9 <= after <= max(before, target) + 1e-9


def test_nothing_to_learn_changes_no_weight():
    table, clock = empty_table(2), np.zeros(2)
    learn_squared(table, clock, one_option([], []), 0, 1.0, 0.5)  # no features
    learn_squared(table, clock, one_option([1], [0.0]), 0, 1.0, 0.5)  # a feature of value 0
    learn_squared(table, clock, one_option([1], [2.0]), 0, 0.0, 0.5)  # a prediction that is right
    np.testing.assert_array_equal(table[:, [0, 1, 3]], 0.0)


def test_regression_finds_the_truth():
    # 20,000 examples of a linear model with noise 0.1: root mean square error below 0.02, a fiftieth of the signal.
    rng, table, clock = np.random.default_rng(2), empty_table(3), np.zeros(2)
    truth = rng.standard_normal(8)
    for _ in range(20_000):
        x = rng.standard_normal(8)
        learn_squared(table, clock, one_option(range(8), x), 0, truth @ x + rng.uniform(-0.1, 0.1), 0.5)
    assert np.sqrt(np.mean((table[:, 0] - truth) ** 2)) < 0.02


@pytest.mark.parametrize("bits", [0, 31])
def test_wrong_bits_are_named(bits):
    with pytest.raises(ValueError, match="bits"):
        empty_table(bits)
