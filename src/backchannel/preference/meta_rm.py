"""MetaRM: trains a reward model so that it goes on telling answers apart where the policy has moved to.

While a policy is trained, its answers leave those that the reward model was trained on, and rewards of the new ones
lie close together. Labels are dear; unlabelled answers of the new policy are not. Each step first moves the parameters
to where rewards of such answers differ more, and takes the gradient of the labelled loss there.

Equations (Dou et al. 2024; Wang et al. 2024), for k answers s_1, ..., s_k of the policy to each of its prompts:

    J(theta) = (2 / k^2) sum_{i<j} sigmoid(|r(x, s_i) - r(x, s_j)|), meaned over prompts                             (1)
    theta' = theta + eta grad J(theta)                                                                               (2)
    theta <- theta - alpha grad L(theta')                                                                            (3)

The gradient in (3) is that of L alone, at theta': second derivatives of J are left out. To first order it is
grad L + eta (Hessian of L) grad J. Where training ends, grad L(theta') = 0: theta' is the optimum of L, and theta lies
at theta' - eta grad J(theta), where rewards of the policy's answers differ *less*, most along the directions in which
these answers differ: shrinkage, learned without labels. (J has kinks where two answers tie; there training goes to and
fro.)

Steps: `meta_rm(eta)` returns a function that takes the place of `backward()`: it leaves grad L(theta') in the
parameters' `.grad` and the parameters as they were; any optimizer then makes step (3).

Deviations: the source's factor in (1) could be read only in part: 2 / k^2 is a matter of eta. The gradient of |0| is 0.

    >>> import torch
    >>> weight = torch.tensor([1.0, 0.0], requires_grad=True)
    >>> pairs, answers = torch.tensor([[1.0, 2.0]]), torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    >>> loss = lambda: -torch.nn.functional.logsigmoid(pairs @ weight).mean()
    >>> step = meta_rm(rate=0.5)
    >>> _ = step([weight], loss, lambda: difference(answers @ weight))
    >>> weight.grad, weight.detach()
    (tensor([-0.2587, -0.5175]), tensor([1., 0.]))

References: dou2024metarm, wang2024secrets, finn2017model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import positive

CARD = Card(
    name="MetaRM",
    summary="Reward model training that looks ahead at unlabelled answers of the policy that it will judge.",
    paper="dou2024metarm",
    row=112,
    topics=("reward models", "drift"),
    feedback=("comparison",),
    protocol="artefact",
    engine="torch",
    neighbour="",
    example={"rate": 0.1},
    extras=("torch",),
)

Step = Callable[[Iterable[Tensor], Callable[[], Tensor], Callable[[], Tensor]], tuple[float, float]]


def difference(rewards: Tensor) -> Tensor:
    """(1) of rewards [prompts, k], k >= 2: a scalar."""
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must be [prompts, k] of k >= 2 answers, not {list(rewards.shape)}")
    k = rewards.shape[1]
    i, j = torch.triu_indices(k, k, 1)
    return 2 / k**2 * torch.sigmoid((rewards[:, i] - rewards[:, j]).abs()).sum(1).mean()


def meta_rm(rate: float) -> Step:
    """The gradient of (3).

    Args:
        rate: eta, positive.

    Returns:
        a function (parameters, loss, spread) -> (L at theta', J at theta). `loss` and `spread` compute L and J with the
        parameters as they are when called.
    """
    positive(rate=rate)

    def step(
        parameters: Iterable[Tensor], loss: Callable[[], Tensor], spread: Callable[[], Tensor]
    ) -> tuple[float, float]:
        theta = list(parameters)
        before = [each.detach().clone() for each in theta]
        apart = spread()
        up = torch.autograd.grad(apart, theta, allow_unused=True)
        try:
            with torch.no_grad():
                for each, direction in zip(theta, up, strict=True):
                    if direction is not None:
                        each += rate * direction  # (2)
            value = loss()
            gradients = torch.autograd.grad(value, theta, allow_unused=True)
        finally:
            with torch.no_grad():
                for each, old in zip(theta, before, strict=True):
                    each.copy_(old)
        for each, gradient in zip(theta, gradients, strict=True):
            each.grad = gradient
        return float(value.detach()), float(apart.detach())

    return step
