"""SLiC-HF: calibrate likelihoods by a hinge, and keep the model's words by cross-entropy.

The preferred answer should be more likely than the rejected one by a factor of exp(delta), no more: pairs that are so
already teach nothing. There is no reference to stay near; instead, a target answer must stay likely.

Equations (Zhao et al. 2023; the number is ours; the preferred answer w is the target):

    loss = max(0, delta - log pi(w) + log pi(l)) - lambda log pi(w)                              (1)

Steps: log-probabilities of both answers under the policy; the hinge; the cross-entropy of the target.

Deviations: the paper's target is the answer of the supervised data, or the best of the candidates; ours is the
preferred answer, which is what pairs hold.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.slic import slic
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> slic(delta=1.0, weight=0.5)(pairs)[0]  # the first pair is far enough apart: 0.5 x 4 remains
    tensor([2.0000, 9.5000])

References: zhao2023slic.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs

CARD = Card(
    name="SLiC-HF",
    summary="Keep preferred answers more likely than rejected ones by a margin, and likely at all; no reference.",
    paper="zhao2023slic",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="hinge_norm",
    example={"delta": 1.0, "weight": 0.5},
    strength="simple",
    extras=("torch",),
)


def slic(delta: float, weight: float) -> Objective[Pairs]:
    """Sequence likelihood calibration with human feedback.

    Args:
        delta: by how much the preferred answer's log-probability should be higher, at least 0.
        weight: lambda, of the cross-entropy, at least 0.
    """
    if not 0 <= delta < float("inf"):
        raise ValueError(f"delta must be at least 0, not {delta}")
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight must be at least 0, not {weight}")

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        x = pairs.policy_chosen - pairs.policy_rejected
        return relu(delta - x) - weight * pairs.policy_chosen, Info(x.detach())  # (1)

    return Objective(objective, Pairs, reference=False)
