"""The battery of optimizers: what must hold for every method that is a `torch.optim.Optimizer`. Public:

    from backchannel.card import Method
    from backchannel.testing.optimizer_battery import OPTIMIZER_CHECKS

    @pytest.mark.parametrize("check", OPTIMIZER_CHECKS, ids=lambda check: check.__name__)
    def test_my_optimizer(check):
        check(Method("my_optimizer", "distributed", my_module.CARD, my_module))

The factory is called with parameters (or with groups of them) and the card's example, which holds `lr`. A method that
needs the loss itself (of zeroth order, say) has a `step(closure)` whose closure has no default, as torch's LBFGS does:
it is handed a closure that returns the loss and takes no gradient. `parts/optimizers.py` has what makes most of this
hold. A check raises AssertionError. Nothing is left to luck.
"""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from backchannel.card import Method
from backchannel.testing.battery import check_card

Check = Callable[[Method], None]
Parameters = dict[str, Parameter]

STEPS = 200
SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "vector": (5,),
    "matrix": (4, 3),
    "kernel": (2, 3, 2, 2),
    "empty": (0, 3),
    "single": (1,),
}


def check_descends(method: Method) -> None:
    """Parameters of all shapes go down a small quadratic; a step returns what its closure does."""
    parameters = made(torch.float32)
    optimizer = _optimizer(method, list(parameters.values()))
    assert isinstance(optimizer, torch.optim.Optimizer), f"{method.key}: what the factory returns is no Optimizer"
    first = float(loss(parameters).detach())
    _play(optimizer, parameters, STEPS)
    last = float(loss(parameters).detach())
    assert last < first / 2, f"{method.key}: the loss was {first} and is {last} after {STEPS} steps"
    for name, start in made(torch.float32).items():
        moved = not torch.equal(start, parameters[name])
        assert moved or not start.numel(), f"{method.key}: the parameter {name!r} has not moved"
    returned = optimizer.step(_closure(optimizer, parameters))
    right = math.isfinite(returned) if needs_closure(optimizer) else float(returned) == last
    assert right, f"{method.key}: step(closure) must return the closure's loss, not {returned}"


def check_groups(method: Method) -> None:
    """Groups with equal settings are as one; a learning rate is its group's, as it is now, and 0 moves nothing."""
    one, other = made(torch.float32), made(torch.float32)
    names = list(one)
    _play(_optimizer(method, list(one.values())), one, 5)
    groups = [{"params": [other[name] for name in part]} for part in (names[:2], names[2:])]
    _play(_optimizer(method, groups), other, 5)
    _assert_same(one, other, f"{method.key}: two groups with equal settings are not as one")
    held = made(torch.float32)
    still, free = [held[name] for name in names[:2]], [held[name] for name in names[2:]]
    optimizer = _optimizer(method, [{"params": still, "lr": 0.0}, {"params": free}])
    _play(optimizer, held, 3)
    start = made(torch.float32)
    _assert_same({n: held[n] for n in names[:2]}, {n: start[n] for n in names[:2]}, f"{method.key}: a group's lr of 0")
    assert not torch.equal(held["matrix"], start["matrix"]), f"{method.key}: the other group has not moved"
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: each.detach().clone() for name, each in held.items()}
    _play(optimizer, held, 3)
    _assert_same(before, held, f"{method.key}: a schedule's lr of 0 is not heeded")


def check_without_gradient(method: Method) -> None:
    """What has no gradient is left alone: frozen parameters, and those that the loss does not depend on."""
    parameters = made(torch.float32)
    parameters["vector"].requires_grad_(False)
    optimizer = _optimizer(method, list(parameters.values()))
    seen = dict(parameters)
    if not needs_closure(optimizer):
        del seen["matrix"]
    _play(optimizer, seen, 3)
    for name in ("vector", *(parameters.keys() - seen.keys())):
        same = torch.equal(parameters[name], made(torch.float32)[name])
        assert same, f"{method.key}: the parameter {name!r} has no gradient and has moved"
    assert not torch.equal(parameters["kernel"], made(torch.float32)["kernel"])


