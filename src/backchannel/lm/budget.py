"""Budget: a limit on calls and tokens, so that methods are compared at equal cost.

A budget meters a model. Before a call it reserves one call and the most tokens that the call can take (the prompt's, as
`count_tokens` estimates them, and `max_tokens`); if they do not fit, it raises `BudgetExceeded` and the model is not
asked. Afterwards it keeps what was really spent. Calls in flight hold their reservation, so calls at the same
time cannot overspend together. The limit on calls is never passed. The limit on tokens is never passed by a model
that counts as `count_tokens` does; by another, at most by what the estimates of the prompts in flight fell short.

    >>> from backchannel.lm.protocol import user, wait
    >>> from backchannel.lm.simulated import Simulated
    >>> budget = Budget(calls=1)
    >>> lm = budget.meter(Simulated([lambda messages, draw: "yes"]))
    >>> wait(lm.complete([user("Ready?")])).text, budget.spent.calls
    ('yes', 1)
    >>> wait(lm.complete([user("Ready?")]))
    Traceback (most recent call last):
    backchannel.lm.budget.BudgetExceeded: the budget of 1 calls is spent
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from backchannel.lm.protocol import LanguageModel, Message, Reply, count_tokens


class BudgetExceeded(Exception):  # noqa: N818 (it says what happened)
    """The next call does not fit into what is left."""


class Spent(msgspec.Struct, frozen=True):
    """What was used so far."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def tokens(self) -> int:
        """Tokens in both directions."""
        return self.tokens_in + self.tokens_out

    def since(self, before: Spent) -> Spent:
        """What was spent after `before` was noted."""
        return Spent(self.calls - before.calls, self.tokens_in - before.tokens_in, self.tokens_out - before.tokens_out)


class Budget:
    """Limits on calls and on tokens (in and out together); None is no limit.

    A call that fails or is cancelled counts as a call; its tokens, which nobody reported, do not.
    """

    def __init__(self, calls: int | None = None, tokens: int | None = None) -> None:
        for name, limit in (("calls", calls), ("tokens", tokens)):
            if limit is not None and limit < 0:
                raise ValueError(f"{name} must be at least 0 or None, not {limit}")
        self.calls = calls
        self.tokens = tokens
        self.spent = Spent()
        self._reserved = 0

    def meter(self, lm: LanguageModel) -> Metered:
        """`lm`, paid from this budget. Several models may share one budget."""
        return Metered(lm, self)

    def reserve(self, tokens: int) -> None:
        """Take one call, and hold `tokens` until `settle`; BudgetExceeded if either does not fit."""
        if self.calls is not None and self.spent.calls + 1 > self.calls:
            raise BudgetExceeded(f"the budget of {self.calls} calls is spent")
        left = None if self.tokens is None else self.tokens - self.spent.tokens - self._reserved
        if left is not None and tokens > left:
            raise BudgetExceeded(f"the next call may take {tokens} tokens and {left} of {self.tokens} are left")
        self.spent = msgspec.structs.replace(self.spent, calls=self.spent.calls + 1)
        self._reserved += tokens

    def settle(self, reserved: int, reply: Reply | None) -> None:
        """Give a reservation back, and keep what the reply cost (None: there was none)."""
        self._reserved -= reserved
        if reply is not None:
            tokens_in, tokens_out = self.spent.tokens_in + reply.tokens_in, self.spent.tokens_out + reply.tokens_out
            self.spent = msgspec.structs.replace(self.spent, tokens_in=tokens_in, tokens_out=tokens_out)


class Metered:
    """A language model that is paid from a budget."""

    def __init__(self, lm: LanguageModel, budget: Budget) -> None:
        self.lm = lm
        self.budget = budget

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
        """The model's answer, or BudgetExceeded before the model is asked."""
        most = count_tokens(messages) + max_tokens
        self.budget.reserve(most)
        reply = None
        try:
            reply = await self.lm.complete(
                messages, max_tokens=max_tokens, temperature=temperature, stop=stop, seed=seed
            )
            return reply
        finally:
            self.budget.settle(most, reply)
