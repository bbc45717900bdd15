"""Objective mismatch in RLHF: whether reward models, training and downstream scores of some runs pull the same way.

RLHF is a chain: a reward model is fitted and validated, a policy is trained on its reward, and judged by scores that
neither has seen. That a better number at one place means a better one at the next is assumed, and often false. The
report asks the runs: which numbers go together across runs, where in a run reward and score part, what is lost by
choosing runs or checkpoints by the wrong number, and whether all this is more than luck.

Equations (ours: Lambert and Calandra 2023 draw the chain and have none). In a run, R_c is the mean training reward at
checkpoint c and S_c a score, with standard errors r_c and s_c. The score parted from the reward between a and b if the
one rose and the other fell, by

    z_ab = min( (R_b - R_a) / sqrt(r_a^2 + r_b^2), (S_a - S_b) / sqrt(s_a^2 + s_b^2) ),    a < b                    (1)
    alarm: max over a < b of z_ab  >  quantile of the normal law at 1 - (alpha / 2) / m                             (2)

with m the pairs of checkpoints of all runs and scores. A score that follows never truly falls where the reward truly
rises: one of the differences in (1) is luck, and the chance that any pair exceeds (2) is alpha / 2 at most.

Across n runs, rho is Spearman's correlation at the last checkpoints; its interval, with z of the wanted level, is

    tanh( atanh(rho) +- z sqrt((1 + rho^2 / 2) / (n - 3)) )                 (Bonett and Wright 2000)                (3)

RM accuracy is no guide to the first score, gold, if the upper end of (3), one-sided at alpha / 2, lies below

    guide sqrt(K_accuracy K_gold),    K = max(0, 1 - mean squared error / variance among runs)                      (4)

which is what errors of measurement leave of a true correlation `guide` (Spearman 1904): reward models that are equally
good raise no alarm. What a rule of choice loses of a score is

    regret = highest measured - that of the checkpoint that the rule chooses.                                       (5)

Steps: judge every checkpoint on some answers (`measured` makes means and errors of them), hand all runs to
`objective_mismatch_in_rlhf`, read `reasons`, then what stands behind them. To be compared in `correlations` and
`regret`, rewards of different models need one unit: mean 0 and deviation 1 on the first model's answers, say.

Deviations: all equations are ours. Errors are taken for normal and known; they may go together within a checkpoint, and
upwards between two (the same prompts). (2) asks for means: a policy that takes risks which the reward likes and the
score does not raises an alarm, too. (3) and (4) hold in large samples. (5) is too high, as highest values are lucky.

    >>> follows = measured(np.array([[0.0, 1.0] * 50, [1.0, 2.0] * 50, [3.0, 4.0] * 50]))
    >>> falls = measured(np.array([[0.0, 1.0] * 50, [1.0, 2.0] * 50, [0.2, 1.2] * 50]))
    >>> right, nats = measured([1, 1, 1, 0] * 50), [0.0, 1.0, 3.0]
    >>> runs = [Run(right, follows, {"gold": each}, nats, {}) for each in (follows, falls)]
    >>> objective_mismatch_in_rlhf(runs).reasons
    ['training: in 1 of 2 runs the training reward rose while gold fell']

References: lambert2023alignment, bonett2000sample, spearman1904proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from backchannel.card import Card
from backchannel.parts.ranks import rank_correlation

CARD = Card(
    name="Objective mismatch in RLHF",
    summary="Whether reward models, training rewards and downstream scores of RLHF runs part, and what choosing loses.",
    paper="lambert2023alignment",
    row=58,
    topics=("overoptimisation", "reward models", "audit"),
    feedback=("reward",),
    protocol="artefact",
    engine="none",
    neighbour="",
    example={"runs": [((0.7, 0.01), ([0, 1], [0.1, 0.1]), {"gold": ([0, 0.5], [0.1, 0.1])}, [0, 1], {})]},
)

Numbers = Any  # whatever np.asarray reads
ACCURACY, REWARD = "RM accuracy", "training reward"


class Measured(NamedTuple):
    """Means with their standard errors: one number, or one for each checkpoint."""

    mean: Numbers
    error: Numbers


class Run(NamedTuple):
    """One run of RLHF, looked at in c checkpoints."""

    accuracy: Measured  # of its reward model, on comparisons held out
    reward: Measured  # training reward, [c]
    scores: Mapping[str, Measured]  # what was not trained on, gold first, [c] each
    divergence: Numbers  # from the first model, nats: [c]
    beside: Mapping[str, Numbers]  # what may drift: mean length, share of refusals; [c] each
    group: str = ""  # what runs differ by on purpose: data, size of the reward model


class Score(NamedTuple):
    """How a score followed the training reward in one run; checkpoints are numbered from 0."""

    peak: int  # where it was highest
    gap: int  # checkpoints from there to the reward's peak
    gap_divergence: float  # the same in nats
    after: float  # Spearman's correlation with the reward at checkpoints after the peak; nan of fewer than 3
    lost: float  # at its peak less at the last checkpoint
    start: int  # a and b of the largest (1)
    end: int
    z: float
    mismatch: bool  # (2)


class RunFound(NamedTuple):
    """What was found in one run."""

    scores: dict[str, Score]
    drift: dict[str, tuple[float, float, float]]  # at the first checkpoint, at the peak of gold, at the last

    @property
    def mismatch(self) -> bool:
        """Whether any score parted from the reward."""
        return any(each.mismatch for each in self.scores.values())


class Correlations(NamedTuple):
    """Spearman's, across runs at their last checkpoints: float64[k, k] each; nan where nothing varies."""

    names: list[str]
    rho: np.ndarray
    low: np.ndarray  # (3), 95 percent
    high: np.ndarray


