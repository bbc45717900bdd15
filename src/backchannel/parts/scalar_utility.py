"""Does one number for each item explain who wins? The likelihood-ratio test of a scalar utility, exact at any count.

With utilities u, Bradley and Terry's model says that a beats b with probability sigmoid(u_a - u_b); the unrestricted
model has a probability of its own for each pair. With n_e votes of pair e, of which w_e are wins,

    LR = 2 (L(w / n) - max_u L(u)),   L(p) = sum_e w_e log p_e + (n_e - w_e) log(1 - p_e)             (1)

is chi-square with (pairs - items + components) degrees of freedom if every n_e is large. With few votes of many pairs
it is far from that, and drawing new votes from the fitted utilities does not help: they are fitted to the same few
votes. But a score, the number of wins of an item, is sufficient for its utility. Given all scores s, the votes have a
law that knows no utility,

    P(w | s) proportional to prod_e C(n_e, w_e),                                                      (2)

and max_u L(u) is a constant. So LR is compared with its values under (2), and the test holds its level at any count,
also where no finite utilities exist.

Sampling (2): along a cycle of the graph, a win more for each item against the next leaves all scores as they are. A
step picks a cycle at random, and draws how far to go from its exact law under (2). Simple cycles connect all tables
(the matrix of scores is unimodular), and steps are reversible. The data take a random place in one long chain,
which runs from there both ways: however slowly it mixes, all places are exchangeable, and
p = (1 + #{at least as large}) / (1 + draws) is valid (Besag and Clifford 1989).

A pair that is on no cycle, or has one vote in a cycle without choice, says nothing about utility.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backchannel.engine import bind, compiled
from backchannel.parts.comparisons import Votes

WORK = 1e9  # votes that the chain passes, about: beyond it samples lie nearer together, and p stays valid
LIMIT = 20.0  # utilities that want to be infinite stop here: exp(-20) of likelihood


class ScalarTest(NamedTuple):
    """Of the hypothesis that one utility for each item explains all votes."""

    statistic: float  # LR (1)
    expected: float  # its mean under (2): what chance alone makes of it
    p: float
    freedom: int  # of the chi-square that it tends to with many votes
    coin: float  # log-likelihood of fair coins, of utilities, of the unrestricted model
    scalar: float
    unrestricted: float


def utilities(data: Votes, rounds: int = 500) -> np.ndarray:
    """The utilities of greatest likelihood, one an item, 0 on average: Newman's iteration, cut to +-20.

    pi_i <- (sum_j w_ij pi_j / (pi_i + pi_j)) / (sum_j w_ji / (pi_i + pi_j)) with pi = exp u, one item after the other:
    the fixed points are Zermelo's, and it comes to them many times faster (Newman 2023). Where a utility wants to be
    infinite, LR comes out a little too large; its p, for which max_u L(u) is a constant, does not change.
    """
    u, before = np.zeros(_items(data)), -np.inf
    if not u.size:
        return u
    run: Callable[..., Any] = bind(_ROUND, {"one_round": _round}, ()).run
    arguments = (*_arcs(data, np.arange(data.a.size)), data.a, data.votes, data.wins)
    for _ in range(rounds):
        run(u, *arguments)
        now = log_likelihood(data, u)
        if abs(now - before) < 1e-9 - 1e-13 * now:
            break
        before = now
    return np.asarray(u - u.mean())


def log_likelihood(data: Votes, u: np.ndarray) -> float:
    """L of utilities."""
    apart = u[data.a] - u[data.b]
    return -float(data.wins @ np.logaddexp(0, -apart) + (data.votes - data.wins) @ np.logaddexp(0, apart))


def scalar_utility(data: Votes, rng: np.random.Generator, draws: int = 199) -> ScalarTest:
    """The test; `draws` tables under (2)."""
    if not data.a.size:
        raise ValueError("there are no comparisons without a tie")
    fitted, whole = log_likelihood(data, utilities(data)), _unrestricted(data.votes, data.wins)
    start, arcs, partner = cycles(data)
    sampled = np.full(draws, whole)
    if arcs.size:
        table = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, data.votes.max() + 1)))])  # log k!
        entropy = np.array([0.0, *(k * np.log(k) for k in range(1, int(data.votes.max()) + 1))])
        place = int(rng.integers(draws + 1))
        arguments = (start, arcs, partner, data.a, data.votes, table, entropy, rng)
        walk: Callable[..., Any] = bind(_CALL, {"walk": _walk}, ()).run
        moves = max(1, min(freedom(data), int(WORK / (draws * data.votes.mean()))))
        walks = [walk(data.wins.copy(), steps, moves, *arguments) for steps in (place, draws - place)]
        sampled = np.concatenate(walks) - data.votes @ np.log(data.votes)
    return ScalarTest(
        statistic=2 * (whole - fitted),
        expected=2 * (float(sampled.mean()) - fitted),
        p=float((1 + (sampled >= whole - 1e-9 * max(1.0, abs(whole))).sum()) / (1 + draws)),
        freedom=freedom(data),
        coin=-float(data.votes.sum() * np.log(2)),
        scalar=fitted,
        unrestricted=whole,
    )


def components(data: Votes) -> np.ndarray:
    """The smallest item that each item hangs together with: int64[items]."""
    label = np.arange(_items(data))
    while True:
        least = np.minimum(label[data.a], label[data.b])
        new = label.copy()
        np.minimum.at(new, data.a, least)
        np.minimum.at(new, data.b, least)
        new = new[new]
        if (new == label).all():
            return label
        label = new


def freedom(data: Votes) -> int:
    """Pairs - items + components: the number of independent cycles."""
    used = np.union1d(data.a, data.b)
    return int(data.a.size - used.size + np.unique(components(data)[used]).size)


def cycles(data: Votes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The graph without the items that lie on no cycle: where each item's arcs start, their pairs and their items."""
    items = _items(data)
    alive = np.ones(data.a.size, bool)
    while True:
        degree = np.bincount(data.a[alive], minlength=items) + np.bincount(data.b[alive], minlength=items)
        leaf = alive & ((degree[data.a] == 1) | (degree[data.b] == 1))
        if not leaf.any():
            break
        alive &= ~leaf
    return _arcs(data, np.flatnonzero(alive))


