"""Logistic regression by Newton's method, with standard errors that hold where rows hang together.

P(y = 1 | x) = sigmoid(x . theta). With residuals r = y - P and information H = sum P (1 - P) x x', a step is
theta <- theta + H^-1 sum r x, and the errors are those of H^-1 (sum_c s_c s_c') H^-1 with s_c the sum of r x over the
rows of one cluster (each row on its own unless told otherwise).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Logit(NamedTuple):
    """Coefficients, their covariance, and the mean log-likelihood of a row."""

    theta: np.ndarray
    covariance: np.ndarray  # of the coefficients
    log_likelihood: float

    @property
    def error(self) -> np.ndarray:
        """Standard errors."""
        return np.sqrt(np.diag(self.covariance))


def logit(x: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None, ridge: float = 0.0) -> Logit:
    """Fit; `y` may be a share in [0, 1].

    Args:
        ridge: of the penalty ridge |theta|^2 / 2 on the mean; 0 needs classes that overlap.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    theta, n = np.zeros(x.shape[1]), len(x)
    for _ in range(100):
        p = _sigmoid(x @ theta)
        gradient = x.T @ (y - p) - n * ridge * theta
        information = (x * (p * (1 - p))[:, None]).T @ x + n * ridge * np.eye(theta.size)
        if not np.linalg.cond(information) < 1e12:
            raise ValueError("the classes do not overlap, or columns are the same: there is no finite fit")
        step = np.linalg.solve(information, gradient)
        theta = theta + step * min(1.0, 4 / max(float(np.abs(x @ step).max()), 1e-300))
        if float(np.abs(x @ step).max()) < 1e-9:
            break
    else:
        raise ValueError("the classes do not overlap: there is no finite fit")
    scores = x * (y - _sigmoid(x @ theta))[:, None]
    if clusters is not None:
        _, number = np.unique(clusters, return_inverse=True)
        scores = np.stack([np.bincount(number, column) for column in scores.T], axis=1)
    bread = np.linalg.inv(information)
    margin = x @ theta
    mean = -float((y * np.logaddexp(0, -margin) + (1 - y) * np.logaddexp(0, margin)).mean())
    return Logit(theta, bread @ (scores.T @ scores) @ bread, mean)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
