"""Ridge regression one row at a time: what LinUCB, linear Thompson sampling and their kin share.

V = lambda I + sum x x^T. Keep its inverse (`grow_inverse`, Sherman and Morrison 1950) where x^T V^-1 x is needed for
every row, or its Cholesky factor L with V = L L^T (`grow_factor`) where one must draw from N(., V^-1): both cost
O(d^2) a row. The factor's update is made of rotations and stays exact to rounding for any number of rows; the inverse
drifts, slowly, and `invert` makes it anew from V. NumPy's linear algebra needs SciPy inside compiled functions, and
these few loops do not.
"""

from __future__ import annotations

import math

import numpy as np

from backchannel.engine import compiled


@compiled
def quadratic(matrix: np.ndarray, x: np.ndarray) -> float:
    """x^T M x for a symmetric M."""
    total = 0.0
    for i in range(x.shape[0]):
        row = 0.0
        for j in range(i):
            row += matrix[i, j] * x[j]
        total += (2.0 * row + matrix[i, i] * x[i]) * x[i]
    return total


@compiled
def grow_inverse(inverse: np.ndarray, x: np.ndarray, scratch: np.ndarray) -> float:
    """(V + x x^T)^-1 in place of V^-1; returns x^T V^-1 x, by which det V grows: det(V + x x^T) = det V (1 + it)."""
    d = x.shape[0]
    q = 0.0
    for i in range(d):
        scratch[i] = 0.0
        for j in range(d):
            scratch[i] += inverse[i, j] * x[j]
        q += scratch[i] * x[i]
    for i in range(d):
        step = scratch[i] / (1.0 + q)
        for j in range(d):
            inverse[i, j] -= step * scratch[j]
    return q


@compiled
def grow_factor(factor: np.ndarray, x: np.ndarray, scratch: np.ndarray) -> None:
    """The lower Cholesky factor of L L^T + x x^T in place of L (Givens rotations)."""
    d = x.shape[0]
    for i in range(d):
        scratch[i] = x[i]
    for k in range(d):
        diagonal = math.sqrt(factor[k, k] ** 2 + scratch[k] ** 2)
        cosine, sine = factor[k, k] / diagonal, scratch[k] / diagonal
        factor[k, k] = diagonal
        for i in range(k + 1, d):
            entry = factor[i, k]
            factor[i, k] = cosine * entry + sine * scratch[i]
            scratch[i] = cosine * scratch[i] - sine * entry


@compiled
def solve_lower(factor: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """L out = b; `out` may be `b`."""
    for i in range(b.shape[0]):
        total = b[i]
        for j in range(i):
            total -= factor[i, j] * out[j]
        out[i] = total / factor[i, i]


@compiled
def solve_lower_transposed(factor: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """L^T out = b; `out` may be `b`."""
    d = b.shape[0]
    for i in range(d - 1, -1, -1):
        total = b[i]
        for j in range(i + 1, d):
            total -= factor[j, i] * out[j]
        out[i] = total / factor[i, i]


@compiled
def invert(matrix: np.ndarray, out: np.ndarray) -> None:
    """The inverse of a symmetric positive definite matrix, through its Cholesky factor."""
    d = matrix.shape[0]
    factor = np.zeros((d, d))
    for i in range(d):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            factor[i, j] = math.sqrt(total) if i == j else total / factor[j, j]
    column = np.zeros(d)
    for k in range(d):
        column[:] = 0.0
        column[k] = 1.0
        solve_lower(factor, column, column)
        solve_lower_transposed(factor, column, column)
        out[:, k] = column
