"""Learning as it goes: policies on the first rows of a log, with the feedback at once, late, lost, bought or false."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backchannel.decide import summary
from backchannel.decide.candidate import Candidate
from backchannel.decide.features import encode
from backchannel.decide.result import Curve, Told
from backchannel.decide.scan import Scan
from backchannel.decide.streams import stream
from backchannel.decide.told import Channel
from backchannel.ledger.diagnostics import ENOUGH_ROWS
from backchannel.ledger.log import Log
from backchannel.loop import copy_state

CURVE_ROWS = 100_000  # the learning curves use at most so many rows, from the start of the log
CURVE_WORK = 5_000_000  # rows x options: with more than 50 options, fewer rows
FEWEST_ROWS = 1000


def watch(
    log: Log,
    scan: Scan,
    candidates: list[Candidate],
    answered: set[str],
    channel: Channel,
    seed: int,
    say: Callable[[str, float], None],
) -> tuple[dict[str, Curve], list[Told]]:
    """Each policy's learning curve, by key, and what each channel costs each policy.

    Nothing is said of a policy that is not among the `answered`, nor of choices that the log is hardly worth.
    """
    options = 1 if scan.encoder.ragged else len(scan.encoder.actions)
    batch = next(iter(log.batches(int(np.clip(CURVE_WORK // options, FEWEST_ROWS, CURVE_ROWS)))))
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
        compared = [compared[0], channel, *(each for each in compared[1:] if each.words() != channel.words())]
    heard = []
    for each in compared:
        rows = scan.rows if each is channel else n  # a budget is spent evenly over the whole log
        comes, lies = each.told(rows)[:n] & there, each.false(rows)[:n]
        arrival = np.where(comes, each.arrival(batch.time), n)
        loss = (scan.high - np.where(lies, scan.low + scan.high - reward, reward)) / (scan.high - scan.low)
        heard.append((each.words(log.has_time), arrival, loss))
    curves, told = {}, []
    for i, candidate in enumerate(candidates):
        say("comparing channels", i / len(candidates))
        for number, (label, arrival, loss) in enumerate(heard):
            informed = int((arrival < n).sum())
            if candidate.method.key not in answered:
                told.append(Told(label, candidate.method.key, informed, None))
                continue
            state = copy_state(candidate.learner.state)
            rng = stream(seed, "watch")
            probability = candidate.passes.progress(state, block, arrival, propensity, loss, rng)
            weight = np.where(there, probability / propensity, 0.0)
            curve = summary.curve(label, weight, reward)
            enough = weight.sum() ** 2 >= ENOUGH_ROWS * (weight**2).sum() > 0
            if enough and number == (0 if channel.clear else 1):
                curves[candidate.method.key] = curve
            told.append(Told(label, candidate.method.key, informed, summary.last(curve) if enough else None))
    return curves, told
