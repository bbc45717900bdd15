"""How a run begins: what it was begun with, written down, so that a resumed one is the same run; and its outfit."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.nn.modules.dropout import _DropoutNd
from transformers import TrainingArguments

from backchannel import __version__
from backchannel.align.checkpoints import checkpoints, is_whole, remove
from backchannel.align.load import adapting
from backchannel.align.reference import START, keep_start
from backchannel.align.result import Settings
from backchannel.ledger.convert import beside
from backchannel.parts.objectives import Objective, random_batch

FREE = ("micro", "save", "checkpointing")  # settings that change no number
WRITTEN = {"method", "arguments", "settings", "records", "model"}  # what `described` names, and `start.json` holds
OURS = ("result.json", "report.html", "reference.safetensors", "mismatched.safetensors")  # what a run may write over
OTHER = {"method": "another method", "arguments": "other arguments", "settings": "other settings"}
UNLIKE = {"records": "other data", "model": "another model", "losses": "another loss"}  # digests, which say nothing
AROUND = "_backchannel_adapted"  # where a model keeps what peft wrapped around it


def begin(out: Path, start: dict[str, Any], resume: bool | None) -> Path | None:
    """The checkpoint to go on from, or None; what the run begins with goes to `start.json`.

    `resume` is None for runs that cannot be resumed.

    A checkpoint counts if it was written to its end (`checkpoints.py`): one that was cut off is passed over, and taken
    away as the run begins or goes on. What others keep in the folder stays as it is.

    Raises:
        ValueError: where another run or other files lie in the folder, or there is none to resume.
    """
    file, folder = out / "start.json", out / "checkpoints"
    found = checkpoints(folder)
    last = next((each for each in reversed(found) if is_whole(each)), None)
    if not resume:
        if last:
            lost = resume is None or _begun(file) is None
            advice = "choose another folder" if lost else "resume it, or choose another folder"
            raise ValueError(f"{out} holds checkpoints of an earlier run: {advice}")
        if (out / "model").exists():
            raise ValueError(f"{out} holds a model of an earlier run: choose another folder")
        if file.exists() and _begun(file) is None:
            raise ValueError(f"{file} was not written by align: choose another folder")
        for each in () if file.exists() else (folder, *(out / name for name in OURS)):
            if each.exists() and not (each.is_dir() and not any(each.iterdir())):
                raise ValueError(f"{each} is of no run of align, without start.json beside it: choose another folder")
        remove(found)  # what was cut off is of no use
        out.mkdir(parents=True, exist_ok=True)
        with beside(file) as made:
            made.write_text(json.dumps(start, indent=1, default=str))
        folder.mkdir(exist_ok=True)
        return None
    if last is None or not file.is_file():
        raise ValueError(f"there is nothing to resume in {out}")
    earlier, now = _begun(file), json.loads(json.dumps(start, default=str))
    if earlier is None:
        raise ValueError(f"{file} cannot be read: what the run was begun with is not known")
    for said in (earlier, now):
        said["settings"] = {name: value for name, value in said["settings"].items() if name not in FREE}
    for name in start:
        if earlier.get(name) != now[name]:
            what = UNLIKE.get(name) or f"{OTHER[name]}: {_differ(earlier.get(name), now[name])}"
            raise ValueError(f"{out} was begun with {what}")
    remove(each for each in found if not is_whole(each))
    return last


def _begun(file: Path) -> dict[str, Any] | None:
    """What a run was begun with; None where the file is of no run, or cannot be read."""
    try:
        start = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return (
        start if isinstance(start, dict) and start.keys() >= WRITTEN and isinstance(start["settings"], dict) else None
    )


def described(model: Any, settings: Settings, method: str, arguments: dict[str, Any] | None, records: Any) -> Any:
    """What a run is begun with, and must be resumed with; `records` are the tokens of all that is read."""
    return {
        "method": method,
        "arguments": arguments or {},
        "settings": msgspec.to_builtins(settings),
        "records": digest(records),
        "model": shape(model),
    }


def losses(objective: Objective[Any]) -> str:
    """A word for an objective: what it says of made-up examples, which other arguments change."""
    return digest([f"{each:.4g}" for each in objective(random_batch(objective.reads, 8, seed=0))[0].tolist()])


def shape(model: Any) -> str:
    """A word for a model: its kind, and a digest of its shapes and of some of its weights, an adapter's with them."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    seen = hashlib.sha256()
    for name, value in base.state_dict().items():
        if START not in name.split("."):
            seen.update(f"{name.replace('.base_layer', '')} {tuple(value.shape)}".encode())
            seen.update(value.detach().reshape(-1)[:8].float().cpu().numpy().tobytes())
    return f"{type(base).__name__} {seen.hexdigest()[:16]}"


def digest(value: Any) -> str:
    """A word for anything that JSON holds."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def ready(model: Any, settings: Settings, rewards: bool) -> Any:
    """With an adapter, unless all weights are to be trained; of one that it has, a copy is kept as the reference.

    A model that was tuned before goes on from the adapter that it got then. Dropout is off from now on: losses compare
    log-probabilities, or scores, which must be those of one and the same network.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        raise ValueError("the model is quantised: save it once in 16 or 32 bits and load that")
    model = getattr(model, AROUND, [model])[0]
    if hasattr(model, "peft_config") and not hasattr(model, "get_base_model"):
        raise ValueError(
            "the model holds an adapter that peft.PeftModel is not around: load both by "
            "backchannel.align.load.load_model, or peft.PeftModel.from_pretrained"
        )
    model.config.use_cache = False
    without_dropout(model)
    if settings.checkpointing:
        older = getattr(model, "activation_checkpointing_enable", None) is None  # transformers before 5
        enable = model.gradient_checkpointing_enable if older else model.activation_checkpointing_enable
        enable({"use_reentrant": False})
    if not settings.lora and not hasattr(model, "peft_config"):
        if not any(each.requires_grad for each in model.parameters()):
            raise ValueError("no weight of the model is trainable: give it an adapter (lora), or set requires_grad")
        return model
    with adapting():
        return _adapted(model, settings, rewards)


def without_dropout(model: torch.nn.Module) -> None:
    """Nothing is dropped in training: neither by modules nor by what they hand to functions."""
    for module in model.modules():
        drops = isinstance(module, _DropoutNd)
        for name, value in vars(module).items():
            if isinstance(value, float) and ("drop" in name or (drops and name == "p")):
                setattr(module, name, 0.0)


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
    found = get_peft_model(model, config)
    setattr(model, AROUND, [found])  # in a list: as a module it would be a part of its own part
    return found


class Arguments(TrainingArguments):
    """Arguments of the Trainer whose share of warm-up is rounded down: few steps have none."""

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """In how many steps the learning rate rises."""
        return int(self.warmup_steps * num_training_steps)


def rate(step: int, warm: int, steps: int) -> float:
    """The share of the learning rate at a step, counted from 0: it rises along a line, then falls; it is never 0."""
    return (step + 1) / (warm + 1) if step < warm else max(0, steps - step) / (steps - warm)


def room(model: Any, asked: int) -> int:
    """Tokens of prompt and answer, at most: as asked, and no more than the model reads."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(asked, most) if most else asked


def training_arguments(out: Path, settings: Settings) -> TrainingArguments:
    """The settings in the Trainer's words."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.batch % (settings.micro * processes):
        raise ValueError(
            f"batch must be a multiple of micro times processes, and {settings.batch} is none of "
            f"{settings.micro} x {processes}"
        )
    return Arguments(
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
