"""ORPO: supervised fine-tuning with a penalty on the odds of rejected answers, in one run and without a reference.

Fine-tuning on chosen answers alone raises rejected ones along with them. ORPO adds a mild contrast: the odds of the
chosen answer over those of the rejected one, with probabilities of a typical token, so that lengths do not count.

Equations (Hong et al. 2024, eqs. 4, 6 and 7), for an answer y of |y| tokens:

    P(y)      = exp(log pi(y) / |y|)
    odds(y)   = P(y) / (1 - P(y))
    loss      = -log pi(w) / |w| - lambda log sigmoid(log (odds(w) / odds(l)))

Steps: mean log-probabilities of both answers under the policy; the log odds ratio; both terms.

Deviations: the cross-entropy is of the answer, a mean over its tokens; TRL's is a mean over the tokens of the batch,
those of the prompts included. Mean log-probabilities above -1e-6 count as that, for the odds at 1 are infinite.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> from backchannel.preference.orpo import orpo
    >>> logs, length = torch.tensor([[-4.0, -9.0], [-6.0, -5.0]]), torch.tensor([4, 6])
    >>> orpo(weight=0.1)(Pairs(*logs, *logs, length, length))[0]  # 1 and 1.5 nats a token, and the odds
    tensor([1.0401, 1.6302])

References: hong2024orpo.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, known, positive

CARD = Card(
    name="ORPO",
    summary="Supervised fine-tuning on chosen answers with an odds-ratio penalty on rejected ones; no reference.",
    paper="hong2024orpo",
    topics=("preference optimisation",),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="simpo",
    example={"weight": 0.1},
    strength="simple",
    extras=("torch",),
)

NEAR_ONE = -1e-6  # mean log-probabilities stop here


def orpo(weight: float) -> Objective[Pairs]:
    """Odds ratio preference optimisation.

    Args:
        weight: lambda, of the odds ratio, positive. TRL calls it beta.
    """
    positive(weight=weight)

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        chosen = pairs.policy_chosen / known(pairs, "chosen_length")
        rejected = pairs.policy_rejected / known(pairs, "rejected_length")
        ratio = _log_odds(chosen) - _log_odds(rejected)  # (4), (7)
        return -chosen - weight * logsigmoid(ratio), Info(ratio.detach())  # (6)

    return Objective(objective, Pairs, reference=False)


def _log_odds(log_probability: Tensor) -> Tensor:
    x = log_probability.clamp(max=NEAR_ONE)
    return x - torch.log(-torch.expm1(x))
