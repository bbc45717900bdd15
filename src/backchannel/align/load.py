"""Loading a model and its tokenizer: a folder, a name on the hub, or a GGUF file, ready to be trained.

A reward model is no language model, and a language model no judge: each is refused in the other's place, where
transformers would put a random head on it.

A GGUF file is unpacked to 32 bits. transformers still takes such a model for a quantised one and refuses to train it,
though nothing of it is: the marks are taken off, and no logit changes. A folder that holds an adapter is its base model
with that adapter, to go on with.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

ADAPTER, USE = "adapter_config.json", "backchannel.json"
FILES = ("config.json", ADAPTER)


def load_model(name: str, rewards: bool = False) -> tuple[Any, Any]:
    """A causal model of transformers, in 32 bits, and its tokenizer.

    Args:
        name: a folder, a GGUF file, or a name on the hub; of what `align` wrote, the folder with `model` in it does.
        rewards: with a head of one output in place of the language model's, for a reward model.

    Raises:
        ValueError: where there is no such model, it is of the other sort, or it is quantised, in one sentence.
    """
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    kind = transformers.AutoModelForSequenceClassification if rewards else transformers.AutoModelForCausalLM
    more: dict[str, Any] = {"num_labels": 1} if rewards else {}
    path, file = model_folder(Path(name)), {}
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        path = path.resolve()  # an adapter's settings name it
        name, file = str(path.parent), {"gguf_file": path.name}
    elif path.is_dir():
        path = path.resolve()
        name = str(path)
        if not any((path / each).is_file() for each in FILES):
            raise ValueError(
                f"{path} holds no model: {' or '.join(FILES)} should be there (a GGUF file is named itself)"
            )
    elif path.exists():
        raise ValueError(f"{path} is no folder and no GGUF file")
    elif path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ValueError(f"there is no folder {path}")  # and no such name on the hub
    adapter = path / ADAPTER
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **file)
        if adapter.is_file():
            settings = json.loads(adapter.read_text())
            _sort(path, settings.get("task_type") == "SEQ_CLS", rewards)
            model = _with_adapter(load_model(settings["base_model_name_or_path"], rewards)[0], path)
        else:
            if not file:
                _fits(path, transformers.AutoConfig.from_pretrained(name), rewards)
            with _new_head() if rewards else nullcontext():
                model = kind.from_pretrained(name, dtype=torch.float32, **file, **more)
    except RefusedError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        why = str(error).strip().splitlines()[0].rstrip(": ") if str(error).strip() else type(error).__name__
        raise ValueError(f"no model could be loaded from {path}: {why}") from None
    if file:
        _unmark(model)
        model.config._name_or_path = str(path)
    elif getattr(model, "hf_quantizer", None) is not None:
        raise ValueError(f"{path} is quantised, which full precision training is not for: load its unquantised weights")
    check_tokenizer(model, tokenizer, str(path))
    if rewards and model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.eos_token_id  # positions are found otherwise; transformers asks for one
    return model, tokenizer


def load_rewards(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    """A reward model as `align` makes them, its tokenizer, and how it is used.

    Raises:
        ValueError: where there is none: a language model is no judge until it has been trained to be one.
    """
    path = model_folder(folder)
    model, tokenizer = load_model(str(path), rewards=True)
    head = "a reward model's head (`align --method bradley_terry` trains one)"
    if not (path / ADAPTER).is_file() and not _classifies(model.config.get_config_dict(str(path))[0]):
        raise ValueError(f"{path} holds a language model, without {head}")
    if not hasattr(model.get_base_model() if hasattr(model, "get_base_model") else model, "score"):
        raise ValueError(f"{path} holds a model whose head is not called `score`, as that of `align` is")
    if not _has_head(path):
        raise ValueError(f"the weights in {path} are without {head}")
    return model, tokenizer, how_used(path)


def model_folder(path: Path) -> Path:
    """The folder itself, or the `model` within a folder that `align` wrote."""
    inner = path / "model"
    return inner if inner.is_dir() and not any((path / each).is_file() for each in FILES) else path


def note_use(folder: Path, chat: bool) -> None:
    """Leave beside a model how it was trained to be used."""
    (folder / USE).write_text(json.dumps({"chat": chat}))


def how_used(folder: Path) -> dict[str, Any]:
    """What `note_use` left; nothing where it was not there."""
    file = folder / USE
    return json.loads(file.read_text()) if file.is_file() else {}


class RefusedError(ValueError):
    """A model of the other sort; the message is one sentence."""


def _sort(path: Path, scores: bool, rewards: bool) -> None:
    if rewards and not scores:
        raise RefusedError(f"{path} holds the adapter of a language model, and that of a reward model is needed")
    if scores and not rewards:
        raise RefusedError(f"{path} holds the adapter of a reward model, which writes no answers")


def _fits(path: Path, config: Any, rewards: bool) -> None:
    """Whole weights: a language model may become a reward model, but not the other way round."""
    if not _classifies(config.to_dict()):
        return
    if not rewards:
        raise RefusedError(f"{path} holds a reward model, which writes no answers")
    if config.num_labels != 1:
        raise RefusedError(f"a reward model has a head of one output, and that of {path} has {config.num_labels}")


def check_tokenizer(model: Any, tokenizer: Any, name: str = "the model") -> None:
    """ValueError where the model has no embeddings for the tokenizer's own words, or for its first and last token.

    Tokens that were added to its vocabulary may be without one: where no text holds them, they do no harm.
    """
    known = int(model.get_input_embeddings().weight.shape[0])
    ends = (tokenizer.eos_token_id, tokenizer.bos_token_id)
    most = max(int(tokenizer.vocab_size) - 1, *(-1 if each is None else each for each in ends))
    if most >= known:
        raise ValueError(
            f"the tokenizer has tokens up to number {most:,}, and {name} has embeddings up to {known - 1:,}: "
            "is it another model's?"
        )


def _classifies(config: dict[str, Any]) -> bool:
    return any(each.endswith("ForSequenceClassification") for each in config.get("architectures") or ())


def _has_head(folder: Path) -> bool:
    """Whether the weights in a folder have a head; True where they are in no file of safetensors."""
    from safetensors import safe_open

    names: list[str] = []
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        with safe_open(file, "pt") as opened:
            names += opened.keys()
    return not files or any("score" in name.split(".") for name in names)


def _with_adapter(base: Any, folder: Path) -> Any:
    from peft import PeftModel

    with adapting():
        return PeftModel.from_pretrained(base, str(folder), is_trainable=True)


@contextmanager
def adapting() -> Iterator[None]:
    """Without warnings that are not for users: of a name in transformers, of a setting that peft corrects itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to", category=UserWarning)
        yield


@contextmanager
def _new_head() -> Iterator[None]:
    """A head that is new is drawn alike each time, so that a run can be resumed, and is not reported.

    It will be trained, or comes from an adapter; else it is refused.
    """
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    finally:
        logging.set_verbosity(before)


def _unmark(model: Any) -> None:
    """Take off what says that the weights are quantised: they were unpacked."""
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
