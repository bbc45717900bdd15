"""Retry: try again until it works; with or without the last attempt in the prompt.

What Reflexion is measured against (Shinn et al. 2023, section 4): the same actor and the same evaluator, without
reflections. Trials differ by the luck of sampling alone; with `last_attempt`, the actor also reads the transcript of
its last trial and the verdict on it, raw.

    tau_t  drawn from  M_a(. | task)                        retry
    tau_t  drawn from  M_a(. | task, tau_{t-1}, r_{t-1})    with the last attempt

Without memory trials are independent: with probability p each, n of them succeed with probability 1 - (1 - p)^n.

Steps: attempt; stop if the evaluator passes or the trials are over; repeat.

Deviations: none.

    >>> from backchannel.lm.budget import Budget
    >>> from backchannel.lm.protocol import wait
    >>> from backchannel.lm.simulated import Simulated
    >>> from backchannel.lm.skills import housekeeper
    >>> from backchannel.tasks.text_world import text_world
    >>> budget = Budget(calls=40)
    >>> trace = wait(retry(Simulated([housekeeper(exploit=1.0)]), text_world(seed=5), budget, trials=1000))
    >>> trace.ended in ("passed", "budget"), trace.spent == budget.spent
    (True, True)

References: shinn2023reflexion.
"""

from __future__ import annotations

from typing import Literal

from backchannel.card import Card
from backchannel.lm.agent import Evaluator, Step, TextTask, Trace, attempt, binary
from backchannel.lm.budget import Budget, BudgetExceeded
from backchannel.lm.protocol import LanguageModel

CARD = Card(
    name="Retry",
    summary="Agent that tries again, at most with its last attempt in the prompt: the baseline of the others.",
    paper="shinn2023reflexion",
    topics=("agents", "baseline"),
    feedback=("reward",),
    protocol="agent",
    engine="async",
    neighbour="reflexion",
    example={"trials": 4},
    strength="simple",
)

REMEMBER = "Your last trial of this task:"


async def retry(
    lm: LanguageModel,
    task: TextTask,
    budget: Budget,
    *,
    trials: int = 10,
    last_attempt: bool = False,
    evaluator: Evaluator = binary,
    max_tokens: int = 256,
    temperature: float = 0.7,
    seed: int = 0,
) -> Trace:
    """Try, and try again, until the evaluator passes.

    Args:
        lm: the model that acts, and writes its own tests if the evaluator asks for them.
        task: the environment.
        budget: pays for every call; the run ends where the next call does not fit.
        trials: most attempts.
        last_attempt: whether the prompt holds the last trial and its verdict.
        evaluator: from the task to M_e.
        max_tokens: most tokens of one reply.
        temperature: of the actor's calls; at 0 every trial without memory is the same.
        seed: trial t passes the seed `seed + t` with its calls.
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1, not {trials}")
    metered, before, evaluate = budget.meter(lm), budget.spent, evaluator(task)
    notes = ""
    steps: list[Step] = []
    actions: list[str] | None = None
    whole = 0
    ended: Literal["passed", "trials", "budget"] = "trials"
    try:
        for trial in range(trials):
            played = await attempt(
                metered, task, notes, max_tokens=max_tokens, temperature=temperature, seed=seed + trial
            )
            actions, whole = played.actions, trial + 1
            steps.append(Step(trial, "attempt", played.transcript, played.score))
            verdict = await evaluate(metered, played)
            steps.append(Step(trial, "verdict", verdict.text, verdict.score))
            if verdict.passed:
                ended = "passed"
                break
            if last_attempt:
                notes = f"{REMEMBER}\n{played.transcript}\n{verdict.text}"
    except BudgetExceeded:
        ended = "budget"
    success = actions is not None and await task.verify(actions)
    return Trace(success, whole, ended, steps, budget.spent.since(before))
