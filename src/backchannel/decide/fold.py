"""The compiled passes over a log: learn from rows, weigh rows under a policy, draw choices.

Learning is the fold of `update` over the rows whose feedback got through, each with the propensity that the log has for
it. Weighing asks a frozen policy for its distribution over the row's options: the probability of the logged choice, and
the sums that off-policy estimates need, so that nothing of size [rows, options] is ever held.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backchannel.base import Learner
from backchannel.decide.features import SEEN, Block, nothing_seen, options_of
from backchannel.decide.model import predicted
from backchannel.engine import bind
from backchannel.live import distribution_of

DRAWS = 100  # of a policy without closed form, for one row's distribution
COMMON_DRAWS = 10_000  # the same, of a policy whose distribution all rows share
QUICK_DRAWS = 10  # the same, while it learns: noisier, and as unbiased

_PASSES = '''
@compiled
def learn(learner, block, use, propensity, loss):
    """One pass: rows with use[i] are learned from."""
    for i in range(use.shape[0]):
        if use[i]:
            action = block.action[i]
            update(learner, seen(block, i, action), action, propensity[i], loss[i])


@compiled
def offer(learner, block, i, rng, draws, same, out):
    """The policy's distribution over row i's options, in out[: options]."""
    k = options_of(block, i)
    if same.shape[0] > 0:
        if block.x.shape[0] == 0:  # ragged options and no context: only uniform play is learned there
            out[:k] = 1.0 / k
        else:
            out[:k] = same[:k]
    else:
        distribution(learner, seen(block, i, -1), rng, draws, out[:k])
    if block.x.shape[0] > 0 and block.offered.shape[0] > 0:
        keep_offered(block, i, out)
    return k


@compiled
def keep_offered(block, i, out):
    """The row offers a part of the options: what mass lies on the others is shared among it."""
    total = 0.0
    first, stop = block.offered[i], block.offered[i + 1]
    for j in range(first, stop):
        total += out[block.option[j]]
    for a in range(block.name.shape[0]):
        here = False
        for j in range(first, stop):
            here = here or block.option[j] == a
        if not here:
            out[a] = 0.0
        else:
            out[a] = out[a] / total if total > 0.0 else 1.0 / (stop - first)


@compiled
def weigh(learner, block, use, model, rng, draws, same, out, table, shares):
    """For rows with use[i]: table[i] = (pi(logged), sum_a pi(a) q(a), 1 if a draw from pi is the logged choice)."""
    for i in range(use.shape[0]):
        if not use[i]:
            continue
        k = offer(learner, block, i, rng, draws, same, out)
        action = block.action[i]
        expected = 0.0
        for a in range(k):
            if out[a] > 0.0:
                expected += out[a] * predicted(model, block, i, a)
        table[i, 0] = out[action]
        table[i, 1] = expected
        table[i, 2] = 1.0 if rng.random() < out[action] else 0.0
        if shares.shape[0] == k:
            for a in range(k):
                shares[a] += out[a]


@compiled
def sample(learner, block, rng, draws, same, out, chosen, propensity):
    """For every row: a choice drawn from the policy, and the probability that it had."""
    for i in range(chosen.shape[0]):
        k = offer(learner, block, i, rng, draws, same, out)
        u = rng.random()
        for a in range(k):
            if out[a] > 0.0:
                chosen[i] = a
                if u < out[a]:
                    break
                u -= out[a]
        propensity[i] = out[chosen[i]]


@compiled
def progress(learner, block, order, arrival, propensity, loss, rng, draws, out, table):
    """Rows in turn: weigh row i under the policy as it stands, then learn from what has arrived by its end."""
    due = 0
    none = np.empty(0)
    for i in range(table.shape[0]):
        k = offer(learner, block, i, rng, draws, none, out)
        table[i] = out[block.action[i]]
        while due < order.shape[0] and arrival[order[due]] <= i:
            s = order[due]
            action = block.action[s]
            update(learner, seen(block, s, action), action, propensity[s], loss[s])
            due += 1
'''


class Passes:
    """The compiled passes of one learner. Its State is changed in place by `learn` and `progress`."""

    def __init__(self, learner: Learner, context: str):
        functions = {
            "update": learner.update,
            "seen": SEEN[context],
            "options_of": options_of,
            "distribution": distribution_of(learner),
            "predicted": predicted,
            "np": np,
        }
        bound = bind(_PASSES, functions, (learner.state,))
        self._same = SEEN[context] is nothing_seen
        self._distribution = distribution_of(learner)
        self._learn, self._weigh, self._sample, self._progress = bound.learn, bound.weigh, bound.sample, bound.progress

    def learn(self, state: Any, block: Block, use: np.ndarray, propensity: np.ndarray, loss: np.ndarray) -> None:
        """Update `state` with the rows where `use` is set; losses in [0, 1]."""
        self._learn(state, block, use, propensity, loss)

    def weigh(
        self,
        state: Any,
        block: Block,
        use: np.ndarray,
        model: Any,
        rng: np.random.Generator,
        shares: np.ndarray,
        draws: int = DRAWS,
        common: np.ndarray | None = None,
    ) -> np.ndarray:
        """float64[n, 3]: (pi(logged), sum_a pi(a) q(a), 1 if a draw from pi is the logged choice), nan where not used.

        Adds each option's probabilities to `shares`. `common` is what `common` returned for this State.
        """
        table = np.full((use.size, 3), np.nan)
        out = np.empty(block.rows.shape[0])
        same = self.common(state, block, rng) if common is None else common
        self._weigh(state, block, use, model, rng, draws, same, out, table, shares)
        return table

    def sample(self, state: Any, block: Block, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """For every row: the option drawn (index into its options) and the probability that it had."""
        n = block.action.size
        chosen, propensity = np.zeros(n, np.int64), np.empty(n)
        out = np.empty(block.rows.shape[0])
        self._sample(state, block, rng, DRAWS, self.common(state, block, rng), out, chosen, propensity)
        return chosen, propensity

    def progress(
        self,
        state: Any,
        block: Block,
        arrival: np.ndarray,
        propensity: np.ndarray,
        loss: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """float64[n]: pi(logged) of each row under the policy just before it; row i's feedback comes at arrival[i].

        Arrivals of n or more never come.
        """
        table = np.empty(arrival.size)
        order = np.argsort(arrival, kind="stable")
        order = order[arrival[order] < arrival.size]
        self._progress(
            state, block, order, arrival, propensity, loss, rng, QUICK_DRAWS, np.empty(block.rows.shape[0]), table
        )
        return table

    def common(self, state: Any, block: Block, rng: np.random.Generator) -> np.ndarray:
        """A policy that sees no context has one distribution for all rows, of many draws; else an empty array."""
        if not self._same:
            return np.empty(0)
        out = np.empty(block.rows.shape[0])
        self._distribution(state, block.rows[0, :0], rng, COMMON_DRAWS, out)
        return out
