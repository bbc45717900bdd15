"""What optimizers share: settings and gradients that are checked first, and a state that comes back as it was.

An optimizer is a method that is a `torch.optim.Optimizer`: it stands where AdamW stood, in any training script. Three
things are not as torch's own do them. A gradient that is not finite, or sparse, is refused before anything has changed,
so that a caller may skip the batch and go on. The settings of each group are checked, not only the defaults. And
`load_state_dict` keeps each tensor's dtype: torch casts the state to the parameter's, which makes floats of packed
codes and rounds what a bfloat16 parameter keeps in float32.

`GradientOptimizer` is for methods that move by gradients, `CheckedOptimizer` for those whose step needs losses alone.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Moving = list[tuple[dict[str, Any], Tensor, Tensor]]  # (group, parameter, gradient)


class CheckedOptimizer(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` that is asked for `check`, and whose state comes back as it was."""

    @abstractmethod
    def check(self, group: dict[str, Any]) -> None:
        """Raise ValueError if a setting of this parameter group is wrong."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's, and checked; ValueError for complex parameters, too."""
        super().add_param_group(param_group)
        try:
            for p, parameter in enumerate(self.param_groups[-1]["params"]):
                if parameter.is_complex():
                    raise ValueError(f"{_place(len(self.param_groups) - 1, p, parameter)} is complex: take real ones")
            self.check(self.param_groups[-1])
        except ValueError:
            del self.param_groups[-1]
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but a tensor of the state keeps its dtype, and is a copy."""
        for group in state_dict["param_groups"]:
            self.check(group)
        super().load_state_dict(state_dict)
        saved = [each for group in state_dict["param_groups"] for each in group["params"]]
        own = [each for group in self.param_groups for each in group["params"]]
        for number, parameter in zip(saved, own, strict=True):
            if number in state_dict["state"]:
                self.state[parameter] = _kept(state_dict["state"][number], parameter.device)


class GradientOptimizer(CheckedOptimizer):
    """One whose `step` is `move`, by gradients that were looked at first."""

    @abstractmethod
    def move(self, found: Moving) -> None:
        """Move parameters, and change their state, by gradients that are dense and finite; without autograd."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; ValueError, before anything has changed, if a gradient is sparse or not finite.

        Args:
            closure: makes the gradients and returns the loss, which is then returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.move(self.gradients())
        return loss

    def gradients(self) -> Moving:
        """Of all that have a gradient; ValueError if one is sparse or not finite.

        All gradients are looked at before the answer, with one wait for the device.
        """
        found, places = [], []
        for g, group in enumerate(self.param_groups):
            self.check(group)  # a schedule may have changed it
            for p, parameter in enumerate(group["params"]):
                if parameter.grad is None:
                    continue
                if parameter.grad.layout != torch.strided:
                    raise ValueError(f"{_place(g, p, parameter)} has a sparse gradient: make it dense (sparse=False)")
                found.append((group, parameter, parameter.grad))
                places.append((g, p))
        if found:
            device = found[0][2].device
            finite = torch.stack([each.isfinite().all().to(device) for _, _, each in found])
            if not bool(finite.all()):
                first = int((~finite).nonzero()[0])
                raise ValueError(
                    f"the gradient of {_place(*places[first], found[first][1])} is not finite: nothing was changed"
                )
        return found


def check_rate(lr: Any) -> None:
    """ValueError unless the learning rate is finite and not negative; 0 is what a schedule may begin with."""
    if not (math.isfinite(lr) and lr >= 0):
        raise ValueError(f"lr must be finite and at least 0, not {lr}")


def _place(group: int, number: int, parameter: Tensor) -> str:
    return f"parameter {number} of group {group}, of shape {tuple(parameter.shape)},"


def _kept(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to(device, copy=True)
    return {key: _kept(each, device) for key, each in value.items()} if isinstance(value, dict) else value
