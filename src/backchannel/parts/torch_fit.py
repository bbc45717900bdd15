"""The training loop, where nothing more is needed: parameters, a loss, an optimiser, steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def fit(
    parameters: Iterable[Tensor],
    loss: Callable[[int], Tensor],
    steps: int,
    optimizer: Callable[..., torch.optim.Optimizer],
    learning_rate: float,
    project: Callable[[], None] | None = None,
) -> list[float]:
    """Take `steps` steps down `loss(step)`, a scalar; returns its values.

    Args:
        parameters: tensors that require gradients; changed in place.
        loss: of the step's number, so that it can choose a batch.
        steps: how many.
        optimizer: `torch.optim.SGD`, `torch.optim.Adam` ...
        learning_rate: constant.
        project: puts the parameters back where they are allowed to be, in place, after every step.
    """
    tensors = list(parameters)
    stepper = optimizer(tensors, lr=learning_rate)
    values = []
    for step in range(steps):
        value = loss(step)
        stepper.zero_grad()
        value.backward()
        stepper.step()
        if project is not None:
            with torch.no_grad():
                project()
        values.append(float(value.detach()))
    return values
