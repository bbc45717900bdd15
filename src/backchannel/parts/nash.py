"""Preference games: two policies answer, a judge says which answer wins; what there is to know of such a game exactly.

P[a, b] is the probability that answer a beats answer b, P + P' = 1 (`parts.preferences`). Win rates are bilinear,
P(p > q) = p' P q. With a price tau for leaving a reference mu the game is (Munos et al. 2024)

    P_tau(p > q) = P(p > q) - tau KL(p, mu) + tau KL(q, mu)

which for tau > 0 has one Nash equilibrium, the same for both players, and it solves

    log p = log mu + P(. > p) / tau + constant                                                        (1)

The best answer to q has a closed form, and so has what it gains, the exploitability of q:

    max_p P_tau(p > q) - 1/2 = tau log sum_a mu(a) exp(P(a > q) / tau) + tau KL(q, mu) - 1/2           (2)

and max_a P(a > q) - 1/2 for tau = 0. The duality gap of (q, q) is twice that. `nash` solves (1) by Newton's method in
the logits x: with D = diag p - p p' and A = P - 1/2 its Jacobian is I - A D / tau, and A D has the eigenvalues of
the skew D^(1/2) A D^(1/2), which are imaginary. So the Jacobian is invertible everywhere, and damped steps arrive from
anywhere. No mirror step is taken, so the result can judge methods that are made of them.

Policies are held as logarithms, [..., actions]; matrices are [..., actions, actions]; leading axes are independent
games. A `Solver` is one step of a method; `solve` repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Step = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


class Solver(NamedTuple):
    """A method for preference games.

    Attributes:
        step: `step(matrix, log_reference, log_policy, t) -> log_policy`, t counted from 0; it changes no argument.
        queries: of how many opponents a step asks the win rates P(. > q).
    """

    step: Step
    queries: int


def solve(
    solver: Solver, matrix: np.ndarray, log_reference: np.ndarray, steps: int, start: np.ndarray | None = None
) -> np.ndarray:
    """The policies of all steps, as logarithms: float64[steps + 1, ..., actions], from `start` or the reference."""
    policies = np.empty((steps + 1, *log_reference.shape))
    policies[0] = log_reference if start is None else start
    for t in range(steps):
        policies[t + 1] = solver.step(matrix, log_reference, policies[t], t)
    return policies


def normalised(logits: np.ndarray) -> np.ndarray:
    """log softmax over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    out: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return out


def even(*shape: int) -> np.ndarray:
    """The uniform policy, as logarithms: float64[shape]; the last number is that of the actions."""
    return np.full(shape, -np.log(shape[-1]))


def win_rates(matrix: np.ndarray, log_policy: np.ndarray) -> np.ndarray:
    """P(a > q) of every action a against the policy q: [..., actions]."""
    rates: np.ndarray = (matrix @ np.exp(log_policy)[..., None])[..., 0]
    return rates


def geometric_mixture(log_policy: np.ndarray, log_reference: np.ndarray, weight: float) -> np.ndarray:
    """The policy in proportion to policy^(1 - weight) reference^weight, as logarithms."""
    return normalised((1 - weight) * log_policy + weight * log_reference)


def averages(log_policies: np.ndarray) -> np.ndarray:
    """The mean of the policies so far, along the first axis: policies, not logarithms."""
    count = np.arange(1, len(log_policies) + 1).reshape(-1, *[1] * (log_policies.ndim - 1))
    means: np.ndarray = np.exp(log_policies).cumsum(0) / count
    return means


