"""Reflexion solves more tasks than retrying, exactly as far as the model can use what it wrote.

The paper (Shinn et al. 2023): verbal reflections lift success over repeated trials on household tasks, questions and
code, above retrying the same agent. Whether a model reflects well is its own affair and cannot be shown with a small
one; what can be shown is the mechanism. Ours: a simulated model, which has nothing but its prompts and uses a correct
reflection with probability q, in houses (`tasks.text_world`) and on code with unit tests (`tasks.unit_tests`). Over
10 trials Reflexion succeeds more often than retry by at least 15 points at q = 0.5 and is equivalent to it at q = 0
(within 7.5 points: two one-sided tests at the level 1 %). No prompt holds more than three reflections. Since
reflections cost calls and tokens, success is shown at equal calls and at equal tokens too.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from backchannel.claim import Evidence, Table, at_least, at_most
from backchannel.language.reflexion import REFLECT, reflexion
from backchannel.language.retry import retry
from backchannel.lm.agent import Trace, binary, words
from backchannel.lm.budget import Budget
from backchannel.lm.protocol import wait
from backchannel.lm.simulated import Simulated
from backchannel.lm.skills import housekeeper, programmer
from backchannel.lm.tape import Tape, read_calls
from backchannel.tasks.text_world import text_world
from backchannel.tasks.unit_tests import problems, run_tests

MARGIN = 0.075  # of the equivalence at q = 0: half of what is claimed at q = 0.5
LEVEL = 2.33  # standard normal quantile of 99 %
METHODS: dict[str, Any] = {
    "Reflexion, memory 3": reflexion,
    "Reflexion, memory 1": partial(reflexion, memory=1),
    "last attempt": partial(retry, last_attempt=True),
    "retry": retry,
}
_verdicts: dict[tuple[str, ...], list[str]] = {}


async def _run_once(program: str, tests: Sequence[str]) -> list[str]:
    """The packaged programs always say the same: each is run once."""
    key = (program, *tests)
    if key not in _verdicts:
        _verdicts[key] = await run_tests(program, tests, timeout=30.0)
    return _verdicts[key]


async def _runs(
    name: str, where: str, q: float, runs: int, seed: int, limit: Budget, insight: float = 1.0
) -> list[Trace]:
    """`runs` runs of a method, each in a task of its own with a model of its own; all methods meet the same ones."""
    rng = np.random.default_rng(seed)
    coding = problems(_run_once)
    traces = []
    for i, own in enumerate(rng.integers(2**31, size=runs)):
        skill = housekeeper(q, 0.95, insight) if where == "houses" else programmer(q, 0.5, insight)
        task, evaluator = (text_world(int(own)), binary) if where == "houses" else (coding[i % len(coding)], words)
        trials = 10 if limit.calls is None and limit.tokens is None else 1000
        budget = Budget(limit.calls, limit.tokens)
        # The luck of each method is its own: what the same seed would draw for the others is not to be shared.
        lm = Simulated([skill], seed=hash((int(own), tuple(METHODS).index(name))))
        traces.append(await METHODS[name](lm, task, budget, trials=trials, evaluator=evaluator, max_tokens=128))
    return traces


def _share(traces: Sequence[Trace]) -> tuple[float, float]:
    """The share of successes and its standard error."""
    mean = float(np.mean([trace.success for trace in traces]))
    return mean, math.sqrt(mean * (1 - mean) / len(traces))


def claim(seed: int, full: bool) -> Evidence:
    """Success over 10 trials, and at equal calls and tokens; `full` takes four times as many runs."""
    many, some = (14000, 1600) if full else (3500, 400)
    checks, rows, curves = [], [], {}
    for where, calls, tokens in (("houses", 40, 11000), ("code", 8, 1600)):
        limits = {"10 trials": Budget(), f"{calls} calls": Budget(calls), f"{tokens} tokens": Budget(tokens=tokens)}
        shares: dict[tuple[str, str, float], tuple[float, float]] = {}
        for limit, budget in limits.items():
            for name in METHODS if limit == "10 trials" else ("Reflexion, memory 3", "last attempt", "retry"):
                for q in (0.0, 0.5, 1.0) if limit == "10 trials" else (0.0, 0.5):
                    if name == "retry" and q > 0:  # it has no notes to use: one and the same for all q
                        shares[limit, name, q] = shares[limit, name, 0.0]
                        continue
                    decisive = limit == "10 trials" and q == 0 and name in ("Reflexion, memory 3", "retry")
                    traces = wait(_runs(name, where, q, many if decisive else some, seed, budget))
                    shares[limit, name, q] = _share(traces)
                    rows.append([where, limit, name, "any" if name == "retry" else f"{q:g}", *_cells(traces)])
                    if limit == "10 trials":
                        solved = [[t.success and t.trials <= n for t in traces] for n in range(1, 11)]
                        curves[where, name, q] = np.mean(solved, axis=1)
            ours, others = shares[limit, "Reflexion, memory 3", 0.5], shares[limit, "retry", 0.5]
            if limit == "10 trials":
                checks.append(at_least(f"{where}: gain over retry at q = 0.5", ours[0] - others[0], 0.15, "below 1e-4"))
                ours, others = shares[limit, "Reflexion, memory 3", 0.0], shares[limit, "retry", 0.0]
                apart = abs(ours[0] - others[0]) + LEVEL * math.hypot(ours[1], others[1])
                name = f"{where}: |difference| + 2.33 s.e. at q = 0"
                checks.append(at_most(name, apart, MARGIN, "below 1e-4; says equal wrongly: 1 %"))
            else:
                gain, about = ours[0] - others[0], f"{where}: gain over retry at q = 0.5 and {limit}"
                checks.append(at_least(about, gain, 0.0, "context", headline=False))
    traces = wait(_runs("Reflexion, memory 3", "houses", 0.5, some, seed, Budget(), insight=0.5))
    rows.append(["houses", "10 trials", "Reflexion, memory 3, half of its reflections wrong", "0.5", *_cells(traces)])
    checks.append(at_most("most reflections in any prompt", _most_reflections(seed), 3, "exact"))

    def draw(figure: Any) -> None:
        for i, where in enumerate(("houses", "code"), 1):
            axes = figure.add_subplot(1, 3, i)
            for name, style in zip(METHODS, ("-", "--", "-.", ":"), strict=True):
                for q, colour in ((0.0, "tab:gray"), (0.5, "tab:blue"), (1.0, "tab:green")):
                    if (where, name, q) in curves:
                        label = name if name == "retry" else f"{name}, q = {q:g}"
                        axes.plot(range(1, 11), curves[where, name, q], style, color=colour, label=label)
            axes.set(xlabel="trials", ylabel="share solved", title=where, ylim=(0, 1))
        key = figure.add_subplot(1, 3, 3)
        key.axis("off")
        key.legend(*axes.get_legend_handles_labels(), loc="center", fontsize="small", frameon=False)

    columns = ["tasks", "limit", "method", "q", "solved", "calls", "tokens"]
    return Evidence(
        statement="Reflexion solves more than retrying if the model can use reflections, and as much if not.",
        checks=checks,
        tables=[Table("success, calls and tokens by method", columns, rows)],
        draw=draw,
        note="A reflection holds what its trial showed, and the model reads a transcript as well as a reflection: what "
        "Reflexion gains over the last attempt is gained by the length of its memory, nothing is said of eloquence. "
        "Reflections are paid for: at equal calls or tokens the gain is smaller, a model that cannot use them (q = 0) "
        "does better without, and where one call is a whole attempt (code) the last attempt alone does about as well.",
    )


def _cells(traces: Sequence[Trace]) -> list[str]:
    mean, error = _share(traces)
    calls, tokens = (np.mean([getattr(t.spent, unit) for t in traces]) for unit in ("calls", "tokens"))
    return [f"{mean:.3f} +- {error:.3f}", f"{calls:.1f}", f"{tokens:.0f}"]


def _most_reflections(seed: int) -> int:
    """The largest number of reflections in any prompt of ten runs that never succeed, read off their tapes."""
    most = 0
    with tempfile.TemporaryDirectory() as folder:
        for run in range(10):
            path = f"{folder}/{run}"
            with Tape(path, Simulated([_hopeless], seed=seed)) as tape:
                wait(reflexion(tape, text_world(seed + run), Budget(), trials=10, memory=3))
            prompts = ["\n".join(m.content for m in call.request.messages) for call in read_calls(path)]
            most = max(most, *(prompt.count("I have learned nothing.") for prompt in prompts))
    return most


def _hopeless(messages: Sequence[Any], draw: Any) -> str:
    return "I have learned nothing." if messages[0].content == REFLECT else "dance"
