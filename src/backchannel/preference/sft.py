"""SFT: supervised fine-tuning, the likelihood of answers that were written or chosen.

The simplest thing to do with good answers is to make them likely. It is where preference learning starts from and its
first baseline: it learns what was good, and never what was worse.

Equations (Ouyang et al. 2022, section 3.5; the numbers are ours), for an answer y of |y| tokens, its end included:

    loss   = -log pi(y) / |y|                                                                    (1)
    weight = |y|                                                                                 (2)

so that the weighted mean over a batch is the mean over its tokens: the same at any split of the batch.

Steps: log-probabilities of the answers; their mean over tokens.

Deviations: none.

    >>> import torch
    >>> from backchannel.parts.objectives import Singles
    >>> from backchannel.preference.sft import sft
    >>> logs = torch.tensor([-4.0, -9.0])
    >>> batch = Singles(logs, logs, length=torch.tensor([2, 6]))
    >>> loss, weight = sft()(batch)[0], sft().weight(batch)
    >>> loss, weight, (loss * weight).sum() / weight.sum()  # 13 nats over 8 tokens
    (tensor([2.0000, 1.5000]), tensor([2., 6.]), tensor(1.6250))

References: ouyang2022training.
"""

from __future__ import annotations

from backchannel.card import Card
from backchannel.parts.imitation import imitation
from backchannel.parts.objectives import Objective, Singles

CARD = Card(
    name="SFT",
    summary="Supervised fine-tuning: make given answers likely, each token counting alike.",
    paper="ouyang2022training",
    topics=("preference optimisation", "baseline"),
    feedback=("demonstration",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={},
    strength="simple",
    extras=("torch",),
)


def sft() -> Objective[Singles]:
    """Supervised fine-tuning; whether an answer was called good is not asked: give it those to imitate."""
    return imitation()  # (1), (2)