def divergence(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL(p, q), at least 0: [...]."""
    p, ratio = np.exp(log_p), log_q - log_p  # each term is p (e^ratio - 1 - ratio) >= 0: nothing cancels between terms
    near = np.expm1(np.minimum(ratio, 1.0)) - ratio
    out: np.ndarray = np.where(ratio < 1, p * near, np.exp(log_q) - p - p * ratio).sum(-1)
    return out


def log_span(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """The span of log p - log q, its largest entry less its least: [...]."""
    ratio = log_p - log_q
    out: np.ndarray = ratio.max(-1) - ratio.min(-1)
    return out


def exploitability(
    matrix: np.ndarray, log_policy: np.ndarray, log_reference: np.ndarray | None = None, tau: float = 0.0
) -> np.ndarray:
    """What the best opponent gains against a policy, (2); half of the duality gap: [...]."""
    rates = win_rates(matrix, log_policy) - 0.5
    if log_reference is None or tau == 0:
        return np.asarray(rates.max(-1))
    scaled = log_reference + rates / tau
    top = scaled.max(-1, keepdims=True)
    total = top[..., 0] + np.log(np.exp(scaled - top).sum(-1))
    return np.asarray(tau * (total + divergence(log_policy, log_reference)))


def nash(matrix: np.ndarray, log_reference: np.ndarray, tau: float) -> np.ndarray:
    """The Nash equilibrium of the game regularised by `tau` > 0, by Newton's method on (1): log p, [..., actions]."""
    if not tau > 0:
        raise ValueError(f"tau must be positive, not {tau}; without a price, ask parts.preferences.von_neumann_winner")
    margins, identity = matrix - 0.5, np.eye(matrix.shape[-1])

    def equation(x: np.ndarray) -> np.ndarray:
        return x - log_reference - win_rates(margins, normalised(x)) / tau

    def jacobian(x: np.ndarray) -> np.ndarray:
        p = np.exp(normalised(x))
        spread = p[..., None] * identity - p[..., None] * p[..., None, :]
        out: np.ndarray = identity - margins @ spread / tau
        return out

    return normalised(_newton(equation, jacobian, np.array(log_reference, float), 1e-13 * (1 + 1 / tau)))


def bradley_terry_rewards(matrix: np.ndarray, log_policy: np.ndarray) -> np.ndarray:
    """The rewards r that a Bradley-Terry model learns from pairs drawn from a policy p, with mean 0 under p.

    The maximum likelihood of endlessly many labels solves sum_b p(b) (P[a, b] - sigmoid(r(a) - r(b))) = 0 for every
    action a: the model has each action's win rate against p right, and nothing else. For policies without zeros, and
    matrices without 0 or 1 outside of cycles.
    """
    p = np.exp(log_policy)
    rates = win_rates(matrix, log_policy)

    def chances(r: np.ndarray) -> np.ndarray:
        out: np.ndarray = 0.5 + 0.5 * np.tanh((r[..., :, None] - r[..., None, :]) / 2)
        return out

    def equation(r: np.ndarray) -> np.ndarray:
        out: np.ndarray = (chances(r) * p[..., None, :]).sum(-1) - rates + (p * r).sum(-1, keepdims=True)
        return out

    def jacobian(r: np.ndarray) -> np.ndarray:
        chance = chances(r)
        slopes = chance * (1 - chance) * p[..., None, :]
        out: np.ndarray = slopes.sum(-1)[..., None] * np.eye(r.shape[-1]) - slopes + p[..., None, :]
        return out

    return _newton(equation, jacobian, np.zeros(log_policy.shape), 1e-12)


def _newton(
    equation: Callable[[np.ndarray], np.ndarray],
    jacobian: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    tolerance: float,
    limit: int = 1000,
) -> np.ndarray:
    """A root of each game's equation: full Newton steps, halved until the largest residual falls enough."""
    value = equation(x)
    for _ in range(limit):
        size = np.abs(value).max(-1)
        if (size <= tolerance).all():
            return x
        towards = np.linalg.solve(jacobian(x), -value[..., None])[..., 0]
        length = np.where(size <= tolerance, 0.0, 1.0)
        while True:
            there = x + length[..., None] * towards
            new = equation(there)
            worse = (np.abs(new).max(-1) > (1 - length / 4) * size) & (size > tolerance)
            if not worse.any() or length[worse].max() < 1e-9:
                break
            length = np.where(worse, length / 2, length)
        x, value = there, new
    raise RuntimeError(f"Newton's method has not solved the game in {limit} steps; its residual is {size.max()}")
