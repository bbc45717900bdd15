"""SPO, self-play: what is preferred to what oneself does, on average, is the reward; no reward model is learned.

Of two trajectories a judge says which is better. A reward model squeezes these comparisons into one number for each
trajectory, which loses cycles, and noise in it is exploited. The policy that no other is preferred to (the minimax, or
von Neumann, winner) always exists; since the game is symmetric it needs no adversary, only oneself.

Equations (Swamy et al. 2024), in a table with win rates P(a > p) (`parts.nash`):

    r_t(a) = P(a > p_t)                                                                           (1)
    p_{t+1}(a) proportional to p_t(a) exp(eta r_t(a))                                             (2)

Any learner without regret may take the place of Hedge (2). The policy to use is the mean of p_1, ..., p_T. Since p_t
beats itself half of the time, its exploitability is the learner's mean regret:

    max_a P(a > mean p) - 1/2 <= log K / (eta T) + eta / 8 = sqrt(log K / (2 T)),   eta = sqrt(8 log K / T)   (3)

The last policy need not converge: in rock, paper, scissors it spirals outwards.

With trajectories instead of a table, (1) is estimated by a queue Q of those sampled last:

    r(x) = (1 / |Q|) sum_{q in Q} 1{x is preferred to q}                                          (4)

Labels that are flipped with probability eps turn P - 1/2 into (1 - 2 eps)(P - 1/2): the winner stays the same.

Steps: sample trajectories; compare each with the queue; hand their shares of wins, as rewards, to a learner; put them
into the queue.

`WinRateRewards` is (4) for a learner that has a loop of its own, `self_play` the whole loop. (4) keeps nothing of a
comparison but a reward: it needs one comparison for each trajectory, at least, and forgets it. A reward model learns
from all comparisons so far; where one number for each trajectory does explain them, it needs fewer (claim).

Deviations: a trajectory joins the queue after its batch was judged, so that none is compared with itself. The paper
learns control with soft actor-critic; the claim swings up pendulums with evolution strategies, a learner that asks for
no more than one reward for each trajectory. Hopper and the like were not tried.

    >>> from backchannel.parts.nash import averages, even, solve
    >>> from backchannel.rl.selfplay_spo import WinRateRewards, gap_bound, selfplay_spo
    >>> from backchannel.tasks.preference_matrices import cyclic_game
    >>> game = cyclic_game(5, seed=0)
    >>> mean = averages(solve(selfplay_spo(actions=5, horizon=2000), game, even(5), 1999))[-1]
    >>> bool((game @ mean).max() - 0.5 <= gap_bound(5, 2000) / 2)
    True
    >>> rewards = WinRateRewards(lambda x, y: float(x > y), first=[3, 5])
    >>> rewards([4, 9])  # each against 3 and 5; then they are the queue
    array([0.5, 1. ])
    >>> rewards([6]), rewards.comparisons
    (array([0.5]), 6)

References: swamy2024minimaximalist, freund1999adaptive.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from backchannel.card import Card
from backchannel.parts.nash import Solver, normalised, win_rates

CARD = Card(
    name="SPO (self-play)",
    summary="Reinforcement learning from preferences without a reward model: the share of wins against oneself is it.",
    paper="swamy2024minimaximalist",
    row=102,
    topics=("preference games", "exponential weights"),
    feedback=("win rates",),
    protocol="solver",
    engine="none",
    neighbour="nash_md",
    example={"actions": 5, "horizon": 100},
)

X = TypeVar("X")


def selfplay_spo(actions: int, horizon: int, step_size: float | None = None) -> Solver:
    """Self-play by Hedge; `parts.nash.averages` of its policies is the answer, the last one is not.

    Args:
        actions: K, at least 2.
        horizon: T, how many policies will be averaged; sets the step size.
        step_size: eta; default sqrt(8 log K / T).
    """
    if actions < 2 or horizon < 1:
        raise ValueError(f"actions must be at least 2 and horizon at least 1, not {actions} and {horizon}")
    eta = math.sqrt(8 * math.log(actions) / horizon) if step_size is None else step_size

    def step(matrix: np.ndarray, log_reference: np.ndarray, log_policy: np.ndarray, t: int) -> np.ndarray:
        return normalised(log_policy + eta * win_rates(matrix, log_policy))  # (1), (2)

    return Solver(step, queries=1)


def gap_bound(actions: int, horizon: int) -> float:
    """Twice (3): the duality gap of the mean of T policies, beginning with the uniform one, is at most this."""
    return 2 * math.sqrt(math.log(actions) / (2 * horizon))


def win_shares(beats: Callable[[X, X], float], batch: Sequence[X], others: Sequence[X]) -> np.ndarray:
    """(4): of each trajectory of the batch the mean of `beats(x, q)` over the others: float64[len(batch)]."""
    if not others:
        raise ValueError("there is nobody to be compared with: the queue is empty")
    wins = np.array([[beats(x, other) for other in others] for x in batch], float).reshape(len(batch), len(others))
    if not ((wins >= 0) & (wins <= 1)).all():
        found = wins[~((wins >= 0) & (wins <= 1))][0]
        raise ValueError(f"beats must say 1, 0 or a probability in between, not {found}")
    shares: np.ndarray = wins.mean(1)
    return shares


class WinRateRewards(Generic[X]):
    """(4), batch after batch: call it with the trajectories that were sampled last, and get their rewards.

    Attributes:
        queue: those that the next batch is compared with.
        comparisons: how many were made.
    """

    def __init__(self, beats: Callable[[X, X], float], first: Iterable[X]):
        """`beats` as in `self_play`; `first`: trajectories of the first policy, as many as the queue shall hold."""
        begin = list(first)
        if not begin:
            raise ValueError("there is nobody to be compared with: first must hold at least one trajectory")
        self.beats, self.queue, self.comparisons = beats, deque(begin, maxlen=len(begin)), 0

    def __call__(self, batch: Sequence[X]) -> np.ndarray:
        """The rewards of a batch, float64[len(batch)], in [0, 1]; then the batch joins the queue."""
        rewards = win_shares(self.beats, batch, list(self.queue))
        self.comparisons += len(batch) * len(self.queue)
        self.queue.extend(batch)
        return rewards


def self_play(
    sample: Callable[[int], Iterable[X]],
    learn: Callable[[list[X], np.ndarray], None],
    beats: Callable[[X, X], float],
    rounds: int,
    batch: int,
    queue: int,
) -> int:
    """SPO with any learner; returns how many comparisons were made.

    Args:
        sample: `sample(n)`: n trajectories of the present policy.
        learn: `learn(trajectories, rewards)`: one update of the policy.
        beats: 1 if the first of two trajectories is preferred, 0 if not, or the probability.
        rounds: updates.
        batch: trajectories of each.
        queue: how many of the last trajectories are kept to compare with. It is filled before the first round.
    """
    rewards = WinRateRewards(beats, islice(sample(queue), queue))
    for _ in range(rounds):
        trajectories = list(sample(batch))
        learn(trajectories, rewards(trajectories))
    return rewards.comparisons
