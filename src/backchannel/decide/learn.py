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
from typing import Any

import numpy as np

import backchannel
from backchannel.base import Learner, State
from backchannel.card import Method
from backchannel.decide import policies, summary
from backchannel.decide.features import Block, encode
from backchannel.decide.fold import DRAWS, Passes
from backchannel.decide.model import Model, Normal, predict_chosen, solve
from backchannel.decide.policyfile import Policy
from backchannel.decide.result import Against, Learned, LogFacts, Told
from backchannel.decide.scan import Scan
from backchannel.decide.streams import stream
from backchannel.decide.told import Channel
from backchannel.engine import bind
from backchannel.ledger.estimators import Evaluated
from backchannel.ledger.log import Batch, Log
from backchannel.loop import copy_state

CURVE_ROWS = 100_000  # the learning curves use at most so many rows, from the start of the log
MOST_WORK = 20_000_000_000  # rows x draws x numbers in a State: beyond it, fewer draws of policies without closed form
FEWEST_DRAWS = 10
LEAST_ROWS = 20  # with feedback: fewer cannot be halved and judged
Progress = Callable[[str, float], None]

_CALL = """
@compiled
def run(model, block, out):
    predict_chosen(model, block, out)
"""


class Candidate:
    """One policy on its way: three States, and a file with what the estimates need of every row."""

    def __init__(self, method: Method, given: dict[str, Any], folder: Path):
        self.method, self.given = method, given
        self.learner: Learner = policies.make(method, given)
        if "answered" in self.learner.state._fields:
            raise ValueError(
                f"{method.key} learns only from decisions of its own: it can be played or served, not learned"
            )
        self.passes = Passes(self.learner, method.card.context)
        self.halves: list[State] = [copy_state(self.learner.state) for _ in range(2)]
        self.whole: State = copy_state(self.learner.state)
        self.shares = np.zeros(0)
        self.truth = 0.0
        self.path = folder / f"{method.key}.rows"
        self.common: dict[int, np.ndarray] = {}

    def weigh(
        self, f: int, block: Block, use: np.ndarray, model: Model, rng: Any, shares: np.ndarray, rows: int
    ) -> np.ndarray:
        """Half f's policy on a batch's rows, of `rows` in all: see `Passes.weigh`."""
        state = self.halves[f]
        if f not in self.common:
            self.common[f] = self.passes.common(state, block, rng)
        size = sum(value.size for value in state)
        draws = int(np.clip(MOST_WORK // (rows * size), FEWEST_DRAWS, DRAWS))
        return self.passes.weigh(state, block, use, model, rng, shares, draws, self.common[f])

    def append(self, table: np.ndarray) -> None:
        """Keep (pi(logged), sum pi q, matched) of a batch's rows."""
        with open(self.path, "ab") as file:
            file.write(np.ascontiguousarray(table).tobytes())

    def rows(self) -> np.ndarray:
        """float64[3, rows]: all that was appended."""
        return np.ascontiguousarray(np.fromfile(self.path).reshape(-1, 3).T)


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
        raise ValueError(
            f"{log.name} holds {scan.with_feedback} decisions with feedback, too few to learn from and judge by; "
            f"at least {LEAST_ROWS} are needed"
        )
    if scan.high <= scan.low:
        raise ValueError(
            f"every reward of {log.name} is {scan.low:g}: there is nothing to learn; --reward-range says what it may be"
        )
    channel = channel or Channel()
    methods = policies.chosen(list(names) if names is not None else None, scan.encoder.ragged)
    half = stream(seed, "halves").random(scan.rows) < 0.5
    with tempfile.TemporaryDirectory(prefix="backchannel-") as folder:
        given = [policies.arguments(method, scan.encoder, scan.with_feedback) for method in methods]
        candidates = [Candidate(method, args, Path(folder)) for method, args in zip(methods, given, strict=True)]
        models = _learn(log, scan, candidates, channel, half, say)
        rows = _weigh(log, scan, candidates, models, half, seed, say)
        results = []
        for i, candidate in enumerate(candidates):
            say("estimating", i / len(candidates))
            table = candidate.rows()
            evaluated = Evaluated(rows[0], table[0] / rows[1], table[2] == 1.0, rows[2], table[1])
            known = candidate.truth / scan.with_feedback if hasattr(log, "right") else None  # the right one earns 1
            shares = (candidate.shares / max(candidate.shares.sum(), 1e-300)).tolist()
            results.append(summary.policy_result(candidate.method, evaluated, scan, shares, known, seed))
    curves, told = _watch(log, scan, candidates, channel, seed, say)
    for result in results:
        result.curve = curves.get(result.key)
    learned = Learned(
        version=backchannel.__version__,
        log=_facts(log, scan, rows[0], seed),
        estimator=summary.ESTIMATOR,
        policies=summary.ranked(results),
        warnings=[*scan.warnings(), *summary.warnings(results, scan)],
        against=[_against(log, scan, against, seed)] if against is not None else [],
        told=told,
        calibration=summary.calibrated(rows[0], rows[2]),
        seconds=time.perf_counter() - start,
    )
    written = [Policy(c.method.key, c.method.family, c.given, scan.encoder, c.whole, log.name) for c in candidates]
    return learned, written


def _learn(
    log: Log, scan: Scan, candidates: list[Candidate], channel: Channel, half: np.ndarray, say: Progress
) -> list[Model]:
    """Pass 2. Returns the model for the rows of half 0 and of half 1: each fitted on the other."""
    comes, lies = channel.told(scan.rows), channel.false(scan.rows)
    normals = [Normal(scan.encoder), Normal(scan.encoder)]
    at = 0
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
        at += n
    return [solve([normals[1 - f]], scan.low, scan.high) for f in range(2)]


def _weigh(
    log: Log, scan: Scan, candidates: list[Candidate], models: list[Model], half: np.ndarray, seed: int, say: Progress
) -> np.ndarray:
    """Pass 3. Returns float64[3, rows with feedback]: reward, propensity, q of the logged choice."""
    kept = np.empty((3, scan.with_feedback))
    predict = bind(_CALL, {"predict_chosen": predict_chosen}, (models[0],)).run
    rng = stream(seed, "weigh")
    for candidate in candidates:
        candidate.shares = np.zeros(0 if scan.encoder.ragged else len(log.actions))
        candidate.common.clear()
    at = done = 0
    for batch in log.batches():
        say("estimating", at / scan.rows)
        n = batch.reward.size
        own = half[at : at + n]
        block = encode(scan.encoder, batch)
        use = np.isfinite(batch.reward)
        q = np.empty(n)
        for f in range(2):
            guess = np.empty(n)
            predict(models[f], block, guess)
            q = np.where(own == f, guess, q)
        right = _right(log, batch, block)
        for candidate in candidates:
            table = np.full((n, 3), np.nan)
            for f in range(2):
                mine = use & (own == f)
                found = candidate.weigh(f, block, mine, models[f], rng, candidate.shares, scan.rows)
                table[mine] = found[mine]
                if right is not None:
                    known = candidate.weigh(f, right, mine, models[f], rng, np.zeros(0), scan.rows)
                    candidate.truth += float(known[mine, 0].sum())
            candidate.append(table[use])
        told = int(use.sum())
        for i, column in enumerate((batch.reward, scan.propensity(batch), q)):
            kept[i, done : done + told] = column[use]
        at, done = at + n, done + told
    return kept


def _right(log: Log, batch: Batch, block: Block) -> Block | None:
    """For a replayed table, whose right answers are known: the block with the right option in place of the chosen."""
    if not hasattr(log, "right"):
        return None
    return block._replace(action=log.right(batch))


def _watch(
    log: Log, scan: Scan, candidates: list[Candidate], channel: Channel, seed: int, say: Progress
) -> tuple[dict[str, Any], list[Told]]:
    """Pass 4: learning as it goes, on the first rows."""
    batch = next(iter(log.batches(CURVE_ROWS)))
    block, n = encode(scan.encoder, batch), batch.reward.size
    there = np.isfinite(batch.reward)
    reward = np.where(there, batch.reward, scan.low)
    propensity = scan.propensity(batch)
    span = float(batch.time[-1] - batch.time[0])
    compared = [
        Channel(),
        *([Channel(delay=span / 10)] if span > 0 else []),
        Channel(drop=0.5),
        Channel(budget=max(n // 10, 1)),
        Channel(flip=0.1),
    ]
    if not channel.clear:
        compared.insert(1, channel)
    curves, told = {}, []
    for i, candidate in enumerate(candidates):
        say("comparing channels", i / len(candidates))
        for number, each in enumerate(compared):
            rows = scan.rows if each is channel else n  # a budget is spent evenly over the whole log
            comes, lies = each.told(rows)[:n] & there, each.false(rows)[:n]
            loss = (scan.high - np.where(lies, scan.low + scan.high - reward, reward)) / (scan.high - scan.low)
            arrival = (
                np.searchsorted(batch.time, batch.time + each.delay, side="right") - 1 if each.delay else np.arange(n)
            )
            arrival = np.where(
                comes & (batch.time + each.delay <= batch.time[-1]), np.maximum(arrival, np.arange(n)), n
            )
            state = copy_state(candidate.learner.state)
            rng = stream(seed, "watch")
            probability = candidate.passes.progress(state, block, arrival, propensity, loss, rng)
            weight = np.where(there, probability / propensity, 0.0)
            label = each.words(log.has_time)
            curve = summary.curve(label, weight, reward)
            if number == (0 if channel.clear else 1):
                curves[candidate.method.key] = curve
            value = summary.last(curve)
            told.append(Told(label, candidate.method.key, int((arrival < n).sum()), value))
    return curves, told


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


def _against(log: Log, scan: Scan, other: Log, seed: int) -> Against:
    """The other log's policy, as that log shows it: how often it took each option at each position."""
    if other.actions != log.actions:
        raise ValueError(
            f"{other.name} and {log.name} do not have the same options: neither can estimate the other's policy"
        )
    counts: dict[int, np.ndarray] = {}
    rewards = []
    for batch in other.batches():
        rewards.append(batch.reward[np.isfinite(batch.reward)])
        for position in np.unique(batch.position).tolist():
            here = np.bincount(batch.action[batch.position == position], minlength=len(log.actions))
            counts[position] = counts.get(position, 0) + here
    chance = {position: count / count.sum() for position, count in counts.items()}
    weights, seen = [], []
    for batch in log.batches():
        told = np.isfinite(batch.reward)
        p = np.array([chance[k][a] if k in chance else 0.0 for k, a in zip(batch.position, batch.action, strict=True)])
        weights.append((p / scan.propensity(batch))[told])
        seen.append(batch.reward[told])
    weight, reward = np.concatenate(weights), np.concatenate(seen)
    return summary.against(other.name, weight, reward, np.concatenate(rewards), seed)
