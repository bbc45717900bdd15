"""Ridge regression one row at a time agrees with NumPy's linear algebra."""

import numpy as np

from backchannel.parts.least_squares import (
    grow_factor,
    grow_inverse,
    invert,
    quadratic,
    solve_lower,
    solve_lower_transposed,
)


def test_inverse_and_determinant_grow_as_the_matrix_does():
    rng = np.random.default_rng(0)
    matrix, inverse, scratch, log_det = 2.0 * np.eye(5), np.eye(5) / 2, np.zeros(5), 5 * np.log(2)
    for x in rng.standard_normal((40, 5)):
        expected = x @ inverse @ x
        np.testing.assert_allclose(quadratic(inverse, x), expected, rtol=1e-10)
        q = grow_inverse(inverse, x, scratch)
        np.testing.assert_allclose(q, expected, rtol=1e-10)
        matrix += np.outer(x, x)
        log_det += np.log1p(q)
    np.testing.assert_allclose(inverse, np.linalg.inv(matrix), rtol=1e-9)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(matrix)[1], rtol=1e-10)


def test_factor_grows_as_the_matrix_does_and_solves():
    rng = np.random.default_rng(1)
    matrix, factor, scratch = 0.5 * np.eye(6), np.sqrt(0.5) * np.eye(6), np.zeros(6)
    for x in rng.standard_normal((40, 6)):
        grow_factor(factor, x, scratch)
        matrix += np.outer(x, x)
    np.testing.assert_allclose(factor, np.linalg.cholesky(matrix), rtol=1e-9, atol=1e-12)
    b = rng.standard_normal(6)
    lower, upper = np.zeros(6), np.zeros(6)
    solve_lower(factor, b, lower)
    np.testing.assert_allclose(factor @ lower, b, atol=1e-12)
    solve_lower_transposed(factor, b, upper)
    np.testing.assert_allclose(factor.T @ upper, b, atol=1e-12)


def test_invert_is_numpys_inverse():
    root = np.random.default_rng(2).standard_normal((7, 7))
    matrix, out = root @ root.T + np.eye(7), np.zeros((7, 7))
    invert(matrix, out)
    np.testing.assert_allclose(out @ matrix, np.eye(7), atol=1e-10)
    np.testing.assert_allclose(out, out.T, rtol=1e-9)


def test_factor_stays_exact_over_many_nearly_parallel_rows():
    # 200,000 rows close to one direction: the condition number passes 10^8.
    rng = np.random.default_rng(3)
    matrix, factor, scratch = np.eye(3), np.eye(3), np.zeros(3)
    rows = np.array([1.0, 1.0, 1.0]) + 1e-3 * rng.standard_normal((200_000, 3))
    for x in rows:
        grow_factor(factor, x, scratch)
    matrix += rows.T @ rows
    np.testing.assert_allclose(factor @ factor.T, matrix, rtol=1e-11)
