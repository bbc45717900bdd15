"""Tuning: from records and a model to a tuned model, and a record of what came of it.

    records -> tokens -> held-out prompts apart -> the reference's log-probabilities -> training -> judging

The reference is the model as it was given, measured before training begins: of each answer one number is kept, so that
no second model is held, and none can be trained by mistake. Answers are drawn before and after, from the same prompts.

`tune(model, tokenizer, records, dpo(beta=0.1), Path("tuned"))` changes `model` in place: an adapter is put on it,
unless it has one or `lora` is 0. The folder gets `model/` (the adapter, or all weights, with the tokenizer),
`checkpoints/`, and `start.json`: what the run was begun with, which a resumed run must share.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from backchannel import __version__
from backchannel.align.evaluate import drawn, held_out, split
from backchannel.align.examples import Example, examples
from backchannel.align.guards import Guards
from backchannel.align.judges import Judge
from backchannel.align.loop import Interrupt, Loop, Progress
from backchannel.align.model import Answers, kept_logs, reference_logs
from backchannel.align.result import Settings, Tuned
from backchannel.align.rewards import reward_scores
from backchannel.align.sampler import Sampler, Transformers
from backchannel.align.tokens import Encoder
from backchannel.lm.answers import Record
from backchannel.parts.objectives import Objective, Scores

Tell = Callable[[str, float], None]
Logs = Callable[[nn.Module, Sequence[Example]], Tensor]


def tune(
    model: Any,
    tokenizer: Any,
    records: Iterable[Record],
    objective: Objective[Any],
    out: Path,
    settings: Settings | None = None,
    *,
    method: str = "",
    arguments: dict[str, Any] | None = None,
    judge: Judge | None = None,
    judge_name: str = "",
    sampler: Sampler | None = None,
    resume: bool = False,
    skip_bad_rows: int = 0,
    tell: Tell = lambda what, share: None,
) -> Tuned:
    """Tune a model on records, judge it on prompts that it was not trained on, and save it.

    Args:
        model: a causal model of transformers, or one with a classification head of one output for a reward model.
        tokenizer: its tokenizer.
        records: of any kind that can be made what the objective reads.
        objective: the loss.
        out: the folder.
        settings: how.
        method: the objective's key, and its `arguments`, for the record.
        judge: compares answers from after with those from before.
        judge_name: for the record.
        sampler: draws answers; None: by transformers, from the model itself.
        resume: go on from the newest checkpoint in `out`.
        skip_bad_rows: records that may be refused.
        tell: hears what is done, and how far it is.

    Raises:
        ValueError: if records, settings or checkpoints do not fit.
        FloatingPointError: if a loss is not finite.
    """
    settings = settings or Settings()
    rewards = objective.reads is Scores
    limit = _limit(model, settings.limit)
    encoder = Encoder(tokenizer, limit, prompt_limit=settings.prompt_limit, chat=settings.chat)
    tell("reading", 0.0)
    every, notes = examples(records, encoder, objective.reads, skip_bad_rows)
    train, held = split(every, settings.held_out, settings.seed)
    if not train:
        raise ValueError(f"no record is left to train on: of {len(every):,} all have held-out prompts")
    start = {
        "method": method,
        "arguments": arguments or {},
        "settings": msgspec.to_builtins(settings),
        "records": _digest([[each.prompt, each.answers, each.facts] for each in every]),
        "model": _shape(model),
    }
    checkpoint = _begin(out, start, resume)
    torch.manual_seed(settings.seed)
    args = _arguments(out, settings, _device_precision(settings))
    model = _ready(model, settings, rewards).to(args.device)
    answers = None if rewards else Answers(model)
    if answers is None:
        logs: Logs = reward_scores
    else:
        logs = _logs(answers)
        notes += answers.notes
        if objective.reference:
            tell("measuring the reference", 0.0)
            with args.main_process_first(desc="measuring the reference"):
                train, held = _with_reference(answers, train, held, out / "reference.safetensors")
    interrupt, guards = Interrupt(), Guards()
    loop = Loop(model, args, train, objective, logs, [Progress(tell), interrupt, guards])
    before = _held(loop.model, objective, held, logs, settings)
    asked = [] if rewards else _asked(held, settings.answers)
    draw = sampler or Transformers(loop.model, encoder.ends, encoder.pad, settings.most, settings.temperature)
    early = _draw(draw, asked, settings, tell, "answers before")
    begun = time.monotonic()
    with interrupt.listening():
        loop.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - begun
    tell("saving", 1.0)
    _save(loop, tokenizer, out / "model")
    late = _draw(draw, asked, settings, tell, "answers after")
    found = Tuned(
        model=str(getattr(model.config, "_name_or_path", "")),
        method=method,
        arguments=arguments or {},
        settings=settings,
        records=len(every),
        trained_on=len(train),
        before=before,
        after=_held(loop.model, objective, held, logs, settings),
        drawn=None,
        history=[{k: float(v) for k, v in each.items()} for each in loop.state.log_history if "loss" in each],
        steps=loop.state.global_step,
        finished=not interrupt.asked,
        seconds=seconds,
        memory=_memory(),
        trainable=sum(each.numel() for each in model.parameters() if each.requires_grad),
        parameters=sum(each.numel() for each in model.parameters()),
        versions=_versions(),
        notes=notes + guards.notes,
    )
    if asked:
        found.drawn = drawn(
            [each.record for each in asked],
            [_read(tokenizer, answer, encoder.ends) for answer in early],
            [_read(tokenizer, answer, encoder.ends) for answer in late],
            judge,
            judge_name,
        )
        assert answers is not None
        found.drawn.divergence = _divergence(answers, asked, late)
    return found


def _logs(answers: Answers) -> Logs:
    """Sums of log-probabilities; the model is the one in `answers`."""

    def sums(model: nn.Module, some: Sequence[Example]) -> Tensor:
        found: Tensor = answers([each.prompt for each in some], [each.answers for each in some]).sums()
        return found

    return sums


def _limit(model: Any, asked: int) -> int:
    """No longer than the model reads."""
    longest = getattr(model.config, "max_position_embeddings", None)
    return min(asked, longest) if longest else asked


def _begin(out: Path, start: dict[str, Any], resume: bool) -> Path | None:
    """The checkpoint to go on from; ValueError where another run lies in the folder."""
    from transformers.trainer_utils import get_last_checkpoint

    file, folder = out / "start.json", out / "checkpoints"
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if not resume:
        if last:
            raise ValueError(f"{out} holds checkpoints of an earlier run: resume it, or choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(start, indent=1, default=str))
        return None
    if last is None or not file.is_file():
        raise ValueError(f"there is nothing to resume in {out}")
    earlier, now = json.loads(file.read_text()), json.loads(json.dumps(start, default=str))
    for name in start:
        if earlier.get(name) != now[name]:
            raise ValueError(f"{out} was begun with another {name}: {_differ(earlier.get(name), now[name])}")
    return Path(last)


def _differ(earlier: Any, now: Any) -> str:
    if isinstance(earlier, dict) and isinstance(now, dict):
        name = next(name for name in now if earlier.get(name) != now[name])
        return f"{name} was {earlier.get(name)!r} and is {now[name]!r}"
    return f"it was {earlier!r} and is {now!r}"


def _ready(model: Any, settings: Settings, rewards: bool) -> Any:
    """With an adapter, in the right precision, and without what would make training another thing."""
    if getattr(model, "hf_quantizer", None) is not None:
        raise ValueError("the model is quantised: save it once in 16 or 32 bits and load that")
    model.config.use_cache = False
    if settings.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if hasattr(model, "peft_config") or not settings.lora:
        return model
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora,
        lora_alpha=2 * settings.lora,
        target_modules="all-linear",
        task_type="SEQ_CLS" if rewards else "CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _with_reference(
    answers: Answers, train: list[Example], held: list[Example], file: Path
) -> tuple[list[Example], list[Example]]:
    """Examples with what the reference says of them: the model without its adapter, or as it is before training."""
    every = [*train, *held]
    learns = (
        [] if hasattr(answers.model, "peft_config") else [each for each in answers.parameters() if each.requires_grad]
    )
    for each in learns:
        each.requires_grad_(False)
    try:
        sums = kept_logs(file, answers, [each.prompt for each in every], [each.answers for each in every]).sums()
    finally:
        for each in learns:
            each.requires_grad_(True)
    rows = iter(sums.double().tolist())
    found = [each._replace(before=tuple(next(rows) for _ in each.answers)) for each in every]
    return found[: len(train)], found[len(train) :]


def _held(model: Any, objective: Any, held: list[Example], logs: Any, settings: Settings) -> Any:
    if not held:
        return None
    training = model.training
    model.eval()
    try:
        return held_out(objective, held, lambda some: logs(model, some), settings.micro)
    finally:
        model.train(training)


def _asked(held: Sequence[Example], most: int) -> list[Example]:
    """One example for each of the first prompts."""
    return list({tuple(each.prompt): each for each in reversed(held)}.values())[::-1][:most]


def _draw(draw: Sampler, asked: Sequence[Example], settings: Settings, tell: Tell, what: str) -> list[list[int]]:
    if not asked:
        return []
    tell(what, 0.0)
    return [each[0] for each in draw([each.prompt for each in asked], 1, settings.seed)]


def _read(tokenizer: Any, answer: list[int], ends: Sequence[int]) -> tuple[str, int, bool]:
    return tokenizer.decode(answer, skip_special_tokens=True), len(answer), bool(answer) and answer[-1] in ends


@torch.no_grad()
def _divergence(answers: Answers, asked: Sequence[Example], drawn: list[list[int]]) -> float | None:
    """The mean log-ratio of drawn answers to the model without its adapter."""
    if not hasattr(answers.model, "peft_config"):
        return None
    training = answers.training
    answers.eval()
    total = 0.0
    for each, answer in zip(asked, drawn, strict=True):
        prompts, given = [each.prompt], [[answer]]
        total += float(answers(prompts, given).sums() - reference_logs(answers, prompts, given).sums())
    answers.train(training)
    return total / len(drawn)


def _device_precision(settings: Settings) -> bool:
    """Whether to compute in bfloat16."""
    if settings.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return settings.precision == "bfloat16"


def _arguments(out: Path, settings: Settings, half: bool) -> TrainingArguments:
    import os

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
        bf16=half,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
    )


def _save(loop: Loop, tokenizer: Any, folder: Path) -> None:
    """The adapter or the weights, and the tokenizer; not what others leave there: a template, and pickled settings."""
    loop.save_model(str(folder))
    if loop.is_world_process_zero():
        tokenizer.save_pretrained(str(folder))
        for name in ("README.md", "training_args.bin"):
            (folder / name).unlink(missing_ok=True)


def _shape(model: Any) -> str:
    """A word for a model: its kind, and a digest of its shapes and of some of its weights."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    seen = hashlib.sha256()
    for name, value in base.state_dict().items():
        if "lora_" not in name:
            seen.update(f"{name.replace('.base_layer', '')} {tuple(value.shape)}".encode())
            seen.update(value.detach().reshape(-1)[:8].float().cpu().numpy().tobytes())
    return f"{type(base).__name__} {seen.hexdigest()[:16]}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _memory() -> int:
    """Bytes: the most that this process held, on the GPU where there is one."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most) if sys.platform == "darwin" else 1024 * int(most)


def _versions() -> dict[str, str]:
    import transformers

    return {"backchannel": __version__, "torch": torch.__version__, "transformers": transformers.__version__}
