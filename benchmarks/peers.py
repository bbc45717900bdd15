"""Other libraries, and plain Python, on the benchmark's Bernoulli task: each in its own idiom, one decision at a time.

A peer is a function `rounds -> bool[rounds]`: whether each decision was the best arm. Its rewards come from
`random.random`, a small part of its time. A library that is not installed, or does not import, is left out with a
sentence that says why.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Peer = Callable[[int], np.ndarray]
PEERS = {
    "River": ("ucb1", "exp3", "thompson"),
    "MABWiser": ("ucb1", "thompson"),
    "SMPyBandits": ("ucb1", "exp3", "thompson"),
}


def exp3_mixing(arms: int, rounds: int) -> float:
    """Auer et al. (2002), Corollary 3.2: the share of uniform play for which Exp3's bound is the least."""
    return min(1.0, math.sqrt(arms * math.log(arms) / ((math.e - 1) * rounds)))


def load(losses: Sequence[float]) -> tuple[dict[tuple[str, str], Peer], list[str]]:
    """Every peer that is here, by (library, method); and a sentence for each that is not."""
    makers = {"River": _river, "MABWiser": _mabwiser, "SMPyBandits": _smpybandits}
    found: dict[tuple[str, str], Peer] = {}
    left_out = []
    for name, maker in makers.items():
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peers = maker([1 - loss for loss in losses])
        except (ImportError, AttributeError) as error:
            left_out.append(f"{name} is left out: {type(error).__name__}: {error}")
            continue
        found |= {(name, method): peers[method] for method in PEERS[name]}
    return found, left_out


def _river(rewards: list[float]) -> dict[str, Peer]:
    from river import bandit, proba

    arms, best = list(range(len(rewards))), int(np.argmax(rewards))

    def run(policy: bandit.base.Policy, rounds: int) -> np.ndarray:
        hit = np.zeros(rounds, bool)
        for t in range(rounds):
            arm = policy.pull(arms)
            policy.update(arm, 1 if random.random() < rewards[arm] else 0)
            hit[t] = arm == best
        return hit

    def ucb1(rounds: int) -> np.ndarray:
        return run(bandit.UCB(delta=1, burn_in=1), rounds)

    def exp3(rounds: int) -> np.ndarray:
        return run(bandit.Exp3(gamma=exp3_mixing(len(arms), rounds)), rounds)  # gamma=0 would stay uniform for ever

    def thompson(rounds: int) -> np.ndarray:
        return run(bandit.ThompsonSampling(reward_obj=proba.Beta()), rounds)

    return {"ucb1": ucb1, "exp3": exp3, "thompson": thompson}


def _mabwiser(rewards: list[float]) -> dict[str, Peer]:
    from mabwiser.mab import MAB, LearningPolicy

    arms, best = list(range(len(rewards))), int(np.argmax(rewards))

    def run(policy: Any, rounds: int) -> np.ndarray:
        mab = MAB(arms, policy)
        mab.fit(arms, [int(random.random() < reward) for reward in rewards])  # it cannot start without one of each
        hit = np.zeros(rounds, bool)
        for t in range(rounds):
            arm = mab.predict()
            mab.partial_fit([arm], [1 if random.random() < rewards[arm] else 0])
            hit[t] = arm == best
        return hit

    def ucb1(rounds: int) -> np.ndarray:
        return run(LearningPolicy.UCB1(alpha=1.0), rounds)

    def thompson(rounds: int) -> np.ndarray:
        return run(LearningPolicy.ThompsonSampling(), rounds)

    return {"ucb1": ucb1, "thompson": thompson}


def _smpybandits(rewards: list[float]) -> dict[str, Peer]:
    import scipy.special

    if not hasattr(scipy.special, "btdtri"):  # SciPy renamed it; used for quantiles, not in what is measured
        scipy.special.btdtri = scipy.special.betaincinv
    policies = {
        name: getattr(importlib.import_module(f"SMPyBandits.Policies.{name}"), name)
        for name in ("UCB", "Exp3", "Thompson")
    }
    arms, best = len(rewards), int(np.argmax(rewards))

    def run(policy: Any, rounds: int) -> np.ndarray:
        policy.startGame()
        hit = np.zeros(rounds, bool)
        for t in range(rounds):
            arm = policy.choice()
            policy.getReward(arm, 1 if random.random() < rewards[arm] else 0)
            hit[t] = arm == best
        return hit

    def ucb1(rounds: int) -> np.ndarray:
        with np.errstate(all="ignore"):  # it divides by the pulls of untried arms, and overwrites the result
            return run(policies["UCB"](arms), rounds)

    def exp3(rounds: int) -> np.ndarray:
        return run(policies["Exp3"](arms, gamma=exp3_mixing(arms, rounds)), rounds)

    def thompson(rounds: int) -> np.ndarray:
        return run(policies["Thompson"](arms), rounds)

    return {"ucb1": ucb1, "exp3": exp3, "thompson": thompson}