def _items(data: Votes) -> int:
    return int(max(data.a.max(initial=-1), data.b.max(initial=-1))) + 1


def _arcs(data: Votes, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source = np.concatenate([data.a[edges], data.b[edges]])
    order = np.argsort(source, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=_items(data)))])
    return start, np.tile(edges, 2)[order], np.concatenate([data.b[edges], data.a[edges]])[order]


def _unrestricted(votes: np.ndarray, wins: np.ndarray) -> float:
    lost = votes - wins
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(wins > 0, wins * np.log(wins / votes), 0) + np.where(lost > 0, lost * np.log(lost / votes), 0)
    return float(each.sum())


_ROUND = '''
@compiled
def run(u, start, arcs, partner, a, votes, wins):
    """Every item once."""
    return one_round(u, start, arcs, partner, a, votes, wins)
'''


@compiled
def _round(u, start, arcs, partner, a, votes, wins):
    """Newman's iteration, in place."""
    for item in range(u.size):
        won, lost, own = 0.0, 0.0, np.exp(u[item])
        for k in range(start[item], start[item + 1]):
            e, other = arcs[k], np.exp(u[partner[k]])
            w = wins[e] if a[e] == item else votes[e] - wins[e]
            won += w * other / (own + other)
            lost += (votes[e] - w) / (own + other)
        if start[item] < start[item + 1]:
            u[item] = min(max(np.log(max(won, 1e-300)) - np.log(max(lost, 1e-300)), -LIMIT), LIMIT)


_CALL = '''
@compiled
def run(wins, samples, moves, start, arcs, partner, a, votes, log_factorial, entropy, rng):
    """One way from the data."""
    return walk(wins, samples, moves, start, arcs, partner, a, votes, log_factorial, entropy, rng)
'''


@compiled
def _walk(wins, samples, moves, start, arcs, partner, a, votes, log_factorial, entropy, rng):
    """sum_e (w log w + (n - w) log(n - w)) of `samples` tables, `moves` steps apart, from `wins` on."""
    found = np.empty(samples)
    items = start.size - 1
    edges, sign, at = np.empty(items, np.int64), np.empty(items, np.int64), np.full(items, -1)
    path, weights = np.empty(items, np.int64), np.empty(2 * votes.max() + 1)
    for sample in range(samples):
        for _ in range(moves):
            # A walk that never turns back, until it meets itself: what it has gone round is the cycle.
            item = partner[rng.integers(0, partner.size)]
            length, came = 0, -1
            while at[item] < 0:
                at[item], path[length] = length, item
                while True:
                    k = rng.integers(start[item], start[item + 1])
                    if arcs[k] != came:
                        break
                edges[length], sign[length] = arcs[k], 1 if a[arcs[k]] == item else -1
                came, item, length = arcs[k], partner[k], length + 1
            first = at[item]
            for i in range(length):
                at[path[i]] = -1
            # How far to go: from the exact law of the shift given everything else.
            low, high = -votes.max(), votes.max()
            for i in range(first, length):
                w, n = wins[edges[i]], votes[edges[i]]
                low = max(low, -w if sign[i] > 0 else w - n)
                high = min(high, n - w if sign[i] > 0 else w)
            total, most = 0.0, -np.inf
            for shift in range(low, high + 1):
                log_weight = 0.0
                for i in range(first, length):
                    w = wins[edges[i]] + sign[i] * shift
                    log_weight -= log_factorial[w] + log_factorial[votes[edges[i]] - w]
                weights[shift - low] = log_weight
                most = max(most, log_weight)
            for j in range(high - low + 1):
                weights[j] = np.exp(weights[j] - most)
                total += weights[j]
            left, j = rng.random() * total, 0
            while j < high - low and left >= weights[j]:
                left -= weights[j]
                j += 1
            for i in range(first, length):
                wins[edges[i]] += sign[i] * (low + j)
        value = 0.0
        for e in range(wins.size):
            value += entropy[wins[e]] + entropy[votes[e] - wins[e]]
        found[sample] = value
    return found
