"""Menus of three items on which two groups of annotators vote; a known share of menus goes round.

Item i of menu m has the utility u_mi ~ N(0, spread^2) for the first group and, for the second,

    v_mi = c u_mi + sqrt(1 - c^2) u'_mi,    c = `alike`,

with u' drawn as u. An annotator of a group prefers i to j with probability sigmoid(u_mi - u_mj). In a share of the
menus, the same for both groups, choices go round instead: a over b, b over c and c over a, or the other way, with
probability 1/2 + `margin` each. In every other menu each group has a utility. Each annotator votes once on each pair.
"""

from __future__ import annotations

import numpy as np

from backchannel.parts.comparisons import Comparisons, comparisons

PAIRS = np.array([[0, 1], [1, 2], [0, 2]])


def voted_menus(
    menus: int,
    annotators: int,
    share: float,
    seed: int,
    alike: float = 1.0,
    spread: float = 1.5,
    margin: float = 0.25,
) -> Comparisons:
    """Votes of `annotators` in each of two groups, on `menus` menus of which `share` go round (rounded to a menu)."""
    rng = np.random.default_rng(seed)
    u = rng.normal(0, spread, (2, menus, 3))
    u[1] = alike * u[0] + np.sqrt(1 - alike**2) * u[1]
    chance = 1 / (1 + np.exp(u[..., PAIRS[:, 1]] - u[..., PAIRS[:, 0]]))  # [group, menu, pair]
    around = rng.permutation(menus) < round(share * menus)
    way = margin * np.where(rng.random(menus) < 0.5, 1, -1)
    chance[:, around] = 0.5 + (way[:, None] * (1, 1, -1))[around]
    votes = np.where(rng.random((annotators, 2, menus, 3)) < chance, 1, -1)
    annotator, group, menu, pair = (each.ravel() for each in np.indices(votes.shape))
    first, second = 3 * menu + PAIRS[pair, 0], 3 * menu + PAIRS[pair, 1]
    return comparisons(first, second, votes.ravel(), 2 * annotator + group, group)
