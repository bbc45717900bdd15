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

So INPO is the regression of IPO towards 1 / (2 eta), with a reference that moves: a recipe whose anchor has the share
tau / eta of the start. With eta = tau the present policy drops out: online IPO.

Steps: draw answers of p_t and have them judged; (4); some steps down (3) give p_{t+1}. `tabular` is (1) itself, a
solver for games whose win rates are known.

Deviations: h in (3) is that of (4). Info's margin is h times eta, whose target is 1/2. With more than two answers to a
prompt the best is compared with the worst, as the paper does with language models; (3) has its minimiser with two.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> recipe = inpo(eta=1.0, tau=0.5)
    >>> recipe.share  # of the start in (4)
    0.5
    >>> present, reference = torch.tensor([-4.0, -5.0]), torch.tensor([-5.0, -5.0])
    >>> loss, info = recipe.objective(Pairs(present[:1], present[1:], reference[:1], reference[1:]))
    >>> loss, info.margin
    (tensor([0.2500]), tensor([1.]))

References: zhang2025iterative, azar2024general.
"""

from __future__ import annotations

import numpy as np
from torch import Generator, Tensor

from backchannel.card import Card
from backchannel.parts.nash import Solver, geometric_mixture, normalised, win_rates
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive
from backchannel.parts.recipes import Compared, Recipe, best_and_worst

CARD = Card(
    name="INPO",
    summary="Self-play towards the Nash equilibrium of general preferences, by regression on one's own judged pairs.",
    paper="zhang2025iterative",
    row=26,
    topics=("preference optimisation", "preference games", "mirror descent"),
    feedback=("comparison",),
    protocol="recipe",
    engine="torch",
    neighbour="dpo",
    example={"eta": 0.5, "tau": 0.1},
    extras=("torch",),
)


def inpo(eta: float, tau: float, answers: int = 2) -> Recipe:
    """Rounds of self-play on one's own judged answers.

    Args:
        eta: the price of leaving the present policy, positive: an inverse step size.
        tau: the price of leaving the reference, in [0, eta].
        answers: drawn to each prompt, at least 2.
    """
    _check(tau, eta)
    if answers < 2:
        raise ValueError(f"answers must be 2 or more, not {answers}")

    def select(scores: Tensor, rng: Generator) -> Compared:
        return best_and_worst(scores)

    return Recipe(answers, select, regression(eta), anchor=tau / eta)  # (4)


def regression(eta: float) -> Objective[Pairs]:
    """The loss of INPO on pairs whose reference is (4).

    Args:
        eta: as above.
    """
    positive(eta=eta)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, 1.0)  # (4)
        return (h - 1 / (2 * eta)).square(), Info(eta * h.detach())  # (3)

    return Objective(objective, Pairs)


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
