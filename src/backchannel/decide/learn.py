"""Learn policies from a log and say honestly what each would earn.

1. *Scan* the log: its options, features, rewards, propensities.
2. *Learn* (one pass): each row falls into one of two halves at random. Every policy is learned three times: from each
   half, and from all rows. So is the model of the reward, from each half.
3. *Estimate* (one pass): every row is weighed under the policy that was learned from the other half, so that no policy
   is judged by what it has seen. The two halves' estimates are joined: the value said is that of a policy learned from
   half the log. The policy that is written was learned from all of it, and is likely to be a little better.
4. *Watch* (on the first rows): the policy estimated row by row as it learns, with the feedback at once and, for
   comparison, late, lost, bought or false.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import backchannel
from backchannel.decide import policies, summary
from backchannel.decide.against import against as judged
from backchannel.decide.candidate import Candidate
from backchannel.decide.features import encode, firsts
from backchannel.decide.hindsight import best_fixed
from backchannel.decide.model import Model, Normal, predict, solve
from backchannel.decide.monitor import monitor
from backchannel.decide.policyfile import Policy
from backchannel.decide.result import Learned, LogFacts
from backchannel.decide.scan import Scan
from backchannel.decide.streams import stream
from backchannel.decide.told import Channel
from backchannel.decide.watch import watch
from backchannel.ledger.estimators import Evaluated
from backchannel.ledger.log import Log
from backchannel.ledger.problems import counted

BATCH = 65536
MOST_PREDICTIONS = 2**22  # of the reward model, at once
LEAST_ROWS = 20  # with feedback: fewer cannot be halved and judged
Progress = Callable[[str, float], None]


def learn(
    log: Log,
    names: Sequence[str] | None = None,
    *,
    channel: Channel | None = None,
    against: Log | None = None,
    reward_range: tuple[float, float] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Learned, list[Policy]]:
    """Learn every policy of `names` (default: a sensible set) from `log`; estimate each; return both.

    Args:
        channel: what of the log's feedback the learners are told; estimates use the log as it is.
        against: another log of the same options under another policy, which this log then estimates.
        reward_range: of rewards, where the log does not show it; default [0, 1], or what the log shows.
        progress: called with what is being done and how far it is, in [0, 1].
    """
    start = time.perf_counter()
    say = progress or (lambda what, share: None)
    say("reading", 0.0)
    scan = Scan(log, reward_range)
    if scan.with_feedback < LEAST_ROWS:
        held = counted(scan.with_feedback, "decision", "decisions")
        raise ValueError(
            f"{log.name} holds {held} with feedback, too few to learn from and judge by; "
            f"at least {LEAST_ROWS} are needed"
        )
    if len(log.actions) == 1 and not scan.encoder.ragged:
        raise ValueError(
            f"every decision of {log.name} is {log.actions[0]!r}: with one option there is nothing to learn"
        )
    if scan.high <= scan.low:
        raise ValueError(
            f"every reward of {log.name} is {scan.low:g}: there is nothing to learn; --reward-range says what it may be"
        )
    channel = channel or Channel()
    methods = policies.chosen(list(names) if names is not None else None, scan.encoder.ragged)
    large = [method.key for method in methods if policies.too_large(method, scan.encoder)]
    left_out = f"{len(log.actions):,} options with a model of {scan.encoder.dimension} features each"
    if large and names is not None:
        raise ValueError(f"{large[0]} would be too large for {log.name}: {left_out}")
    methods = [method for method in methods if method.key not in large]
    half = stream(seed, "halves").random(scan.rows) < 0.5
    with tempfile.TemporaryDirectory(prefix="backchannel-") as folder:
        given = [policies.arguments(method, scan.encoder, scan.with_feedback) for method in methods]
        candidates = [Candidate(method, args, Path(folder)) for method, args in zip(methods, given, strict=True)]
        models = _learn(log, scan, candidates, channel, half, say)
        rows = _weigh(log, scan, candidates, models, half, seed, say)
        own = rows[3] == 1.0
        options = len(log.actions) if scan.uniform and not scan.encoder.ragged else 0
        best = best_fixed(rows[4], rows[0], rows[1], options, scan.low, scan.high)
        results = []
        for i, candidate in enumerate(candidates):
            say("estimating", i / len(candidates))
            evaluated = _evaluated(candidate, rows)
            known = candidate.truth / scan.with_feedback if hasattr(log, "right") else None  # the right one earns 1
            shares = (candidate.shares / max(candidate.shares.sum(), 1e-300)).tolist()
            results.append(summary.policy_result(candidate.method, evaluated, scan, shares, known, best, seed))
        results = summary.ranked(results)
        watched = None
        for candidate in candidates:
            if results[0].answered and results[0].key == candidate.method.key:
                watched = monitor(results[0].key, _evaluated(candidate, rows), own, scan.low, scan.high, len(results))
    curves, told = watch(log, scan, candidates, {r.key for r in results if r.answered}, channel, seed, say)
    for result in results:
        result.curve = curves.get(result.key)
    learned = Learned(
        version=backchannel.__version__,
        log=_facts(log, scan, rows[0], seed),
        estimator=summary.ESTIMATOR,
        policies=results,
        warnings=[
            *scan.warnings(),
            *([f"Left out as too large ({left_out}): {', '.join(large)}."] if large else []),
            *summary.warnings(results, scan),
        ],
        against=[judged(log, scan, against, seed)] if against is not None else [],
        told=told,
        calibration=summary.calibrated(rows[0], rows[2]),
        best_fixed=best,
        monitor=watched,
        seconds=time.perf_counter() - start,
    )
    written = [Policy(c.method.key, c.method.family, c.given, scan.encoder, c.whole, log.name) for c in candidates]
    return learned, written


def _evaluated(candidate: Candidate, rows: np.ndarray) -> Evaluated:
    table = candidate.rows()
    return Evaluated(rows[0], table[0] / rows[1], table[2] == 1.0, rows[2], table[1])


def _learn(
    log: Log, scan: Scan, candidates: list[Candidate], channel: Channel, half: np.ndarray, say: Progress
) -> list[Model]:
    """Pass 2. Returns the model for the rows of half 0 and of half 1: each fitted on the other."""
    comes, lies = channel.told(scan.rows), channel.false(scan.rows)
    normals = [Normal(scan.encoder), Normal(scan.encoder)]
    at = learned = 0
    for batch in log.batches():
        say("learning", at / scan.rows)
        n = batch.reward.size
        part = slice(at, at + n)
        block = encode(scan.encoder, batch)
        use = np.isfinite(batch.reward)
        reward = np.where(use, batch.reward, scan.low)
        for f in range(2):
            normals[f].add(block, use & (half[part] == f), reward)
        told = np.where(lies[part], scan.low + scan.high - reward, reward)
        loss = (scan.high - told) / (scan.high - scan.low)
        heard = use & comes[part] & (batch.time + channel.delay <= scan.last)
        propensity = scan.propensity(batch)
        for candidate in candidates:
            for f in range(2):
                candidate.passes.learn(candidate.halves[f], block, heard & (half[part] != f), propensity, loss)
            candidate.passes.learn(candidate.whole, block, heard, propensity, loss)
        at, learned = at + n, learned + int(heard.sum())
    if not learned:
        said = channel.words(log.has_time)
        raise ValueError(f"no feedback of {log.name} gets through before it ends ({said}): nothing can be learned")
    return [solve([normals[1 - f]], scan.low, scan.high) for f in range(2)]


def _weigh(
    log: Log, scan: Scan, candidates: list[Candidate], models: list[Model], half: np.ndarray, seed: int, say: Progress
) -> np.ndarray:
    """Pass 3. Returns float64[5, rows with feedback]: reward, propensity, q of the logged choice, half, choice."""
    kept = np.empty((5, scan.with_feedback))
    rng = stream(seed, "weigh")
    for candidate in candidates:
        candidate.shares = np.zeros(0 if scan.encoder.ragged else len(log.actions))
    at = done = 0
    for batch in log.batches(_batch_rows(scan)):
        say("estimating", at / scan.rows)
        n = batch.reward.size
        own = half[at : at + n].astype(np.int64)
        block = encode(scan.encoder, batch)
        use = np.isfinite(batch.reward)
        q = predict(models, own, block)
        right = log.right(batch) if hasattr(log, "right") else None
        for candidate in candidates:
            table = np.empty((n, 4))
            for f in range(2):
                mine = use & (own == f)
                table[mine] = candidate.weigh(f, block, mine, q, rng, scan.rows, right)[mine]
            candidate.truth += float(table[use, 3].sum())
            candidate.append(table[use, :3])
        told = int(use.sum())
        columns = (batch.reward, scan.propensity(batch), q[firsts(block) + block.action], own, batch.action)
        for i, column in enumerate(columns):
            kept[i, done : done + told] = column[use]
        at, done = at + n, done + told
    return kept


def _batch_rows(scan: Scan) -> int:
    """Rows of a batch, so that the model's predictions for all of their options stay small."""
    return BATCH if scan.encoder.ragged else int(np.clip(MOST_PREDICTIONS // len(scan.encoder.actions), 1, BATCH))


def _facts(log: Log, scan: Scan, reward: np.ndarray, seed: int) -> LogFacts:
    return LogFacts(
        name=log.name,
        rows=scan.rows,
        with_feedback=scan.with_feedback,
        actions=log.actions,
        contexts=[*log.numeric, *log.categorical],
        ragged=scan.encoder.ragged,
        reward_low=scan.low,
        reward_high=scan.high,
        earned=summary.mean(reward, seed),
        first_time=scan.first if log.has_time else None,
        last_time=scan.last if log.has_time else None,
        shares=(scan.counts / scan.counts.sum()).tolist(),
        propensities=scan.propensities,
        notes=list(log.notes),
    )
