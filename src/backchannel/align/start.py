"""How a run begins: what it was begun with, written down, so that a resumed one is the same run; and its outfit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainingArguments

from backchannel import __version__
from backchannel.align.reference import keep_start
from backchannel.align.result import Settings
from backchannel.ledger.convert import beside

FREE = ("micro", "save", "checkpointing")  # settings that change no number
WHOLE = "whole.json"


def begin(out: Path, start: dict[str, Any], resume: bool | None) -> Path | None:
    """The checkpoint to go on from, or None; what the run begins with goes to `start.json`.

    `resume` is None for runs that cannot be resumed.

    A checkpoint counts if it was written to its end (`Whole`): one that was cut off is passed over.

    Raises:
        ValueError: where another run lies in the folder, or none to resume.
    """
    file, folder = out / "start.json", out / "checkpoints"
    found = sorted(folder.glob("checkpoint-*"), key=lambda each: int(each.name.rpartition("-")[2]))
    last = next((each for each in reversed(found) if _is_whole(each)), None)
    if not resume:
        if last or (out / "model").exists():
            what = "checkpoints" if last else "a model"
            advice = "choose another folder" if resume is None else "resume it, or choose another folder"
            raise ValueError(f"{out} holds {what} of an earlier run: {advice}")
        shutil.rmtree(folder, ignore_errors=True)  # what was cut off is of no use
        folder.mkdir(parents=True, exist_ok=True)
        with beside(file) as made:
            made.write_text(json.dumps(start, indent=1, default=str))
        return None
    if last is None or not file.is_file():
        raise ValueError(f"there is nothing to resume in {out}")
    try:
        earlier, now = json.loads(file.read_text()), json.loads(json.dumps(start, default=str))
    except ValueError:
        raise ValueError(f"{file} cannot be read: what the run was begun with is not known") from None
    for each in (earlier, now):
        each["settings"] = {name: value for name, value in each["settings"].items() if name not in FREE}
    for name in start:
        if earlier.get(name) != now[name]:
            raise ValueError(f"{out} was begun with another {name}: {_differ(earlier.get(name), now[name])}")
    return last


class Whole(TrainerCallback):
    """Writes down, behind the last file of a checkpoint, what there is in it."""

    def on_save(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """After a checkpoint was written."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            with beside(folder / WHOLE) as made:
                made.write_text(json.dumps(_sizes(folder)))


@contextmanager
def written(what: str, folder: Path) -> Iterator[None]:
    """What libraries raise as they save, in one sentence: torch has no word for a full disk.

    Raises:
        ValueError: if `what` cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        said = str(error) or type(error).__name__
        full = os.strerror(errno.ENOSPC) in said or shutil.disk_usage(folder).free < 2**20
        why = "the disk is full" if full else said.splitlines()[0]
        raise ValueError(f"{what} cannot be written to {folder}: {why}") from error


def _sizes(folder: Path) -> dict[str, int]:
    files = (each for each in sorted(folder.rglob("*")) if each.is_file() and not each.name.startswith("."))
    return {str(each.relative_to(folder)): each.stat().st_size for each in files if each.name != WHOLE}


def _is_whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / WHOLE).read_text()) == _sizes(folder))
    except (OSError, ValueError):
        return False


def described(model: Any, settings: Settings, method: str, arguments: dict[str, Any] | None, records: Any) -> Any:
    """What a run is begun with, and must be resumed with; `records` are the tokens of all that is read."""
    return {
        "method": method,
        "arguments": arguments or {},
        "settings": msgspec.to_builtins(settings),
        "records": digest(records),
        "model": shape(model),
    }


def shape(model: Any) -> str:
    """A word for a model: its kind, and a digest of its shapes and of some of its weights."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    seen = hashlib.sha256()
    for name, value in base.state_dict().items():
        if "lora_" not in name:
            seen.update(f"{name.replace('.base_layer', '')} {tuple(value.shape)}".encode())
            seen.update(value.detach().reshape(-1)[:8].float().cpu().numpy().tobytes())
    return f"{type(base).__name__} {seen.hexdigest()[:16]}"


def digest(value: Any) -> str:
    """A word for anything that JSON holds."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def ready(model: Any, settings: Settings, rewards: bool) -> Any:
    """With an adapter, unless all weights are to be trained; of one that it has, a copy is kept as the reference."""
    if getattr(model, "hf_quantizer", None) is not None:
        raise ValueError("the model is quantised: save it once in 16 or 32 bits and load that")
    model.config.use_cache = False
    if settings.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if not settings.lora and not hasattr(model, "peft_config"):
        return model
    with warnings.catch_warnings():  # peft asks transformers for a name that is going to change
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        return _adapted(model, settings, rewards)


def _adapted(model: Any, settings: Settings, rewards: bool) -> Any:
    if hasattr(model, "peft_config"):
        if not rewards:
            keep_start(model)
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora,
        lora_alpha=2 * settings.lora,
        target_modules="all-linear",
        task_type="SEQ_CLS" if rewards else "CAUSAL_LM",
    )
    return get_peft_model(model, config)


def training_arguments(out: Path, settings: Settings) -> TrainingArguments:
    """The settings in the Trainer's words."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch % (settings.micro * processes):
        raise ValueError(
            f"batch must be a multiple of micro times processes, and {settings.batch} is none of "
            f"{settings.micro} x {processes}"
        )
    return TrainingArguments(
        output_dir=str(out / "checkpoints"),
        num_train_epochs=settings.epochs,
        max_steps=settings.steps or -1,
        per_device_train_batch_size=settings.micro,
        gradient_accumulation_steps=settings.batch // (settings.micro * processes),
        learning_rate=settings.rate,
        warmup_steps=settings.warmup,
        lr_scheduler_type="linear",
        optim="adamw_torch",
        max_grad_norm=1.0,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if settings.save else "no",
        save_steps=settings.save or 500,
        save_total_limit=2,
        seed=settings.seed,
        bf16=_half(settings),
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )


def memory() -> int:
    """Bytes: the most that this process held so far, on the GPU where there is one."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) if sys.platform == "darwin" else 1024 * int(most)


def outfit(model: Any) -> dict[str, Any]:
    """What a result says of the model and of what computed: fields of `Tuned`."""
    import transformers

    parts = ((name, each) for name, each in model.named_parameters() if not name.startswith("critic."))  # not saved
    sizes = [(each.numel(), each.requires_grad) for _, each in parts]
    return {
        "model": str(getattr(model.config, "_name_or_path", "")),
        "trainable": sum(many for many, learns in sizes if learns),
        "parameters": sum(many for many, _ in sizes),
        "memory": memory(),
        "versions": {
            "backchannel": __version__,
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
        },
    }


def _half(settings: Settings) -> bool:
    """Whether to compute in bfloat16."""
    if settings.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if settings.precision == "bfloat16" and not (torch.cuda.is_available() and torch.cuda.is_bf16_supported()):
        raise ValueError("there is no GPU here that computes in bfloat16: precision must be float32 or auto")
    return settings.precision == "bfloat16"


def _differ(earlier: Any, now: Any) -> str:
    if isinstance(earlier, dict) and isinstance(now, dict):
        name = next(name for name in now if earlier.get(name) != now[name])
        return f"{name} was {earlier.get(name)!r} and is {now[name]!r}"
    return f"it was {earlier!r} and is {now!r}"
