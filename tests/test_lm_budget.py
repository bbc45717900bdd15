"""Budgets: limits hold, also for calls at the same time and for calls that fail."""

import asyncio

import pytest

from backchannel.lm.budget import Budget, BudgetExceeded, Spent
from backchannel.lm.protocol import LanguageModel, LanguageModelError, assistant, count_tokens, system, user, wait
from backchannel.lm.simulated import Simulated

PROMPT = [system("Be brief."), user("Hello?"), assistant("Yes."), user("Good.")]


class Slow:
    """Answers with `words` tokens after all callers have asked."""

    name = "slow"

    def __init__(self, fail=False):
        self.asked = 0
        self.fail = fail

    async def complete(self, messages, *, max_tokens=256, temperature=0.0, stop=(), seed=None):
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.fail:
            raise LanguageModelError("no")
        return await Simulated([lambda m, d: "x" * 9]).complete(messages, max_tokens=max_tokens)


def test_tokens_are_a_third_of_the_bytes_and_a_frame():
    assert count_tokens("abcdef") == 2
    assert count_tokens("abcdefg") == count_tokens("äöü1") == 3
    assert count_tokens([user("abc"), user("")]) == 4 + 1 + 4


def test_spent_is_what_the_replies_cost():
    budget = Budget(calls=2)
    lm = budget.meter(Slow())
    wait(lm.complete(PROMPT))
    assert budget.spent == Spent(1, count_tokens(PROMPT), 3)
    before = budget.spent
    wait(lm.complete(PROMPT[:1], max_tokens=5))
    assert budget.spent.since(before) == Spent(1, count_tokens(PROMPT[:1]), 3)
    with pytest.raises(BudgetExceeded, match="the budget of 2 calls is spent"):
        wait(lm.complete(PROMPT))
    assert lm.lm.asked == 2
    assert budget.spent.calls == 2


def test_a_call_must_fit_at_its_longest_and_frees_what_it_did_not_use():
    cost = count_tokens(PROMPT)
    budget = Budget(tokens=2 * cost + 3 + 10)
    lm = budget.meter(Slow())
    wait(lm.complete(PROMPT, max_tokens=10))  # takes 3 of the 10
    wait(lm.complete(PROMPT, max_tokens=10))  # fits exactly
    assert budget.spent.tokens == 2 * cost + 6
    with pytest.raises(BudgetExceeded, match="may take"):
        wait(lm.complete(PROMPT, max_tokens=10))
    short = Budget(tokens=cost + 9)
    with pytest.raises(BudgetExceeded):
        wait(short.meter(Slow()).complete(PROMPT, max_tokens=10))


def test_calls_at_the_same_time_cannot_overspend_together():
    async def many(budget):
        lm = budget.meter(Slow())
        answers = await asyncio.gather(*(lm.complete(PROMPT, max_tokens=10) for _ in range(9)), return_exceptions=True)
        return lm.lm.asked, sum(isinstance(answer, BudgetExceeded) for answer in answers)

    most = count_tokens(PROMPT) + 10
    assert wait(many(Budget(calls=4))) == (4, 5)
    assert wait(many(Budget(tokens=4 * most + 9))) == (4, 5)


def test_a_failed_call_counts_as_a_call_and_frees_its_tokens():
    budget = Budget(calls=2, tokens=count_tokens(PROMPT) + 10)
    for _ in range(2):
        with pytest.raises(LanguageModelError):
            wait(budget.meter(Slow(fail=True)).complete(PROMPT, max_tokens=10))
    assert budget.spent == Spent(2, 0, 0)


def test_everything_that_wraps_is_a_language_model():
    assert isinstance(Budget().meter(Slow()), LanguageModel)
    assert isinstance(Simulated([]), LanguageModel)
    assert not isinstance("a text", LanguageModel)


def test_limits_are_checked():
    with pytest.raises(ValueError, match="tokens must be at least 0 or None, not -1"):
        Budget(tokens=-1)


def test_wait_works_inside_a_running_loop():
    async def outer():
        return wait(asyncio.sleep(0, "inner"))

    assert wait(outer()) == "inner"
