"""Feedback graphs: the helpers that learners share."""

import numpy as np
import pytest

from backchannel.parts.feedback_graph import checked_edges, independent_set, neighbour_lists


def test_lists_say_what_the_matrix_says():
    edges = (np.random.default_rng(0).random((7, 7)) < 0.4) | np.eye(7, dtype=bool)
    start, revealed = neighbour_lists(edges)
    for arm in range(7):
        np.testing.assert_array_equal(revealed[start[arm] : start[arm + 1]], np.flatnonzero(edges[arm]))


def test_independent_sets_are_independent_maximal_and_largest_where_promised():
    star = np.eye(9, dtype=bool)
    star[0, :] = star[:, 0] = True
    path = np.eye(8, dtype=bool) | np.eye(8, k=1, dtype=bool)
    cliques = np.kron(np.eye(3, dtype=bool), np.ones((4, 4), bool))
    for edges, size in ((star, 8), (path, 4), (cliques, 3), (np.eye(5, dtype=bool), 5)):
        assert independent_set(edges).sum() == size
    for seed in range(20):
        edges = (np.random.default_rng(seed).random((9, 9)) < 0.3) | np.eye(9, dtype=bool)
        chosen, linked = independent_set(edges), edges | edges.T
        assert (linked[np.ix_(chosen, chosen)] == np.eye(chosen.sum(), dtype=bool)).all()
        assert linked[chosen].any(axis=0).all()


def test_graphs_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="square"):
        checked_edges(np.ones((2, 3)))
    with pytest.raises(ValueError, match="arm 1 does not"):
        checked_edges([[1, 0], [1, 0]])
