"""RM distribution-shift measurement: how right, how sure and how watchful a reward model is away from its data.

A reward model is trained on some prompts and some answers and asked about others. Three things can go wrong, and they
are measured apart: it ranks fewer pairs right; its confidence no longer says how often it is right; and nothing in its
rewards tells that this has happened. Prompts and answers are shifted apart, by several strengths each.

Equations (LeVine et al. 2023; the numbers are ours). The two rewards of a pair are read as logits of "the first is
better" and "the second is better". With r_w of the answer that was chosen and r_l of the other,

    accuracy = mean 1{r_w > r_l},    confidence c = max softmax(r_w, r_l) = sigmoid(|r_w - r_l|)                     (1)
    ECE = sum_b (n_b / n) |accuracy_b - mean confidence_b|                                                           (2)

over bins b of equal width in c (Guo et al. 2017); accuracy_b against mean confidence_b is the reliability curve. A
model that is right with probability c exactly still has, from n pairs,

    noise = sum_b (n_b / n) sqrt(2 v_b / (pi n_b)),    v_b = mean c (1 - c) in b                                     (3)

which is the mean of a half-normal for each bin: an ECE of that size says nothing. Scores that should be higher for
pairs from elsewhere, and a score's AUROC, the chance that a shifted pair has a higher one than a pair from inside:

    energy(x) = -T log(exp(r_w / T) + exp(r_l / T))      (Liu et al. 2020; max-logit as T goes to 0)                 (4)
    max softmax: -c      (Hendrycks and Gimpel 2017)                                                                 (5)
    distance: (f - mu)' S^-1 (f - mu), square root, meaned over both answers      (Lee et al. 2018)                  (6)
    AUROC = P(score(shifted) > score(inside)) + P(equal) / 2                                                         (7)

with mu and S of the embeddings f of answers from inside. Comparisons do not fix a reward's level: adding b(prompt) to
both rewards changes no likelihood and no confidence, but (4). So the energy says what the training left in the level.

Two shifts are comparable at equal distance of their mean embeddings from mu, in the metric of (6): `drop` reads off
what accuracy is lost at a distance along a path of growing strengths, linearly between strengths.

Steps: rate both answers of every pair, inside and shifted; `rm_distribution_shift_measurement` does the rest. Labels of
the pairs are the user's: a shift after which the chosen answer is no longer the better one lowers accuracy too.

Deviations: equal rewards count as half right (the authors' code: right). The 5 bins of [1/2, 1] are their 10 of [0, 1].
They have no (3), (6) and `drop`.

    >>> rng = np.random.default_rng(0)
    >>> lead = 2 * rng.normal(size=4000)  # of the first answer, which people choose as often as the lead says
    >>> won = np.where(rng.random(4000) < 1 / (1 + np.exp(-lead)), lead, -lead)
    >>> inside = np.stack([won, np.zeros(4000)], 1)
    >>> found = rm_distribution_shift_measurement(inside, {"louder": 3 * inside})
    >>> [f"{each.accuracy:.2f} {each.reliability.ece:.2f} {each.reliability.noise:.2f}" for each in found.values()]
    ['0.78 0.01 0.01', '0.78 0.14 0.01']

References: levine2023baseline, guo2017calibration, liu2020energy, hendrycks2017baseline, lee2018simple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from backchannel.card import Card

CARD = Card(
    name="RM distribution-shift measurement",
    summary="Accuracy, calibration and self-knowledge of a reward model on shifted prompts and on shifted answers.",
    paper="levine2023baseline",
    row=322,
    topics=("reward models", "audit", "distribution shift"),
    feedback=("comparison",),
    protocol="artefact",
    engine="none",
    neighbour="",
    example={"inside": [[1.0, 0.0], [0.5, 2.0]], "shifted": {"elsewhere": [[0.0, 0.5], [0.2, 0.1]]}},
)
RIDGE = 1e-6  # of the mean variance of embeddings, added to each: directions in which nothing inside varied


class Rated(NamedTuple):
    """What a reward model makes of n pairs, the chosen answer first."""

    rewards: np.ndarray  # float64[n, 2]
    features: np.ndarray | None = None  # float64[n, 2, d]: embeddings of prompt and answer


class Reliability(NamedTuple):
    """Confidence against accuracy, in bins of equal width in [1/2, 1]; nan where a bin is empty."""

    confidence: np.ndarray  # float64[bins]: mean in the bin
    accuracy: np.ndarray  # float64[bins]
    pairs: np.ndarray  # int64[bins]
    ece: float
    noise: float  # the ECE to expect of a calibrated model


class Detection(NamedTuple):
    """How well a score tells shifted pairs from those inside; 1/2 and 95 percent if it cannot."""

    auroc: float
    false_alarms: float  # share of pairs inside above the threshold that 95 percent of shifted pairs reach


class Measured(NamedTuple):
    """One set of pairs."""

    accuracy: float
    error: float  # standard error of it
    confidence: float  # mean; above accuracy: too sure
    reliability: Reliability
    detection: dict[str, Detection]  # by score; those inside against themselves: 1/2
    distance: float  # of the mean embedding from that inside, in its standard deviations; nan without embeddings


def rm_distribution_shift_measurement(
    inside: Rated | np.ndarray | Sequence[Sequence[float]],
    shifted: Mapping[str, Rated | np.ndarray | Sequence[Sequence[float]]],
    bins: int = 5,
    temperature: float = 1.0,
) -> dict[str, Measured]:
    """Measure a reward model on pairs like those of its training, and on shifted ones.

    Args:
        inside: pairs that the model was not trained on, from where it was trained; or their rewards alone.
        shifted: the same for each shift, by name; "inside" is taken.
        bins: of confidence.
        temperature: T of the energy.

    Returns:
        by name, and for "inside". The score "distance" is there where embeddings are.
    """
    if "inside" in shifted:
        raise ValueError("a shift cannot be called inside: this is the name of what it is compared with")
    sets = {name: _checked(name, rated) for name, rated in {"inside": inside, **shifted}.items()}
    base = sets["inside"]
    far = None if base.features is None else distance_from(base.features.reshape(-1, base.features.shape[2]))

    def scores(rated: Rated) -> dict[str, np.ndarray]:
        found = {"energy": energy(rated.rewards, temperature), "max softmax": -confidence(rated.rewards)}
        if far is not None and rated.features is not None:
            found["distance"] = far(rated.features).mean(1)
        return found

    own = scores(base)
    measured = {}
    for name, rated in sets.items():
        right, sure = _right(rated.rewards), confidence(rated.rewards)
        found = {
            score: Detection(auroc(own[score], there), false_alarms(own[score], there))
            for score, there in scores(rated).items()
        }
        away = float(far(rated.features.mean((0, 1)))) if far is not None and rated.features is not None else np.nan
        error = float(right.std() / np.sqrt(right.size))
        calibrated = reliability(rated.rewards, bins)
        measured[name] = Measured(float(right.mean()), error, float(sure.mean()), calibrated, found, away)
    return measured


def confidence(rewards: np.ndarray) -> np.ndarray:
    """(1): float64[n], in [1/2, 1]."""
    return np.exp(-np.logaddexp(0, -np.abs(rewards[:, 0] - rewards[:, 1])))


def reliability(rewards: np.ndarray, bins: int = 5) -> Reliability:
    """(2) and (3)."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    right, sure = _right(rewards), confidence(rewards)
    which = np.minimum(((2 * sure - 1) * bins).astype(np.int64), bins - 1)
    pairs = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean, share, spread = (np.bincount(which, x, bins) / pairs for x in (sure, right, sure * (1 - sure)))
    some, weight = pairs > 0, pairs / right.size
    ece = (weight * np.abs(share - mean))[some].sum()  # (2)
    noise = (weight[some] * np.sqrt(2 * spread[some] / (np.pi * pairs[some]))).sum()  # (3)
    return Reliability(mean, share, pairs, float(ece), float(noise))


