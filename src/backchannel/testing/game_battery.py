"""The battery of solvers: what must hold for every method of preference games. Public, for methods of one's own:

    from backchannel.card import Method
    from backchannel.testing.game_battery import GAME_CHECKS

    @pytest.mark.parametrize("check", GAME_CHECKS, ids=lambda check: check.__name__)
    def test_my_solver(check):
        check(Method("my_solver", "games", my_module.CARD, my_module))

A check raises AssertionError. Nothing is left to luck.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backchannel.card import Method
from backchannel.parts.nash import averages, even, exploitability, normalised, solve
from backchannel.tasks.preference_matrices import games
from backchannel.testing.battery import check_card

Check = Callable[[Method], None]
ACTIONS, STEPS = 5, 60


def check_policies(method: Method) -> None:
    """Every step returns logarithms of probabilities, begins where it is told and changes no argument."""
    solver, matrix = method.example(), games("random", ACTIONS, 3, seed=0)
    reference, start = _policies(3, seed=1), _policies(3, seed=2)
    kept = [matrix.copy(), reference.copy(), start.copy()]
    policies = solve(solver, matrix, reference, STEPS, start)
    assert policies.shape == (STEPS + 1, 3, ACTIONS), f"{method.key}: policies of the shape {policies.shape}"
    np.testing.assert_allclose(np.exp(policies).sum(-1), 1, rtol=1e-12, err_msg=f"{method.key}: not normalised")
    np.testing.assert_array_equal(policies[0], start)
    for before, after in zip(kept, (matrix, reference, start), strict=True):
        np.testing.assert_array_equal(before, after, err_msg=f"{method.key}: a step changed its arguments")
    assert isinstance(solver.queries, int)
    assert solver.queries >= 1


def check_games_are_independent(method: Method) -> None:
    """A game alone, and among others, has the same policies."""
    matrix, reference = games("mixture", ACTIONS, 4, seed=3), _policies(4, seed=4)
    together = solve(method.example(), matrix, reference, STEPS)
    for i in range(4):
        alone = solve(method.example(), matrix[i], reference[i], STEPS)
        np.testing.assert_allclose(together[:, i], alone, rtol=1e-9, atol=1e-9, err_msg=method.key)


def check_names_do_not_matter(method: Method) -> None:
    """With the answers in another order the policies are the same, in that order."""
    matrix, reference = games("cyclic", ACTIONS, 1, seed=5)[0], _policies(1, seed=6)[0]
    order = np.array([3, 0, 4, 1, 2])
    one = solve(method.example(), matrix, reference, STEPS)
    other = solve(method.example(), matrix[np.ix_(order, order)], reference[order], STEPS)
    np.testing.assert_allclose(other, one[:, order], rtol=1e-8, atol=1e-8, err_msg=method.key)


def check_better_answers_gain(method: Method) -> None:
    """Where one answer beats all others, it becomes more likely; and nothing is preferred where nothing is better."""
    best = np.full((ACTIONS, ACTIONS), 0.5)
    best[2], best[:, 2], best[2, 2] = 0.9, 0.1, 0.5
    policies = solve(method.example(), best, even(ACTIONS), STEPS)
    assert policies[1, 2] > policies[0, 2], f"{method.key}: the first step is not towards the better answer"
    assert policies[-1].argmax() == 2
    indifferent = solve(method.example(), np.full((ACTIONS, ACTIONS), 0.5), even(ACTIONS), STEPS)
    np.testing.assert_allclose(indifferent, indifferent[0][None].repeat(STEPS + 1, 0), atol=1e-9)


def check_harder_to_beat(method: Method) -> None:
    """In games with cycles the mean of the policies is less exploitable than a bad one that they began with."""
    matrix = games("cyclic", ACTIONS, 6, seed=7)
    means = averages(solve(method.example(), matrix, even(6, ACTIONS), STEPS, _policies(6, seed=8)))
    first, last = (exploitability(matrix, np.log(each)).mean() for each in (means[0], means[-1]))
    assert last < 0.7 * first, f"{method.key}: exploitability {last:.3f} after {first:.3f}"


GAME_CHECKS: tuple[Check, ...] = (
    check_card,
    check_policies,
    check_games_are_independent,
    check_names_do_not_matter,
    check_better_answers_gain,
    check_harder_to_beat,
)


def _policies(count: int, seed: int) -> np.ndarray:
    return normalised(np.random.default_rng(seed).standard_normal((count, ACTIONS)))
