"""Logistic regression and its errors."""

import numpy as np
import pytest
from scipy.optimize import minimize

from backchannel.parts.logit import logit


def made(n=400, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    return x, (rng.random(n) < 1 / (1 + np.exp(-x @ [0.3, -1.0, 0.5]))).astype(float)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_it_is_the_maximum(ridge):
    x, y = made()
    found = logit(x, y, ridge=ridge)

    def loss(theta):
        return np.logaddexp(0, np.where(y, -1, 1) * (x @ theta)).mean() + ridge * theta @ theta / 2

    best = minimize(loss, np.zeros(3), tol=1e-12)
    np.testing.assert_allclose(found.theta, best.x, atol=1e-5)
    assert -found.log_likelihood + ridge * found.theta @ found.theta / 2 == pytest.approx(best.fun, abs=1e-9)


def test_errors_of_rows_and_of_clusters_by_hand():
    x, y = made(60)
    found = logit(x, y)
    p = 1 / (1 + np.exp(-x @ found.theta))
    bread = np.linalg.inv(sum(p[i] * (1 - p[i]) * np.outer(x[i], x[i]) for i in range(60)))
    meat = sum((y[i] - p[i]) ** 2 * np.outer(x[i], x[i]) for i in range(60))
    np.testing.assert_allclose(found.error, np.sqrt(np.diag(bread @ meat @ bread)), rtol=1e-8)
    cluster = np.arange(60) // 3
    sums = [((y - p)[cluster == c, None] * x[cluster == c]).sum(0) for c in range(20)]
    together = logit(x, y, clusters=cluster)
    expected = np.sqrt(np.diag(bread @ sum(np.outer(s, s) for s in sums) @ bread))
    np.testing.assert_allclose(together.error, expected, rtol=1e-8)


def test_a_share_is_as_many_votes():
    x, y = made(50)
    twice = logit(np.concatenate([x] * 4), np.concatenate([y, y, y, 1 - y]))
    np.testing.assert_allclose(logit(x, 0.25 + 0.5 * y).theta, twice.theta, atol=1e-8)


def test_no_finite_fit_is_refused():
    x = np.array([[1.0], [2.0], [-1.0]])
    with pytest.raises(ValueError, match="no finite fit"):
        logit(x, np.array([1.0, 1.0, 0.0]))
    assert np.isfinite(logit(x, np.array([1.0, 1.0, 0.0]), ridge=0.1).theta).all()
