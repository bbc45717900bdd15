"""SFT-regularised DPO: imitation keeps DPO away from answers that no comparison covers.

A reward fitted to comparisons says nothing true of answers that were not compared, and a policy fitted to that reward
goes where it errs upwards. The cure in theory is to be pessimistic: the policy that is best for the worst reward among
those that explain the comparisons well. The worst reward for a policy praises the baseline's answers and damns whatever
else the policy does; so the game has the same solution as DPO with a supervised loss on those answers.

Equations (Liu et al. 2024, section 3; the numbers are ours). With l_D(r) the mean of -log sigmoid(r(w) - r(l)) over the
comparisons, and rewards r within [-B, B]:

    max over pi, min over r:  eta (E_pi r - E_base r - beta KL(pi, ref)) + l_D(r)                (1)
    loss = -log sigmoid(h) - eta beta log pi(y_base)                                             (2)

where h is DPO's margin. For a fixed r the best policy is ref exp(r / beta) / Z; written in terms of it, (1) is the
least mean of (2), up to a constant. By default, and here, the baseline's answer y_base is the chosen one.

Steps: the margin; DPO's loss; the chosen answer's log-probability. `maximin` solves (1) on finitely many answers, by
extragradient steps on both players (mirror steps for the policy, projected ones for the reward).

Deviations: the paper calls it RPO, as others call other methods. TRL has it as `loss_type=["sigmoid", "sft"]`, and had
it as `rpo_alpha`: its supervised term is a mean over tokens, where (2) has their sum.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.sft_regularized_dpo import sft_regularized_dpo
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> sft_regularized_dpo(eta=0.1, beta=0.5)(pairs)[0]  # DPO's 0.3133 and 2.1269, and 0.05 of each surprise
    tensor([0.5133, 2.5769])

References: liu2024provably, rafailov2023direct.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive

CARD = Card(
    name="SFT-regularised DPO",
    summary="DPO with imitation of chosen answers: pessimistic about answers that no comparison covers (RPO).",
    paper="liu2024provably",
    row=110,
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="dpo",
    example={"eta": 0.05, "beta": 0.1},
    strength="default",
    extras=("torch",),
)


class Maximin(NamedTuple):
    """The policy that is best for the worst reward, and that reward."""

    policy: Tensor  # [answers]
    reward: Tensor  # [answers]


def sft_regularized_dpo(eta: float, beta: float) -> Objective[Pairs]:
    """Regularised preference optimisation (RPO).

    Args:
        eta: how much the worst case counts, at least 0; 0 is DPO.
        beta: the price of leaving the reference, positive.
    """
    positive(beta=beta)
    if not 0 <= eta < float("inf"):
        raise ValueError(f"eta must be at least 0, not {eta}")

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        return -logsigmoid(h) - eta * beta * pairs.policy_chosen, Info(h.detach())  # (2)

    return Objective(objective, Pairs)


def maximin(
    wins: Tensor, reference: Tensor, base: Tensor, eta: float, beta: float, bound: float, steps: int = 20_000
) -> Maximin:
    """The solution of (1) on finitely many answers.

    Args:
        wins: how often answer i was preferred to answer j: float64[answers, answers].
        reference: its probabilities, all positive.
        base: probabilities of the baseline's answers.
        eta: how much the worst case counts, positive.
        beta: the price of leaving the reference, positive.
        bound: B: rewards lie within [-B, B].
        steps: of the extragradient method; each costs two gradients.
    """
    positive(eta=eta, beta=beta, bound=bound)
    share, log_reference = wins / wins.sum(), reference.log()
    log_policy, r = log_reference.clone(), torch.zeros_like(reference)
    climb, descend = 0.5 / (beta + 1), 2 / (1 + eta)

    def slopes(log_policy: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Of (1) in the policy, over eta, and in the reward."""
        wrong = share * torch.sigmoid(r - r[:, None])  # [i, j]: i was preferred, and r thinks less of it
        up = r - beta * (log_policy - log_reference)
        return up, eta * (log_policy.exp() - base) - wrong.sum(1) + wrong.sum(0)

    def move(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        return torch.log_softmax(log_policy + climb * up, 0), (r - descend * down).clamp(-bound, bound)

    for _ in range(steps):
        log_policy, r = move(*slopes(*move(*slopes(log_policy, r))))
    return Maximin(log_policy.exp(), r)
