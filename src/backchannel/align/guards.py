"""Guards: what is watched while a model is tuned, so that a run that went wrong says so.

- The loss stays where it began: nothing is learned (a learning rate of 0, frozen weights, answers that are the same).
- Of pairs, the log-probability of chosen answers falls far below that under the reference. The margin may rise all the
  same: both answers become unlikely, and something else takes their place (likelihood displacement).
- Pairs are told apart worse than by chance, and worse than at first: the model learns the opposite (labels swapped, a
  wrong sign).
- The gradient is 0. (One that is not finite ends the run: `loop.py`.)

Each speaks once.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

STILL = 1e-4  # relative change of the loss that is none
PATIENCE = 20  # logs
FALL = 20.0  # nats that a chosen answer lost


class Guards(TrainerCallback):
    """Watches the log; `notes` is what there was to say."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._first: float | None = None
        self._least: float | None = None  # accuracy
        self._still = self._opposite = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """A run that is resumed says what there was to say before."""
        for logs in state.log_history:
            self._watch(logs, logs["step"])

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **given: Any) -> None:
        """After each log of the Trainer."""
        self._watch(logs or {}, state.global_step)

    def _watch(self, logs: dict[str, float], step: int) -> None:
        if "loss" not in logs:
            return
        self._first = logs["loss"] if self._first is None else self._first
        self._watch_loss(logs["loss"], step)
        if logs.get("chosen_gain", 0.0) < -FALL:
            self._say(
                f"chosen answers are {-logs['chosen_gain']:.0f} nats less likely than under the reference (step {step})"
                ": a larger beta keeps it closer, a term that holds chosen answers up does too"
            )
        if "accuracy" in logs:
            self._least = min(0.5, logs["accuracy"]) if self._least is None else self._least
            wrong = logs["accuracy"] < self._least and step > PATIENCE
            self._opposite = self._opposite + 1 if wrong else 0
            if self._opposite == PATIENCE:
                self._say(
                    f"for {PATIENCE} steps most rejected answers gained more than the chosen ones: does the data's "
                    "chosen mean the better answer?"
                )
        if logs.get("grad_norm") == 0.0:
            self._say(f"the gradient is 0 (step {step}): is anything trainable, and do scores or strengths differ?")

    def _watch_loss(self, loss: float, step: int) -> None:
        first = loss if self._first is None else self._first
        self._still = self._still + 1 if abs(loss - first) <= STILL * abs(first) else 0
        if self._still == PATIENCE + 1:
            self._say(f"the loss has stayed at {first:.4f}, where it began, for {PATIENCE} steps: nothing is learned")

    def _say(self, note: str) -> None:
        kind = note.split(" ")[:3]
        if not any(each.split(" ")[:3] == kind for each in self.notes):
            self.notes.append(note)
