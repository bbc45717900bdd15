"""Off-policy estimators: what would a policy have earned on the rows that another one logged?

A log tells the reward r_i of the logged choice a_i only. The evaluated policy's value V is estimated from the weight
w_i = pi_e(a_i | x_i) / pi_b(a_i | x_i), and, if there is one, a model q of the reward. `Evaluated` holds the five
numbers that every estimator needs of a row, so that a log of millions of rows and many options never becomes a
[rows, options] array: reduce it batch by batch (`from_tables`), then `join`.

Every estimator returns *contributions*: float64[rows] whose mean is the estimate and whose spread gives its intervals.

    replay          sum m_i r_i / sum m_i                 rows where the policy's own choice is the logged one (m_i = 1)
    ips             mean  w_i r_i                         unbiased if the propensities are right and never 0
    self-normalised sum   w_i r_i / sum w_i               no longer beyond the range of r; slightly biased
    balanced        self-normalised with w_i estimated    a classifier's odds that (x_i, a_i) came from pi_e, not pi_b
    direct          mean  sum_a pi_e(a | x_i) q(x_i, a)   as good as q
    doubly robust   direct + mean w_i (r_i - q_i)         unbiased if either the propensities or q are right
    s.-n. doubly r. direct + sum w_i (r_i - q_i) / sum w_i

Where weights are large, variance is traded for bias by a changed weight, in ips or doubly robust alike:

    clipped         min(w, c)
    switch          w if w <= tau else 0                  Wang et al. (2017): the model alone where weights are large
    shrunk          lambda w / (w^2 + lambda)             Su et al. (2020): optimistic shrinkage; lambda = inf: w
    sub-Gaussian    w / (1 - lambda + lambda w)           Metelli et al. (2021); lambda = 0: w, lambda = 1: 1

Self-normalised estimates are ratios N / D, so that the rows' terms are not independent. Their contributions are those
of the linearised ratio, theta + (n_i - theta d_i) / mean(d): the mean is exactly the estimate, and the spread, unlike
that of n_i / mean(d), is that of the estimate. (With a constant reward the ratio is exact, and they show no spread.)

Deviations: none from the cited forms. The model must not have been fitted on the rows that it is applied to: see
`cross_fit`.

    >>> import numpy as np
    >>> rows = evaluated(reward=[1.0, 0.0, 1.0], propensity=[0.5, 0.5, 0.25], probability=[1.0, 0.0, 0.5])
    >>> float(ips(rows).mean())
    1.3333333333333333
    >>> float(self_normalised_ips(rows).mean())
    1.0

References: li2011unbiased, horvitz1952generalization, swaminathan2015self, dudik2014doubly, wang2017optimal,
su2020doubly, metelli2021subgaussian, sondhi2020balanced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Evaluated(NamedTuple):
    """n logged rows as one evaluated policy sees them."""

    reward: np.ndarray  # float64[n]: r_i, higher is better
    weight: np.ndarray  # float64[n]: w_i = pi_e(a_i | x_i) / pi_b(a_i | x_i)
    matched: np.ndarray  # bool[n]: m_i, whether the policy's own choice is the logged one
    chosen_q: np.ndarray  # float64[n]: q_i = q(x_i, a_i); 0 without a model
    policy_q: np.ndarray  # float64[n]: sum_a pi_e(a | x_i) q(x_i, a); 0 without a model


def evaluated(
    reward: ArrayLike,
    propensity: ArrayLike,
    probability: ArrayLike,
    matched: ArrayLike | None = None,
    chosen_q: ArrayLike | None = None,
    policy_q: ArrayLike | None = None,
) -> Evaluated:
    """Rows of a log, of which every option's probability is not needed.

    Args:
        reward: r_i; a row without feedback must be left out (or counted as 0) by the caller, who knows which is right.
        propensity: pi_b(a_i | x_i), in (0, 1].
        probability: pi_e(a_i | x_i), in [0, 1].
        matched: m_i; default: rows whose logged option the evaluated policy takes with probability 1.
        chosen_q: q(x_i, a_i); with policy_q, or neither.
        policy_q: sum_a pi_e(a | x_i) q(x_i, a).
    """
    if (chosen_q is None) != (policy_q is None):
        raise ValueError("chosen_q and policy_q describe one model: pass both or neither")
    r, p, e = (np.asarray(value, np.float64) for value in (reward, propensity, probability))
    m = e == 1.0 if matched is None else np.asarray(matched, bool)
    q, v = (np.zeros(r.shape) if value is None else np.asarray(value, np.float64) for value in (chosen_q, policy_q))
    for name, value in (("propensity", p), ("probability", e), ("matched", m), ("chosen_q", q), ("policy_q", v)):
        if value.ndim != 1 or value.shape != r.shape:
            raise ValueError(f"{name} must have one entry for each of the {r.size} rewards, not shape {value.shape}")
    if not r.size:
        raise ValueError("no rows: there is nothing to evaluate on")
    for name, value in (("reward", r), ("chosen_q", q), ("policy_q", v)):
        if not np.isfinite(value).all():
            raise ValueError(
                f"{name} must be finite, but row {_first(~np.isfinite(value))} has {value[~np.isfinite(value)][0]}"
            )
    if not ((p > 0) & (p <= 1)).all():
        bad = _first(~((p > 0) & (p <= 1)))
        raise ValueError(f"propensity must lie in (0, 1], but row {bad} has {p[bad]}")
    if not ((e >= 0) & (e <= 1 + 1e-9)).all():
        bad = _first(~((e >= 0) & (e <= 1 + 1e-9)))
        raise ValueError(f"probability must lie in [0, 1], but row {bad} has {e[bad]}")
    return Evaluated(r, e / p, m, q, v)


def from_tables(
    action: ArrayLike,
    reward: ArrayLike,
    propensity: ArrayLike,
    probabilities: ArrayLike,
    q: ArrayLike | None = None,
) -> Evaluated:
    """Rows of one batch, from the policy's `probabilities[n, options]` and the model's `q[n, options]`."""
    a, pi = np.asarray(action, np.int64), np.asarray(probabilities, np.float64)
    row = np.arange(a.size)
    if pi.ndim != 2 or pi.shape[0] != a.size:
        raise ValueError(f"probabilities must have one row for each of the {a.size} actions, not shape {pi.shape}")
    if q is None:
        return evaluated(reward, propensity, pi[row, a])
    model = np.asarray(q, np.float64)
    return evaluated(reward, propensity, pi[row, a], None, model[row, a], np.einsum("ij,ij->i", pi, model))


def join(parts: Iterable[Evaluated]) -> Evaluated:
    """The batches of one log, end to end."""
    return Evaluated(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def without_model(rows: Evaluated) -> Evaluated:
    """The same rows with q = 0: doubly robust estimators become importance-weighted ones."""
    return rows._replace(chosen_q=np.zeros(rows.reward.size), policy_q=np.zeros(rows.reward.size))


# Changed weights.


def clipped(weight: np.ndarray, limit: float) -> np.ndarray:
    """min(w, c)."""
    _check("limit", limit, 0.0, np.inf)
    return np.minimum(weight, limit)


def switched(weight: np.ndarray, tau: float) -> np.ndarray:
    """w where w <= tau, else 0."""
    _check("tau", tau, 0.0, np.inf)
    return np.where(weight <= tau, weight, 0.0)


def shrunk(weight: np.ndarray, strength: float) -> np.ndarray:
    """lambda w / (w^2 + lambda), `strength` being lambda: infinite changes nothing, 0 leaves only the model."""
    _check("strength", strength, 0.0, np.inf)
    return weight if np.isinf(strength) else _divide(strength * weight, weight**2 + strength)


def sub_gaussian(weight: np.ndarray, strength: float) -> np.ndarray:
    """w / (1 - lambda + lambda w), `strength` being lambda in [0, 1]; a weight of 0 stays 0."""
    _check("strength", strength, 0.0, 1.0)
    return _divide(weight, 1.0 - strength + strength * weight)


# Estimators: contributions whose mean is the estimate.


def replay(rows: Evaluated) -> np.ndarray:
    """Mean reward of the matched rows (Li et al. 2011); unbiased if the log was drawn uniformly at random."""
    return _ratio(
        rows.matched * rows.reward, rows.matched.astype(np.float64), "no row's logged choice is the policy's own"
    )


def ips(rows: Evaluated) -> np.ndarray:
    """w_i r_i."""
    return rows.weight * rows.reward


def self_normalised_ips(rows: Evaluated) -> np.ndarray:
    """sum w_i r_i / sum w_i, linearised."""
    return _ratio(rows.weight * rows.reward, rows.weight, "every weight is 0")


def balanced_ips(rows: Evaluated, odds: np.ndarray, limit: float = np.inf) -> np.ndarray:
    """Self-normalised with a classifier's odds in place of weights: no propensity is needed (Sondhi et al. 2020).

    Train it to tell the logged pairs (x_i, a_i) from pairs (x_i, a) with a drawn from pi_e; odds = p / (1 - p).
    """
    return self_normalised_ips(rows._replace(weight=clipped(np.asarray(odds, np.float64), limit)))


def direct(rows: Evaluated) -> np.ndarray:
    """sum_a pi_e(a | x_i) q(x_i, a)."""
    return rows.policy_q


def doubly_robust(rows: Evaluated) -> np.ndarray:
    """sum_a pi_e(a | x_i) q(x_i, a) + w_i (r_i - q_i)."""
    return rows.policy_q + rows.weight * (rows.reward - rows.chosen_q)


def self_normalised_doubly_robust(rows: Evaluated) -> np.ndarray:
    """Direct plus the self-normalised mean of the residuals, linearised."""
    return rows.policy_q + _ratio(rows.weight * (rows.reward - rows.chosen_q), rows.weight, "every weight is 0")


def clipped_ips(rows: Evaluated, limit: float) -> np.ndarray:
    """ips with weights cut at `limit`."""
    return ips(rows._replace(weight=clipped(rows.weight, limit)))


def clipped_doubly_robust(rows: Evaluated, limit: float) -> np.ndarray:
    """Doubly robust with weights cut at `limit`."""
    return doubly_robust(rows._replace(weight=clipped(rows.weight, limit)))


def switch_doubly_robust(rows: Evaluated, tau: float) -> np.ndarray:
    """Doubly robust where the weight is at most tau, the model alone elsewhere."""
    return doubly_robust(rows._replace(weight=switched(rows.weight, tau)))


def shrunk_doubly_robust(rows: Evaluated, strength: float) -> np.ndarray:
    """Doubly robust with optimistic shrinkage."""
    return doubly_robust(rows._replace(weight=shrunk(rows.weight, strength)))


def sub_gaussian_ips(rows: Evaluated, strength: float) -> np.ndarray:
    """ips with sub-Gaussian weights."""
    return ips(rows._replace(weight=sub_gaussian(rows.weight, strength)))


def sub_gaussian_doubly_robust(rows: Evaluated, strength: float) -> np.ndarray:
    """Doubly robust with sub-Gaussian weights."""
    return doubly_robust(rows._replace(weight=sub_gaussian(rows.weight, strength)))


class Estimator(NamedTuple):
    """An estimator without parameters, and what may be said of its contributions."""

    contributions: Callable[[Evaluated], np.ndarray]
    independent: (
        bool  # row i's contribution depends on row i alone: finite-sample intervals hold; else only large-sample ones
    )
    needs_model: bool


ESTIMATORS: Mapping[str, Estimator] = {
    "replay": Estimator(replay, False, False),
    "ips": Estimator(ips, True, False),
    "self_normalised_ips": Estimator(self_normalised_ips, False, False),
    "direct": Estimator(direct, True, True),
    "doubly_robust": Estimator(doubly_robust, True, True),
    "self_normalised_doubly_robust": Estimator(self_normalised_doubly_robust, False, True),
}


# Cross-fitting: q is applied only to rows that it was not fitted on.

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def assign_folds(rows: int, folds: int = 5, seed: int = 0, groups: ArrayLike | None = None) -> np.ndarray:
    """A fold in 0..folds-1 for each row, of sizes equal up to one; rows of one group (a user, say) share their fold."""
    labels = np.arange(rows) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    units = int(labels.max()) + 1 if rows else 0
    if not 2 <= folds <= units:
        raise ValueError(f"folds must lie between 2 and the {units} rows or groups, not be {folds}")
    return (np.random.default_rng(seed).permutation(units) % folds)[labels]


def cross_fit(fit: Callable[[np.ndarray], Predict], folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`chosen_q` and `policy_q` of every row, from a model fitted on the other folds.

    Args:
        fit: indices of rows to learn from -> predict; predict(indices of other rows) -> (chosen_q, policy_q) of them.
        folds: from `assign_folds`.
    """
    chosen, policy = np.full(folds.size, np.nan), np.full(folds.size, np.nan)
    for fold in np.unique(folds):
        apart = np.flatnonzero(folds == fold)
        chosen[apart], policy[apart] = fit(np.flatnonzero(folds != fold))(apart)
    return chosen, policy


def _ratio(numerator: np.ndarray, denominator: np.ndarray, empty: str) -> np.ndarray:
    """theta + (n_i - theta d_i) / mean(d) with theta = sum n / sum d."""
    scale = denominator.mean()
    if scale == 0.0:
        raise ValueError(f"{empty}: this log says nothing about the policy")
    theta = numerator.mean() / scale
    return theta + (numerator - theta * denominator) / scale


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where both are 0 (weights of 0 stay 0)."""
    return np.divide(a, b, out=np.zeros(np.shape(a)), where=b != 0.0)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], not be {value}")


def _first(bad: np.ndarray) -> int:
    return int(np.argmax(bad))
