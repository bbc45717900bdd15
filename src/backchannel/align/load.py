"""Loading a model and its tokenizer: a folder, a name on the hub, or a GGUF file, ready to be trained.

A GGUF file is unpacked to 32 bits. transformers still takes such a model for a quantised one and refuses to train it,
though nothing of it is: the marks are taken off, and no logit changes. A folder that holds an adapter is its base model
with that adapter, to go on with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def load_model(name: str, rewards: bool = False) -> tuple[Any, Any]:
    """A causal model of transformers, in 32 bits, and its tokenizer.

    Args:
        name: a folder, a GGUF file, or a name on the hub.
        rewards: with a head of one output in place of the language model's, for a reward model.

    Raises:
        ValueError: where there is no such model, or it is quantised, in one sentence.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()
    kind = transformers.AutoModelForSequenceClassification if rewards else transformers.AutoModelForCausalLM
    more: dict[str, Any] = {"num_labels": 1} if rewards else {}
    path, file = Path(name), {}
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        name, file = str(path.parent), {"gguf_file": path.name}
    elif path.exists() and not path.is_dir():
        raise ValueError(f"{path} is no folder and no GGUF file")
    elif not path.exists() and (path.is_absolute() or name.startswith(".") or name.count("/") > 1):
        raise ValueError(f"there is no folder {path}")  # and no such name on the hub
    adapter = path / "adapter_config.json"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **file)
        if path.is_dir() and adapter.is_file():
            base = json.loads(adapter.read_text())["base_model_name_or_path"]
            model = _with_adapter(load_model(base, rewards)[0], path)
        else:
            model = kind.from_pretrained(name, dtype=torch.float32, **file, **more)
    except (OSError, ValueError) as error:
        raise ValueError(f"no model could be loaded from {path}: {str(error).strip().splitlines()[0]}") from None
    if file:
        _unmark(model)
        model.config._name_or_path = str(path)
    elif getattr(model, "hf_quantizer", None) is not None:
        raise ValueError(f"{path} is quantised, which full precision training is not for: load its unquantised weights")
    if rewards and model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.eos_token_id  # positions are found otherwise; transformers asks for one
    return model, tokenizer


def _with_adapter(base: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(folder), is_trainable=True)


def _unmark(model: Any) -> None:
    """Take off what says that the weights are quantised: they were unpacked."""
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
