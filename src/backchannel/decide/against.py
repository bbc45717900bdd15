"""The policy of another log, judged by this one."""

from __future__ import annotations

import numpy as np

from backchannel.decide import summary
from backchannel.decide.result import Against
from backchannel.decide.scan import Scan
from backchannel.ledger.log import Log


def against(log: Log, scan: Scan, other: Log, seed: int) -> Against:
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
    return summary.against(other.name, weight, reward, np.concatenate(rewards), scan, seed)
