"""Feedback graphs: `edges[a, b]` says that choosing a reveals the loss of b. What every learner on a graph needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Edges = np.ndarray | Sequence[Sequence[float]]


def checked_edges(edges: Edges) -> np.ndarray:
    """`edges` as bool[arms, arms]; ValueError unless it is square and every arm reveals its own loss."""
    matrix = np.asarray(edges, bool)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"edges must be a square matrix, arms x arms; got shape {matrix.shape}")
    if not matrix.diagonal().all():
        raise ValueError(f"every arm must reveal its own loss; arm {np.flatnonzero(~matrix.diagonal())[0]} does not")
    return matrix


def neighbour_lists(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(start, revealed): choosing a reveals `revealed[start[a] : start[a + 1]]`."""
    start = np.concatenate([[0], np.cumsum(edges.sum(axis=1))]).astype(np.int64)
    return start, np.nonzero(edges)[1].astype(np.int64)


def independent_set(edges: np.ndarray) -> np.ndarray:
    """A large set of arms of which none reveals another, as bool[arms]: greedily the arm with fewest neighbours left.

    A largest one is hard to find in general; on stars, cliques, paths and their unions the greedy one is largest.
    """
    linked = edges | edges.T
    chosen = np.zeros(len(edges), bool)
    left = np.ones(len(edges), bool)
    while left.any():
        degree = np.where(left, (linked & left).sum(axis=1), len(edges) + 1)
        arm = int(degree.argmin())
        chosen[arm] = True
        left &= ~linked[arm]
    return chosen
