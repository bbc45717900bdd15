"""SimPO: the mean log-probability of a token as the reward, with a margin, and no reference.

Models generate what has a high mean log-probability, so that is what SimPO trains; dividing by the length also takes
away the gain from longer answers. A target margin keeps pairs apart, since no reference does.

Equations (Meng et al. 2024, eq. 6), for a chosen answer w and a rejected answer l of |w| and |l| tokens:

    x    = beta (log pi(w) / |w| - log pi(l) / |l|)
    loss = -log sigmoid(x - gamma)

Steps: mean log-probabilities of both answers under the policy; the margin x; the loss.

Deviations: none. TRL divides gamma by beta and multiplies again: the same.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.simpo import simpo
    >>> logs, length = torch.tensor([[-4.0, -9.0], [-6.0, -5.0]]), torch.tensor([4, 6])
    >>> loss, info = simpo(beta=2.0, gamma=0.5)(Pairs(*logs, *logs, length, length))
    >>> loss, info.margin
    (tensor([0.4741, 1.9816]), tensor([ 1.0000, -1.3333]))

References: meng2024simpo.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, known, positive

CARD = Card(
    name="SimPO",
    summary="Preference optimisation on mean log-probabilities with a target margin; no reference.",
    paper="meng2024simpo",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="orpo",
    example={"beta": 2.0, "gamma": 1.0},
    strength="simple",
    extras=("torch",),
)


def simpo(beta: float, gamma: float) -> Objective[Pairs]:
    """Simple preference optimisation.

    Args:
        beta: the scale of the reward, positive; the paper takes 2 to 2.5.
        gamma: the margin that is aimed at, at least 0; the paper takes 0.3 to 1.6.
    """
    positive(beta=beta)
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma must be at least 0, not {gamma}")

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        chosen = pairs.policy_chosen / known(pairs, "chosen_length")
        rejected = pairs.policy_rejected / known(pairs, "rejected_length")
        x = beta * (chosen - rejected)
        return -logsigmoid(x - gamma), Info(x.detach())  # (6)

    return Objective(objective, Pairs, reference=False)