class Regret(NamedTuple):
    """(5) of one rule, by score."""

    within: dict[str, float]  # a checkpoint is chosen in each run (by RM accuracy: the last): mean over runs
    among: dict[str, float]  # the run is chosen, too: mean over ties


class Group(NamedTuple):
    """Means over the runs of a group."""

    runs: int
    accuracy: float
    gold: float  # at the last checkpoint
    lost: float  # since its peak
    mismatches: int


class Mismatch(NamedTuple):
    """The report."""

    reasons: list[str]  # why there is a mismatch; none: there is none that could be told from luck
    false_alarm: float  # how often, at most, there is a reason where all scores follow and accuracy is a guide
    runs: list[RunFound]
    correlations: Correlations
    guide: tuple[float, float]  # of RM accuracy and gold: the upper end of (3), and (4)
    regret: dict[str, Regret]  # by rule: training reward, RM accuracy, and each score
    groups: dict[str, Group]

    @property
    def mismatch(self) -> bool:
        """The verdict."""
        return bool(self.reasons)


def objective_mismatch_in_rlhf(runs: Sequence[Run], alpha: float = 0.01, guide: float = 0.7) -> Mismatch:
    """The report on some runs.

    Args:
        runs: with the same scores, and the same beside them; their checkpoints may differ.
        alpha: how often a false alarm may be raised, in (0, 1).
        guide: rank correlation with gold from which on RM accuracy is a guide to it, in (0, 1].
    """
    if not (0 < alpha < 1 and 0 < guide <= 1):
        raise ValueError(f"alpha must lie in (0, 1) and guide in (0, 1], not {alpha} and {guide}")
    checked = _checked(runs)
    names, n, many = list(checked[0].scores), len(checked), [len(run.divergence) for run in checked]
    m = len(names) * sum(c * (c - 1) // 2 for c in many)
    found = [_followed(run, NormalDist().inv_cdf(1 - alpha / 2 / m)) for run in checked]  # (2)
    parted = {name: sum(each.scores[name].mismatch for each in found) for name in names}
    reasons = [f"training: in {k} of {n} runs the {REWARD} rose while {name} fell" for name, k in parted.items() if k]
    right = Measured(*np.array([run.accuracy for run in checked]).T)
    gold = Measured(*np.array([[x[-1] for x in run.scores[names[0]]] for run in checked]).T)
    upper = interval(rank_correlation(right.mean, gold.mean), n, NormalDist().inv_cdf(1 - alpha / 2))[1]
    least = guide * (_reliability(right) * _reliability(gold)) ** 0.5  # (4)
    if upper < least:
        reasons.append(f"{ACCURACY}: its rank correlation with {names[0]} is at most {upper:.2f}, below {least:.2f}")
    groups = {}
    for name in dict.fromkeys(run.group for run in checked):
        own = [i for i, run in enumerate(checked) if run.group == name]
        lost = [found[i].scores[names[0]].lost for i in own]
        means = [float(np.mean(each)) for each in (right.mean[own], gold.mean[own], lost)]
        groups[name] = Group(len(own), means[0], means[1], means[2], sum(found[i].mismatch for i in own))
    return Mismatch(reasons, alpha, found, _correlations(checked), (upper, least), _regrets(checked), groups)


def measured(samples: Numbers) -> Measured:
    """Means over the last axis, and their standard errors, of at least 2 samples."""
    x = np.asarray(samples, float)
    if not x.ndim or x.shape[-1] < 2:
        raise ValueError(f"samples must be at least 2 along the last axis, not of shape {x.shape}")
    return Measured(x.mean(-1), x.std(-1, ddof=1) / x.shape[-1] ** 0.5)


def interval(rho: float, n: int, z: float) -> tuple[float, float]:
    """(3); a correlation of +-1 counts as half an exchange of neighbours from it. nan of fewer than 4 runs."""
    if n < 4 or np.isnan(rho):
        return float("nan"), float("nan")
    most = 1 - 6 / (n**3 - n)
    middle, wide = np.arctanh(np.clip(rho, -most, most)), z * ((1 + rho**2 / 2) / (n - 3)) ** 0.5
    return float(np.tanh(middle - wide)), float(np.tanh(middle + wide))


def _followed(run: Run, line: float) -> RunFound:
    top, reward, nats, scores = int(np.argmax(run.reward.mean)), run.reward, run.divergence, {}
    for name, score in run.scores.items():
        peak, pairs = int(np.argmax(score.mean)), np.triu_indices(len(nats), 1)
        z = np.minimum(_rises(reward)[pairs], -_rises(score)[pairs])  # (1)
        worst = int(z.argmax())
        tail = slice(peak + 1, None)
        after = rank_correlation(reward.mean[tail], score.mean[tail]) if len(nats[tail]) > 2 else float("nan")
        apart, lost = float(nats[top] - nats[peak]), float(score.mean[peak] - score.mean[-1])
        start, end = (int(each[worst]) for each in pairs)
        scores[name] = Score(peak, top - peak, apart, after, lost, start, end, float(z[worst]), bool(z[worst] > line))
    at = next(iter(scores.values())).peak
    return RunFound(scores, {name: (float(x[0]), float(x[at]), float(x[-1])) for name, x in run.beside.items()})


def _rises(x: Measured) -> np.ndarray:
    """How far x is higher at b than at a, in standard errors: float64[a, b]."""
    up, error = x.mean - x.mean[:, None], np.hypot(x.error, x.error[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        rises: np.ndarray = np.where(up == 0, 0.0, up / error)
    return rises


def _correlations(runs: list[Run]) -> Correlations:
    rows = [
        {ACCURACY: run.accuracy.mean, REWARD: run.reward.mean[-1], "divergence": run.divergence[-1]}
        | {name: each.mean[-1] for name, each in run.scores.items()}
        | {name: each[-1] for name, each in run.beside.items()}
        for run in runs
    ]
    columns = np.array([list(row.values()) for row in rows]).T
    rho = np.array([[rank_correlation(x, y) for y in columns] for x in columns])
    ends = np.array([[interval(each, len(runs), NormalDist().inv_cdf(0.975)) for each in row] for row in rho])
    return Correlations(list(rows[0]), rho, ends[:, :, 0], ends[:, :, 1])


def _regrets(runs: list[Run]) -> dict[str, Regret]:
    names, regrets = list(runs[0].scores), {}
    paths = {REWARD: [run.reward for run in runs]} | {name: [run.scores[name] for run in runs] for name in names}
    chosen = {rule: [(float(x.mean.max()), int(x.mean.argmax())) for x in each] for rule, each in paths.items()}
    for rule, each in (chosen | {ACCURACY: [(run.accuracy.mean, -1) for run in runs]}).items():
        first, within, among = [i for i, (value, _) in enumerate(each) if value == max(each)[0]], {}, {}
        for name in names:
            best = np.array([value for value, _ in chosen[name]])
            got = np.array([run.scores[name].mean[c] for run, (_, c) in zip(runs, each, strict=True)])
            within[name], among[name] = float((best - got).mean()), float(best.max() - got[first].mean())  # (5)
        regrets[rule] = Regret(within, among)
    return regrets


def _reliability(x: Measured) -> float:
    """K of (4)."""
    spread = float(np.var(x.mean, ddof=1)) if len(x.mean) > 1 else 0.0
    return max(0.0, 1 - float((x.error**2).mean()) / spread) if spread else 0.0


def _checked(runs: Sequence[Run]) -> list[Run]:
    checked: list[Run] = []
    for number, run in enumerate(Run(*each) for each in runs):
        said = {REWARD: run.reward, **run.scores}
        paths = {name: np.asarray(x, float) for name, x in {"divergence": run.divergence, **run.beside}.items()}
        paths |= {name: np.asarray(x[0], float) for name, x in said.items()}
        errors = {f"error of {name}": np.asarray(x[1], float) for name, x in said.items()}
        c, right = max(2, paths[REWARD].size), Measured(*(float(x) for x in run.accuracy))
        for name, x in (paths | errors).items():
            if x.shape != (c,) or not np.isfinite(x).all() or (name in errors and x.min() < 0):
                raise ValueError(f"{name} of run {number} must be {c} finite numbers, errors not below 0, not {x}")
        if not (0 <= right.mean <= 1 and 0 <= right.error < np.inf):
            raise ValueError(f"accuracy of run {number} must lie in [0, 1], its error from 0 on, not {right}")
        both = {name: Measured(paths[name], errors[f"error of {name}"]) for name in said}
        reward, beside = both.pop(REWARD), {name: paths[name] for name in run.beside}
        checked.append(Run(right, reward, both, paths["divergence"], beside, run.group))
        if not both or any(list(a) != list(b) for a, b in zip(checked[-1][2:5:2], checked[0][2:5:2], strict=True)):
            raise ValueError(f"scores of run {number} must be one or more, those of run 0, not {[*both, *run.beside]}")
    if not checked:
        raise ValueError("runs must be at least one, not none")
    return checked
