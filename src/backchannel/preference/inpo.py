"""INPO: play against oneself by regression on one's own pairs, without ever estimating a win rate.

Towards the Nash equilibrium of a general preference with a price for leaving the reference, mirror descent would ask
how often each answer beats the present policy. INPO needs only who won each pair: it fits differences of
log-probabilities, and an average over pairs makes win rates of single comparisons.

Equations (Zhang et al. 2025), with P, the reference mu and the price tau of `parts.nash`; eta is the price of leaving
the present policy p_t, an inverse step size, eta >= tau:

    p_{t+1}(y) proportional to p_t(y)^(1 - tau / eta) mu(y)^(tau / eta) exp(P(y > p_t) / eta)        (1)
    h(w, l) = log p(w) / p(l) - (tau / eta) log mu(w) / mu(l) - (1 - tau / eta) log p_t(w) / p_t(l)  (2)
    loss = (h(w, l) - 1 / (2 eta))^2,   w chosen over l, both drawn from p_t                         (3)

The mean of (3) over labels is (h - (2 P(w > l) - 1) / (2 eta))^2 plus a constant; over pairs from p_t, its least
squares among differences f(w) - f(l) have f = P(. > p_t) / eta. So p_{t+1} of (1) is its minimiser.

In (2) both references enter as one, the geometric mixture m_t of the reference and the present policy, whose constant
cancels in differences:

    log m_t = (tau / eta) log mu + (1 - tau / eta) log p_t,   h(w, l) = log p(w) / m_t(w) - log p(l) / m_t(l)   (4)

So the batch's reference must be `mixed(...)` of the two, and INPO is the regression of IPO towards 1 / (2 eta), with a
reference that moves. With eta = tau the present policy drops out: online IPO.

Steps: draw pairs from p_t and have them judged; take `mixed` log-probabilities as the reference; minimise (3); the
result is p_{t+1}. `tabular` is (1) itself, a solver for games whose win rates are known.

Deviations: h in (3) is that of (4). Info's margin is h times eta, whose target is 1/2. The paper's pairs on language
models are the best and the worst of several answers; here they are two answers as drawn. `align` learns from given
pairs, with the start as the reference: the first round, in which p_t and mu are the same, if the pairs are the start's.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.inpo import inpo, mixed
    >>> present, start = torch.tensor([-4.0, -5.0]), torch.tensor([-6.0, -5.0])
    >>> reference = mixed(start, present, tau=0.5, eta=1.0)
    >>> reference
    tensor([-5., -5.])
    >>> loss, info = inpo(eta=1.0)(Pairs(present[:1], present[1:], reference[:1], reference[1:]))
    >>> loss, info.margin
    (tensor([0.2500]), tensor([1.]))

References: zhang2025iterative, azar2024general.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.nash import Solver, geometric_mixture, normalised, win_rates
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive

CARD = Card(
    name="INPO",
    summary="Self-play towards the Nash equilibrium of general preferences, by regression on one's own judged pairs.",
    paper="zhang2025iterative",
    row=26,
    topics=("preference optimisation", "preference games", "mirror descent"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"eta": 0.5},
    extras=("torch",),
)


def inpo(eta: float) -> Objective[Pairs]:
    """The loss of INPO on pairs whose reference is `mixed`.

    Args:
        eta: the price of leaving the present policy, positive: an inverse step size.
    """
    positive(eta=eta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, 1.0)  # (4)
        return (h - 1 / (2 * eta)).square(), Info(eta * h.detach())  # (3)

    return Objective(objective, Pairs)


def mixed(reference: Tensor, present: Tensor, tau: float, eta: float) -> Tensor:
    """log m_t of (4), but for a constant: what the pairs' reference must be.

    Args:
        reference: log mu of each answer.
        present: log p_t of each answer, detached: the policy that the pairs were drawn from.
        tau: the price of leaving the reference, in [0, eta].
        eta: of the objective.
    """
    _check(tau, eta)
    return (tau / eta) * reference + (1 - tau / eta) * present.detach()


def tabular(tau: float, eta: float | None = None) -> Solver:
    """(1), with exact win rates.

    Args:
        tau: the price of leaving the reference, positive.
        eta: the price of leaving the present policy, at least tau; default tau (t + 2) / 2, under which KL(p*, p_T)
            falls as 1 / T.
    """
    _check(tau, tau if eta is None else eta)

    def step(matrix: np.ndarray, log_reference: np.ndarray, log_policy: np.ndarray, t: int) -> np.ndarray:
        price = tau * (t + 2) / 2 if eta is None else eta
        mixture = geometric_mixture(log_policy, log_reference, tau / price)
        return normalised(mixture + win_rates(matrix, log_policy) / price)  # (1)

    return Solver(step, queries=1)


def _check(tau: float, eta: float) -> None:
    positive(eta=eta)
    if not 0 <= tau <= eta:
        raise ValueError(f"tau must lie in [0, eta], not {tau}")
