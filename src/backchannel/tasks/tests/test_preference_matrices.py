"""Preference matrices: what each kind is, and that a seed makes one game."""

import numpy as np
import pytest

from backchannel.parts.preferences import checked_preferences, condorcet_winner, strongly_transitive, total_order
from backchannel.tasks.preference_matrices import (
    GAMES,
    bradley_terry_game,
    cyclic_game,
    games,
    mixture_game,
    random_game,
    rock_paper_scissors,
)


@pytest.mark.parametrize("name", GAMES)
def test_every_game_is_a_preference_matrix_of_its_seed(name):
    some = games(name, 7, 3, seed=5)
    for each in some:
        checked_preferences(each)
    np.testing.assert_array_equal(some, games(name, 7, 3, seed=5))
    assert not np.array_equal(some[0], some[1])
    assert not np.array_equal(some, games(name, 7, 3, seed=6))


def test_random_entries_are_uniform():
    # Mean 1/2 and variance 1/12 of 79,800 entries: their standard errors are 0.0011 and 0.0003; 5 of each.
    above = random_game(400, seed=1)[np.triu_indices(400, 1)]
    assert above.mean() == pytest.approx(0.5, abs=0.0055)
    assert above.var() == pytest.approx(1 / 12, abs=0.0015)


def test_circles_have_no_order_and_utilities_have_one():
    for seed in range(5):
        circle = cyclic_game(7, seed)
        np.testing.assert_array_equal((circle > 0.5).sum(0), 3)  # everyone is beaten by three
        assert (np.abs(circle - 0.5)[~np.eye(7, dtype=bool)] >= 0.1).all()
        assert condorcet_winner(circle) is None
        assert strongly_transitive(bradley_terry_game(7, seed))
    np.testing.assert_array_equal(rock_paper_scissors(), [[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]])


def test_transitive_judges_may_vote_in_circles():
    # Condorcet's paradox: some of the crowds have no total order, though each judge has.
    orders = [total_order(mixture_game(6, seed)) for seed in range(30)]
    assert any(order is None for order in orders)
    logit = np.log(mixture_game(4, 0, judges=1) / (1 - mixture_game(4, 0, judges=1)))
    np.testing.assert_allclose(logit[0, 1] + logit[1, 2], logit[0, 2], rtol=1e-9)


def test_wrong_names():
    with pytest.raises(ValueError, match="'chess'"):
        games("chess", 3, 1, 0)
