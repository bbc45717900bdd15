"""The battery of objectives: what must hold for every loss of preference learning. Public, for methods of one's own:

    from backchannel.card import Method
    from backchannel.testing.objective_battery import OBJECTIVE_CHECKS

    @pytest.mark.parametrize("check", OBJECTIVE_CHECKS, ids=lambda check: check.__name__)
    def test_my_objective(check):
        check(Method("my_objective", "preference", my_module.CARD, my_module))

Objectives are tried on made-up batches of the kind that they read. A check raises AssertionError. Nothing is left to
luck.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from backchannel.card import Method
from backchannel.parts.objectives import Pairs, Rankings, Rollouts, Scores, Singles, known, random_batch, rows, swapped
from backchannel.testing.battery import check_card

Check = Callable[[Method], None]

LEARNED: dict[type[Any], Sequence[str]] = {
    Pairs: ("policy_chosen", "policy_rejected"),
    Singles: ("policy",),
    Rankings: ("policy",),
    Rollouts: ("policy",),
    Scores: ("chosen", "rejected"),
}
"""The fields of each kind of batch that training moves."""


def check_loss_of_each_example(method: Method) -> None:
    """One loss for each example, in the batch's dtype and finite; Info is detached tensors, a row for each example."""
    for dtype in (torch.float32, torch.float64):
        objective = method.example()
        batch = _learned(_to(random_batch(objective.reads, 7, seed=0), dtype))
        loss, info = objective(batch)
        assert loss.shape == (7,), f"{method.key}: the loss of 7 examples has the shape {tuple(loss.shape)}"
        assert loss.dtype == dtype, f"{method.key}: the loss of {dtype} log-probabilities is {loss.dtype}"
        assert loss.requires_grad, f"{method.key}: the loss does not depend on the policy"
        assert bool(torch.isfinite(loss).all())
        for name, value in info._asdict().items():
            assert value.shape[:1] == (7,), f"{method.key}: Info.{name} has no row for each example"
            assert not value.requires_grad, f"{method.key}: Info.{name} is not detached"


def check_batch(method: Method) -> None:
    """An example's loss depends on no other: splitting or reordering the batch changes nothing, nor do its weights."""
    objective = method.example()
    batch = random_batch(objective.reads, 12, seed=1)
    loss, _ = objective(batch)
    parts = [objective(rows(batch, slice(i, i + 5)))[0] for i in (0, 5, 10)]
    torch.testing.assert_close(torch.cat(parts), loss, msg=f"{method.key}: splitting the batch changes its losses")
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    mixed, _ = objective(rows(batch, order))
    torch.testing.assert_close(mixed, loss[order], msg=f"{method.key}: the order of the batch changes its losses")
    if objective.weight is not None:
        weight = objective.weight(batch)
        assert weight.shape == (12,), f"{method.key}: there must be one weight for each example"
        assert bool((weight >= 0).all()), f"{method.key}: a weight is negative"
        halves = torch.cat([objective.weight(rows(batch, slice(i, i + 6))) for i in (0, 6)])
        torch.testing.assert_close(halves, weight, msg=f"{method.key}: splitting the batch changes its weights")


def check_extreme_log_probabilities(method: Method) -> None:
    """Losses and gradients stay finite at log-probabilities and rewards of +-10,000, in float32."""
    objective = method.example()
    names = [name for name in objective.reads._fields if name not in _ABOUT]
    for size in (0.0, 1e4):
        signs = list(itertools.product((-1.0, 0.0, 1.0), repeat=min(len(names), 4)))
        batch = _to(random_batch(objective.reads, len(signs), seed=6), torch.float32)
        for name, sign in zip(names, zip(*signs, strict=True), strict=False):
            value = getattr(batch, name)
            if value is not None:
                shape = (len(signs),) + (1,) * (value.dim() - 1)
                batch = batch._replace(**{name: size * torch.tensor(sign).reshape(shape).expand_as(value)})
        batch = _learned(batch)
        loss, _ = objective(batch)
        assert bool(torch.isfinite(loss).all()), f"{method.key}: a loss at extreme log-probabilities is not finite"
        inputs = [getattr(batch, name) for name in LEARNED[objective.reads]]
        gradients = torch.autograd.grad(loss.sum(), inputs, allow_unused=True)
        finite = all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
        assert finite, f"{method.key}: a gradient at extreme log-probabilities is not finite"


def check_gradient(method: Method) -> None:
    """The gradient is that of the loss: finite differences in float64. (A detached weight is the loss's own affair.)"""
    objective = method.example()
    if getattr(method.module, "DETACHED", False):
        return
    batch = random_batch(objective.reads, 6, seed=3)
    names = LEARNED[objective.reads]

    def loss(*values: Tensor) -> Tensor:
        return objective(batch._replace(**dict(zip(names, values, strict=True))))[0]

    inputs = [getattr(batch, name).clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-6)


