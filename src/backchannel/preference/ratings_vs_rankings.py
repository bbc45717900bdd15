"""Ratings vs rankings: do the scores that people give, and the choices that they make, say the same?

The same pairs of answers are judged twice: each answer gets a rating, and of each pair one is chosen. Ratings turned
into preferences contradict choices so often that what a model is trained on, and what it is judged by, decides which
model looks better (Bansal, Dang and Grover 2024). This measures how often they do, what each protocol weighs more than
the other, and what that does to a reward model.

Equations (the paper's in words), with ratings r(a), r(b) and a choice c in {1 (a), 0 (equal), -1 (b)} on each pair:

    p            = sign(r(a) - r(b))                        the preference that ratings imply
    inconsistent = mean(p != c),    reversed = mean(p c = -1)                                            (1)

With features x of an answer, both protocols are fitted by a logistic model of the pairs that they decide,

    P(a preferred) = sigmoid(theta . (x_a - x_b)),    weight = theta / |theta|                           (2)
    tilt           = weight of ratings - weight of choices                                               (3)

so that noise, which scales theta, drops out: a protocol that is merely noisier has no tilt. Errors of (3) are by the
delta method, with rows that share a cluster (a prompt) taken together; both fits err independently given the answers.

Reward models: of ratings, least squares on the scores scaled to [0, 1]; of choices, the likelihood (2). They are used
by taking the best of n answers.

Steps: `ratings_vs_rankings(...)` for (1) to (3); `from_ratings` and `from_choices` for the reward models; `best_of`.

Deviations: reward models are linear in given features, where the paper's are language models. Equal choices are left
out of (2), as equal pairs are in the paper. The tilt is ours: the paper counts by hand why annotators preferred.

    >>> found = ratings_vs_rankings([3, 5, 4, 2, 6], [4, 1, 4, 3, 2], [1, 1, -1, -1, 0])
    >>> found.inconsistent, found.reversed
    (0.6, 0.2)

References: bansal2024peering.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backchannel.card import Card
from backchannel.parts.logit import Logit, logit

CARD = Card(
    name="Ratings vs rankings",
    summary="How often ratings and choices of the same pairs contradict each other, and what each weighs more.",
    paper="bansal2024peering",
    row=78,
    topics=("audit",),
    feedback=("comparison", "rating"),
    protocol="artefact",
    engine="none",
    neighbour="",
    example={"first": [3, 5, 4], "second": [4, 1, 4], "choice": [1, 1, -1]},
)
Numbers = Sequence[float] | np.ndarray


class Tilt(NamedTuple):
    """What either protocol weighs (2), and by how much ratings weigh each feature more (3)."""

    ratings: np.ndarray
    choices: np.ndarray
    tilt: np.ndarray
    error: np.ndarray  # standard error of the tilt


class Contradiction(NamedTuple):
    """How ratings and choices of the same pairs agree."""

    pairs: int
    inconsistent: float  # (1)
    low: float  # 95 % interval of it (Wilson)
    high: float
    reversed: float
    table: np.ndarray  # counts [3, 3]: ratings say b, equal, a; choices say b, equal, a
    tilt: Tilt | None


def ratings_vs_rankings(
    first: Numbers,
    second: Numbers,
    choice: Numbers,
    features: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
) -> Contradiction:
    """Compare the protocols.

    Args:
        first, second: ratings of both answers of each pair, on any scale, higher is better.
        choice: 1 where the first was chosen, -1 the second, 0 for equal.
        features: of the first answer less those of the second, [pairs, features]; without them there is no tilt.
        clusters: which pairs hang together (one number a prompt).
    """
    a, b, c = (np.asarray(each, float) for each in (first, second, choice))
    if not (a.shape == b.shape == c.shape and a.ndim == 1 and a.size):
        raise ValueError(f"ratings and choices must be lists of one length, not {a.shape}, {b.shape}, {c.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.isin(c, (-1, 0, 1)).all()):
        raise ValueError("ratings must be finite, and a choice 1, -1 or 0")
    p = np.sign(a - b)
    wrong = float((p != c).mean())  # (1)
    low, high = wilson(wrong, c.size)
    table = np.bincount((3 * (p + 1) + c + 1).astype(np.int64), minlength=9).reshape(3, 3)
    found = None if features is None else tilt(np.asarray(features, float), p, c, clusters)
    return Contradiction(c.size, wrong, low, high, float((p * c == -1).mean()), table, found)


def tilt(features: np.ndarray, rated: np.ndarray, chosen: np.ndarray, clusters: np.ndarray | None = None) -> Tilt:
    """What ratings weigh more than choices do (3); `rated` and `chosen` are preferences, 1, -1 or 0."""
    weights, variance = [], np.zeros(features.shape[1])
    for said in (rated, chosen):
        decided = said != 0
        own = None if clusters is None else clusters[decided]
        fitted = logit(features[decided], said[decided] > 0, own)  # (2)
        size = float(np.linalg.norm(fitted.theta))
        weight = fitted.theta / size
        slope = (np.eye(weight.size) - np.outer(weight, weight)) / size  # of theta / |theta| in theta
        variance += np.diag(slope @ fitted.covariance @ slope)
        weights.append(weight)
    return Tilt(weights[0], weights[1], weights[0] - weights[1], np.sqrt(variance))


def from_ratings(features: np.ndarray, scores: Numbers) -> np.ndarray:
    """The linear reward with the least squared error on scores, which are scaled to [0, 1]: float64[features]."""
    y = np.asarray(scores, float)
    if y.max() <= y.min():
        raise ValueError("all scores are alike: there is nothing to learn from them")
    design = np.column_stack([features, np.ones(len(features))])
    return np.asarray(np.linalg.lstsq(design, (y - y.min()) / (y.max() - y.min()), rcond=None)[0][:-1])


def from_choices(apart: np.ndarray, choice: Numbers) -> np.ndarray:
    """The linear reward of greatest likelihood (2); `apart` is features of the first less those of the second."""
    c = np.asarray(choice)
    found: Logit = logit(apart[c != 0], c[c != 0] > 0)
    return found.theta


def best_of(reward: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Which of n answers the reward takes; `answers` is [prompts, n, features]."""
    return np.asarray((answers @ reward).argmax(1))


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share of n: never outside [0, 1], and right near its ends."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (float(middle - reach) if share > 0 else 0.0), (float(middle + reach) if share < 1 else 1.0)
