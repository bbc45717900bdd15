"""Little programs on digits, a verifier, and a tiny language model that runs them in its head.

A problem is a digit and `STEPS` instructions, each an operation and a digit b, on the value a so far, modulo 10:

    plus: a + b        minus: a - b        mix: 3 a + b        stop: a

A solution is the value after each instruction; the verifier looks at the last one alone. All operations can be undone,
so that a wrong value on the way leads to the right end only if another mistake cancels it. Problems of fewer steps end
with `stop` (and the digit 0).

The crowd that the first model learns from is sloppy, and has misconceptions: of some instructions (`MISTAKEN` of all
pairs of operation, a and b) it mostly believes the same wrong value, and sometimes knows the right one. The verifier
can tell; imitation of the crowd cannot.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from backchannel.parts.recipes import Kept, Recipe
from backchannel.parts.torch_fit import fit
from backchannel.tasks.tiny_transformer import Block
from backchannel.tasks.tiny_tuning import Judged, tune

DIGITS, STEPS = 10, 3
PLUS, STOP = DIGITS, DIGITS + 3
VOCABULARY, ASKED = DIGITS + 4, 1 + 2 * STEPS
MISTAKEN, BELIEF, KNOWN, CARE = 0.3, 0.5, 0.3, 0.8


class Solutions(NamedTuple):
    """Problems, and a solution to each."""

    prompts: Tensor  # int64[n, ASKED]
    tokens: Tensor  # int64[n, STEPS]

    @property
    def length(self) -> Tensor:
        """Tokens of each solution: int64[n]."""
        return torch.full((len(self.tokens),), STEPS)


def random_problems(n: int, rng: torch.Generator, steps: int = STEPS) -> Tensor:
    """Problems of so many steps: int64[n, ASKED]."""
    digits = torch.randint(DIGITS, (n, STEPS + 1), generator=rng)
    operation = PLUS + torch.randint(3, (n, STEPS), generator=rng)
    operation[:, steps:], digits[:, steps + 1 :] = STOP, 0
    return torch.cat([digits[:, :1], torch.stack([operation, digits[:, 1:]], 2).flatten(1)], 1)


def apply(operation: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The value after an instruction: int64[n]."""
    every = torch.stack([a + b, a - b, 3 * a + b, a], 1) % DIGITS
    return every.gather(1, (operation - PLUS)[:, None])[:, 0]


def solve(problems: Tensor, how: Callable[[Tensor, Tensor, Tensor], Tensor] = apply) -> Solutions:
    """Solutions, each step by `how`: the right ones, where it is `apply`."""
    value, values = problems[:, 0], []
    for step in range(STEPS):
        value = how(problems[:, 1 + 2 * step], value, problems[:, 2 + 2 * step])
        values.append(value)
    return Solutions(problems, torch.stack(values, 1))


def verify(solutions: Solutions) -> Tensor:
    """1 where the last value is right, else 0: float[n]."""
    return (solutions.tokens[:, -1] == solve(solutions.prompts).tokens[:, -1]).float()


def crowd(problems: Tensor, seed: int, rng: torch.Generator) -> Solutions:
    """What the crowd says; `seed` says which misconceptions it has."""
    own = torch.Generator().manual_seed(seed)
    mistaken = torch.rand(3, DIGITS, DIGITS, generator=own) < MISTAKEN
    off = torch.randint(1, DIGITS, (3, DIGITS, DIGITS), generator=own)

    def how(operation: Tensor, a: Tensor, b: Tensor) -> Tensor:
        right, luck = apply(operation, a, b), torch.rand(len(a), generator=rng)
        kind = (operation - PLUS).clamp_max(2)
        wrong = mistaken[kind, a, b] & (operation < STOP)
        any_digit = torch.randint(DIGITS, a.shape, generator=rng)
        belief = torch.where(luck < BELIEF, (right + off[kind, a, b]) % DIGITS, right)
        knows = torch.where(wrong, luck < BELIEF + KNOWN, luck < CARE)
        return torch.where(knows, torch.where(wrong, belief, right), any_digit)

    return solve(problems, how)