def check_precision(method: Method) -> None:
    """bfloat16 and float64 parameters stay what they are, and go down too."""
    for dtype in (torch.bfloat16, torch.float64):
        parameters = made(dtype)
        first = float(loss(parameters).detach())
        _play(_optimizer(method, list(parameters.values())), parameters, STEPS)
        last = float(loss(parameters).detach())
        assert all(each.dtype == dtype for each in parameters.values())
        assert last < first / 2, f"{method.key}: in {dtype} the loss was {first} and is {last} after {STEPS} steps"


def check_resume(method: Method) -> None:
    """Going on from a state dict, through bytes, with fresh parameters, is going on without a stop, to the last bit."""
    for dtype in (torch.float32, torch.bfloat16):
        whole, half = made(dtype), made(dtype)
        running = _optimizer(method, list(whole.values()))
        _play(running, whole, 25)
        stopped = _optimizer(method, list(half.values()))
        _play(stopped, half, 12)
        file = io.BytesIO()
        torch.save({"model": half, "optimizer": stopped.state_dict()}, file)
        file.seek(0)
        found = torch.load(file, weights_only=True)
        again: Parameters = {name: Parameter(each.detach().clone()) for name, each in found["model"].items()}
        resumed = _optimizer(method, list(again.values()))
        resumed.load_state_dict(found["optimizer"])
        _play(resumed, again, 13)
        _assert_same(whole, again, f"{method.key}: with {dtype} parameters, resuming is not the same")
        one, other = _flat(running.state_dict()), _flat(resumed.state_dict())
        assert one.keys() == other.keys()
        for name, value in one.items():
            same = value.dtype == other[name].dtype and torch.equal(value, other[name])
            assert same, f"{method.key}: with {dtype} parameters, {name} of the state does not come back as it was"


def check_not_finite(method: Method) -> None:
    """NaN or infinity in one gradient (or in the loss) is refused, at any step, before anything has changed."""
    for steps in (0, 3):
        for bad in (math.nan, math.inf):
            parameters = made(torch.float32)
            optimizer = _optimizer(method, list(parameters.values()))
            _play(optimizer, parameters, steps)
            before = {name: each.detach().clone() for name, each in parameters.items()}
            state = {name: value.clone() for name, value in _flat(optimizer.state_dict()).items()}
            message = ""
            try:
                _step(optimizer, parameters, bad)
            except ValueError as error:
                message = str(error)
            assert "finite" in message, f"{method.key}: a gradient with {bad} must raise a ValueError that says so"
            if needs_closure(optimizer):  # a perturbation is taken back, up to rounding
                for name, value in before.items():
                    torch.testing.assert_close(parameters[name].detach(), value)
            else:
                _assert_same(before, parameters, f"{method.key}: a gradient with {bad} was refused too late")
            after = _flat(optimizer.state_dict())
            _assert_same(state, after, f"{method.key}: a gradient with {bad} changed the state")


def check_sparse(method: Method) -> None:
    """A sparse gradient is refused in words, before anything has changed."""
    parameters = made(torch.float32)
    optimizer = _optimizer(method, list(parameters.values()))
    if needs_closure(optimizer):
        return
    _assign_gradients(optimizer, parameters)
    parameters["matrix"].grad = torch.ones(4, 3).to_sparse()
    message = ""
    try:
        optimizer.step()
    except ValueError as error:
        message = str(error)
    assert "sparse" in message, f"{method.key}: a sparse gradient must raise a ValueError that says so"
    _assert_same(made(torch.float32), parameters, f"{method.key}: a sparse gradient was refused too late")


def check_wrong_rates(method: Method) -> None:
    """A learning rate that is negative, infinite or not a number is refused, as a default and in a group."""
    for lr in (-1.0, math.nan, math.inf):
        for grouped in (False, True):
            parameters: list[Any] = list(made(torch.float32).values())
            example = method.card.example | ({} if grouped else {"lr": lr})
            message = ""
            try:
                method.factory([{"params": parameters, "lr": lr}] if grouped else parameters, **example)
            except ValueError as error:
                message = str(error)
            where = "of a group" if grouped else "as a default"
            assert "lr" in message, f"{method.key}: lr = {lr} {where} must raise a ValueError that names lr"


