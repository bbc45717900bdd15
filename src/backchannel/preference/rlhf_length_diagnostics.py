"""RLHF length diagnostics: how much of a reward's gain is length, and what can be done against it.

Annotators like longer answers, a reward model learns it, and a policy that is tuned on the reward writes longer
answers. Whether it also writes better ones is asked by comparing rewards among answers of equal length, before and
after, and by tuning on length alone: what that reaches is no merit of the reward model.

Equations (Singhal et al. 2024; the numbers are ours). Bin b of lengths holds n_b answers of mean reward m_b before
tuning and n'_b of mean m'_b after, of N and N' answers:

    gain   = mean reward after - mean reward before                                                        (1)
    within = sum over bins with answers of both, of (n_b + n'_b) / (N + N') (m'_b - m_b)                   (2)
    ratio  = within / gain                                                                                 (3)

(2) is the paper's non-length reward gain. Where N = N' and all bins hold answers of both, the remainder of the gain is
what the shift of lengths makes, at the mean of both policies' rewards, and nothing else: with p_b = n_b / N,

    gain - within = sum_b (p'_b - p_b) (m_b + m'_b) / 2                                                    (4)

The reward of length alone for a target of L tokens, and mitigations in tuning for a limit of M, with the running mean
and deviation of rewards that were met:

    length_reward = 1 - |length / L - 1|                                                                   (5)
    penalised     = reward + (1 - length / M) deviation                                                    (6)
    scaled        = (reward - mean) / deviation                                                            (7)

In preference data: `balanced` keeps pairs such that in each bin of the difference of lengths the longer answer was
chosen as often as the shorter one; `mismatched` adds pairs whose worse answer belongs to another prompt, where length
says nothing. Omitting long answers from a step, and a higher price of leaving the reference, need no function.

Steps: score answers of both policies to the same prompts by one reward; `rlhf_length_diagnostics` of lengths and
rewards. All take numbers, arrays or tensors without a gradient.

Deviations: the error of (2) and the share of answers in common bins are ours, and so is (4). An answer whose bin holds
none of the other policy counts as length in (3), as in the authors' code: look at `shared`.

    >>> before, after = ([10] * 8 + [30] * 2, [0.1] * 8 + [0.6] * 2), ([10] * 2 + [30] * 8, [0.15] * 2 + [0.65] * 8)
    >>> found = rlhf_length_diagnostics(*before, *after)
    >>> round(found.gain, 3), round(found.within, 3), round(found.ratio, 3), found.shared
    (0.35, 0.05, 0.143, 1.0)

References: singhal2024long, kitagawa1955components.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from backchannel.card import Card

CARD = Card(
    name="RLHF length diagnostics",
    summary="How much of a reward's gain is length: by bins of length, against a reward of length alone; mitigations.",
    paper="singhal2024long",
    row=255,
    topics=("audit", "reward models", "reward hacking"),
    feedback=("reward",),
    protocol="artefact",
    engine="none",
    neighbour="",
    example={"length_before": [1, 2], "reward_before": [0, 1], "length_after": [2, 2], "reward_after": [1, 2]},
)

Numbers = Any  # whatever np.asarray reads


class Bin(NamedTuple):
    """Answers of `low` to below `high` tokens; a mean of none is nan."""

    low: int
    high: int
    before: int  # how many
    after: int
    reward_before: float  # their mean reward
    reward_after: float


class LengthDiagnostics(NamedTuple):
    """What `rlhf_length_diagnostics` finds."""

    correlation_before: float  # Pearson's, of length and reward
    correlation_after: float
    length_before: float  # mean tokens
    length_after: float
    gain: float  # (1)
    within: float  # (2)
    error: float  # standard error of (2), given the lengths
    ratio: float  # (3); speaks where the gain is well above 0; nan where it is 0
    shared: float  # of all answers: in bins that hold answers of both
    bins: list[Bin]


def rlhf_length_diagnostics(
    length_before: Numbers, reward_before: Numbers, length_after: Numbers, reward_after: Numbers, width: int = 20
) -> LengthDiagnostics:
    """What of a reward's gain is not length.

    Args:
        length_before: tokens of each answer of the policy before tuning, [n].
        reward_before: of each, by the reward that is asked about.
        length_after: of answers of the tuned policy, [n'].
        reward_after: of each, by the same reward.
        width: of a bin of lengths, in tokens.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1 token, not {width}")
    length, reward = _checked(length_before, reward_before)
    after, gained = _checked(length_after, reward_after)
    of, of_after = (length // width).astype(np.int64), (after // width).astype(np.int64)
    bins, within, error, shared = [], 0.0, 0.0, 0.0
    noise = _variance(reward, of), _variance(gained, of_after)
    for b in np.unique(np.concatenate([of, of_after])):
        mine, theirs = reward[of == b], gained[of_after == b]
        means = [float(each.mean()) if each.size else float("nan") for each in (mine, theirs)]
        bins.append(Bin(int(b * width), int((b + 1) * width), mine.size, theirs.size, *means))
        if mine.size and theirs.size:
            share = (mine.size + theirs.size) / (reward.size + gained.size)
            within += share * (means[1] - means[0])  # (2)
            error += share**2 * (noise[0] / mine.size + noise[1] / theirs.size)
            shared += share
    gain = float(gained.mean() - reward.mean())  # (1)
    return LengthDiagnostics(
        correlation(length, reward),
        correlation(after, gained),
        float(length.mean()),
        float(after.mean()),
        gain,
        within,
        error**0.5,
        within / gain if gain else float("nan"),  # (3)
        shared,
        bins,
    )


def correlation(length: Numbers, reward: Numbers) -> float:
    """Pearson's; of [prompts, answers] the mean over prompts, those left out whose lengths or rewards are constant.

    nan where nothing varies.
    """
    x, y = np.atleast_2d(np.asarray(length, float)), np.atleast_2d(np.asarray(reward, float))
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(f"lengths and rewards must be [n] or [prompts, answers] alike, not {x.shape} and {y.shape}")
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    spread = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    varies = spread > 1e-12
    return float(((x * y).sum(1)[varies] / spread[varies]).mean()) if varies.any() else float("nan")


def length_reward(length: Any, target: float) -> Any:
    """(5): the reward of length alone, at most 1, where `length` is the target."""
    if target <= 0:
        raise ValueError(f"target must be a positive number of tokens, not {target}")
    return 1 - abs(length / target - 1)


def penalised(reward: Any, length: Any, most: float, deviation: float) -> Any:
    """(6): nothing is taken from an answer of `most` tokens, and shorter ones gain."""
    if most <= 0 or deviation < 0:
        raise ValueError(f"most must be positive and deviation at least 0, not {most} and {deviation}")
    return reward + (1 - length / most) * deviation


class Running:
    """Mean and deviation of all rewards that were met, for (6) and (7)."""

    def __init__(self) -> None:
        self.count, self.mean, self._square = 0, 0.0, 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 where nothing has varied yet."""
        return float((self._square / self.count) ** 0.5) if self._square > 0 else 1.0

    def meet(self, reward: Numbers) -> None:
        """Take in the rewards of a batch."""
        some = np.asarray(reward, float)
        apart, total = float(some.mean()) - self.mean, self.count + some.size
        self._square += float(((some - some.mean()) ** 2).sum()) + apart**2 * self.count * some.size / total
        self.mean, self.count = self.mean + apart * some.size / total, total

    def scaled(self, reward: Any) -> Any:
        """(7), after taking the rewards in."""
        self.meet(reward)
        return (reward - self.mean) / self.deviation


def balanced(longer: Numbers, rng: np.random.Generator, width: int = 1) -> np.ndarray:
    """Which pairs to keep so that length does not tell which answer was chosen: their rows, int64[kept], ascending.

    Args:
        longer: tokens of the chosen answer less those of the rejected one, [pairs].
        rng: draws which pairs of the more frequent side stay.
        width: of a bin of the difference's size, in tokens. Pairs of equal length all stay.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1 token, not {width}")
    d = np.asarray(longer, float)
    bins, kept = np.ceil(abs(d) / width), [np.flatnonzero(d == 0)]
    for b in np.unique(bins[d != 0]):
        sides = [np.flatnonzero((bins == b) & (np.sign(d) == side)) for side in (1, -1)]
        least = min(each.size for each in sides)
        kept += [rng.choice(each, least, replace=False) for each in sides]
    return np.sort(np.concatenate(kept))


def mismatched(prompt: Numbers, rng: np.random.Generator) -> np.ndarray:
    """For each row a random one of another prompt, whose answer is the worse one here: int64[n].

    Args:
        prompt: which prompt each row has, int64[n].
        rng: draws.
    """
    own = np.asarray(prompt)
    if np.unique(own).size < 2:
        raise ValueError("an answer to another prompt needs at least two prompts")
    found = rng.integers(own.size, size=own.size)
    while (same := own[found] == own).any():
        found[same] = rng.integers(own.size, size=int(same.sum()))
    return found


# ---- private


def _checked(length: Numbers, reward: Numbers) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(length, float), np.asarray(reward, float)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise ValueError(f"lengths and rewards must be [n] alike, n at least 1, not {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x >= 0).all()):
        raise ValueError("lengths must be at least 0, and lengths and rewards finite")
    return x, y


def _variance(reward: np.ndarray, of: np.ndarray) -> float:
    """The variance of rewards within bins, one for all: inf where every bin holds one answer."""
    _, place, count = np.unique(of, return_inverse=True, return_counts=True)
    means = np.bincount(place, reward) / count
    free = reward.size - count.size
    return float(((reward - means[place]) ** 2).sum() / free) if free else float("inf")