class ProgramLM(nn.Module):
    """Next-token logits over a problem and its solution."""

    def __init__(self, width: int = 48, heads: int = 2, layers: int = 2):
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(ASKED + STEPS, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, DIGITS))

    def logits(self, seen: Tensor) -> Tensor:
        """int64[n, t], the problem first -> of each value, up to the next: [n, t - ASKED + 1, DIGITS]."""
        x = self.tokens(seen) + self.places.weight[: seen.shape[1]]
        out: Tensor = self.head(self.blocks(x)[:, ASKED - 1 :])
        return out

    def log_probability(self, solutions: Solutions) -> Tensor:
        """log p of whole solutions: [n]."""
        logits = self.logits(torch.cat([solutions.prompts, solutions.tokens[:, :-1]], 1))
        return torch.log_softmax(logits, -1).gather(2, solutions.tokens[:, :, None])[:, :, 0].sum(1)

    @torch.no_grad()
    def sample(self, problems: Tensor, rng: torch.Generator | None = None) -> Solutions:
        """A solution to each problem; without a generator the likeliest values."""
        seen = problems
        for _ in range(STEPS):
            law = torch.softmax(self.logits(seen)[:, -1], -1)
            value = law.argmax(1, keepdim=True) if rng is None else law.multinomial(1, generator=rng)
            seen = torch.cat([seen, value], 1)
        return Solutions(problems, seen[:, ASKED:])


def first_model(seed: int, width: int = 48, steps: int = 1500) -> ProgramLM:
    """A model trained on the crowd's solutions: a copy of its own for each caller."""
    return copy.deepcopy(_first_model(seed, width, steps))


@lru_cache(maxsize=8)
def _first_model(seed: int, width: int, steps: int) -> ProgramLM:
    rng = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ProgramLM(width)

    def loss(step: int) -> Tensor:
        problems = torch.cat([random_problems(96, rng), random_problems(32, rng, STEPS - 1)])
        return -model.log_probability(crowd(problems, seed, rng)).mean()

    fit(model.parameters(), loss, steps, torch.optim.Adam, 3e-3)
    return model.requires_grad_(False)


def imitate(
    start: ProgramLM, data: Solutions, objective: Any, steps: int, learning_rate: float, seed: int, batch: int = 128
) -> ProgramLM:
    """A copy of `start`, trained on random batches of solutions."""

    def source(model: Any, step: int, rng: torch.Generator) -> Any:
        some = torch.randint(len(data.tokens), (batch,), generator=rng)
        return Judged(Solutions(data.prompts[some], data.tokens[some]))  # type: ignore[arg-type]

    tuned: Any = tune(start, source, objective, steps, learning_rate, seed)  # type: ignore[arg-type]
    return tuned


def self_train(
    start: ProgramLM,
    recipe: Recipe,
    problems: Tensor,
    rounds: int,
    steps: int,
    learning_rate: float,
    seed: int,
    after: Callable[[int, ProgramLM], None] | None = None,
) -> ProgramLM:
    """Rounds of a recipe that keeps single solutions, on the same problems, judged by `verify`."""
    rng, last = torch.Generator().manual_seed(seed), start
    for each in range(rounds):
        drawn = [last.sample(problems, rng) for _ in range(recipe.answers)]
        kept = recipe.select(torch.stack([verify(some) for some in drawn], 1), rng)
        assert isinstance(kept, Kept)
        tokens = torch.stack([some.tokens for some in drawn], 1)[kept.row, kept.answer]
        begin = start if recipe.begin == "start" else last
        data = Solutions(problems[kept.row], tokens)
        last = imitate(begin, data, recipe.objective, steps, learning_rate, seed + 1 + each)
        if after is not None:
            after(each, last)
    return last