def check_settings_that_change(method: Method) -> None:
    """A rate that a schedule or a loaded state made wrong is refused, and nothing moves."""
    parameter = Parameter(torch.ones(3))
    optimizer = _optimizer(method, [parameter])
    saved = optimizer.state_dict()
    saved["param_groups"][0]["lr"] = -1.0
    ways = [lambda: optimizer.load_state_dict(saved)]
    if not needs_closure(optimizer):
        ways.append(lambda: _step_at(optimizer, parameter, float("nan")))
    for wrong in ways:
        said = ""
        try:
            wrong()
        except ValueError as error:
            said = str(error)
        assert "lr" in said, f"{method.key}: takes a learning rate that is none from a state or a schedule"
    assert torch.equal(parameter.detach(), torch.ones(3))


def _step_at(optimizer: torch.optim.Optimizer, parameter: Parameter, rate: float) -> None:
    optimizer.param_groups[0]["lr"] = rate
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def check_complex(method: Method) -> None:
    """Complex parameters are refused in words: equations of real numbers would be others."""
    message = ""
    try:
        _optimizer(method, [Parameter(torch.ones(2, dtype=torch.complex64))])
    except ValueError as error:
        message = str(error)
    assert "complex" in message, f"{method.key}: a complex parameter must raise a ValueError that says so"


OPTIMIZER_CHECKS: tuple[Check, ...] = (
    check_card,
    check_descends,
    check_groups,
    check_without_gradient,
    check_precision,
    check_resume,
    check_not_finite,
    check_sparse,
    check_wrong_rates,
    check_complex,
    check_settings_that_change,
)


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its `step` cannot do without a closure."""
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def made(dtype: torch.dtype) -> Parameters:
    """One parameter of each shape, the same each time: entries from 1 to 2."""
    return {
        name: Parameter((1 + torch.linspace(0, 1, math.prod(shape), dtype=torch.float64)).reshape(shape).to(dtype))
        for name, shape in SHAPES.items()
    }


def loss(parameters: Parameters) -> Tensor:
    """The sum of squares, with curvatures from 1/2 to 2 in each parameter."""
    total = torch.zeros((), dtype=torch.float64)
    for each in parameters.values():
        curvature = torch.linspace(0.5, 2, each.numel(), dtype=torch.float64).reshape(each.shape)
        total = total + (curvature * each.double().square()).sum() / 2
    return total


# ---- private


def _optimizer(method: Method, parameters: Any) -> Any:
    return method.factory(parameters, **method.card.example)


def _closure(optimizer: Any, parameters: Parameters, times: float = 1.0) -> Callable[[], float]:
    def closure() -> float:
        value = times * loss(parameters)
        if not needs_closure(optimizer):
            optimizer.zero_grad()
            value.backward()
        return float(value.detach())

    return closure


def _assign_gradients(optimizer: Any, parameters: Parameters) -> None:
    optimizer.zero_grad()
    loss(parameters).backward()


def _step(optimizer: Any, parameters: Parameters, bad: float | None = None) -> None:
    """One step; with `bad`, that number in the place of one entry of a gradient, or of the loss."""
    if needs_closure(optimizer):
        optimizer.step(_closure(optimizer, parameters, 1.0 if bad is None else bad))
        return
    _assign_gradients(optimizer, parameters)
    if bad is not None:
        gradient = parameters["kernel"].grad
        assert gradient is not None
        gradient[1, 2, 0, 1] = bad
    optimizer.step()


def _play(optimizer: Any, parameters: Parameters, steps: int) -> None:
    for _ in range(steps):
        _step(optimizer, parameters)


def _flat(state_dict: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors and numbers of a state dict's state, by name."""
    found: dict[str, Tensor] = {}

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                walk(each, f"{name}.{key}")
        elif isinstance(value, list | tuple):
            for key, each in enumerate(value):
                walk(each, f"{name}.{key}")
        elif isinstance(value, Tensor | bool | int | float):
            found[name] = torch.as_tensor(value)

    walk(state_dict["state"], "state")
    return found


def _assert_same(one: dict[str, Any], other: dict[str, Any], message: str) -> None:
    assert one.keys() == other.keys(), f"{message}: {sorted(one.keys() ^ other.keys())}"
    for name, value in one.items():
        assert torch.equal(value, other[name]), f"{message}: {name}"
