"""Reflexion: learn from failed trials in words, without changing a weight.

An agent tries, is judged, and writes a short text on what went wrong. The text goes into a small memory that is put
before the next trial's prompt. The memory is the whole of what is learned: a policy is the pair (model, memory), and
the reflection plays the part of a gradient, saying in which direction to change.

Algorithm 1 of Shinn et al. (2023), M_a actor, M_e evaluator, M_sr self-reflection, Omega the size of the memory:

    tau_t = [a_0, o_0, ..., a_i, o_i]  drawn from  M_a(. | task, mem)           one episode
    r_t   = M_e(tau_t)                                                          a number, and words
    sr_t  = M_sr(tau_t, r_t, mem)                                               a reflection
    mem   = the last Omega of [sr_0, ..., sr_t]                                 Omega = 1 to 3 in the paper

Steps: attempt; stop if the evaluator passes or the trials are over; reflect; keep the last `memory` reflections;
repeat. The evaluator is an argument (`lm.agent`: binary, scalar, words, self_tests). It alone decides when to stop;
the truth is asked once, at the end, for the trace.

Deviations: the paper's loop reads "while M_e not pass or t < max trials"; "and" is meant, and written here. No
reflection is asked for after the last trial, where none could read it. One model plays all three parts, by prompts of
our own wording, without examples in them. Programs are rewritten from the reflections alone: the paper's prompts for
code also show the previous program.

    >>> from backchannel.lm.budget import Budget
    >>> from backchannel.lm.protocol import wait
    >>> from backchannel.lm.simulated import Simulated
    >>> from backchannel.lm.skills import housekeeper
    >>> from backchannel.tasks.text_world import text_world
    >>> lm = Simulated([housekeeper(exploit=1.0)])
    >>> trace = wait(reflexion(lm, text_world(seed=5), Budget(calls=500), trials=20))
    >>> trace.success, trace.trials == 1 + len(trace.texts("reflection"))
    (True, True)

References: shinn2023reflexion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from backchannel.card import Card
from backchannel.lm.agent import Attempt, Evaluator, Step, TextTask, Trace, Verdict, attempt, binary
from backchannel.lm.budget import Budget, BudgetExceeded
from backchannel.lm.protocol import LanguageModel, Message, system, user

CARD = Card(
    name="Reflexion",
    summary="Agent that writes reflections on failed trials and reads the last few before the next.",
    paper="shinn2023reflexion",
    row=152,
    topics=("agents", "reflection", "episodic memory"),
    feedback=("critique", "reward"),
    protocol="agent",
    engine="async",
    neighbour="retry",
    example={"trials": 4, "memory": 2},
)

REMEMBER = "Your reflections on earlier trials of this task:"
REFLECT = (
    "You will see a trial of a task that was not solved, and the verdict on it. Say in a few short sentences what the "
    "trial has shown and what to do differently in the next one. Name things exactly. Do not retell the trial."
)


async def reflexion(
    lm: LanguageModel,
    task: TextTask,
    budget: Budget,
    *,
    trials: int = 10,
    memory: int = 3,
    evaluator: Evaluator = binary,
    max_tokens: int = 256,
    temperature: float = 0.7,
    seed: int = 0,
) -> Trace:
    """Try, reflect, and try again, until the evaluator passes.

    Args:
        lm: the model that acts, reflects, and writes its own tests if the evaluator asks for them.
        task: the environment.
        budget: pays for every call; the run ends where the next call does not fit.
        trials: most attempts.
        memory: Omega, the most reflections in a prompt; 0 is a plain retry without reflections.
        evaluator: from the task to M_e.
        max_tokens: most tokens of one reply.
        temperature: of the actor's and the reflector's calls.
        seed: trial t passes the seed `seed + t` with its calls.
    """
    if trials < 1 or memory < 0:
        raise ValueError(f"trials must be at least 1 and memory at least 0, not {trials} and {memory}")
    metered, before, evaluate = budget.meter(lm), budget.spent, evaluator(task)
    mem: list[str] = []
    steps: list[Step] = []
    actions: list[str] | None = None
    whole = 0
    ended: Literal["passed", "trials", "budget"] = "trials"
    try:
        for trial in range(trials):
            played = await attempt(
                metered, task, recall(mem), max_tokens=max_tokens, temperature=temperature, seed=seed + trial
            )
            actions, whole = played.actions, trial + 1
            steps.append(Step(trial, "attempt", played.transcript, played.score))
            verdict = await evaluate(metered, played)
            steps.append(Step(trial, "verdict", verdict.text, verdict.score))
            if verdict.passed:
                ended = "passed"
                break
            if memory and trial + 1 < trials:
                prompt = reflection_prompt(task, played, verdict, mem)
                reply = await metered.complete(
                    prompt, max_tokens=max_tokens, temperature=temperature, seed=seed + trial
                )
                steps.append(Step(trial, "reflection", reply.text))
                mem = [*mem, reply.text][-memory:]
    except BudgetExceeded:
        ended = "budget"
    success = actions is not None and await task.verify(actions)
    return Trace(success, whole, ended, steps, budget.spent.since(before))


def recall(mem: Sequence[str]) -> str:
    """The memory as the next trial reads it: nothing at first, else a heading and one numbered reflection each."""
    return "\n".join([REMEMBER, *(f"[{i}] {text}" for i, text in enumerate(mem, 1))]) if mem else ""


def reflection_prompt(task: TextTask, played: Attempt, verdict: Verdict, mem: Sequence[str]) -> list[Message]:
    """What M_sr reads: the task, the reflections so far, the trial, and the verdict."""
    parts = [task.opening, recall(mem), f"The trial:\n{played.transcript}", f"The verdict:\n{verdict.text}"]
    return [system(REFLECT), user("\n\n".join(part for part in parts if part))]