def energy(rewards: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(4): float64[n]."""
    if not 0 < temperature < np.inf:
        raise ValueError(f"temperature must be positive, not {temperature}")
    return -temperature * np.logaddexp(rewards[:, 0] / temperature, rewards[:, 1] / temperature)


def distance_from(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """(6) of one embedding: a function of embeddings [..., d], fitted to embeddings [n, d] from inside."""
    middle = features.mean(0)
    covariance = np.atleast_2d(np.cov(features, rowvar=False, bias=True))
    width = len(middle)
    covariance += RIDGE * max(np.trace(covariance) / width, np.finfo(float).tiny) * np.eye(width)
    root = np.linalg.cholesky(covariance)

    def far(there: np.ndarray) -> np.ndarray:
        apart = np.linalg.solve(root, (there - middle).reshape(-1, width).T)
        found: np.ndarray = np.sqrt((apart**2).sum(0)).reshape(there.shape[:-1])
        return found

    return far


def auroc(inside: np.ndarray, shifted: np.ndarray) -> float:
    """(7)."""
    order = np.sort(inside)
    below = np.searchsorted(order, shifted, "left") + np.searchsorted(order, shifted, "right")
    return float(below.mean() / (2 * order.size))


def false_alarms(inside: np.ndarray, shifted: np.ndarray, hits: float = 0.95) -> float:
    """The share of scores inside that reach the highest threshold which `hits` of the shifted scores reach."""
    least = np.sort(shifted)[::-1][int(np.ceil(hits * shifted.size)) - 1]
    return float((inside >= least).mean())


def drop(inside: Measured, path: Sequence[Measured], distance: float) -> float:
    """The accuracy that is lost at a distance of mean embeddings, along a path of shifts that lead away.

    Args:
        inside: where the path begins: nothing is lost at distance 0.
        path: the same shift at growing strengths; their distances must grow.
        distance: at most that of the last.
    """
    places = np.array([0.0, *(each.distance for each in path)])
    if not (np.diff(places) > 0).all():
        raise ValueError(f"distances must grow along the path, unlike {places[1:].round(3).tolist()}")
    if not 0 <= distance <= places[-1]:
        raise ValueError(f"distance must lie on the path, in 0..{places[-1]:.3g}, not {distance}")
    return float(np.interp(distance, places, [0.0, *(inside.accuracy - each.accuracy for each in path)]))


def _right(rewards: np.ndarray) -> np.ndarray:
    return (rewards[:, 0] > rewards[:, 1]) + 0.5 * (rewards[:, 0] == rewards[:, 1])


def _checked(name: str, rated: Rated | np.ndarray | Sequence[Sequence[float]]) -> Rated:
    rewards, features = rated if isinstance(rated, Rated) else (rated, None)
    rewards = np.asarray(rewards, float)
    if rewards.ndim != 2 or rewards.shape[1] != 2 or not rewards.size or not np.isfinite(rewards).all():
        raise ValueError(f"rewards of {name} must be finite numbers [n, 2], the chosen answer first")
    if features is not None:
        features = np.asarray(features, float)
        if features.ndim != 3 or features.shape[:2] != rewards.shape:
            raise ValueError(f"embeddings of {name} must be [n, 2, d] beside {len(rewards)} pairs of rewards")
    return Rated(rewards, features)
