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

Deviations: a trajectory joins the queue after its batch was judged, so that none is compared with itself. The paper's
continuous control (Pendulum, Hopper and others, with soft actor-critic) is not part of this file: `self_play` takes
any learner, and the claim runs it on tables only.

    >>> from backchannel.parts.nash import averages, even, solve
    >>> from backchannel.rl.selfplay_spo import gap_bound, selfplay_spo
    >>> from backchannel.tasks.preference_matrices import cyclic_game
    >>> game = cyclic_game(5, seed=0)
    >>> mean = averages(solve(selfplay_spo(actions=5, horizon=2000), game, even(5), 1999))[-1]
    >>> bool((game @ mean).max() - 0.5 <= gap_bound(5, 2000) / 2)
    True

References: swamy2024minimaximalist, freund1999adaptive.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

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
    return np.array([np.mean([beats(x, other) for other in others]) for x in batch])


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
    recent: deque[X] = deque(islice(sample(queue), queue), maxlen=queue)
    for _ in range(rounds):
        trajectories = list(sample(batch))
        learn(trajectories, win_shares(beats, trajectories, list(recent)))
        recent.extend(trajectories)
    return rounds * batch * queue