def check_direction(method: Method) -> None:
    """At the reference itself, a step down the loss makes the better answer more likely than the worse one.

    Rewards are near 0: a loss with smoothed labels pulls back what is far.
    """
    objective = method.example()
    batch = random_batch(objective.reads, 6, seed=4)
    if isinstance(batch, Pairs):
        batch = batch._replace(policy_chosen=batch.reference_chosen, policy_rejected=batch.reference_rejected)
    elif isinstance(batch, Scores):
        batch = batch._replace(chosen=batch.chosen / 10, rejected=batch.rejected / 10)
    elif isinstance(batch, (Singles, Rankings)):
        batch = batch._replace(policy=batch.reference)
    elif isinstance(batch, Rollouts):  # one advantage for each answer, since some objectives weigh whole answers
        whole = batch.advantage[:, :1].expand_as(batch.advantage)
        batch = batch._replace(policy=batch.sampled, reference=batch.sampled, advantage=whole)
    batch = _learned(batch)
    inputs = [getattr(batch, name) for name in LEARNED[objective.reads]]
    down = torch.autograd.grad(-objective(batch)[0].sum(), inputs, allow_unused=True)
    moves = [torch.zeros_like(x) if each is None else each for x, each in zip(inputs, down, strict=True)]
    message = f"{method.key}: a step down the loss does not favour the better answer"
    if isinstance(batch, (Pairs, Scores)):
        told = torch.ones(6, dtype=torch.bool) if not isinstance(batch, Scores) or batch.tie is None else ~batch.tie
        assert bool((moves[0] - moves[1])[told].gt(0).all()), message
        assert bool((moves[0] >= 0)[told].all()), f"{method.key}: a step down the loss lowers the chosen answer"
    elif isinstance(batch, Singles):
        good = known(batch, "good") | (not _asks_who_is_good(objective, batch))
        assert bool((moves[0][good] >= 0).all()), message
        assert bool((moves[0][~good] <= 0).all()), message
        assert bool(moves[0].abs().sum() > 0), message
    elif isinstance(batch, Rankings):
        assert bool((moves[0][:, 0] > moves[0][:, -1]).all()), message
    else:
        gain = (moves[0] * batch.advantage)[batch.mask]
        assert bool((gain >= 0).all()), message
        assert bool(gain.sum() > 0), message
        assert bool((moves[0][~batch.mask] == 0).all()), f"{method.key}: a masked token is trained on"


def check_swap(method: Method) -> None:
    """Where Info holds a margin: with the labels swapped it changes its sign."""
    objective = method.example()
    batch = random_batch(objective.reads, 6, seed=5)
    margin = getattr(objective(batch)[1], "margin", None)
    if margin is not None and isinstance(batch, Pairs):
        message = f"{method.key}: swapping the answers does not negate the margin"
        torch.testing.assert_close(objective(swapped(batch))[1].margin, -margin, msg=message)


def check_reference(method: Method) -> None:
    """`reference` tells the truth: without it no number of the reference is read; with it some is."""
    objective = method.example()
    batch = random_batch(objective.reads, 6, seed=7)
    names = [name for name in batch._fields if name.startswith("reference")]
    if not names:
        return
    other = batch._replace(**{name: getattr(batch, name) * 1.25 - 1 for name in names})
    same = torch.equal(objective(batch)[0], objective(other)[0])
    if objective.reference:
        assert not same, f"{method.key}: the reference is said to be needed, and changes nothing"
    else:
        assert same, f"{method.key}: reads the reference, and says that it does not"


OBJECTIVE_CHECKS: tuple[Check, ...] = (
    check_card,
    check_loss_of_each_example,
    check_batch,
    check_extreme_log_probabilities,
    check_gradient,
    check_direction,
    check_swap,
    check_reference,
)

_ABOUT = ("chosen_length", "rejected_length", "length", "strength", "good", "tie", "mask", "score", "gap", "advantage")


def _asks_who_is_good(objective: Any, singles: Singles) -> bool:
    """Whether good answers and bad ones are told apart; imitation takes every answer for a good one."""
    other = singles._replace(good=~known(singles, "good"), score=-known(singles, "score"))
    return not torch.equal(objective(singles)[0], objective(other)[0])


def _to(batch: Any, dtype: torch.dtype) -> Any:
    return type(batch)(
        *(x.to(dtype) if x is not None and x.is_floating_point() else x for x in batch)
    )  # lengths and labels stay


def _learned(batch: Any) -> Any:
    """With the gradients of what training moves."""
    names = LEARNED[type(batch)]
    return batch._replace(**{name: getattr(batch, name).detach().clone().requires_grad_() for name in names})
