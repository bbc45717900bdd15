"""Pessimistic MLE: a linear reward from comparisons or rankings, and the policy that is best by its lower bound.

Fitting a reward to comparisons works: the estimate converges. Being greedy on it does not: an answer that was hardly
ever compared can look best by luck. So the covariance of what was compared says how well each direction is known, and
the policy maximises the least value that the data allow.

Equations (Zhu, Jordan and Jiao 2023). Reward r(s, a) = theta* . phi(s, a), |theta*| <= B; of K answers to a prompt, the
ranking sigma, best first, has the probability (Plackett and Luce; with K = 2, Bradley and Terry)

    P(sigma) = prod_{k<K} exp(theta . phi_sigma(k)) / sum_{j>=k} exp(theta . phi_sigma(j))                           (1)

- true MLE (`ranking`): the theta in the ball that maximises the likelihood of (1);
- split MLE (`pairs`): a ranking is read as K (K - 1) / 2 comparisons, each of two answers, as if independent;
- inverse reinforcement learning (`first`): only the first place is known. With a demonstration first and all other
  trajectories after it, this is the likelihood of maximum-entropy IRL, P(tau) prop. to exp(theta . sum_h phi_h).

With the covariance of differences, over n sets of K answers,

    Sigma = 2 / (K (K - 1) n) sum_i sum_{j<k} (phi_ij - phi_ik) (phi_ij - phi_ik)^T                                  (2)

|theta^ - theta*|_{Sigma + lambda I} <= f with probability 1 - delta, where for pairs (lemma 3.1; L bounds |phi|)

    f = C sqrt((d + log(1 / delta)) / (gamma^2 n) + lambda B^2),   gamma = 1 / (2 + exp(-L B) + exp(L B))            (3)

The value of a policy pi, measured from that of a reference feature v, is then at least (algorithm 1)

    J(pi) = (E phi(s, pi(s)) - v) . theta^ - f |E phi(s, pi(s)) - v|_{(Sigma + lambda I)^-1}                         (4)

which is concave in pi: the pessimistic policy maximises it, over randomised policies too.

Steps: `pessimistic_mle(ranked, ...)` gives theta^ and Sigma + lambda I, by Newton's method with the multiplier of the
ball; `radius` gives (3); `lower_bound` is (4); `pessimistic_policy` moves probability in one prompt at a time from the
worst answer in use to the best one, with an exact line search, until a gap proves it best to `tolerance`. Answers may
be trajectories: features [n, K, horizon, d] are summed over steps, which is trajectory comparison.

Deviations: the least value is over the whole ellipsoid, not cut by the ball |theta| <= B, as in (4), so that it is no
higher. v is free in the paper; it is the mean of all compared features unless given. C is not stated in the paper: 1.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> phi = rng.normal(size=(2000, 4, 3))
    >>> utility = phi @ np.array([1.0, -1.0, 0.5]) + rng.gumbel(size=(2000, 4))
    >>> ranked = np.take_along_axis(phi, np.argsort(-utility)[:, :, None], 1)
    >>> estimate = pessimistic_mle(ranked, bound=4.0)
    >>> estimate.parameter.round(1).tolist()
    [1.0, -1.0, 0.5]

References: zhu2023principled, luce1959individual, plackett1975analysis, ziebart2008maximum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from backchannel.card import Card

CARD = Card(
    name="Pessimistic MLE",
    summary="A linear reward from comparisons or rankings, and the policy with the best lower bound of its value.",
    paper="zhu2023principled",
    row=194,
    topics=("reward models", "pessimism", "preference learning"),
    feedback=("comparison",),
    protocol="artefact",
    engine="none",
    neighbour="",
    example={"ranked": np.random.default_rng(0).normal(size=(20, 3, 2)), "bound": 2.0},
)

LEAST = 1e-10  # the multiplier below which the ball does not bind; it also picks the shortest of equal estimates


class Estimate(NamedTuple):
    """What n sets of comparisons say of the reward."""

    parameter: np.ndarray  # float64[d]: theta^
    covariance: np.ndarray  # float64[d, d]: Sigma + lambda I
    reference: np.ndarray  # float64[d]: v


Choices = list[np.ndarray]  # float64[sets, size, d] for each size: in each set, what was chosen comes first
Counted = list[tuple[np.ndarray, np.ndarray]]  # the same, with how often each set was seen


def ranking(ranked: np.ndarray) -> Choices:
    """Who is best of all, of the rest, and so on: the stages of (1)."""
    return [ranked[:, k:] for k in range(ranked.shape[1] - 1)]


def pairs(ranked: np.ndarray) -> Choices:
    """Every comparison that a ranking contains."""
    first, second = np.triu_indices(ranked.shape[1], 1)
    return [np.stack([ranked[:, first], ranked[:, second]], 2).reshape(-1, 2, ranked.shape[2])]


def first(ranked: np.ndarray) -> Choices:
    """What was chosen, or demonstrated, out of the set."""
    return [ranked]


def pessimistic_mle(
    ranked: np.ndarray,
    bound: float,
    choices: Callable[[np.ndarray], Choices] = ranking,
    ridge: float = 1e-3,
    reference: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> Estimate:
    """Fit the reward and measure how well each direction is known.

    Args:
        ranked: features of the answers, best first: float64[n, K, d], or [n, K, horizon, d] of trajectories.
        bound: B, the length that theta has at most.
        choices: `ranking` (true MLE), `pairs` (split MLE) or `first` (demonstrations).
        ridge: lambda in (3) and (4), positive.
        reference: v, float64[d]; None: the mean of all features.
        counts: how often each set was seen, float64[n]; None: once.
    """
    phi = np.asarray(ranked, float)
    if phi.ndim == 4:
        phi = phi.sum(2)
    if phi.ndim != 3 or phi.shape[0] < 1 or phi.shape[1] < 2 or not np.isfinite(phi).all():
        raise ValueError(
            f"ranked must be finite features [n, K, d] of K >= 2 answers, best first, or [n, K, horizon, d]; "
            f"got the shape {list(np.shape(ranked))}"
        )
    if not 0 < bound < math.inf or not 0 < ridge < math.inf:
        raise ValueError(f"bound and ridge must be positive, not {bound} and {ridge}")
    seen = np.ones(len(phi)) if counts is None else np.asarray(counts, float)
    if seen.shape != (len(phi),) or not (seen >= 0).all() or not seen.sum() > 0:
        raise ValueError(f"counts must be {len(phi)} numbers of at least 0, and not all 0")
    centred = ((phi - phi.mean(1, keepdims=True)) * np.sqrt(seen)[:, None, None]).reshape(-1, phi.shape[2])
    covariance = 2 / (phi.shape[1] - 1) * centred.T @ centred / seen.sum()  # (2)
    v = np.average(phi.mean(1), axis=0, weights=seen) if reference is None else np.asarray(reference, float)
    sets = [(x, np.repeat(seen, len(x) // len(phi))) for x in choices(phi)]
    return Estimate(_in_ball(sets, bound), covariance + ridge * np.eye(phi.shape[2]), v)


def radius(n: int, dimension: int, bound: float, features: float, ridge: float, delta: float = 0.05) -> float:
    """f of (3) with C = 1, for n comparisons of two answers.

    Args:
        n: comparisons.
        dimension: d.
        bound: B.
        features: L, the length that a feature has at most.
        ridge: lambda.
        delta: how often the ellipsoid may miss the truth.
    """
    if n < 1 or not 0 < delta < 1:
        raise ValueError(f"n must be at least 1 and delta in (0, 1), not {n} and {delta}")
    gamma = 1 / (2 + math.exp(-features * bound) + math.exp(features * bound))
    return math.sqrt((dimension + math.log(1 / delta)) / (gamma**2 * n) + ridge * bound**2)


def lower_bound(estimate: Estimate, features: np.ndarray, width: float) -> np.ndarray:
    """(4) of mean features [..., d], with f = `width`: float64[...]."""
    away = np.asarray(features, float) - estimate.reference
    spread = np.einsum("...i,...i->...", away, np.linalg.solve(estimate.covariance, away[..., None])[..., 0])
    bound: np.ndarray = away @ estimate.parameter - width * np.sqrt(spread)
    return bound


def pessimistic_policy(
    estimate: Estimate,
    features: np.ndarray,
    width: float,
    prompts: np.ndarray | None = None,
    tolerance: float = 1e-6,
    steps: int = 100_000,
) -> np.ndarray:
    """The policy with the greatest lower bound: float64[S, A], a distribution for each prompt.

    Args:
        estimate: of `pessimistic_mle`.
        features: phi of every answer to every prompt, float64[S, A, d].
        width: f; 0 is the greedy policy.
        prompts: the probability of each prompt, float64[S]; None: evenly.
        tolerance: how far (4) may be from its maximum.
        steps: at most so many moves of probability.
    """
    phi = np.asarray(features, float)
    if phi.ndim != 3 or phi.shape[2] != len(estimate.parameter) or width < 0:
        raise ValueError(
            f"features must be [prompts, answers, {len(estimate.parameter)}] and width at least 0, "
            f"not {list(phi.shape)} and {width}"
        )
    weights = np.full(len(phi), 1 / len(phi)) if prompts is None else np.asarray(prompts, float)
    root = np.linalg.cholesky(estimate.covariance)
    white = np.linalg.solve(root, (phi - estimate.reference).reshape(-1, phi.shape[2]).T).T.reshape(phi.shape)
    gain = phi @ estimate.parameter
    rows = np.arange(len(phi))
    policy = np.zeros(phi.shape[:2])
    alone = gain - width * np.linalg.norm(white, axis=2)
    policy[rows, alone.argmax(1)] = 1.0  # a start: the best answer to each prompt taken alone
    soft = tolerance / (2 * width) if width > 0 else 1.0  # rounds off the norm's kink: sqrt(|x|^2 + soft^2)
    for _ in range(steps):
        mean = np.einsum("s,sa,sad->d", weights, policy, white)
        slope = gain - white @ (width * mean / math.sqrt(mean @ mean + soft**2))
        best = slope.argmax(1)
        worst = np.where(policy > 0, slope, np.inf).argmin(1)
        gaps = weights * (slope[rows, best] - (policy * slope).sum(1))
        if gaps.sum() <= tolerance / 2:  # concave: the maximum is at most this far, and the kink's half
            return policy
        s = int((weights * (slope[rows, best] - slope[rows, worst])).argmax())
        move, most = weights[s] * (white[s, best[s]] - white[s, worst[s]]), policy[s, worst[s]]
        step = _line_search(weights[s] * (gain[s, best[s]] - gain[s, worst[s]]), mean, move, width, soft, most)
        policy[s, best[s]] += step
        policy[s, worst[s]] = most - step
    raise ValueError(f"the policy was not within {tolerance} of the best after {steps} steps; allow more")


# ---- private


def _in_ball(sets: Counted, bound: float) -> np.ndarray:
    """The most likely theta with |theta| <= B: minimise loss + multiplier |theta|^2 / 2 and search the multiplier."""
    theta = _newton(sets, LEAST, np.zeros(sets[0][0].shape[2]))
    length = float(np.linalg.norm(theta))
    if length <= bound:
        return theta
    low, high, at = math.log(LEAST), math.inf, math.log(LEAST)
    while abs(length - bound) > 1e-10 * bound:  # Newton on the multiplier's logarithm, kept between what is known
        low, high = (at, high) if length > bound else (low, at)
        hessian = _likelihood(sets, theta, math.exp(at))[2]
        slope = math.exp(at) * float(theta @ np.linalg.solve(hessian, theta)) / length  # of -|theta|
        at += min((length - bound) / slope, 4.0) if slope > 0 else 4.0
        if not low < at < high:
            at = (low + high) / 2
        theta = _newton(sets, math.exp(at), theta)
        length = float(np.linalg.norm(theta))
    return theta * (bound / length)


def _newton(sets: Counted, multiplier: float, theta: np.ndarray) -> np.ndarray:
    """The minimum of the mean negative log-likelihood of the choices plus multiplier |theta|^2 / 2."""
    loss, gradient, hessian = _likelihood(sets, theta, multiplier)
    for _ in range(200):
        step = np.linalg.solve(hessian, gradient)
        decrease = float(gradient @ step)
        if decrease < 1e-24:
            break
        size = 1.0
        while True:  # backtracking; near the minimum rounding hides what is won
            new = _likelihood(sets, theta - size * step, multiplier)
            if new[0] <= loss - 1e-4 * size * decrease or size < 1e-9 or decrease < 1e-12:
                break
            size /= 2
        theta = theta - size * step
        loss, gradient, hessian = new
    return theta


def _likelihood(sets: Counted, theta: np.ndarray, multiplier: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, gradient and Hessian, by sums of softmax choices."""
    total = sum(float(seen.sum()) for _, seen in sets)
    loss = multiplier * float(theta @ theta) / 2
    gradient, hessian = multiplier * theta, multiplier * np.eye(len(theta))
    for x, seen in sets:
        scores = x @ theta
        scores = scores - scores.max(1, keepdims=True)
        weight = np.exp(scores)
        mass = weight.sum(1, keepdims=True)
        chance = weight / mass
        loss += float(seen @ (np.log(mass[:, 0]) - scores[:, 0])) / total
        expected = np.einsum("nk,nkd->nd", chance, x)
        gradient = gradient + seen @ (expected - x[:, 0]) / total
        weighted = ((seen[:, None] * chance)[:, :, None] * x).reshape(-1, len(theta))
        hessian = hessian + (weighted.T @ x.reshape(-1, len(theta)) - (seen[:, None] * expected).T @ expected) / total
    return loss, gradient, hessian


def _line_search(gain: float, mean: np.ndarray, move: np.ndarray, width: float, soft: float, most: float) -> float:
    """The t in [0, most] that maximises gain t - width sqrt(|mean + t move|^2 + soft^2)."""
    a, b = float(mean @ move), float(move @ move)
    if width**2 * b <= gain**2:
        return most  # the gain beats any widening
    rest = max((float(mean @ mean) + soft**2) * b - a**2, 0.0)
    t = (gain * math.sqrt(rest / (width**2 * b - gain**2)) - a) / b  # where the slope is 0
    return min(max(t, 0.0), most)
