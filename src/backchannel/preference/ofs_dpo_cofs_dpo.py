"""OFS-DPO and COFS-DPO: two copies chase each other through a stream of comparisons; one model from several domains.

DPO's gradient fades as its margins grow, so that a model in a stream learns ever more slowly what comes next; and what
it learns in one domain it forgets in another. OFS-DPO keeps two copies with different learning rates. The one that
leads is paid for its lead over the other, the other for catching up: a push that does not fade while they are close.
COFS-DPO keeps the leading copy of each domain, and adds up what they learned.

Equations (Qi et al. 2024; the numbers are ours). With the margin m = log pi(w) - log pi(l) of a pair under the
reference ref, the leader F and the follower S:

    D(F) = -log sigmoid(beta (m_F - m_ref))                                  DPO's loss; D(S) likewise           (1)
    C(F, S) = -log sigmoid(beta (m_F - m_S))                                                                     (2)
    L_F = D(F) + alpha C(F, S),    L_S = D(S) - alpha C(F, S)                                                    (3)

where each loss moves its own copy alone. So F's margin is pulled up by beta (sigmoid(-h) + alpha sigmoid(beta (m_S -
m_F))), with h DPO's margin: by alpha beta / 2 where the copies agree, however little of DPO's own part is left. S's is
pulled up just as much. Every `every` batches the copy with the smaller mean D over them leads.                  (4)

Across domains, with theta_k what the leader of domain k has become from theta_0, and c the solution of least squares:

    theta = theta_0 + sum_k c_k (theta_k - theta_0)                                                              (5)
    c = argmin  sum over domains j, their kept pairs i, of (sum_k c_k g_k(i) - g_j(i))^2                         (6)

where g_k(i) is the margin of pair i under theta_k less that under theta_0. To first order in the changes (6) asks that
the sum does on each domain's pairs what that domain's own leader does; a few pairs of each must be kept.

Steps: `ofs_dpo_cofs_dpo` returns a `Chase`: (1) to (4), given the two copies' batches. `chased` is the loop around it.
`coefficients` is (6), `combined` is (5).

Deviations: the paper's text was not at hand. (1) to (4) are as a public implementation for images gives them; of its
combination we know that it is linear in the domains' fast modules, and (6) is our way to choose c. Copies here are
whole models or adapters, whatever has parameters.

    >>> import torch
    >>> chase = ofs_dpo_cofs_dpo(beta=1.0, alpha=0.5)
    >>> zero = torch.zeros(1)
    >>> lead, follow = Pairs(zero + 1, zero, zero, zero), Pairs(zero, zero, zero, zero)
    >>> [round(float(each), 4) for each in chase(lead, follow)]  # 0.3133 + 0.5 x 0.3133 and 0.6931 - 0.5 x 0.3133
    [0.4699, 0.5365]

References: qi2024online, rafailov2023direct.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from backchannel.card import Card
from backchannel.parts.objectives import Pairs, margin, positive

CARD = Card(
    name="OFS-DPO and COFS-DPO",
    summary="Two copies with different learning rates chase each other's margins; leaders of domains are added up.",
    paper="qi2024online",
    row=103,
    topics=("preference optimisation", "drift"),
    feedback=("comparison",),
    protocol="artefact",
    engine="torch",
    neighbour="dpo",
    example={"beta": 0.1, "alpha": 0.1},
    extras=("torch",),
)

Model = TypeVar("Model", bound=nn.Module)


class Chase:
    """The losses of two copies, and who leads. Call it with the same pairs under each copy."""

    def __init__(self, beta: float, alpha: float, every: int):
        self.beta, self.alpha, self.every = beta, alpha, every
        self.leader = 0  # the first copy or the second
        self._sums, self._seen = [0.0, 0.0], 0

    def __call__(self, one: Pairs, other: Pairs) -> tuple[Tensor, Tensor]:
        """The loss of each pair under (3), for the first copy and for the second: [n] each. Counts a batch for (4)."""
        copies = one, other
        own = [-logsigmoid(margin(each, self.beta)) for each in copies]  # (1)
        margins = [each.policy_chosen - each.policy_rejected for each in copies]
        f, s = self.leader, 1 - self.leader
        ahead = -logsigmoid(self.beta * (margins[f] - margins[s].detach()))  # (2), as the leader's
        behind = -logsigmoid(self.beta * (margins[f].detach() - margins[s]))  # and as the follower's
        losses = [own[0], own[1]]
        losses[f], losses[s] = own[f] + self.alpha * ahead, own[s] - self.alpha * behind  # (3)
        for k in (0, 1):
            self._sums[k] += float(own[k].detach().mean())
        self._seen += 1
        if self._seen == self.every:
            self.leader = 0 if self._sums[0] <= self._sums[1] else 1  # (4)
            self._sums, self._seen = [0.0, 0.0], 0
        return losses[0], losses[1]


def ofs_dpo_cofs_dpo(beta: float, alpha: float, every: int = 8) -> Chase:
    """Online fast-slow chasing DPO.

    Args:
        beta: the price of leaving the reference, positive.
        alpha: how much the lead counts, at least 0; 0 is DPO, twice.
        every: batches between two looks at who leads.
    """
    positive(beta=beta)
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be at least 0, not {alpha}")
    if every < 1:
        raise ValueError(f"every must be 1 or more, not {every}")
    return Chase(beta, alpha, every)


def chased(
    start: Model,
    batches: Iterable[Any],
    pairs: Callable[[Model, Any], Pairs],
    chase: Chase,
    learning_rate: float,
    slow: float = 0.5,
) -> Model:
    """A copy of `start` that went through a stream with a slower one beside it: the one that leads at the end.

    Args:
        start: where both begin.
        batches: the stream.
        pairs: a copy's log-probabilities of a batch, beside the reference's.
        chase: the losses.
        learning_rate: of the first copy's Adam.
        slow: what the second copy's is multiplied with, in (0, 1].
    """
    if not 0 < slow <= 1:
        raise ValueError(f"slow must lie in (0, 1], not {slow}")
    copies = [copy.deepcopy(start).requires_grad_(True) for _ in range(2)]
    steppers = [
        torch.optim.Adam(each.parameters(), lr=learning_rate * share)
        for each, share in zip(copies, (1.0, slow), strict=True)
    ]
    for some in batches:
        losses = chase(pairs(copies[0], some), pairs(copies[1], some))
        for loss, stepper in zip(losses, steppers, strict=True):
            stepper.zero_grad()
            loss.mean().backward()
            stepper.step()
    return copies[chase.leader].requires_grad_(False)


def coefficients(gains: Tensor, domain: Tensor) -> Tensor:
    """(6): c of each domain's leader, [domains].

    Args:
        gains: g_k(i), [domains, pairs].
        domain: whose kept pair each is, int64[pairs]; every domain has some.
    """
    if gains.dim() != 2 or domain.shape != gains.shape[1:]:
        raise ValueError(
            f"gains must be [domains, pairs] and domain [pairs], not {tuple(gains.shape)} and {tuple(domain.shape)}"
        )
    if sorted(set(domain.tolist())) != list(range(len(gains))):
        raise ValueError(f"every domain in 0..{len(gains) - 1} must have kept pairs, and no other")
    target = gains.gather(0, domain[None])[0]
    return torch.linalg.lstsq(gains.T.double(), target.double()[:, None]).solution[:, 0]


def combined(start: Model, leaders: Sequence[Model], weights: Tensor | Sequence[float]) -> Model:
    """(5), as a model of its own."""
    if len(leaders) != len(weights):
        raise ValueError(f"there must be a weight for each of {len(leaders)} leaders, not {len(weights)}")
    found = copy.deepcopy(start)
    with torch.no_grad():
        for name, value in found.named_parameters():
            for leader, weight in zip(leaders, weights, strict=True):
                value.add_(leader.get_parameter(name) - start.get_parameter(name), alpha=float(weight))
    return found
