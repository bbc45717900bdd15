"""From rows to what is said of a policy: estimates by every estimator, intervals, and one honest sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from backchannel.card import Method
from backchannel.decide import hindsight
from backchannel.decide.result import Against, Bars, Calibration, Curve, Estimate, PolicyResult
from backchannel.decide.scan import Scan
from backchannel.ledger import diagnostics
from backchannel.ledger.estimators import (
    ESTIMATORS,
    Evaluated,
    doubly_robust,
    self_normalised_ips,
    shrunk,
    shrunk_doubly_robust,
    sub_gaussian,
    sub_gaussian_doubly_robust,
    sub_gaussian_ips,
    switch_doubly_robust,
    switched,
)
from backchannel.ledger.intervals import bootstrap, empirical_bernstein, student
from backchannel.ledger.tuning import Shape, tune_by_slope

ESTIMATOR = "self_normalised_doubly_robust"
POINTS = 60  # of a learning curve
MOST_BOOTSTRAPPED = 100_000  # rows; with more, intervals are Student's
LARGEST = 100.0  # the histogram of weights ends here; larger ones are counted in its last bar


def policy_result(
    method: Method,
    rows: Evaluated,
    scan: Scan,
    shares: list[float],
    known: float | None,
    best: Estimate | None,
    seed: int,
) -> PolicyResult:
    """Everything that is said of one policy; `best` is the best fixed option, where the log shows it."""
    found = diagnostics.diagnose(rows)
    estimates = _estimates(rows, scan, seed)
    value = lift = regret = None
    settle = None
    answered = found.effective_rows >= diagnostics.ENOUGH_ROWS
    if answered:
        contributions = ESTIMATORS[ESTIMATOR].contributions(rows)
        value = _within(estimates[ESTIMATOR], scan)
        if best is not None:  # both intervals hold at once: each errs half as often
            regret = hindsight.regret(best, _within(_interval(contributions, seed, hindsight.SHARE), scan))
        difference = contributions - rows.reward
        own = float(rows.reward.mean())
        lift = _cut(_interval(difference, seed), scan.low - own, scan.high - own)
        if lift.low <= 0 <= lift.high and lift.value != 0:
            settle = diagnostics.rows_to_settle(lift.value, float(difference.std()))
    said = diagnostics.verdict(found)
    if value is not None and not scan.low <= estimates[ESTIMATOR].value <= scan.high:
        said.append(
            "The estimate lies outside the range of rewards; value and lift were cut to what is possible. Too few rows "
            "speak for this policy to trust its interval."
        )
    return PolicyResult(
        key=method.key,
        name=method.card.name,
        value=value,
        lift=lift,
        estimates=estimates,
        effective_rows=found.effective_rows,
        largest_weight=found.largest_weight,
        mean_weight=found.mean_weight,
        unsupported=found.zero_share,
        true_value=None if known is None else scan.low + (scan.high - scan.low) * known,
        rows_to_settle=settle,
        regret=regret,
        shares=shares,
        weights=_bars(rows.weight),
        curve=None,
        answered=answered,
        verdict=" ".join(said) if said else _verdict(lift),
    )


def ranked(results: list[PolicyResult]) -> list[PolicyResult]:
    """Best estimate first, those that the log cannot answer for last."""
    return sorted(results, key=lambda r: (not r.answered, -r.value.value if r.value is not None else math.inf))


def warnings(results: list[PolicyResult], scan: Scan) -> list[str]:
    """What the reader must hear of the comparison as a whole."""
    told = [r for r in results if r.answered]
    said = []
    silent = [r.key for r in results if not r.answered]
    if silent:
        said.append(
            f"This log cannot answer for {', '.join(silent)}: their choices were logged too rarely (fewer than "
            f"{diagnostics.ENOUGH_ROWS} effective rows)."
        )
    if told and all(r.lift is not None and r.lift.low <= 0 <= r.lift.high for r in told):
        sound = [r for r in told if r.verdict == _verdict(r.lift)]
        rows = [r.rows_to_settle for r in sound if r.rows_to_settle is not None]
        least = f" The clearest difference would need about {min(rows):,} rows like these." if rows else ""
        said.append(f"No policy can be told apart from the log's own on these {scan.with_feedback:,} rows.{least}")
    return said


def mean(reward: np.ndarray, seed: int) -> Estimate:
    """The mean reward with a bootstrap interval."""
    return _interval(reward, seed)


def against(name: str, weight: np.ndarray, reward: np.ndarray, earned: np.ndarray, scan: Scan, seed: int) -> Against:
    """The other log's policy: its self-normalised estimate here, and what it earned there."""
    rows = Evaluated(reward, weight, np.zeros(reward.size, bool), np.zeros(reward.size), np.zeros(reward.size))
    found = diagnostics.diagnose(rows)
    answered = found.effective_rows >= diagnostics.ENOUGH_ROWS
    estimate = _within(_interval(self_normalised_ips(rows), seed), scan) if answered else None
    doubts = " ".join(diagnostics.verdict(found))
    return Against(name, estimate, found.effective_rows, _interval(earned, seed), answered, doubts)


