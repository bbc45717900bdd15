"""Rationale DPO: DPO that also learns to say why the chosen answer was preferred.

A comparison says which answer is better and leaves the reason to be guessed: from few pairs a model learns whatever
chosen answers happen to have in common, such as their length. Where the reason is written down beside the label, the
model learns to say it, of the same prompt and the same two answers, in the same weights.

Equations (Just et al. 2024, section 3; the numbers are ours). With the rationale r of a pair,

    P(w > l, r | x) = P(w > l | x) pi(r | x, w > l)                                                                  (1)
    loss = -log sigmoid(h) - gamma log pi(r | x, w > l)                                                              (2)

where h is DPO's margin. The second factor of (1) is the policy itself: it reads the prompt, both answers and which was
preferred, and its answer is r. (2) is the negative logarithm of (1), with a weight. DPO's loss may be any other of
pairs, which then reads whatever it reads; with ORPO's loss it is the paper's RORPO.

Steps: the log-probability of the whole rationale, summed over its tokens, is a field of the batch (`Pairs.rationale`).
`backchannel align --method rationale_dpo` measures it on records with a rationale; `align/rationales.py` has the
question that asks for it.

Deviations: the paper's code has -log sigmoid(gamma log pi(r)) in place of -gamma log pi(r) with DPO's loss; to first
order in gamma that is log 2 - (gamma / 2) log pi(r). The wording of the question is ours.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> why = pairs._replace(rationale=torch.tensor([-2.0, -20.0]))
    >>> rationale_dpo(gamma=0.1, beta=0.5)(why)[0]  # DPO's 0.3133 and 2.1269, and a tenth of each surprise
    tensor([0.5133, 4.1269])

References: just2024data, rafailov2023direct, hong2024orpo.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, known, margin, positive

CARD = Card(
    name="Rationale DPO",
    summary="DPO that also learns to say why: adds the likelihood of each pair's rationale (RDPO).",
    paper="just2024data",
    row=95,
    topics=("preference optimisation",),
    feedback=("comparison", "critique"),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"gamma": 0.01, "beta": 0.1},
    extras=("torch",),
)


def rationale_dpo(gamma: float, beta: float = 0.1, objective: Objective[Pairs] | None = None) -> Objective[Pairs]:
    """A loss of pairs with the likelihood of their rationales (RDPO).

    Args:
        gamma: how much a rationale counts, at least 0; 0 is the loss without it.
        beta: the price of leaving the reference, of DPO's loss; not read where an objective is given.
        objective: a loss of pairs in DPO's place.
    """
    positive(beta=beta)
    if not 0 <= gamma < float("inf"):
        raise ValueError(f"gamma must be at least 0, not {gamma}")

    def logistic(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -logsigmoid(h), Info(h.detach())

    compared = objective or Objective(logistic, Pairs)

    def explained(pairs: Pairs) -> tuple[Tensor, Any]:
        loss, info = compared(pairs)
        return loss - gamma * known(pairs, "rationale"), info  # (2)

    return Objective(explained, Pairs, compared.reference, compared.weight)
