"""What a method of local updates is: workers train alone, and exchange now and then what came of it.

An outer method sees the workers' models as rows, after inner steps that it does not make itself: any optimiser does. It
is two pure functions and a predicate. `parts/apart.py` runs it around a training script, `parts/local_training.py` on
workers simulated in one process; the lines are the same.

The pseudo-gradient of a worker is where it began less where it is: start - now, as a gradient points uphill.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from backchannel.parts.comm import Comm

State = Any  # a NamedTuple of tensors, with a field `x`: the model that all workers share, [d]


class Outer(NamedTuple):
    """A method, ready to run.

    - `init(comm, rows) -> State`: rows [local, d] are the models of the workers that live here, all the same.
    - `due(t) -> bool`: whether anything is to be done after inner step t = 1, 2, ...
    - `step(comm, rows, state, t) -> (rows, State, Info)`: what is done then; new rows, the arguments left alone.

    Between a `post` to the Comm and its `fetch`, what is on its way is the Comm's, not the State's.
    """

    init: Callable[[Comm, Tensor], State]
    due: Callable[[int], bool]
    step: Callable[[Comm, Tensor, State, int], tuple[Tensor, State, Any]]


def check_method(method: Any) -> None:
    """ValueError unless this is an outer method, ready to run."""
    name = getattr(method, "__name__", type(method).__name__)
    if callable(method):
        raise ValueError(f"{name} is what makes the method: call it: {name}(steps=...)")
    if not isinstance(method, Outer):
        raise ValueError(f"method must be an outer one, as diloco(steps=...) makes it, not of type {name}")


def nesterov(x: Tensor, momentum: Tensor, gradient: Tensor, step_size: float, decay: float) -> tuple[Tensor, Tensor]:
    """m = decay m + g;  x = x - step_size (g + decay m): the outer optimiser of DiLoCo. Returns x and m."""
    momentum = decay * momentum + gradient
    return x - step_size * (gradient + decay * momentum), momentum


def check(steps: int, step_size: float, decay: float, name: str = "momentum") -> None:
    """ValueError for sizes that no outer method takes."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, not {step_size}")
    if not 0 <= decay <= 1:
        raise ValueError(f"{name} must lie in [0, 1], not {decay}")