def calibrated(reward: np.ndarray, q: np.ndarray) -> Calibration | None:
    """Ten groups of equal size by prediction; None with fewer than 20 rows."""
    if reward.size < 20:
        return None
    n = reward.size
    zeros = np.zeros(n)
    found = diagnostics.calibration(Evaluated(reward, np.ones(n), np.zeros(n, bool), q, zeros))
    return Calibration(found.predicted.tolist(), found.observed.tolist(), [len(p) for p in np.array_split(zeros, 10)])


def curve(label: str, weight: np.ndarray, reward: np.ndarray) -> Curve:
    """The self-normalised mean of w r over the first t rows, at about POINTS rows, with 95 % bands (large-sample)."""
    w, wr, wwr, ww, wwrr = (
        np.cumsum(x) for x in (weight, weight * reward, weight**2 * reward, weight**2, (weight * reward) ** 2)
    )
    rows = np.unique(np.linspace(min(20, w.size), w.size, POINTS).astype(int))
    rows = rows[w[rows - 1] > 0]
    at = rows - 1
    value = wr[at] / w[at]
    spread = np.sqrt(np.maximum(wwrr[at] - 2 * value * wwr[at] + value**2 * ww[at], 0.0)) / w[at]
    low, high = value - 1.96 * spread, value + 1.96 * spread
    return Curve(label, rows.tolist(), value.tolist(), low.tolist(), high.tolist())


def last(found: Curve) -> Estimate | None:
    """The end of a curve; None if it has none."""
    return Estimate(found.value[-1], found.low[-1], found.high[-1]) if found.rows else None


def _estimates(rows: Evaluated, scan: Scan, seed: int) -> dict[str, Estimate]:
    """Every estimator of obp for single actions, those with a parameter tuned on the log itself (SLOPE)."""
    found: dict[str, Estimate] = {}
    for name, estimator in ESTIMATORS.items():
        if name == "replay" and not (scan.uniform and rows.matched.any()):
            continue  # it is right only where the log was drawn uniformly
        if not rows.weight.any() and name != "direct":
            continue
        found[name] = _interval(estimator.contributions(rows), seed)
    if rows.weight.any():
        # Bias grows to the right: quantiles of the weights for SWITCH, powers of ten for shrinkage.
        taus = np.unique(np.quantile(rows.weight[rows.weight > 0], [1.0, 0.999, 0.99, 0.95, 0.9, 0.5]))[::-1].tolist()
        strengths = [math.inf, 1e4, 1e3, 1e2, 10.0, 1.0]
        shares = [0.0, 0.001, 0.01, 0.05, 0.1, 0.5]
        found["switch_doubly_robust"] = _interval(switch_doubly_robust(rows, _best(rows, switched, taus)), seed)
        found["shrunk_doubly_robust"] = _interval(shrunk_doubly_robust(rows, _best(rows, shrunk, strengths)), seed)
        share = _best(rows, sub_gaussian, shares)
        found["sub_gaussian_ips"] = _interval(sub_gaussian_ips(rows, share), seed)
        found["sub_gaussian_doubly_robust"] = _interval(sub_gaussian_doubly_robust(rows, share), seed)
        reach = max(float(rows.weight.max()), 1 / scan.least_propensity)  # the largest weight that could have occurred
        width = scan.high - scan.low
        low, high = scan.low - reach * width, scan.high + reach * width
        x = doubly_robust(rows)
        bound = empirical_bernstein(x, low, high)
        found["doubly_robust, empirical Bernstein"] = Estimate(float(x.mean()), bound.low, bound.high)
    return found


def _within(found: Estimate, scan: Scan) -> Estimate:
    """A value lies in the range of rewards, whatever the estimator says."""
    return _cut(found, scan.low, scan.high)


def _cut(found: Estimate, low: float, high: float) -> Estimate:
    return Estimate(*(min(max(part, low), high) for part in (found.value, found.low, found.high)))


def _best(rows: Evaluated, shape: Shape, candidates: Sequence[float]) -> float:
    return float(tune_by_slope(rows, shape, candidates).value)


def _interval(x: np.ndarray, seed: int, error: float = 0.05) -> Estimate:
    """Bootstrap, which keeps the skew; with very many rows Student's, which is then the same and far cheaper."""
    found = bootstrap(x, error, seed=seed) if x.size <= MOST_BOOTSTRAPPED else student(x, error)
    return Estimate(float(x.mean()), found.low, found.high)


def _bars(weight: np.ndarray) -> Bars | None:
    positive = weight[weight > 0]
    if not positive.size:
        return None
    edges = np.array([0.0, *np.geomspace(0.01, LARGEST, 25)])
    counts = np.histogram(np.minimum(weight, LARGEST), edges)[0]
    return Bars(edges.tolist(), counts.astype(float).tolist())


def _verdict(lift: Estimate | None) -> str:
    if lift is None:
        return "The log cannot answer."
    if lift.low > 0:
        return "Better than the log's own policy."
    if lift.high < 0:
        return "Worse than the log's own policy."
    return "Cannot be told apart from the log's own policy."
