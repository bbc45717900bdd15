"""The loop of training: `transformers.Trainer`, with an objective in place of a model's own loss.

Processes, mixed precision, sharding, checkpoints and resuming are the Trainer's. What is ours is the loss. Of the
examples of an optimizer's step, however they are split over micro-batches and processes,

    L = sum_i w_i loss_i / sum_i w_i

with the objective's weights w: the denominator is known before the first of them is computed, so that the gradient does
not depend on the split. (A mean of means, where parts differ in size or weight, is another loss.)

A loss that is no number stops training before anything of its step has moved, and names the records. So does a gradient
that is none, of which no record can be named.
"""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from backchannel.align.baseline import Yardstick
from backchannel.align.ending import written
from backchannel.align.evaluate import agreement
from backchannel.align.examples import Example, batch, weights
from backchannel.align.model import redirected
from backchannel.align.start import rate
from backchannel.align.tokens import known_by
from backchannel.parts.objectives import Objective, Pairs

Logs = Callable[[nn.Module, Sequence[Example]], Tensor]
"""(model, examples) -> log-probabilities of all their answers, in order, with their gradients."""


class Batch:
    """Examples that the Trainer hands on as they are."""

    def __init__(self, examples: Sequence[Example]):
        self.examples = list(examples)

    def __len__(self) -> int:
        return len(self.examples)


class Loop(Trainer):
    """A Trainer that descends an objective."""

    objective: Objective[Any]

    def __init__(
        self,
        model: PreTrainedModel | nn.Module,
        args: TrainingArguments,
        examples: Sequence[Example],
        objective: Objective[Any],
        logs: Logs,
        callbacks: Sequence[TrainerCallback] = (),
        yardstick: Yardstick | None = None,
    ):
        """Wrap a model.

        Args:
            model: what is trained.
            args: of the Trainer.
            examples: what it learns from; where the objective reads a reference, with `before`.
            objective: the loss.
            logs: how log-probabilities are found.
            callbacks: of the Trainer.
            yardstick: finds the objective's baseline, if it reads one.
        """
        if args.n_gpu > 1:
            raise ValueError("several GPUs in one process are not supported: start one process for each with torchrun")
        args.remove_unused_columns = False
        super().__init__(
            model=model,
            args=args,
            train_dataset=list(examples),
            data_collator=lambda some: {"batch": Batch(some)},
            callbacks=[*callbacks, FiniteGradient()],
        )
        self.remove_callback(PrinterCallback)  # the log is the caller's to show
        self.objective, self._logs, self._yardstick = objective, logs, yardstick
        self.baseline: float | None = None if yardstick is None else 0.0  # nothing has moved yet
        self._step = -1  # to which it belongs
        self.model_accepts_loss_kwargs = True  # the loss is normalised over all that a step sees
        self._sums: dict[str, float] = defaultdict(float)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """The sum of the weights over the micro-batches of a step, and over processes."""
        own = sum((float(weights(self.objective, each["batch"].examples).sum()) for each in batch_samples), 0.0)
        total = torch.tensor(own, device=device)
        return self.accelerator.reduce(total, "sum") if self.args.world_size > 1 else total

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The learning rate's path: a line up and a line down, without a step at 0 (`rate`)."""
        if self.lr_scheduler is None and self.args.lr_scheduler_type == "linear":
            warm = self.args.get_warmup_steps(num_training_steps)
            stepped: Any = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(stepped, lambda step: rate(step, warm, num_training_steps))
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This micro-batch's share of L; gradients of processes are averaged, so it counts as often as there are."""
        some = inputs["batch"].examples
        self.measure(model)
        now = self._now(model, some)
        read = batch(self.objective, some, now, baseline=self.baseline)
        each, info = self.objective(read)
        if not bool(torch.isfinite(each).all()):
            wrong = [self._name(some[int(i)]) for i in (~torch.isfinite(each)).nonzero()[:3, 0]]
            raise FloatingPointError(f"the loss is not finite at {', '.join(wrong)}: nothing was changed in this step")
        weight = torch.ones_like(each) if self.objective.weight is None else self.objective.weight(read)
        total = weight.sum() if num_items_in_batch is None else num_items_in_batch
        self._count(some, each, weight, read, info)
        loss = (each * weight).sum() / total * self.args.world_size
        return (loss, {"info": info}) if return_outputs else loss

    def _now(self, model: nn.Module, some: Sequence[Example]) -> Tensor:
        with self.accelerator.autocast():
            inner = self.accelerator.unwrap_model(model)
            if model is inner:
                return self._logs(inner, some)
            found: Tensor = redirected(model, inner, self._logs, inner, some)
        return found

    def measure(self, model: Any) -> float | None:
        """The baseline of the model as it is: once for each step of the optimizer, before its first micro-batch."""
        if self._yardstick is not None and self._step != self.state.global_step:
            self._step, training = self.state.global_step, model.training
            model.eval()
            self.baseline = self._yardstick(lambda some: self._now(model, some), self._step)
            model.train(training)
        return self.baseline

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With means, over the examples since the last time, of what the objective says of them."""
        if "loss" in logs and self._sums["examples"]:
            names = [name for name in self._sums if name not in ("examples", "weight", "loss")]
            values = torch.tensor([self._sums[name] for name in ("examples", "weight", "loss", *names)])
            if self.args.world_size > 1:
                values = self.accelerator.reduce(values.to(self.args.device), "sum").cpu()
            count, weight, loss, *others = values.tolist()
            logs |= {"loss": loss / weight} | {name: value / count for name, value in zip(names, others, strict=True)}
            self._sums.clear()
        super().log(logs, start_time)

    def _run_epoch(self, *given: Any, **more: Any) -> None:
        """Nothing where all steps are made: the Trainer, resumed behind the last one, would make another."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*given, **more)

    def _save_checkpoint(self, *given: Any, **more: Any) -> None:
        with written(f"the checkpoint of step {self.state.global_step}", Path(str(self.args.output_dir))):
            super()._save_checkpoint(*given, **more)

    def _count(self, some: Sequence[Example], each: Tensor, weight: Tensor, read: Any, info: Any) -> None:
        with torch.no_grad():
            said = {"examples": torch.ones_like(each), "weight": weight, "loss": each * weight} | info._asdict()
            if isinstance(read, Pairs):
                said |= {"chosen_length": read.chosen_length, "rejected_length": read.rejected_length}
                if self.objective.reference:
                    said["chosen_gain"] = read.policy_chosen - read.reference_chosen
                    said["rejected_gain"] = read.policy_rejected - read.reference_rejected
            if "margin" in said:
                said["accuracy"] = agreement(some, said["margin"]).nan_to_num(0.5)
            for name, value in said.items():
                self._sums[name] += float(value.double().reshape(len(each), -1).mean(1).sum())

    def _name(self, example: Example) -> str:
        return f"the record with the {known_by(example.record)}"


