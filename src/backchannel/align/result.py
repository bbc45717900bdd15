"""What `align` found: plain records, from which the terminal's table, the page and `--json` are made."""

from __future__ import annotations

from typing import Any

import msgspec


class Settings(msgspec.Struct, kw_only=True):
    """How a model is tuned.

    Attributes:
        epochs: passes over the records; `steps`, where it is above 0, ends earlier or later.
        batch: examples in a step of the optimizer, over all processes.
        micro: examples at a time; changes memory and speed, not the numbers.
        learning_rate: of AdamW; None: 1e-4 for an adapter, 1e-6 for all weights.
        warmup: share of the steps, rounded down, in which the learning rate rises along a line; then it falls along
            one. No step is one of 0.
        lora: rank of the adapter on all linear layers; 0 trains all weights.
        limit: tokens of a prompt and an answer, at most.
        prompt_limit: prompts longer than this are cut on their left; None: where the answer needs the room.
        chat: apply the chat template to plain prompts, too.
        held_out: share of the prompts that is kept for judging; none of their records is trained on.
        answers: prompts for which answers are drawn before and after, at most.
        most: tokens of such an answer.
        temperature: of drawing them; 0 takes the likeliest. What a method learns from is drawn at 1.
        checkpointing: compute hidden states again in the backward pass, for less memory.
        precision: "float32", "bfloat16", or "auto": the latter where a GPU has it.
        save: steps between checkpoints; 0: none.
        seed: of all randomness.
    """

    epochs: float = 1.0
    steps: int = 0
    batch: int = 16
    micro: int = 2
    learning_rate: float | None = None
    warmup: float = 0.1
    lora: int = 16
    limit: int = 1024
    prompt_limit: int | None = None
    chat: bool = False
    held_out: float = 0.1
    answers: int = 32
    most: int = 128
    temperature: float = 1.0
    checkpointing: bool = False
    precision: str = "auto"
    save: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "micro", "most"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("steps", "lora", "answers", "save", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.seed >= 2**32:
            raise ValueError(f"seed must be below 2^32, not {self.seed}")
        if not 0 < self.epochs < float("inf"):
            raise ValueError(f"epochs must be above 0, not {self.epochs}")
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be above 0, not {self.learning_rate}")
        for name in ("warmup", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if self.batch % self.micro:
            raise ValueError(f"batch must be a multiple of micro, and {self.batch} is none of {self.micro}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, not {self.precision!r}")

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.learning_rate or (1e-4 if self.lora else 1e-6)


class HeldOut(msgspec.Struct):
    """The records that were kept for judging.

    Attributes:
        count: how many.
        loss: the objective's mean.
        accuracy: how often the chosen answer gained more than the rejected one (ties as half); None where nothing is
            compared. Before training all gains are 0.
        margins: of each pair.
    """

    count: int
    loss: float
    accuracy: float | None = None
    margins: list[float] = []


class Sample(msgspec.Struct):
    """A held-out prompt with an answer from before and after; scores and win where there was a judge."""

    prompt: str
    before: str
    after: str
    win: float | None = None
    scores: tuple[float, float] | None = None


class Drawn(msgspec.Struct):
    """Answers that were drawn.

    Attributes:
        wins: how often the answer from after is better than that from before (ties as half), with an interval that
            holds 95 times in 100; None without a judge.
        silent: pairs of which the judge said nothing; they are left out.
        divergence: mean log-ratio of answers from after, to the model before: where they were drawn at temperature 1,
            the Kullback-Leibler divergence, in nats; None where the model from before is gone.
        lengths: mean tokens of an answer, before and after.
        scores: the judge's means before and after, over the pairs that it spoke of; None where it gives none.
        endless: shares of answers that came to no end, before and after.
    """

    samples: list[Sample]
    lengths: tuple[float, float]
    endless: tuple[float, float]
    wins: float | None = None
    interval: tuple[float, float] | None = None
    judge: str = ""
    silent: int = 0
    scores: tuple[float, float] | None = None
    divergence: float | None = None


class Entangled(msgspec.Struct):
    """What a further step on a held-out pair alone would do, by the gradients of its two log-probabilities.

    Attributes:
        count: of pairs that were looked at.
        cosine: mean, of the two gradients: near 1 the answers move together.
        rises: share of pairs whose chosen answer would become likelier.
        falls: share of pairs whose rejected answer would become less likely.
    """

    count: int
    cosine: float
    rises: float
    falls: float


class Tuned(msgspec.Struct):
    """A run of `align`.

    Attributes:
        method: its key; `arguments` are its settings.
        history: what was logged, step by step.
        finished: False if it was stopped before its last step.
        signal: the number of the one that came while it was trained; 0: none.
        seconds: of training alone; `memory` in bytes, the most that the process held.
        notes: what a user should know.
        rounds: of a recipe: the mean score of the answers that a round drew, and their divergence from the start.
        played: of a method that draws its own answers: rounds and prompts in each (as asked for), answers to a prompt,
            the price of leaving the reference, and the start's share in the reference (else the round before).
    """

    model: str
    method: str
    arguments: dict[str, Any]
    settings: Settings
    records: int
    trained_on: int
    before: HeldOut | None
    after: HeldOut | None
    drawn: Drawn | None
    history: list[dict[str, float]]
    steps: int
    finished: bool
    signal: int
    seconds: float
    memory: int
    trainable: int
    parameters: int
    versions: dict[str, str]
    notes: list[str]
    command: str = ""
    rounds: list[tuple[float, float]] = []
    played: dict[str, float] = {}
    entangled: Entangled | None = None
