"""Retry: proofs and contrast."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import binom

from backchannel.language.reflexion import reflexion
from backchannel.language.retry import REMEMBER, retry
from backchannel.lm.agent import words
from backchannel.lm.budget import Budget
from backchannel.lm.protocol import assistant, system, user, wait
from backchannel.lm.simulated import Simulated
from backchannel.lm.skills import housekeeper
from backchannel.lm.tape import Tape, read_calls
from backchannel.tasks.text_world import INSTRUCTIONS, text_world
from backchannel.testing.agent_battery import check_agent, check_memory

WORLD = text_world(seed=1, rooms=2, containers=1, steps=2)


def scripted(*replies):
    queue = list(replies)
    return Simulated([lambda messages, draw: queue.pop(0)])


def test_step_the_prompts_of_two_trials_by_hand(tmp_path):
    with Tape(tmp_path / "tape", scripted("dance", "go library", "go hall", "go hall")) as tape:
        trace = wait(retry(tape, WORLD, Budget(), trials=2, last_attempt=True, evaluator=words, seed=3))
    prompts = [call.request.messages for call in read_calls(tmp_path / "tape")]
    rules = system(INSTRUCTIONS)
    story = "> dance\nThat does not work here.\n> go library\nYou are in the library."
    head = user(f"{REMEMBER}\n{story}\nYou are in the library.\n\n{WORLD.opening}")
    assert prompts == [
        [rules, user(WORLD.opening)],
        [rules, user(WORLD.opening), assistant("dance"), user("That does not work here.")],
        [rules, head],
        [rules, head, assistant("go hall"), user("You are in the hall.")],
    ]
    assert (trace.success, trace.trials, trace.ended, trace.spent.calls) == (False, 2, "trials", 4)
    assert trace.texts("attempt")[0] == story


def test_known_independent_trials():
    # A guess among 10, 4 trials: 1 - 0.9^4. Error rate 1e-4.
    def skill(messages, draw):
        return "open bucket" if draw("").random() < 0.1 else "dance"

    world = WORLD._replace(steps=1, rooms={"hall": ["bucket"]})

    class Opened:
        instructions, opening, start = world.instructions, world.opening, world.start

        async def verify(self, actions):
            return actions[-1] == "open bucket"

    def opened(task):
        async def evaluate(lm, played):
            from backchannel.lm.agent import Verdict

            return Verdict(played.actions[-1] == "open bucket", 0.0, "")

        return evaluate

    runs = 800
    solved = sum(
        wait(retry(Simulated([skill], seed=s), Opened(), Budget(), trials=4, evaluator=opened)).success
        for s in range(runs)
    )
    low, high = binom.ppf([5e-5, 1 - 5e-5], runs, 1 - 0.9**4)
    assert low <= solved <= high


def test_limit_one_trial_has_no_memory():
    for seed in range(10):
        lm = Simulated([housekeeper(exploit=1.0)], seed=seed)
        plain = wait(retry(lm, text_world(seed), Budget(), trials=1))
        assert plain == wait(retry(lm, text_world(seed), Budget(), trials=1, last_attempt=True))


def test_contrast_it_spends_all_calls_on_acting_and_reflexion_does_not():
    lm = Simulated([housekeeper(exploit=0.0, skill=0.0)])  # walks about and never finds a thing
    ours = wait(retry(lm, text_world(0), Budget(), trials=5))
    other = wait(reflexion(lm, text_world(0), Budget(), trials=5))
    assert ours.spent.calls == 5 * 6
    assert other.spent.calls == 5 * 6 + 4
    assert ours.spent.tokens < other.spent.tokens


def test_contrast_last_attempt_finds_what_was_seen():
    # The thing was seen too late: whoever remembers fetches it. The rates are near 0.9 and 0.6; over 250 houses their
    # difference has a standard error below 0.037, and lies more than 4 of them above 0.1.
    def rate(last_attempt):
        found = []
        for seed in range(250):
            lm = Simulated([housekeeper(exploit=1.0)], seed=seed)
            found.append(wait(retry(lm, text_world(seed), Budget(), last_attempt=last_attempt)).success)
        return np.mean(found)

    assert rate(True) > rate(False) + 0.1


@pytest.mark.parametrize("last_attempt", [False, True])
def test_battery_in_the_house(tmp_path, last_attempt):
    lm = Simulated([housekeeper(exploit=0.5, skill=0.9)], seed=4)
    agent = partial(retry, trials=4, last_attempt=last_attempt)
    assert wait(check_agent(agent, lm, text_world(seed=3), tmp_path)).trials > 1
    assert check_memory(tmp_path / "replay.jsonl", REMEMBER, 1) == int(last_attempt)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="not 0"):
        wait(retry(scripted(), WORLD, Budget(), trials=0))
