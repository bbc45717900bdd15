"""Log-probabilities under the reference: the weights without their adapters, or a frozen copy; kept in a file.

The reference of a model with a new adapter is the same weights with the adapter off, so that no second model is held.
An adapter that goes on from an earlier run is part of what is tuned: a frozen copy of it is kept (`keep_start`), and
stands in the reference. A model that is trained as a whole needs a frozen copy, and is refused as its own reference.
Dropout is off either way.

A reference never changes, so that its numbers need be computed but once: `kept_logs` puts those of a data set in a file
with a key, a hash of all that they depend on, and takes no numbers whose key is another.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from backchannel.align import packing
from backchannel.align.model import Answers, Logs, evaluating
from backchannel.align.packing import Prompts
from backchannel.ledger.convert import beside

START = "start"  # the name of the copy of an adapter that was there before
VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures")


def keep_start(model: Any) -> None:
    """Keep a frozen copy of the adapter that `model` has: it is the reference's from now on; an earlier copy goes."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    name = model.active_adapter
    if START in model.peft_config:
        model.delete_adapter(START)
    model.add_adapter(START, copy.deepcopy(model.peft_config[name]))
    set_peft_model_state_dict(model, get_peft_model_state_dict(model, adapter_name=name), adapter_name=START)
    model.set_adapter(name)


@contextmanager
def as_reference(model: Any) -> Iterator[None]:
    """A model as it was when its tuning began; one without adapters is left as it is."""
    if not hasattr(model, "peft_config"):
        yield
        return
    if START not in model.peft_config:
        with model.disable_adapter():
            yield
        return
    name = model.active_adapter
    model.set_adapter(START, inference_mode=True)
    try:
        yield
    finally:
        model.set_adapter(name)


def reference_logs(answers: Answers, prompts: Prompts, given: packing.Answers) -> Logs:
    """Log-probabilities under the reference, without gradients and without dropout.

    Args:
        answers: a model with adapters, which are turned off; or a frozen copy of the model to be trained.
        prompts: as for `Answers`.
        given: the answers, as for `Answers`.
    """
    with _reference(answers), torch.no_grad():
        logs: Logs = answers(prompts, given)
    return logs


def kept_logs(
    path: str | os.PathLike[str], answers: Answers, prompts: Prompts, given: packing.Answers, at_once: int = 4
) -> Logs:
    """`reference_logs` of a whole data set, on the CPU: from a file if it holds them, else computed and put there.

    The file's key is a hash of the reference's weights, its configuration and all tokens: numbers of another model or
    other data are never taken.

    Args:
        path: of the file (safetensors, numbers of 32 bits).
        answers: as for `reference_logs`.
        prompts: as for `Answers`.
        given: the answers, as for `Answers`.
        at_once: prompts in a batch.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

    packing.checked(prompts, given)
    file, key = Path(path), reference_key(answers, prompts, given)
    if file.is_file():
        try:
            with safe_open(file, "pt") as stored:
                if (stored.metadata() or {}).get("key") == key:
                    return Logs(stored.get_tensor("tokens"), stored.get_tensor("lengths"))
        except SafetensorError:
            pass  # cut off or of another kind: computed anew below
    parts = []
    for i in range(0, len(prompts), at_once):
        parts.append(reference_logs(answers, prompts[i : i + at_once], given[i : i + at_once]))
    tokens = torch.cat([torch.zeros(0), *(logs.tokens.float().cpu() for logs in parts)])
    lengths = torch.tensor([len(answer) for each in given for answer in each])
    file.parent.mkdir(parents=True, exist_ok=True)
    with beside(file) as made:
        made.write_bytes(save({"tokens": tokens, "lengths": lengths}, {"key": key}))
    return Logs(tokens, lengths)


def reference_key(answers: Answers, prompts: Prompts, given: packing.Answers) -> str:
    """A hash of all that reference log-probabilities depend on: weights but the adapters', configuration, tokens."""
    digest = hashlib.sha256()
    settings = {name: each for name, each in answers.config.to_dict().items() if name not in VOLATILE}
    tokens = [[list(prompt), [list(answer) for answer in each]] for prompt, each in zip(prompts, given, strict=True)]
    digest.update(json.dumps([settings, tokens], sort_keys=True, default=str).encode())
    kept = {name: each for name, each in answers.model.state_dict().items() if START in name.split(".")}
    for name, tensor in sorted((_frozen_weights(answers.model) | kept).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _frozen_weights(model: Any) -> dict[str, Tensor]:
    """The weights of a model without its adapters, by the names that they have there."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found = {}
    for name, tensor in base.state_dict(keep_vars=True).items():
        parts = name.split(".")
        if not _adapted(model, parts):
            found[".".join(part for part in parts if part not in ("base_layer", "original_module"))] = tensor
    return found


def _adapted(model: Any, parts: list[str]) -> bool:
    """Whether a name, in parts, is of an adapter's weights."""
    if not hasattr(model, "peft_config"):
        return False
    prefix = getattr(model.base_model, "prefix", None)
    return "modules_to_save" in parts or (prefix is not None and any(part.startswith(prefix) for part in parts))


@contextmanager
def _reference(answers: Answers) -> Iterator[None]:
    """The model as the reference: adapters off, no dropout. ValueError if it would be the trained model."""
    model = answers.model
    learned = [name for name, each in _frozen_weights(model).items() if each.requires_grad]
    if hasattr(model, "disable_adapter"):
        if learned:
            raise ValueError(f"{learned[0]} is trained beside the adapters: without them no reference is left")
    elif learned:
        raise ValueError("the reference would be the trained model itself: give a frozen copy of it")
    with evaluating(model), as_reference(model):
        yield