class FiniteGradient(TrainerCallback):
    """A loss may be a number where its gradient is none (0 times an infinite slope, say): then no step is made."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **given: Any) -> None:
        """Before each step of the optimizer."""
        gradients = [each.grad for each in model.parameters() if each.grad is not None]
        if not all(bool(torch.isfinite(each).all()) for each in torch._foreach_norm(gradients)):
            step = state.global_step + 1
            raise FloatingPointError(f"the gradient of step {step} is not finite: nothing was changed in this step")


class Progress(TrainerCallback):
    """Tell somebody how far training is."""

    def __init__(self, tell: Callable[[str, float], None]):
        self.tell = tell

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """After each step of the optimizer."""
        loss = next((each["loss"] for each in reversed(state.log_history) if "loss" in each), None)
        what = "training" if loss is None else f"training, loss {loss:.3f}"
        self.tell(what, state.global_step / max(1, state.max_steps))


class Interrupt(TrainerCallback):
    """Ctrl-C or SIGTERM ends training after the step at hand, and what was trained is saved; a second one at once."""

    def __init__(self, save: bool = True) -> None:
        """`save`: a checkpoint where training ends early.

        `asked` is the signal's number, or 0. Where `at_once` is set, between steps, KeyboardInterrupt is raised, too.
        """
        self.asked, self.at_once, self._save = 0, False, save

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While training: only the main thread hears signals."""
        import threading

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = signal.SIGINT, signal.SIGTERM
        known = {number: signal.getsignal(number) for number in numbers}
        earlier = {number: each for number, each in known.items() if each not in (signal.SIG_IGN, None)}

        def hear(number: int, frame: Any) -> None:
            self.asked = number
            signal.signal(number, earlier[signal.Signals(number)])
            if self.at_once:
                raise KeyboardInterrupt

        for number in earlier:
            signal.signal(number, hear)
        try:
            yield
        finally:
            for number, before in earlier.items():
                signal.signal(number, before)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Stop and save."""
        if self.asked:
            control.should_training_stop, control.should_save = True, self._save
