"""Nash-MP: the Nash equilibrium of a regularised preference game at a linear rate, by looking one step ahead.

A proximal step against one's present self goes around the equilibrium. Mirror Prox takes such a step only to see
where it leads, and then steps from where it stood against the policy found there. With a price beta for leaving the
reference the divergence to the equilibrium falls by 1 + 2 beta every time, whatever the number of answers.

Equations (Tiapkin et al. 2025), with the game of `parts.nash`, price beta, reference mu and step eta:

    p_{k+1/2} = argmin_p  P(p_k > p) / beta + KL(p, mu) + KL(p, p_k) / eta                        (1)
    p_{k+1}   = argmin_p  P(p_{k+1/2} > p) / beta + KL(p, mu) + KL(p, p_k) / eta                  (2)

whose minimiser, against an opponent q, is

    p(a) proportional to (p_k(a) mu(a)^eta exp(eta P(a > q) / beta))^(1 / (1 + eta))              (3)

Each of the two asks one query: the win rates against one policy. For every eta <= 2 beta and N queries

    KL(p*, p_{N/2}) <= (1 + eta)^(-N/2) KL(p*, p_0)                                               (4)

Proof. The three-point inequality of (1) at u = p_{k+1} and of (2) at u = p* add up to

    0 <= [KL(p*, p_k) - (1 + eta) (KL(p*, p_{k+1}) + KL(p_{k+1}, p_{k+1/2})) - KL(p_{k+1/2}, p_k)] / eta + C / beta

where 0 on the left is what nobody gains against p*, and C = (p_k - p_{k+1/2})' P (p_{k+1/2} - p_{k+1}), up to its sign.
Entries of P - 1/2 are at most 1/2; by Pinsker's inequality |C| <= (KL(p_{k+1/2}, p_k) + KL(p_{k+1}, p_{k+1/2})) / 2,
which the bracket swallows as long as 1 / (2 beta) <= 1 / eta. The default is eta = 2 beta. The proof needs the worst
game: where margins are small, or p* is spread over many answers, larger steps converge as well, and faster.

Steps: a proximal step against oneself; the same step again, from the same place, against where it led.

`sampled` replaces each proximal step by stochastic policy gradients on its objective, from single comparisons: the
paper's approximate version, in miniature.

Deviations: `sampled` has exact divergences in its objective's gradient, since a table has them, and draws win or loss
alone; its preconditioner (steps divided by the probability) is ours. The paper's variant for language models, which
replaces the second prox-centre by a moving average of parameters, is not part of this file.

    >>> import numpy as np
    >>> from backchannel.games.nash_mp import nash_mp
    >>> from backchannel.parts.nash import divergence, even, nash, solve
    >>> from backchannel.tasks.preference_matrices import random_game
    >>> game, reference = random_game(50, seed=1), even(50)
    >>> policies = solve(nash_mp(beta=0.1), game, reference, 100)
    >>> bool(divergence(nash(game, reference, 0.1), policies[-1]) < 1.2**-100)
    True

References: tiapkin2025accelerating, nemirovski2004prox.
"""

from __future__ import annotations

import numpy as np

from backchannel.card import Card
from backchannel.parts.nash import Solver, normalised, win_rates

CARD = Card(
    name="Nash-MP",
    summary="Preference games: a linear rate that does not depend on the number of answers, by Mirror Prox.",
    paper="tiapkin2025accelerating",
    row=41,
    topics=("preference games", "mirror descent", "variational inequalities"),
    feedback=("win rates",),
    protocol="solver",
    engine="none",
    neighbour="nash_md",
    example={"beta": 0.2},
    first=True,
)


def nash_mp(beta: float, step_size: float | None = None) -> Solver:
    """Nash Mirror Prox with exact proximal steps.

    Args:
        beta: the price of leaving the reference, positive.
        step_size: eta; default 2 beta, the largest for which (4) is proved.
    """
    eta = _checked(beta, step_size)

    def step(matrix: np.ndarray, log_reference: np.ndarray, log_policy: np.ndarray, t: int) -> np.ndarray:
        ahead = _proximal(log_policy, log_reference, win_rates(matrix, log_policy), eta, beta)  # (1)
        return _proximal(log_policy, log_reference, win_rates(matrix, ahead), eta, beta)  # (2)

    return Solver(step, queries=2)


def divergence_bound(beta: float, queries: int | np.ndarray, first: float | np.ndarray) -> float | np.ndarray:
    """(4) with eta = 2 beta: KL(p*, .) after `queries`, an even number, if it was `first` at the start."""
    return first * (1 + 2 * beta) ** (-queries / 2)


def sampled(
    beta: float,
    inner: int,
    batch: int,
    learning_rate: float,
    seed: int = 0,
    step_size: float | None = None,
) -> Solver:
    """Nash Mirror Prox whose proximal steps are each `inner` steps of policy gradient on `batch` comparisons.

    Args:
        learning_rate: of the gradient in the logits, in units of the proximal objective, whose curvature is
            1 + 1 / eta: at most 1.
        seed: draws answers and winners; the solver's luck goes on from step to step.
    """
    eta, rng = _checked(beta, step_size), np.random.default_rng(seed)
    rate = learning_rate / (1 + 1 / eta)

    def proximal(matrix: np.ndarray, log_reference: np.ndarray, centre: np.ndarray, opponent: np.ndarray) -> np.ndarray:
        logits = centre
        for _ in range(inner):
            rates = _estimated_rates(matrix, logits, opponent, batch, rng)
            slope = rates / beta - (logits - log_reference) - (logits - centre) / eta
            logits = normalised(logits + rate * slope)
        return logits

    def step(matrix: np.ndarray, log_reference: np.ndarray, log_policy: np.ndarray, t: int) -> np.ndarray:
        ahead = proximal(matrix, log_reference, log_policy, log_policy)
        return proximal(matrix, log_reference, log_policy, ahead)

    return Solver(step, queries=2 * inner * batch)


def _checked(beta: float, step_size: float | None) -> float:
    if not beta > 0:
        raise ValueError(f"beta must be positive, not {beta}")
    if step_size is not None and not step_size > 0:
        raise ValueError(f"step_size must be positive, not {step_size}")
    return 2 * beta if step_size is None else step_size


def _proximal(centre: np.ndarray, log_reference: np.ndarray, rates: np.ndarray, eta: float, beta: float) -> np.ndarray:
    return normalised((centre + eta * log_reference + eta / beta * rates) / (1 + eta))  # (3)


def _estimated_rates(
    matrix: np.ndarray, log_policy: np.ndarray, log_opponent: np.ndarray, batch: int, rng: np.random.Generator
) -> np.ndarray:
    """Unbiased estimates of P(a > opponent) - 1/2: wins less 1/2 of the draws of a, divided by their probability."""
    mine, theirs = _draw(log_policy, batch, rng), _draw(log_opponent, batch, rng)
    games = np.indices(mine.shape)[0]
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    won = rng.random(mine.shape) < flat[games, mine, theirs]
    out = np.zeros((len(flat), matrix.shape[-1]))
    np.add.at(out, (games, mine), won - 0.5)
    return out.reshape(log_policy.shape) / (batch * np.exp(log_policy))


def _draw(log_policy: np.ndarray, batch: int, rng: np.random.Generator) -> np.ndarray:
    edges = np.exp(log_policy).reshape(-1, log_policy.shape[-1]).cumsum(-1)
    return (rng.random((len(edges), batch, 1)) * edges[:, None, -1:] > edges[:, None, :]).sum(-1)
