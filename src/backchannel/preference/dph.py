"""DPH: a reward head on a language model's own hidden state, trained beside it, that picks among its answers.

Tuning on preferences moves what a model says, and with it what it knew. Here preferences train a head that rates an
answer which the same model has just written: at inference several answers are drawn, and the best rated one is given.
What the model would say is changed only as far as the shared body is.

Equations (Hadji-Kyriacou and Arandjelovic 2024; the numbers are ours), with h the hidden state after the last token of
an answer y to x, and w and l the chosen and the rejected answer:

    r(x, y) = v' tanh(P h + b)                                                                   (1)
    separable:    loss = -(1 - eps) log sigmoid(r_w) - eps log sigmoid(-r_w)
                         -(1 - eps) log sigmoid(-r_l) - eps log sigmoid(r_l)                     (2)
    contrastive:  loss = -(1 - eps) log sigmoid(r_w - r_l) - eps log sigmoid(r_l - r_w)          (3)
    all of it:    language model's loss + weight x DPH's loss + (strength / 2) |theta - theta_0|^2      (4)

(3) is cDPO's loss with rewards of the head where cDPO has log-ratios: a margin of log((1 - eps) / eps) is enough, and
more is pulled back. (2) fixes the level as well: log((1 - eps) / eps) for what is always chosen, minus that for what
is always rejected, and logit(eps + (1 - 2 eps) p) for what is chosen with frequency p; so rewards of different prompts
are on one scale. In (4) the language model's loss is imitation of good answers (or DPO), and the prior, which holds
parameters near theta_0 as they were before, is optional.

Steps: hidden states of both answers, once for the language model's loss and the head (`Head`); `dph` gives (2) or (3);
`Prior` the last term of (4); after training, r of each of k drawn answers, of which the greatest is given.

Deviations: the paper adds a token for the head to read after the answer; here it reads the last token that there is.
Of the paper's poolers (1) is one, and dropout is left out.

    >>> import torch
    >>> from backchannel.parts.objectives import Scores
    >>> scores = Scores(torch.tensor([2.2, 8.0]), torch.tensor([-2.2, 1.0]))
    >>> dph(smoothing=0.1)(scores)[0], dph(smoothing=0.1, contrastive=True)(scores)[0]
    (tensor([0.6502, 2.0136]), tensor([0.4522, 0.7009]))

References: hadjikyriacou2024would, mitchell2023note.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Scores, positive

CARD = Card(
    name="DPH",
    summary="A reward head on the language model itself, with smoothed labels, that picks among its own answers.",
    paper="hadjikyriacou2024would",
    row=279,
    topics=("reward models", "best of n"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="bradley_terry",
    example={"smoothing": 0.1, "contrastive": False},
    extras=("torch",),
)


def dph(smoothing: float = 0.1, contrastive: bool = False) -> Objective[Scores]:
    """The loss of direct preference heads.

    Args:
        smoothing: eps, in [0, 1/2): a label is trusted with probability 1 - eps.
        contrastive: compare the two rewards (3), instead of classifying each of them (2).
    """
    if not 0 <= smoothing < 0.5:
        raise ValueError(f"smoothing must lie in [0, 1/2), not {smoothing}")

    def smooth(logit: Tensor) -> Tensor:
        return -(1 - smoothing) * logsigmoid(logit) - smoothing * logsigmoid(-logit)

    def objective(scores: Scores) -> tuple[Tensor, Info]:
        lead = scores.chosen - scores.rejected
        loss = smooth(lead) if contrastive else smooth(scores.chosen) + smooth(-scores.rejected)  # (3), (2)
        return loss, Info(lead.detach())

    return Objective(objective, Scores)


class Head(nn.Module):
    """A reward head on hidden states; it begins with a reward of 0 for everything."""

    def __init__(self, width: int, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pooler = nn.Linear(width, width)
            self.value = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.value.weight)

    def forward(self, hidden: Tensor, last: Tensor) -> Tensor:
        """r of n answers.

        Args:
            hidden: states of the language model, [n, tokens, width].
            last: where each answer's last token stands, int64[n].
        """
        state = hidden[torch.arange(len(hidden), device=hidden.device), last]
        found: Tensor = self.value(torch.tanh(self.pooler(state)))  # (1)
        return found[:, 0]


class Prior:
    """Holds parameters near where they are now: call it for the last term of (4)."""

    def __init__(self, parameters: Iterable[Tensor], strength: float):
        positive(strength=strength)
        self.strength = strength
        self.now = list(parameters)
        self.before = [each.detach().clone() for each in self.now]

    def __call__(self) -> Tensor:
        """A scalar."""
        away = [(now - before).square().sum() for now, before in zip(self.now, self.before, strict=True)]
        return self.strength / 2 * torch.stack(away).sum()
