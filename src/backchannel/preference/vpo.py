"""VPO: rewards that explain the comparisons and promise much, or little: optimism or pessimism without uncertainty.

A reward that is fitted to few comparisons is right where they were made and arbitrary elsewhere. Who collects data
should believe of what is left open that it is good, and go there; who has only old data should believe that it is bad,
and stay. Both are usually made from confidence sets, which nobody has for a language model. VPO says it by the value of
the reward: among rewards that explain the data about as well, take one by which one could do very well, or very badly.

Equations (Cen et al. 2025, section 3; the numbers are ours). With l(r) the sum of -log sigmoid(r(w) - r(l)) over the
comparisons and J* the best value of a reward with a price for leaving the reference,

    J*(r) = max over pi:  E_pi r - beta KL(pi, ref)  =  beta log E_ref exp(r / beta)                                (1)
    r^ = least l(r) - sign alpha J*(r)  among rewards of mean 0 under a calibration policy, E_cal r = 0             (2)

with sign +1 for optimism, online, and -1 for pessimism, offline. Comparisons leave each prompt's constant of r open,
which J* is not blind to; so (2) must fix it, and how, matters. The best policy for r has
r = beta log pi / ref + J*(r), the mean of which under the calibration policy is

    J*(r) = -beta E_cal log pi / ref                                                                                (3)

so that in terms of the policy (2) is DPO with one more term, a likelihood of calibration answers:

    loss = -log sigmoid(h) + sign alpha beta log pi(y_cal)                                                          (4)

Pessimism imitates what the calibration policy says; optimism unlearns it. With the chosen answers for calibration and
sign -1, (4) is SFT-regularised DPO (RPO).

Steps: the margin; DPO's loss; the log-probability of the calibration answer, towards or away. `linear_vpo` solves (2)
itself for linear rewards of finitely many answers, by Newton steps that never raise it; optimism makes (2) a difference
of convex functions, which has more than one bottom, so that it takes the best of several starts.

Deviations: an objective is a mean over comparisons, so that its alpha is the paper's over their number. A batch of
pairs has no third answer: calibration is by the chosen ones, the rejected ones, or both, which is the policy that made
the data. `linear_vpo` has a ridge where the paper bounds the rewards, and J* is a mean over even prompts.

    >>> import torch
    >>> from backchannel.parts.objectives import Pairs
    >>> pairs = Pairs(*torch.tensor([[-4.0, -9.0], [-6.0, -5.0], [-5.0, -7.0], [-5.0, -7.0]]))
    >>> vpo(alpha=0.1, beta=0.5)(pairs)[0]  # DPO's 0.3133 and 2.1269, and 0.05 of each chosen answer's surprise
    tensor([0.5133, 2.5769])
    >>> vpo(alpha=0.1, beta=0.5, optimistic=True, calibration="rejected")(pairs)[0]
    tensor([0.0133, 1.8769])

References: cen2025value, liu2024provably, rafailov2023direct.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from backchannel.card import Card
from backchannel.parts.objectives import Info, Objective, Pairs, margin, positive

CARD = Card(
    name="VPO",
    summary="DPO with a likelihood of calibration answers: optimism for collecting data, pessimism for old data.",
    paper="cen2025value",
    row=124,
    topics=("preference optimisation", "pessimism", "optimism"),
    feedback=("comparison",),
    protocol="objective",
    engine="torch",
    neighbour="sft_regularized_dpo",
    example={"alpha": 0.05, "beta": 0.1},
    extras=("torch",),
)

Calibration = Literal["chosen", "rejected", "both"]


class Linear(NamedTuple):
    """A linear reward, and the policy that is best for it."""

    parameter: Tensor  # [..., d]
    log_policy: Tensor  # [..., prompts, answers]
    loss: Tensor  # [...]: of (2), with the ridge


def vpo(alpha: float, beta: float, optimistic: bool = False, calibration: Calibration = "chosen") -> Objective[Pairs]:
    """Value-incentivized preference optimisation.

    Args:
        alpha: how much the value counts, at least 0; 0 is DPO.
        beta: the price of leaving the reference, positive.
        optimistic: True to collect data with, False to make the most of what there is.
        calibration: which answers of the pairs stand for the calibration policy: "chosen", "rejected" or "both".
    """
    _weighed(alpha, beta)
    if calibration not in ("chosen", "rejected", "both"):
        raise ValueError(f'calibration must be "chosen", "rejected" or "both", not {calibration!r}')
    sign, share = 1.0 if optimistic else -1.0, {"chosen": 1.0, "rejected": 0.0, "both": 0.5}[calibration]

    def objective(pairs: Pairs) -> tuple[Tensor, Info]:
        h = margin(pairs, beta)
        calibrated = share * pairs.policy_chosen + (1 - share) * pairs.policy_rejected
        return -logsigmoid(h) + sign * alpha * beta * calibrated, Info(h.detach())  # (4)

    return Objective(objective, Pairs)


def value(reward: Tensor, log_reference: Tensor, beta: float) -> Tensor:
    """(1) of each prompt: [..., prompts].

    Args:
        reward: of each answer, [..., prompts, answers].
        log_reference: log ref of each, [..., prompts, answers].
        beta: the price of leaving the reference, positive.
    """
    positive(beta=beta)
    return beta * torch.logsumexp(log_reference + reward / beta, -1)


def linear_vpo(
    features: Tensor,
    wins: Tensor,
    log_reference: Tensor,
    calibration: Tensor,
    alpha: float,
    beta: float,
    optimistic: bool = False,
    starts: Tensor | None = None,
    ridge: float = 1.0,
    steps: int = 20,
) -> Linear:
    """(2) for r(s, a) = theta . phi(s, a), with ridge |theta|^2 / 2 added; leading dimensions are problems apart.

    Args:
        features: phi, float64[..., prompts, answers, d].
        wins: how often answer i was preferred to answer j, float64[..., prompts, answers, answers].
        log_reference: log ref of each answer, [..., prompts, answers].
        calibration: probabilities of the calibration policy, [..., prompts, answers].
        alpha: how much the value counts against the sum over comparisons, at least 0; 0 is DPO with this ridge.
        beta: the price of leaving the reference, positive.
        optimistic: the sign.
        starts: parameters to begin from, [..., m, d], of which the best end is taken; None: 0.
        ridge: positive.
        steps: of Newton's method.
    """
    _weighed(alpha, beta)
    positive(ridge=ridge)
    centred = features - (calibration[..., None] * features).sum(-2, keepdim=True)  # E_cal r = 0
    phi, won, ref = centred.unsqueeze(-4), wins.unsqueeze(-4), log_reference.unsqueeze(-3)
    sign = 1.0 if optimistic else -1.0

    def loss(theta: Tensor) -> tuple[Tensor, Tensor]:
        r = torch.einsum("...sad,...d->...sa", phi, theta)
        surprise = won * softplus(r[..., None, :] - r[..., :, None])
        fit = surprise.sum((-1, -2, -3)) + ridge / 2 * theta.square().sum(-1)
        return fit - sign * alpha * value(r, ref, beta).mean(-1), r  # (2)

    theta = phi.new_zeros(*won.shape[:-3], phi.shape[-1]) if starts is None else starts
    now, r = loss(theta)
    for _ in range(steps):
        down = torch.linalg.solve(*_newton(phi, won, ref, theta, r, alpha, beta, ridge, sign))
        size = torch.ones_like(now)
        for _ in range(12):  # halve what does not lower (2)
            worse = loss(theta - size[..., None] * down)[0] > now
            if not bool(worse.any()):
                break
            size = torch.where(worse, size / 2, size)
        moved, r_moved = loss(theta - size[..., None] * down)
        better = moved <= now
        theta = torch.where(better[..., None], theta - size[..., None] * down, theta)
        r = torch.where(better[..., None, None], r_moved, r)
        now = torch.where(better, moved, now)
    best = now.argmin(-1, keepdim=True)
    theta, now = theta.gather(-2, best[..., None].expand(*best.shape, theta.shape[-1]))[..., 0, :], now.gather(-1, best)
    r = torch.einsum("...sad,...d->...sa", centred, theta)
    return Linear(theta, torch.log_softmax(log_reference + r / beta, -1), now[..., 0])


def _weighed(alpha: float, beta: float) -> None:
    positive(beta=beta)
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha must be at least 0, not {alpha}")


def _newton(
    phi: Tensor,
    won: Tensor,
    ref: Tensor,
    theta: Tensor,
    r: Tensor,
    alpha: float,
    beta: float,
    ridge: float,
    sign: float,
) -> tuple[Tensor, Tensor]:
    """A positive definite curvature of (2), and its gradient: of its convex part, where there is another."""
    wrong = won * torch.sigmoid(r[..., None, :] - r[..., :, None])
    pi = torch.softmax(ref + r / beta, -1)
    mean = (pi[..., None] * phi).sum(-2)
    gradient = ridge * theta - sign * alpha * mean.mean(-2)
    gradient = gradient - torch.einsum("...sa,...sad->...d", wrong.sum(-1) - wrong.sum(-2), phi)
    weight = wrong * torch.sigmoid(r[..., :, None] - r[..., None, :])
    weight = weight + weight.mT
    curved = weight.sum(-1)[..., None] * phi - weight @ phi
    if sign < 0:
        curved = curved + alpha / beta / pi.shape[-2] * pi[..., None] * (phi - mean[..., None, :])
    return torch.einsum("...sad,...sae->...de", phi, curved) + ridge * torch.eye(
        phi.shape[-1], dtype=phi.dtype
    ), gradient
