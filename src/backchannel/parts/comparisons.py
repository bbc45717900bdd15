"""Comparisons of items by annotators, and the graph of votes that they make.

An item belongs to one menu: the answers to one prompt, say. Items of different menus are never compared, so that their
numbers must differ. A vote is 1 if the first item was preferred, -1 if the second, 0 for a tie. Ties count as
disagreement or agreement where annotators are compared, and nowhere else: a utility says who wins, not how often nobody
does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Comparisons(NamedTuple):
    """n votes; int64[n] each, but for `items`. What the data do not say is 0 throughout."""

    first: np.ndarray  # items
    second: np.ndarray
    vote: np.ndarray  # 1, -1 or 0
    annotator: np.ndarray
    group: np.ndarray  # of the annotator
    context: np.ndarray  # in which the pair was shown: the order, the page, the task
    items: np.ndarray  # the name of each item, as it was given


class Votes(NamedTuple):
    """What was voted of each pair, ties left out: int64[pairs] each, `a` < `b`."""

    a: np.ndarray
    b: np.ndarray
    votes: np.ndarray  # of the pair
    wins: np.ndarray  # of a


def comparisons(
    first: object,
    second: object,
    vote: object,
    annotator: object = None,
    group: object = None,
    context: object = None,
) -> Comparisons:
    """Checked comparisons, each pair turned so that `first` < `second`; labels may be numbers or text."""
    a, b = np.asarray(first), np.asarray(second)
    votes = np.asarray(vote)
    if not (a.shape == b.shape == votes.shape and a.ndim == 1):
        raise ValueError(f"first, second and vote must be lists of one length, not {a.shape}, {b.shape}, {votes.shape}")
    if not np.isin(votes, (-1, 0, 1)).all():
        raise ValueError("a vote must be 1 (the first item), -1 (the second) or 0 (a tie)")
    names, items = np.unique(np.concatenate([a, b]), return_inverse=True)
    a, b = items[: a.size], items[a.size :]
    if (a == b).any():
        raise ValueError(f"comparison {int((a == b).argmax())} is of an item with itself")
    turn = a > b
    return Comparisons(
        np.where(turn, b, a),
        np.where(turn, a, b),
        np.where(turn, -votes, votes).astype(np.int64),
        _numbered("annotator", annotator, a.size),
        _numbered("group", group, a.size),
        _numbered("context", context, a.size),
        names,
    )


def pair_numbers(data: Comparisons) -> np.ndarray:
    """A number for each vote's pair of items, from 0: int64[n]."""
    if not data.first.size:
        return np.empty(0, np.int64)
    _, numbers = np.unique(data.first * (data.second.max() + 1) + data.second, return_inverse=True)
    return numbers.astype(np.int64)


def tally(data: Comparisons, apart: np.ndarray | None = None) -> Votes:
    """Votes of each pair. Votes whose labels `apart` differ are taken to be of different items."""
    decided = data.vote != 0
    shift = 0 if apart is None else apart[decided] * (1 + max(data.second.max(initial=0), data.first.max(initial=0)))
    a, b = data.first[decided] + shift, data.second[decided] + shift
    pairs, where = np.unique(np.stack([a, b], axis=1), axis=0, return_inverse=True)
    votes = np.bincount(where.ravel(), minlength=len(pairs))
    wins = np.bincount(where.ravel(), data.vote[decided] > 0, minlength=len(pairs))
    return Votes(pairs[:, 0], pairs[:, 1], votes.astype(np.int64), wins.astype(np.int64))


def _numbered(name: str, labels: object, size: int) -> np.ndarray:
    if labels is None:
        return np.zeros(size, np.int64)
    given = np.asarray(labels)
    if given.shape != (size,):
        raise ValueError(f"{name} must have one entry for each of {size} comparisons, not shape {given.shape}")
    return np.unique(given, return_inverse=True)[1].astype(np.int64)
