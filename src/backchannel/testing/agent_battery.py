"""The battery for agents: what every `async def method(lm, task, budget, ...) -> Trace` must hold to.

    from backchannel.testing.agent_battery import check_agent
    await check_agent(partial(reflexion, trials=3), lm, task, folder)

- the same run twice is the same trace
- its budget says what it spent: no call passes by it, and a budget of exactly that gives the same trace
- with less, by one call or one token, it ends early, within the budget, and says so
- replayed from its tape, without the model, it is the same trace
- cancelled at any call, it leaves a readable tape, from which the run goes on to the same trace

`check_memory` looks through a tape for prompts that hold more than they should. Each check raises AssertionError in one
sentence.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from backchannel.lm.agent import TextTask, Trace
from backchannel.lm.budget import Budget
from backchannel.lm.protocol import LanguageModel, Message, Reply
from backchannel.lm.tape import Tape, read_calls

Agent = Callable[[LanguageModel, TextTask, Budget], Awaitable[Trace]]


class Counting:
    """A model that counts its calls and tokens, and hangs in call number `hang` (from 1) until it is cancelled."""

    def __init__(self, lm: LanguageModel, hang: int | None = None) -> None:
        self.lm = lm
        self.hang = hang
        self.calls = 0
        self.tokens = 0
        self.hanging = asyncio.Event()

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.lm.name

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
    ) -> Reply:
        """The model's answer."""
        self.calls += 1
        if self.calls == self.hang:
            self.hanging.set()
            await asyncio.Event().wait()
        reply = await self.lm.complete(messages, max_tokens=max_tokens, temperature=temperature, stop=stop, seed=seed)
        self.tokens += reply.tokens_in + reply.tokens_out
        return reply


async def check_agent(agent: Agent, lm: LanguageModel, task: TextTask, folder: str | os.PathLike[str]) -> Trace:
    """Every check; returns the trace of the run. `lm` must answer the same call alike (Simulated does)."""
    trace = await check_budget(agent, lm, task)
    await check_replay(agent, lm, task, Path(folder) / "replay.jsonl", trace)
    for call in sorted({1, 2, trace.spent.calls // 2, trace.spent.calls} - {0}):
        await check_cancel(agent, lm, task, Path(folder) / f"cancelled-{call}.jsonl", call, trace)
    return trace


async def check_budget(agent: Agent, lm: LanguageModel, task: TextTask) -> Trace:
    """The run is repeatable, is charged for all that it used, and never passes a limit."""
    counting, free = Counting(lm), Budget()
    trace = await agent(counting, task, free)
    spent = trace.spent
    assert spent == free.spent, f"the trace says {spent}, the budget {free.spent}"
    used = (counting.calls, counting.tokens)
    assert (spent.calls, spent.tokens) == used, f"charged {spent.calls} calls and {spent.tokens} tokens, used {used}"
    assert spent.calls > 0, "the agent made no call: there is nothing to check"
    again = await agent(lm, task, Budget(calls=spent.calls))
    assert again == trace, f"a budget of exactly {spent.calls} calls changes the run"
    for calls in sorted({0, 1, spent.calls // 2, spent.calls - 1} - {spent.calls}):
        counting = Counting(lm)
        short = await agent(counting, task, Budget(calls=calls))
        assert counting.calls == calls, f"a budget of {calls} calls of {spent.calls} led to {counting.calls}"
        assert short.ended == "budget", f"out of calls after {calls}, the run says that it ended by {short.ended!r}"
    for tokens in sorted({0, spent.tokens // 2, spent.tokens - 1}):
        counting = Counting(lm)
        short = await agent(counting, task, Budget(tokens=tokens))
        assert counting.tokens <= tokens, f"a budget of {tokens} tokens led to {counting.tokens}"
        assert short.ended == "budget", f"out of tokens, the run says that it ended by {short.ended!r}"
    return trace


async def check_replay(agent: Agent, lm: LanguageModel, task: TextTask, path: Path, trace: Trace) -> None:
    """A tape of the run replays it without the model."""
    with Tape(path, lm) as tape:
        recorded = await agent(tape, task, Budget())
    assert recorded == trace, "the run on a tape is not the run without one"
    offline = Tape(path)
    replayed = await agent(offline, task, Budget())
    assert replayed == trace, "the replay of the tape is not the run"
    assert offline.replayed == len(read_calls(path)), "the replay left calls on the tape unasked"


async def check_cancel(agent: Agent, lm: LanguageModel, task: TextTask, path: Path, call: int, trace: Trace) -> None:
    """Cancelled in call number `call`, the run leaves a tape of all answered calls and goes on from it."""
    hanging = Counting(lm, hang=call)
    with Tape(path, hanging) as tape:
        running = asyncio.ensure_future(agent(tape, task, Budget()))
        await asyncio.wait(
            [running, asyncio.ensure_future(hanging.hanging.wait())], return_when=asyncio.FIRST_COMPLETED
        )
        assert hanging.hanging.is_set(), f"the run ended before its call number {call}"
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled(), "a cancelled run went on"
    kept = len(read_calls(path))
    assert kept < trace.spent.calls, f"the tape holds {kept} calls, and one of {trace.spent.calls} was not answered"
    with Tape(path, lm) as tape:
        resumed = await agent(tape, task, Budget())
    assert resumed == trace, "the run that went on from its tape is not the run"
    assert tape.recorded == trace.spent.calls - kept, f"{tape.recorded} calls were made again, {kept} were on the tape"


def check_memory(path: str | os.PathLike[str], mark: str, most: int) -> int:
    """No prompt on the tape holds `mark` more than `most` times; returns the largest count."""
    counts = [sum(m.content.count(mark) for m in call.request.messages) for call in read_calls(path)]
    largest = max(counts, default=0)
    assert largest <= most, f"a prompt on the tape holds {mark!r} {largest} times, at most {most} are allowed"
    return largest
