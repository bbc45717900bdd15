"""How many triples of items are truly intransitive, told apart from the noise of votes.

Of three items compared in all pairs, choices go round if the majority prefers a to b, b to c and c to a. Votes are
noisy: of three even pairs with a vote each, one triple in four goes round. Counting majorities that go round
counts such noise, and no function of a few votes is unbiased for a majority. But many triples together say how their
probabilities are spread. With p = (p_ab, p_bc, p_ca) a draw from an unknown law G, and votes binomial given p,

    L(G) = sum_t log sum_p G(p) prod_e C(n_te, w_te) p_e^w_te (1 - p_e)^(n_te - w_te)                 (1)

G is fitted by maximum likelihood among all laws on a grid of p that do not depend on how a triple's items are named
(Kiefer and Wolfowitz 1956), by the EM algorithm

    G(p) <- mean_t G(p) L_t(p) / sum_q G(q) L_t(q).                                                   (2)

The rate is G's mass where all three p lie above 1/2, or all below. Its interval holds the rates whose profile
likelihood, (2) with the masses of both parts held, is within 1.92 of the maximum. Where votes cannot tell (one a pair),
the likelihood is flat and the interval says so.

Triples of one menu share pairs. Each counts as the mean, over its pairs, of one over the number of triples that the
pair is in: so no vote counts twice.

The grid has 1/2 as a point, which is no preference: margins below about 5 points count as none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from backchannel.parts.comparisons import Votes

SIDE = np.array([0.01, 0.05, 0.12, 0.2, 0.3, 0.4])
GRID = np.concatenate([SIDE, [0.5], 1 - SIDE[::-1]])
MOST = 5000  # triples that are looked at; of more, so many drawn at random, always the same
WITHIN = 1.92  # of the log-likelihood: half the 95 % point of chi-square with one degree of freedom


class Triples(NamedTuple):
    """Triples of which every pair was compared."""

    triples: int
    rate: float  # of truly intransitive ones
    low: float  # 95 % interval
    high: float
    counted: float  # share whose majorities go round, noise and all
    worth: float  # triples, those that share pairs counted in part


def triangles(data: Votes) -> np.ndarray:
    """Pairs (ab, bc, ac) of every triple a < b < c with all pairs compared: int64[triples, 3]."""
    number = {(int(a), int(b)): e for e, (a, b) in enumerate(zip(data.a, data.b, strict=True))}
    above: dict[int, list[int]] = {}
    for a, b in number:
        above.setdefault(a, []).append(b)
    found = [
        (ab, number[b, c], number[a, c]) for (a, b), ab in number.items() for c in above.get(b, ()) if (a, c) in number
    ]
    return np.array(found, np.int64).reshape(-1, 3)


def intransitive(data: Votes) -> Triples:
    """The rate of truly intransitive triples, with its interval."""
    triples = triangles(data)
    if not len(triples):
        return Triples(0, np.nan, np.nan, np.nan, np.nan, 0.0)
    if len(triples) > MOST:
        triples = triples[np.random.default_rng(0).choice(len(triples), MOST, replace=False)]
    shared = np.bincount(triples.ravel(), minlength=data.a.size)
    weight = (1 / shared[triples]).mean(1)
    votes, wins = data.votes[triples], data.wins[triples].copy()
    wins[:, 2] = votes[:, 2] - wins[:, 2]  # of c over a: now all three go the same way round
    ahead = np.sign(2 * wins - votes)
    likelihood, counts = _likelihoods(votes, wins, weight)
    round_ = _goes_round()
    free = _fit(likelihood, counts, round_, None)
    best = _value(likelihood, counts, free)
    rate = float(free[round_].sum())

    def inside(mass: float) -> bool:
        return _value(likelihood, counts, _fit(likelihood, counts, round_, mass)) >= best - WITHIN

    return Triples(
        len(triples),
        rate,
        _edge(inside, 0.0, rate),
        _edge(inside, 1.0, rate),
        float((np.abs(ahead.sum(1)) == 3).mean()),
        float(weight.sum()),
    )


def _classes() -> tuple[np.ndarray, np.ndarray]:
    """For each point of the cube its class under renaming items, and one point of each class.

    Naming the items differently turns (p, q, r) round, or mirrors it to 1 - (r, q, p).
    """
    size = len(GRID)
    cube = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), -1).reshape(-1, 3)
    images = [np.roll(each, k, axis=1) for each in (cube, size - 1 - cube[:, ::-1]) for k in range(3)]
    least = np.min([image @ (size**2, size, 1) for image in images], axis=0)
    kept, number = np.unique(least, return_inverse=True)
    return number, cube[kept]


def _goes_round() -> np.ndarray:
    """bool[classes]."""
    points = GRID[_classes()[1]]
    return np.asarray((points > 0.5).all(1) | (points < 0.5).all(1))


def _likelihoods(votes: np.ndarray, wins: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each different triple of counts, its likelihood under each class, scaled; and how much the triple counts."""
    number, _ = _classes()
    per_class = np.bincount(number)
    code = votes * (votes.max() + 1) + wins
    rows, where = np.unique(code, axis=0, return_inverse=True)
    counts = np.bincount(where.ravel(), weight)
    n, w = np.divmod(rows, votes.max() + 1)
    logs = w[..., None] * np.log(GRID) + (n - w)[..., None] * np.log1p(-GRID)
    each = np.exp(logs - logs.max(-1, keepdims=True))  # [rows, 3, grid]
    found = np.empty((len(rows), per_class.size))
    order = np.argsort(number, kind="stable")
    starts = np.concatenate([[0], np.cumsum(per_class)[:-1]])
    for i in range(0, len(rows), 256):
        x, y, z = (each[i : i + 256, k] for k in range(3))
        cube = (x[:, :, None, None] * y[:, None, :, None] * z[:, None, None, :]).reshape(len(x), -1)
        found[i : i + 256] = np.add.reduceat(cube[:, order], starts, axis=1) / per_class
    return np.maximum(found / found.max(1, keepdims=True), 1e-300), counts


def _fit(
    likelihood: np.ndarray, counts: np.ndarray, part: np.ndarray, mass: float | None, rounds: int = 400
) -> np.ndarray:
    """G by EM (2); with `mass` given, that much of it lies on `part`."""
    g = np.full(part.size, 1 / part.size)
    share = counts / counts.sum()
    for _ in range(rounds):
        g = _with_mass(g, part, mass)
        g = g * ((share / (likelihood @ g)) @ likelihood)  # (2)
    return _with_mass(g, part, mass)


def _with_mass(g: np.ndarray, part: np.ndarray, mass: float | None) -> np.ndarray:
    """G with `mass` on `part` and the rest elsewhere."""
    if mass is None:
        return g
    here, there = max(g[part].sum(), 1e-300), max(g[~part].sum(), 1e-300)
    return np.where(part, mass * g / here, (1 - mass) * g / there)


def _value(likelihood: np.ndarray, counts: np.ndarray, g: np.ndarray) -> float:
    """L(G) (1), up to a constant."""
    return float(counts @ np.log(likelihood @ g))


def _edge(inside: Callable[[float], bool], end: float, rate: float) -> float:
    """Where the interval ends on the side of `end`, to 1/500 of the way."""
    if inside(end):
        return end
    out, within = end, rate
    for _ in range(9):
        middle = (out + within) / 2
        if inside(middle):
            within = middle
        else:
            out = middle
    return within
