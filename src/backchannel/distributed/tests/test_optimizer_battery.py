"""The battery of optimizers: right ones pass, of first and of zeroth order; each mistake is found by its check."""

from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="optimizers need torch")

from backchannel.card import Card, Method  # noqa: E402
from backchannel.parts.optimizers import CheckedOptimizer, GradientOptimizer, check_rate  # noqa: E402
from backchannel.testing import optimizer_battery as battery  # noqa: E402


class Momentum(GradientOptimizer):
    """Heavy ball, its memory in float32 whatever the parameter is."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def check(self, group):
        check_rate(group["lr"])

    def move(self, found):
        for group, parameter, gradient in found:
            state = self.state[parameter]
            if not state:
                state["memory"] = torch.zeros_like(parameter, dtype=torch.float32)
            state["memory"].mul_(0.5).add_(gradient)
            parameter.sub_(group["lr"] * state["memory"])


class Zeroth(CheckedOptimizer):
    """A finite difference along random signs: its step needs the loss, and no gradient."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    def check(self, group):
        check_rate(group["lr"])

    @torch.no_grad()
    def step(self, closure):
        moving = [(g, p) for g in self.param_groups for p in g["params"] if p.requires_grad]
        round_ = self.state[moving[0][1]].get("round", 0)
        generator = torch.Generator().manual_seed(round_)
        signs = [torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1 for _, p in moving]
        start = [p.clone() for _, p in moving]
        values = []
        for side in (1, -1):
            for (_, p), s, x in zip(moving, signs, start, strict=True):
                p.copy_(x + side * 0.125 * s)
            values.append(closure())
        for (_, p), x in zip(moving, start, strict=True):
            p.copy_(x)
        slope = (values[0] - values[1]) / 0.25
        if not abs(slope) < float("inf"):
            raise ValueError(f"the loss is not finite: {values}")
        for (g, p), s in zip(moving, signs, strict=True):
            p.sub_(g["lr"] * slope * s)
        self.state[moving[0][1]]["round"] = round_ + 1
        return values[0]


def _method(factory, lr):
    """A method whose module is made up here."""
    module = ModuleType(
        "made_up", "Made up: it is here to be checked.\n\n>>>\nDeviations: none.\n\nReferences: nobody.\n"
    )
    module.made_up = factory
    module.CARD = Card(
        name="made up",
        summary="made up",
        paper="nobody",
        topics=(),
        feedback=("gradient",),
        protocol="optimizer",
        engine="torch",
        neighbour="",
        example={"lr": lr},
    )
    return Method("made_up", "distributed", module.CARD, module)


FIRST = _method(lambda params, lr: Momentum(params, lr), 0.05)
ZEROTH = _method(lambda params, lr: Zeroth(params, lr), 0.01)
FIRST.factory.__doc__ = ZEROTH.factory.__doc__ = "Made up."


@pytest.mark.parametrize("method", [FIRST, ZEROTH], ids=["first order", "zeroth order"])
@pytest.mark.parametrize("check", battery.OPTIMIZER_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_right_optimizers_pass(check, method):
    check(method)


class Stuck(Momentum):
    def step(self, closure=None):
        return None if closure is None else closure()


class OneRate(Momentum):
    def step(self, closure=None):
        for group in self.param_groups[1:]:
            group["lr"] = self.param_groups[0]["lr"]
        return super().step(closure)


class Decaying(Momentum):
    def step(self, closure=None):
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(1 - 0.01 * group["lr"])
        return super().step(closure)


class Rounding(Momentum):
    load_state_dict = torch.optim.Optimizer.load_state_dict


class Trusting(Momentum):
    def gradients(self):
        return [(g, p, p.grad) for g in self.param_groups for p in g["params"] if p.grad is not None]


class AnyRate(Momentum):
    def check(self, group):
        pass


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        (Stuck, battery.check_descends),
        (OneRate, battery.check_groups),
        (Decaying, battery.check_without_gradient),
        (Rounding, battery.check_resume),
        (Trusting, battery.check_not_finite),
        (Trusting, battery.check_sparse),
        (AnyRate, battery.check_wrong_rates),
        (torch.optim.SGD, battery.check_not_finite),
        (torch.optim.SGD, battery.check_complex),
    ],
    ids=lambda each: each.__name__,
)
def test_each_mistake_is_found(wrong, check):
    with pytest.raises(AssertionError, match="made_up"):
        check(_method(lambda params, lr: wrong(params, lr=lr), 0.05))


def test_what_is_refused_is_named_and_leaves_no_group():
    weight, other = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(1))
    optimizer = Momentum([weight], 0.1)
    with pytest.raises(ValueError, match="lr must be finite and at least 0, not -2"):
        optimizer.add_param_group({"params": [other], "lr": -2})
    turning = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"parameter 1 of group 1, of shape \(3,\), is complex: take real ones"):
        optimizer.add_param_group({"params": [other, turning]})
    assert len(optimizer.param_groups) == 1
    weight.grad = torch.full((2, 3), float("nan"))
    with pytest.raises(ValueError, match=r"the gradient of parameter 0 of group 0, of shape \(2, 3\), is not finite"):
        optimizer.step()


def test_a_loaded_state_is_a_copy():
    one, other = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    running, loaded = Momentum([one], 0.1), Momentum([other], 0.1)
    one.grad = torch.ones(2)
    running.step()
    loaded.load_state_dict(running.state_dict())
    running.step()
    assert float(loaded.state[other]["memory"][0]) == 1.0
    assert float(running.state[one]["memory"][0]) == 1.5


def test_a_closure_makes_gradients_and_its_loss_is_returned_also_where_none_are_recorded():
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = Momentum([weight], 0.1)

    def closure():
        optimizer.zero_grad()
        value = weight.square().sum()
        value.backward()
        return value

    with torch.no_grad():
        assert float(optimizer.step(closure).detach()) == 9.0
    assert float(weight.detach()) == pytest.approx(3 - 0.1 * 6)
    assert optimizer.step() is None
