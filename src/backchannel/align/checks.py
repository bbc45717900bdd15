"""What a caller in Python may hand over by mistake, said before anything is trained.

The command line cannot make these mistakes; a notebook can.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from backchannel.ledger.problems import shortened
from backchannel.lm.answers import Record
from backchannel.parts.objectives import Objective, random_batch

TRIED = 8  # made-up examples
SAID = ("policy", "policy_chosen", "policy_rejected", "rationale", "value", "chosen", "rejected")  # by the model


def check_objective(objective: Any) -> None:
    """See, on made-up examples, that it returns one loss for each, with a gradient, and a NamedTuple to log.

    A mean in place of losses would be weighted by how a step is split, and no number would tell.

    Raises:
        ValueError: if it is none, or returns something else.
    """
    if not isinstance(objective, Objective):
        raise ValueError(f"expected an objective, such as dpo(beta=0.1), not {_named(objective)}")
    some = random_batch(objective.reads, TRIED, seed=0)
    said = objective(type(some)(*(_given(name, each) for name, each in some._asdict().items())))
    what = "an objective must return one loss for each of n examples, [n], and a NamedTuple of tensors [n] to log"
    if not isinstance(said, tuple) or len(said) != 2 or not isinstance(said[0], Tensor):
        raise ValueError(f"{what}; this one returned {_named(said)}")
    loss, info = said
    if loss.shape != (TRIED,):
        raise ValueError(f"{what}; of {TRIED} examples this one's loss has the shape {list(loss.shape)}")
    if not loss.requires_grad:
        raise ValueError("the objective's loss has no gradient: was it detached?")
    if not hasattr(info, "_asdict"):
        raise ValueError(f"{what}; what this one logs is {_named(info)}")
    for name, value in info._asdict().items():
        if not isinstance(value, Tensor) or value.shape[:1] != (TRIED,):
            raise ValueError(f"{what}; of {TRIED} examples its {name} is {_named(value)}")


def check_model(model: Any, rewards: bool) -> None:
    """ValueError unless the model has the head that is trained."""
    if rewards and not hasattr(model, "score"):
        raise ValueError("a reward model has a head of one output: load it by load_model(name, rewards=True)")
    if not rewards and hasattr(model, "score") and model.get_output_embeddings() is None:
        raise ValueError(f"{type(model).__name__} scores, and is no language model: load it by load_model(name)")


def check_judge(judge: Any) -> None:
    """ValueError unless it can be called with prompts, first answers and second answers."""
    try:
        inspect.signature(judge).bind([], [], [])
    except TypeError:
        raise ValueError(
            f"a judge takes prompts, first and second answers, and {_named(judge)} does not: put a function of a "
            "prompt and an answer into backchannel.align.judges.Scored(function, name)"
        ) from None
    except ValueError:
        pass  # a function without a signature: it is seen when it is called


def checked(records: Iterable[Record]) -> Iterator[Record]:
    """The records; ValueError at what is none."""
    for record in records:
        if not isinstance(record, Record):
            raise ValueError(f"records must be those of backchannel.align.read.read, not {_named(record)}")
        yield record


def _given(name: str, value: Tensor) -> Tensor:
    """As training gives it: with a gradient if a model says it, and no leaf, so that it may be changed in place."""
    own = value.clone()
    return own.requires_grad_() + 0 if name in SAID else own


def _named(value: Any) -> str:
    """What a value is, as it goes into a sentence."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return f"{type(value).__name__} {shortened(value)}"
