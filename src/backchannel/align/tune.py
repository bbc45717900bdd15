"""Tuning: from records and a model to a tuned model, and a record of what came of it.

    records -> tokens -> held-out prompts apart -> the reference's log-probabilities -> training -> judging

The reference is the model as it was given: without its new adapter, or with a frozen copy of the adapter that it had.
It is measured before training begins, so that no second model is held, and none can be trained by mistake. Answers are
drawn before and after, from the same prompts.

`tune(model, tokenizer, records, dpo(beta=0.1), Path("tuned"))` changes `model` in place: an adapter is put on it,
unless it has one or `lora` is 0. The folder gets `model/` (the adapter, or all weights, with the tokenizer),
`checkpoints/`, and `start.json`: what the run was begun with, which a resumed run must share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backchannel.align.asked import Asked
from backchannel.align.baseline import Yardstick, alternating, mismatched
from backchannel.align.certainty import by_probability
from backchannel.align.checkpoints import Whole
from backchannel.align.checks import check_judge, check_model, check_objective, checked
from backchannel.align.ending import noted, saved, written
from backchannel.align.evaluate import entangled, held_out, split
from backchannel.align.examples import Example, examples
from backchannel.align.guards import Guards
from backchannel.align.judges import Judge, told
from backchannel.align.load import check_tokenizer, note_use
from backchannel.align.loop import Interrupt, Loop, Progress
from backchannel.align.model import Answers, evaluating
from backchannel.align.reference import kept_logs
from backchannel.align.result import Entangled, Settings, Tuned
from backchannel.align.rewards import reward_scores
from backchannel.align.sampler import Sampler, Transformers
from backchannel.align.start import begin, described, losses, outfit, ready, room, training_arguments
from backchannel.align.tokens import Encoder
from backchannel.lm.answers import Record
from backchannel.parts.objectives import Objective, Pairs, Scores

PULLED = 6  # held-out pairs whose gradients are looked at
Tell = Callable[[str, float], None]
Logs = Callable[[nn.Module, Sequence[Example]], Tensor]


def tune(
    model: Any,
    tokenizer: Any,
    records: Iterable[Record],
    objective: Objective[Any],
    out: str | Path,
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
    settings, out = settings or Settings(), Path(out)
    check_objective(objective)
    objective = by_probability(objective)
    rewards = objective.reads is Scores
    check_model(model, rewards)
    if judge is not None:
        check_judge(judge)
    check_tokenizer(model, tokenizer)
    limit = room(model, settings.limit)
    encoder = Encoder(tokenizer, limit, prompt_limit=settings.prompt_limit, chat=settings.chat)
    tell("reading", 0.0)
    every, notes = examples(checked(records), encoder, objective, skip_bad_rows)
    train, held = split(every, settings.held_out, settings.seed)
    if settings.held_out and not held:
        notes.append("nothing was held out to judge by: all records have the same prompt")
    read = [[each.prompt, each.answers, each.facts, *(each.why or ())] for each in every]
    start = described(model, settings, method, arguments, read) | {"losses": losses(objective)}
    checkpoint = begin(out, start, resume)
    torch.manual_seed(settings.seed)
    args = training_arguments(out, settings)
    model = ready(model, settings, rewards).to(args.device)
    answers = None if rewards else Answers(model)
    if answers is None:
        logs: Logs = reward_scores
    else:
        logs = sums(answers)
        notes += answers.notes
        if objective.reference:
            tell("measuring the reference", 0.0)
            with args.main_process_first(desc="measuring the reference"):
                train, held = _with_reference(answers, train, held, out / "reference.safetensors")
    yardstick = None if answers is None else _yardstick(objective, answers, train, settings, out, notes)
    interrupt, guards = Interrupt(), Guards()
    if checkpoint:
        notes.append(f"resumed at {checkpoint.name}: the time is that of the steps since")
    loop = Loop(model, args, train, objective, logs, [Progress(tell), interrupt, guards, Whole()], yardstick)
    before = _held(loop.model, objective, held, logs, settings)
    draw = sampler or Transformers(loop.model, encoder.ends, encoder.pad, settings.most, settings.temperature, limit)
    asked = Asked([(each.record.prompt, each.prompt) for each in held], draw, tokenizer, encoder.ends, settings.seed)
    asked.prompts = asked.prompts[: 0 if rewards else settings.answers]
    tell("answers before", 0.0)
    early = asked.answers()
    asked.tried(early, judge, judge_name)
    begun = time.monotonic()
    try:
        with interrupt.listening():
            loop.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (FloatingPointError, torch.OutOfMemoryError) as error:
        if args.world_size > 1 and not isinstance(error, FloatingPointError):
            raise  # the others do not know of it, and saving may need all
        if not loop.state.global_step:
            raise
        _keep(loop, tokenizer, out, settings)
        raise noted(error, f"what was trained before lies in {out / 'model'}") from None
    seconds = time.monotonic() - begun
    tell("saving", 1.0)
    _keep(loop, tokenizer, out, settings)
    tell("answers after", 0.0)
    shown = None if answers is None else asked.shown(early, judge, judge_name, answers, notes)
    return Tuned(
        method=method,
        arguments=arguments or {},
        settings=settings,
        records=len(every),
        trained_on=len(train),
        before=before,
        after=_held(loop.model, objective, held, logs, settings, loop.measure(loop.model)),
        drawn=shown,
        history=[{k: float(v) for k, v in each.items()} for each in loop.state.log_history if "loss" in each],
        steps=loop.state.global_step,
        finished=loop.state.global_step >= loop.state.max_steps,
        signal=interrupt.asked,
        seconds=seconds,
        notes=notes + guards.notes + told(judge),
        entangled=_entangled(model, objective, held, logs, settings),
        **outfit(model),
    )


def _entangled(
    model: Any, objective: Objective[Any], held: list[Example], logs: Logs, settings: Settings
) -> Entangled | None:
    """Of a few held-out pairs, where an adapter is trained: gradients of all weights would fill the memory."""
    if objective.reads is not Pairs or not held or not settings.lora:
        return None
    learned = [each for each in model.parameters() if each.requires_grad]
    with evaluating(model):
        return entangled(objective, held[:PULLED], lambda some: logs(model, some), learned)


def _keep(loop: Loop, tokenizer: Any, out: Path, settings: Settings) -> None:
    config: Any = getattr(loop.model, "config", None)
    config.use_cache = True  # off for training alone
    with written("the model", out):
        loop.save_model(str(out / "model"))
        if loop.is_world_process_zero():
            saved(out / "model", tokenizer)
            if loop.objective.reads is Scores:
                note_use(out / "model", settings.chat)


def sums(answers: Answers) -> Logs:
    """Sums of log-probabilities, a rationale's behind its pair's; the model is the one in `answers`."""

    def logs(model: nn.Module, some: Sequence[Example]) -> Tensor:
        asked = [part for each in some for part in _parts(each)]
        found: Tensor = answers([prompt for prompt, _ in asked], [given for _, given in asked]).sums()
        return found

    return logs


def _parts(example: Example) -> list[tuple[list[int], list[list[int]]]]:
    """The prompt with its answers and, where a rationale is learned, the question why with it."""
    asked = [(example.prompt, example.answers)]
    return asked if example.why is None else [*asked, (example.why[0], [example.why[1]])]


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


def _yardstick(
    objective: Objective[Any], answers: Answers, train: list[Example], settings: Settings, out: Path, notes: list[str]
) -> Yardstick | None:
    """For losses that need one: what it measures, with what the reference says of that."""
    if objective.baseline is None:
        return None
    count = 2 * (settings.batch // 2 or 1)
    if objective.baseline.of == "own":
        return Yardstick(objective.baseline, alternating(train), count)
    others, _ = _with_reference(answers, mismatched(train, notes), [], out / "mismatched.safetensors")
    return Yardstick(objective.baseline, others, count)


def _held(
    model: Any, objective: Any, held: list[Example], logs: Any, settings: Settings, baseline: float | None = None
) -> Any:
    if not held:
        return None
    training = model.training
    model.eval()
    try:
        return held_out(objective, held, lambda some: logs(model, some), settings.micro, baseline)
    finally:
        model.train(training)
