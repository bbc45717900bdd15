"""Nash-MD: the Nash equilibrium of a preference game by playing against oneself, a little nearer to the reference.

A judge whose preferences run in circles has no reward. Nash learning looks instead for the policy that nothing beats,
less a price for leaving a reference. A policy that improves against itself goes around in circles as well; Nash-MD
improves against a geometric mixture of itself and the reference, and its last policy converges.

Equations (Munos et al. 2024, section 6), with the game of `parts.nash`, price tau and reference mu:

    m_t(a) = p_t(a)^(1 - eta_t tau) mu(a)^(eta_t tau) / Z_t                                       (1)
    p_{t+1}(a) = m_t(a) exp(eta_t P(a > m_t)) / Z'_t,   eta_t = 2 / (tau (t + 2))                 (2)

Let p* be the equilibrium. By (2) and Hoeffding's lemma, since win rates have range at most 1,

    KL(p*, p_{t+1}) <= KL(p*, m_t) - eta_t (P(p* > m_t) - 1/2) + eta_t^2 / 8

and by (1) KL(p*, m_t) <= (1 - eta_t tau) KL(p*, p_t) + eta_t tau (KL(p*, mu) - KL(m_t, mu)). Nobody beats p*, so that
P(p* > m_t) - 1/2 >= tau (KL(p*, mu) - KL(m_t, mu)), and the terms with mu cancel:

    KL(p*, p_{t+1}) <= (1 - eta_t tau) KL(p*, p_t) + eta_t^2 / 8,   hence   KL(p*, p_T) <= 1 / (2 tau^2 (T + 1)) (3)

for T >= 1, by induction; as eta_0 tau = 1, the first policy does not matter. The paper bounds the last term by
2 eta_t^2, and so has 8 in the place of 1 / 2: both are true (`divergence_bound`).

For a policy with parameters, the gradient at theta, with y drawn from p_theta and y' from an opponent q, is the mean of

    (1{y beats y'} - 1/2 - tau log(p_theta(y) / mu(y))) grad log p_theta(y)                       (4)

Nash-MD-PG plays against the mixture (1) with a fixed weight, Nash-EMA-PG against the policy whose parameters are
an exponential moving average; a weight of 0 is self-play, a weight of 1 the best answer to the reference.
`policy_gradient` is the mean in closed form for softmax policies, `gradient_estimate` one draw.

Steps: mix; ask the win rates against the mixture; one exponential step from the mixture.

Deviations: the bound's constant, as above. (4) is for actions; for text the paper mixes token by token, which is not
the mixture of whole answers. So does the claim on a tiny transformer, with the mean of the other answers to a prompt in
the place of 1/2, which changes no expected gradient; this file holds no language model.

    >>> import numpy as np
    >>> from backchannel.games.nash_md import nash_md
    >>> from backchannel.parts.nash import divergence, even, nash, solve
    >>> from backchannel.tasks.preference_matrices import rock_paper_scissors
    >>> start, reference = np.log([0.8, 0.1, 0.1]), np.log([0.6, 0.2, 0.2])
    >>> policies = solve(nash_md(tau=0.2), rock_paper_scissors(), reference, 1000, start)
    >>> bool(divergence(nash(rock_paper_scissors(), reference, 0.2), policies[-1]) < 1e-3)
    True

References: munos2024nash.
"""

from __future__ import annotations

import numpy as np

from backchannel.card import Card
from backchannel.parts.nash import Solver, geometric_mixture, normalised, win_rates

CARD = Card(
    name="Nash-MD",
    summary="Preference games: improve against a mixture of oneself and the reference; the last policy converges.",
    paper="munos2024nash",
    row=129,
    topics=("preference games", "mirror descent"),
    feedback=("win rates",),
    protocol="solver",
    engine="none",
    neighbour="selfplay_spo",
    example={"tau": 0.2},
    strength="simple",
)


def nash_md(tau: float, step_size: float | None = None) -> Solver:
    """Nash-MD.

    Args:
        tau: the price of leaving the reference, positive.
        step_size: a constant eta with eta tau <= 1; default 2 / (tau (t + 2)). A constant one stops near the
            equilibrium, not at it.
    """
    if not tau > 0:
        raise ValueError(f"tau must be positive, not {tau}")
    if step_size is not None and not 0 < step_size * tau <= 1:
        raise ValueError(f"step_size must lie in (0, 1 / tau], not {step_size}")

    def step(matrix: np.ndarray, log_reference: np.ndarray, log_policy: np.ndarray, t: int) -> np.ndarray:
        eta = 2 / (tau * (t + 2)) if step_size is None else step_size
        mixed = geometric_mixture(log_policy, log_reference, eta * tau)  # (1)
        return normalised(mixed + eta * win_rates(matrix, mixed))  # (2)

    return Solver(step, queries=1)


def divergence_bound(tau: float, steps: int | np.ndarray) -> float | np.ndarray:
    """(3): KL(p*, p_T) after T = `steps` >= 1 steps is at most 1 / (2 tau^2 (T + 1)); the paper's is 16 times that."""
    return 1 / (2 * tau**2 * (steps + 1))


def policy_gradient(
    matrix: np.ndarray, log_reference: np.ndarray, log_policy: np.ndarray, log_opponent: np.ndarray, tau: float
) -> np.ndarray:
    """The mean of (4) for a softmax policy, in its logits: [..., actions].

    Args:
        log_opponent: Nash-MD-PG: `geometric_mixture(log_policy, log_reference, weight)`; Nash-EMA-PG: the policy of the
            averaged logits.
    """
    p = np.exp(log_policy)
    scores = win_rates(matrix, log_opponent) - 0.5 - tau * (log_policy - log_reference)
    gradient: np.ndarray = p * (scores - (p * scores).sum(-1, keepdims=True))
    return gradient


def gradient_estimate(
    won: float, action: int, log_reference: np.ndarray, log_policy: np.ndarray, tau: float
) -> np.ndarray:
    """(4) for one draw: `action` was drawn from the policy and `won` (1 or 0) against the opponent's: [actions]."""
    score = won - 0.5 - tau * (log_policy[action] - log_reference[action])
    towards: np.ndarray = (np.arange(len(log_policy)) == action) - np.exp(log_policy)
    return score * towards
