"""Degree SPO: while it learns who won, the model also learns to tell how much of an answer's substance is left.

A pair says which answer is better, not how good either is. Degrees can be had for nothing: delete the key phrases of an
answer, some, more, or all of them, and each version is worse than the one before, by construction. A small classifier
on the model's own hidden states has to name the degree, so that what makes answers good or bad is kept in view while
the alignment loss looks at pairs alone.

Equations (Li et al. 2024; the numbers are ours). With K degrees, an answer y with P key phrases in the order of their
importance, and d = 0, ..., K - 1:

    y_d = y without its round(d P / (K - 1)) most important phrases                                                  (1)
    p(d | x, y') = softmax(W s(x, y') + b)_d,    s: a hidden state of the model after prompt and answer              (2)
    loss = L(x, w, l) + gamma (mean over versions of -log p(d | x, w_d))                                             (3)

L is DPO's loss or another of pairs. Key phrases are those of RAKE (Rose et al. 2010): runs of words between stop words
and punctuation. A word counts as much as phrases with it are long on average, a phrase as much as its words together.

Steps: `graded(text, K)` makes the versions, or `versions` of tokens with phrases of one's own; the model is asked for
their hidden states; `spo = degree_spo(width, K, gamma)` is a module with the classifier, whose parameters are trained
with the model's; `spo(pairs, states, degrees)` is (3). The classifier is thrown away after training.

Deviations: the paper's full text was not at hand: (1), which answers are cut (here the chosen ones), and which state is
read (the caller's choice; in the claim the mean over the answer) are ours.

    >>> for each in graded("The old bridge crosses a river, and the ferry is slow.", 3):
    ...     print(each)
    The old bridge crosses a river, and the ferry is slow.
    The a, and the ferry is slow.
    The a, and the is.

References: li2024self, rose2010automatic, rafailov2023direct.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive

CARD = Card(
    name="Degree SPO",
    summary="DPO with a classifier that tells how many key phrases of an answer were deleted (self-supervised).",
    paper="li2024self",
    row=98,
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="artefact",
    engine="torch",
    neighbour="dpo",
    example={"width": 8, "degrees": 4, "gamma": 0.1},
    extras=("torch",),
)

_WORDS = """
a about above after again all also am an and any are as at be because been before being below between both but
by can could did do does doing down during each few for from further had has have having he her here hers him
his how i if in into is it its just may me might more most must my no nor not now of off on once only or other
our ours out over own same she should so some such than that the their theirs them then there these they this
those through to too under until up upon very was we were what when where which while who whom why will with
would you your yours
"""
STOP = frozenset(_WORDS.split())
PIECE = re.compile(r"\s*(?:\w+(?:['’-]\w+)*|[^\w\s])")  # a word or a mark, and the space before it

T = TypeVar("T")
Span = tuple[int, int]


class DegreeSPO(nn.Module):
    """The classifier of (2), and the loss of (3)."""

    def __init__(self, width: int, degrees: int, gamma: float, objective: Objective[Pairs]):
        super().__init__()
        self.gamma, self.objective = gamma, objective
        self.head = nn.Linear(width, degrees)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, pairs: Pairs, states: Tensor, degree: Tensor) -> tuple[Tensor, Any]:
        """(3), and what the alignment loss logs.

        Args:
            pairs: n of them.
            states: of v versions of each chosen answer, [n, v, width].
            degree: of these versions, int64[n, v].
        """
        loss, info = self.objective(pairs)
        return loss + self.gamma * self.surprise(states, degree).mean(1), info  # (3)

    def surprise(self, states: Tensor, degree: Tensor) -> Tensor:
        """-log p(d | x, y') of each version: of the shape of `degree`."""
        return cross_entropy(self.head(states).flatten(0, -2), degree.flatten(), reduction="none").view(degree.shape)

    def named(self, states: Tensor) -> Tensor:
        """The most likely degree of each version."""
        return torch.as_tensor(self.head(states).argmax(-1))


def degree_spo(
    width: int, degrees: int = 4, gamma: float = 0.1, beta: float = 0.1, objective: Objective[Pairs] | None = None
) -> DegreeSPO:
    """Preference optimisation with a classifier of degrees; the classifier begins at even odds.

    Args:
        width: of the hidden states.
        degrees: K, at least 2.
        gamma: how much the classifier counts, at least 0; 0 is the loss without it.
        beta: the price of leaving the reference, of DPO's loss; not read where an objective is given.
        objective: a loss of pairs in DPO's place.
    """
    positive(width=width, beta=beta)
    if degrees < 2:
        raise ValueError(f"degrees must be 2 or more, not {degrees}")
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma must be at least 0, not {gamma}")

    def logistic(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -logsigmoid(h), Info(h.detach())

    return DegreeSPO(width, degrees, gamma, objective or Objective(logistic, Pairs))


def versions(pieces: Sequence[T], phrases: Sequence[Span], degrees: int) -> list[list[T]]:
    """(1): `degrees` versions of an answer, the whole one first.

    Args:
        pieces: words or tokens.
        phrases: key phrases as (first piece, behind the last), the most important first.
        degrees: K, at least 2; where there are fewer than K - 1 phrases, some versions are the same.
    """
    if degrees < 2:
        raise ValueError(f"degrees must be 2 or more, not {degrees}")
    found = []
    for d in range(degrees):
        share = (2 * d * len(phrases) + degrees - 1) // (2 * (degrees - 1))  # rounded, half up
        gone = {i for start, end in phrases[:share] for i in range(start, end)}
        found.append([piece for i, piece in enumerate(pieces) if i not in gone])
    return found


def key_phrases(words: Sequence[str]) -> list[Span]:
    """The key phrases of words and marks by RAKE, the most important first; of equal ones the earlier."""
    content = [word[0].isalnum() and word not in STOP for word in words]
    edges = [i for i in range(len(words) + 1) if (i < len(words) and content[i]) != (i > 0 and content[i - 1])]
    spans = list(zip(edges[::2], edges[1::2], strict=True))
    often: dict[str, int] = defaultdict(int)
    degree: dict[str, int] = defaultdict(int)
    for start, end in spans:
        for word in words[start:end]:
            often[word] += 1
            degree[word] += end - start
    return sorted(spans, key=lambda span: -sum(degree[word] / often[word] for word in words[slice(*span)]))


def graded(text: str, degrees: int) -> list[str]:
    """The versions of a text, by its key phrases."""
    pieces = [found.group() for found in PIECE.finditer(text)]
    phrases = key_phrases([piece.strip().lower() for piece in pieces])
    return ["".join(each).strip() for each in versions(pieces, phrases, degrees)]
