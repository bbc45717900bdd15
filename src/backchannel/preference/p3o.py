"""P3O: policy gradients from differences of rewards, a pair of answers at a time.

A reward model that was learned from comparisons knows rewards up to a number for each prompt. PPO sees that number: its
critic must learn it, and until it has, it moves the policy. P3O draws two answers to each prompt and learns from the
difference of their rewards alone, for whole answers: whatever is added to all rewards of a prompt cancels.

Equations (Wu et al. 2023, theorem 1 and section 4.2; the numbers are ours). With two answers y1, y2 of the policy,

    grad E r = E (r(y1) - r(y2)) grad log(pi(y1) / pi(y2)) / 2                                               (1)

and for answers drawn from an older policy pi_old, with rho_i = pi(y_i) / pi_old(y_i),

    grad E r = E rho_1 rho_2 (r(y1) - r(y2)) grad log(pi(y1) / pi(y2)) / 2.                                  (2)

So that a pair serves for several steps, gains are clipped. "separate" (V1) clips the ratio of each answer, where the
other's, held fixed, is a weight:

    A_i = (r(y_i) - r(y_j)) rho_j,    loss = -1/2 sum_i min(A_i rho_i, A_i clip(rho_i, 1 - eps, 1 + eps))    (3)

"joint" (V2) clips the log-ratio of the two, where the product of ratios, held fixed, is the weight:

    h = log rho_1 - log rho_2,    A = (r(y1) - r(y2)) rho_1 rho_2
    loss = -1/2 min(A h, A clip(h, -eps, eps))                                                               (4)

Neither depends on the order of the two. On answers that were just drawn the gradient of both is (1), which is that of
RLOO with two answers. The price of leaving the reference is part of the reward: r - beta log(pi_old(y) / ref(y)).

Steps: two answers; the difference of their rewards; ratios to the policy that drew them; the clipped loss.

Deviations: pairs with equal rewards are left out of a recipe's round instead of counting as 0. The recipe's rewards are
whatever scores its caller gives: a price is the caller's to put in, as `tasks/tiny_policy_gradient.py` does. Log-ratios
are cut at +-20.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> logs = torch.tensor([-3.0]), torch.tensor([-4.0])
    >>> pairs = Pairs(*logs, logs[0] - 0.1, logs[1], gap=torch.tensor([2.0]))
    >>> p3o(0.2, "joint").objective(pairs)[0], p3o(0.05, "joint").objective(pairs)[0]  # 0.1 e^0.1, and clipped
    (tensor([-0.1105]), tensor([-0.0553]))

References: wu2023pairwise, ahmadian2024back, schulman2017proximal.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Objective, Pairs, known
from backchannel.parts.recipes import Compared, Recipe, best_and_worst
from backchannel.parts.rollout_losses import LARGEST, clipped

CARD = Card(
    name="P3O",
    summary="Clipped policy gradient from the difference of two answers' rewards; what a prompt adds to both cancels.",
    paper="wu2023pairwise",
    row=109,
    topics=("policy gradients", "own answers"),
    feedback=("reward",),
    protocol="recipe",
    engine="torch",
    neighbour="rloo",
    example={"epsilon": 0.2, "clipping": "joint"},
    extras=("torch",),
)

DETACHED = True  # (3) and (4) hold weights fixed: their gradient is not that of their value


class Info(NamedTuple):
    """What to log: the log-ratio h of each pair, and whether the pair teaches nothing more."""

    log_ratio: Tensor  # [n]
    clipped: Tensor  # bool[n]: separately, of both answers


def p3o(epsilon: float = 0.2, clipping: Literal["separate", "joint"] = "joint") -> Recipe:
    """Pairwise proximal policy optimisation.

    Args:
        epsilon: how far a ratio may go from 1, or the log-ratio of two from 0, in (0, 1).
        clipping: "separate" for (3), "joint" for (4).
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must lie in (0, 1), not {epsilon}")
    if clipping not in ("separate", "joint"):
        raise ValueError(f"clipping must be 'separate' or 'joint', not {clipping!r}")

    def select(scores: Tensor, rng: Generator) -> Compared:
        return best_and_worst(scores)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        gap = known(pairs, "gap")
        one = (pairs.policy_chosen - pairs.reference_chosen).clamp(-LARGEST, LARGEST)
        other = (pairs.policy_rejected - pairs.reference_rejected).clamp(-LARGEST, LARGEST)
        h = one - other
        if clipping == "separate":
            ratios, gains = (one.exp(), other.exp()), (gap * other.detach().exp(), -gap * one.detach().exp())
            terms = [clipped(rho, gain, epsilon, epsilon) for rho, gain in zip(ratios, gains, strict=True)]
            past = [_past(rho - 1, gain, epsilon) for rho, gain in zip(ratios, gains, strict=True)]
            return (terms[0] + terms[1]) / 2, Info(h.detach(), past[0] & past[1])  # (3)
        gain = gap * (one + other).detach().exp()
        loss = -torch.minimum(gain * h, gain * h.clamp(-epsilon, epsilon)) / 2  # (4)
        return loss, Info(h.detach(), _past(h, gain, epsilon))

    return Recipe(2, select, Objective(objective, Pairs), anchor="last")


def _past(away: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Whether what may go `epsilon` from 0 has gone further, in its gain's favour."""
    moved = away.detach()
    return ((moved > epsilon) & (gain > 0)) | ((moved < -epsilon) & (gain < 0))
