"""Gradient entanglement: measures why chosen and rejected answers become likelier, or less likely, together.

Losses of preferences ask for a margin between two answers and leave open how it comes about. A step that raises the
margin may lower both answers, or raise both: the answers share a model, and what is learned from one moves the other.
The inner product of the gradients of their log-probabilities says by how much, before any step is taken.

Equations (Yuan et al. 2024, section 3; the numbers are ours). For a pair with chosen answer w and rejected answer l let
g_w, g_l be the gradients of log pi(w), log pi(l) by the parameters. Every loss of pairs pulls with

    d_w = -d loss / d log pi(w),    d_l = d loss / d log pi(l),    grad loss = -d_w g_w + d_l g_l                (1)

A small step of rate eta down the loss of that pair moves, to first order,

    log pi(w)  by  eta (d_w |g_w|^2 - d_l <g_w, g_l>)                                                            (2)
    log pi(l)  by  eta (d_w <g_w, g_l> - d_l |g_l|^2)                                                            (3)

so that with a ratio q = d_w / d_l (positive pulls) both go where they should, w up and l down, if and only if

    <g_w, g_l> < q |g_w|^2    and    q <g_w, g_l> < |g_l|^2                                                      (4)

For losses of the margin alone q = 1: the pair with the smaller gradient is dragged along by the other. q is

    DPO, IPO 1;  SimPO |l| / |w|;  SLiC 1 + lambda where the hinge pulls, and without bound where it does not;
    CPO 1 + 1 / (beta sigmoid(-x));  DPO with SFT 1 + eta / sigmoid(-h)                                          (5)

with x, h the margins in the losses. Down the mean loss of n pairs every pair moves every other. With K the inner
products of all 2n gradients, chosen answers first, log-probabilities move by

    (eta / n) K (d_w, -d_l)                                                                                      (6)

Two cures. Normalised: with G_w, G_l the means over a batch of d_w g_w and d_l g_l, and D_w, D_l those of the pulls,

    a step along  D_w G_w / |G_w| - D_l G_l / |G_l|                                                              (7)

With D_w = D_l = D the chosen log-probabilities, weighed by their pulls, rise by eta D |G_w| (1 - cos) and the rejected
ones fall by eta D |G_l| (1 - cos), whatever the cosine of G_w and G_l. Masked: only tokens that the answers do not
share count. A prefix that both share cancels from the margin and its gradient, but not from K; a shared suffix keeps
the two gradients alike without saying who is better.

Steps: `gradient_entanglement` takes log-probabilities with their graph and gives K; `pulls` asks any objective for
(1); `moves` is (6), `alone` is (4), `ratio` is (5); `normalized` is (7) as pulls, `part` as gradients for an optimizer,
and `surrogate` a loss whose gradient has given pulls; `unshared` finds the tokens of the mask.

Deviations: the paper learns its mask, with a penalty on what is kept; ours keeps the tokens outside of the matching
blocks of `difflib`. K costs 2n backward passes and 2n gradients in memory: choose few pairs, or few parameters.

    >>> import torch
    >>> theta = torch.zeros(2, requires_grad=True)
    >>> w, l = torch.tensor([[1.0, 0.0]]) @ theta, torch.tensor([[2.0, 1.0]]) @ theta
    >>> found, pull = gradient_entanglement(w, l, [theta]), Pulls(torch.ones(1), torch.ones(1))
    >>> found.inner, moves(found, pull, 0.1)  # 2 > |g_w|^2: a larger margin, and both fall
    (tensor([2.]), Moves(chosen=tensor([-0.1000]), rejected=tensor([-0.3000])))
    >>> moves(found, normalized(found, pull), 0.1)
    Moves(chosen=tensor([0.0106]), rejected=tensor([-0.0236]))

References: yuan2024common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import torch
from torch import Tensor

from backchannel.card import Card
from backchannel.parts.objectives import Objective, Pairs, known, margin

CARD = Card(
    name="Gradient entanglement",
    summary="How a loss of pairs will move chosen and rejected answers: gradients' inner products, and two cures.",
    paper="yuan2024common",
    row=100,
    topics=("audit", "preference optimisation", "theory"),
    feedback=("comparison",),
    protocol="artefact",
    engine="torch",
    neighbour="dpo",
    example={},
    extras=("torch",),
)


class Entanglement(NamedTuple):
    """Inner products of the gradients of n pairs' log-probabilities."""

    gram: Tensor  # [2n, 2n]: K, chosen answers first

    @property
    def chosen(self) -> Tensor:
        """|g_w|^2: [n]."""
        return self.gram.diagonal()[: len(self.gram) // 2]

    @property
    def rejected(self) -> Tensor:
        """|g_l|^2: [n]."""
        return self.gram.diagonal()[len(self.gram) // 2 :]

    @property
    def inner(self) -> Tensor:
        """<g_w, g_l> of each pair: [n]."""
        return self.gram.diagonal(len(self.gram) // 2)

    @property
    def cosine(self) -> Tensor:
        """Of g_w and g_l: [n]."""
        return self.inner / (self.chosen * self.rejected).sqrt()


class Pulls(NamedTuple):
    """(1): how strongly a loss pulls the chosen answer up and the rejected one down; [n] each, detached."""

    chosen: Tensor
    rejected: Tensor


class Moves(NamedTuple):
    """By how much log-probabilities change: [n] each."""

    chosen: Tensor
    rejected: Tensor


class Directions(NamedTuple):
    """(4): whether a step down the loss of a pair alone moves its answers where they should go; bool[n] each."""

    rises: Tensor  # the chosen one
    falls: Tensor  # the rejected one


def gradient_entanglement(chosen: Tensor, rejected: Tensor, parameters: Iterable[Tensor]) -> Entanglement:
    """K of n pairs.

    Args:
        chosen: log pi(w) of each pair, [n], a function of the parameters.
        rejected: log pi(l), [n].
        parameters: those that are trained, of an adapter or of the whole model.
    """
    if chosen.dim() != 1 or chosen.shape != rejected.shape:
        raise ValueError(f"chosen and rejected must be [n] each, not {tuple(chosen.shape)} and {tuple(rejected.shape)}")
    theta = list(parameters)
    rows = []
    for each in torch.cat([chosen, rejected]):
        found = torch.autograd.grad(each, theta, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(theta, found, strict=True)]
        rows.append(torch.cat([part.reshape(-1) for part in parts]))
    gradients = torch.stack(rows)
    return Entanglement(gradients @ gradients.T)


def pulls(objective: Objective[Pairs], pairs: Pairs) -> Pulls:
    """(1) of any loss of pairs."""
    leaves = [each.detach().clone().requires_grad_() for each in (pairs.policy_chosen, pairs.policy_rejected)]
    loss, _ = objective(pairs._replace(policy_chosen=leaves[0], policy_rejected=leaves[1]))
    down = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
    up, against = (torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, down, strict=True))
    return Pulls(-up, against)


def moves(found: Entanglement, pull: Pulls, rate: float) -> Moves:
    """(6): what a step of gradient descent down the mean loss does to every pair, to first order in the rate."""
    n = len(pull.chosen)
    both = rate / n * (found.gram @ torch.cat([pull.chosen, -pull.rejected]))
    return Moves(both[:n], both[n:])


def alone(found: Entanglement, pull: Pulls) -> Directions:
    """(4), by (2) and (3), so that pulls may be 0 or negative."""
    return Directions(
        pull.chosen * found.chosen > pull.rejected * found.inner,
        pull.chosen * found.inner < pull.rejected * found.rejected,
    )


def ratio(method: str, pairs: Pairs, **settings: float) -> Tensor:
    """(5): q = d_w / d_l of each pair, in closed form.

    Args:
        method: a key of `RATIOS`.
        pairs: [n].
        settings: those of the loss.
    """
    if method not in RATIOS:
        raise ValueError(f"method must be one of {', '.join(RATIOS)}, not {method!r}")
    return RATIOS[method](pairs, **settings)


def normalized(found: Entanglement, pull: Pulls) -> Pulls:
    """(7), as pulls: those of the loss, scaled for the chosen and for the rejected answers of the batch."""
    n = len(pull.chosen)
    up = n * pull.chosen.mean() / (pull.chosen @ found.gram[:n, :n] @ pull.chosen).sqrt()
    down = n * pull.rejected.mean() / (pull.rejected @ found.gram[n:, n:] @ pull.rejected).sqrt()
    return Pulls(up * pull.chosen, down * pull.rejected)


def surrogate(chosen: Tensor, rejected: Tensor, pull: Pulls) -> Tensor:
    """A scalar whose gradient is that of a mean loss with these pulls: for `backward()`."""
    return (pull.rejected * rejected - pull.chosen * chosen).mean()


def part(chosen: Tensor, rejected: Tensor, pull: Pulls, parameters: Iterable[Tensor]) -> None:
    """(7) in two backward passes: leaves what an optimizer is to step down in the parameters' `.grad`.

    Args:
        chosen: log pi(w) of a batch, [n], with its graph.
        rejected: log pi(l), [n].
        pull: of the loss.
        parameters: those that are trained.
    """
    theta = list(parameters)
    sides = ((chosen, pull.chosen), (rejected, pull.rejected))
    unit = []
    for logs, d in sides:
        found = torch.autograd.grad((d * logs).mean(), theta, retain_graph=True, allow_unused=True)
        g = [torch.zeros_like(p) if each is None else each for p, each in zip(theta, found, strict=True)]
        size = torch.stack([each.square().sum() for each in g]).sum().sqrt()
        unit.append([d.mean() * each / size for each in g])
    for p, up, down in zip(theta, *unit, strict=True):
        p.grad = down - up


def unshared(one: Sequence[int], other: Sequence[int]) -> tuple[list[bool], list[bool]]:
    """Which tokens of two answers lie outside of what they share, in order."""
    masks = [True] * len(one), [True] * len(other)
    for a, b, size in SequenceMatcher(None, list(one), list(other), autojunk=False).get_matching_blocks():
        masks[0][a : a + size] = [False] * size
        masks[1][b : b + size] = [False] * size
    return masks


# ---- private


def _even(pairs: Pairs, **settings: float) -> Tensor:
    return torch.ones_like(pairs.policy_chosen)


def _lengths(pairs: Pairs, **settings: float) -> Tensor:
    of = known(pairs, "rejected_length") / known(pairs, "chosen_length")
    return of.to(pairs.policy_chosen.dtype)


def _slic(pairs: Pairs, delta: float, weight: float) -> Tensor:
    pulled = pairs.policy_chosen - pairs.policy_rejected < delta
    return torch.where(pulled, 1.0 + weight, float("inf")).to(pairs.policy_chosen.dtype)


def _cpo(pairs: Pairs, beta: float) -> Tensor:
    x = beta * (pairs.policy_chosen - pairs.policy_rejected)
    return 1 + 1 / (beta * torch.sigmoid(-x))


def _with_sft(pairs: Pairs, eta: float, beta: float) -> Tensor:
    return 1 + eta / torch.sigmoid(-margin(pairs, beta))


RATIOS: dict[str, Callable[..., Tensor]] = {
    "dpo": _even,
    "ipo": _even,
    "simpo": _lengths,
    "slic": _slic,
    "cpo": _cpo,
    "sft_regularized_dpo": _with_sft,
}
"""(5) of losses by key."""
