"""Reflexion: proofs and contrast."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import binom

from backchannel.language.reflexion import REFLECT, REMEMBER, reflexion
from backchannel.language.retry import retry
from backchannel.lm.agent import Outcome, binary, scalar, self_tests, words
from backchannel.lm.budget import Budget
from backchannel.lm.protocol import assistant, system, user, wait
from backchannel.lm.simulated import Simulated
from backchannel.lm.skills import housekeeper, programmer
from backchannel.lm.tape import Tape, read_calls
from backchannel.tasks.text_world import text_world
from backchannel.tasks.unit_tests import CodingProblem, problems
from backchannel.testing.agent_battery import check_agent, check_memory


class Lock:
    """Guess the code among `codes`, one guess an episode; or with `steps` guesses."""

    def __init__(self, code, codes, steps=1):
        self.code, self.codes, self.steps, self.left = code, codes, steps, steps
        self.instructions = "Guess the code."
        self.opening = f"A lock with {codes} codes."

    def start(self):
        return Lock(self.code, self.codes, self.steps)

    async def step(self, action):
        self.left -= 1
        right = action == str(self.code)
        return Outcome("It opens." if right else "Nothing.", right or self.left == 0, float(right))

    async def verify(self, actions):
        return actions[-1] == str(self.code)


def scripted(*replies):
    """A model that says these in turn: what it says depends on no prompt, so prompts can be read off a tape."""
    queue = list(replies)
    return Simulated([lambda messages, draw: queue.pop(0)])


def eliminator(messages, draw):
    """Guesses uniformly among the codes that its reflections do not name; reflects by naming the guess."""
    text = messages[-1].content
    if messages[0].content == REFLECT:
        return "Not " + text.split("> ")[1].split("\n")[0] + "."
    codes = int(text.split(" codes.")[0].split()[-1])
    return draw(text).choice([str(c) for c in range(codes) if f"Not {c}." not in text])


def test_step_the_prompts_of_three_trials_by_hand(tmp_path):
    lm = scripted("3", "5", "Not 3, not 5.", "1", "2", "Odd ones are wrong.", "4")
    with Tape(tmp_path / "tape", lm) as tape:
        trace = wait(reflexion(tape, Lock(4, 9, steps=2), Budget(), memory=1, evaluator=scalar, seed=10))
    calls = read_calls(tmp_path / "tape")
    rules, opening = system("Guess the code."), "A lock with 9 codes."
    first = "Your reflections on earlier trials of this task:\n[1] Not 3, not 5."
    second = "Your reflections on earlier trials of this task:\n[1] Odd ones are wrong."
    score = "The verdict:\nYour score is 0.00 of 1."
    assert [call.request.messages for call in calls] == [
        [rules, user(opening)],
        [rules, user(opening), assistant("3"), user("Nothing.")],
        [system(REFLECT), user(f"{opening}\n\nThe trial:\n> 3\nNothing.\n> 5\nNothing.\n\n{score}")],
        [rules, user(f"{first}\n\n{opening}")],
        [rules, user(f"{first}\n\n{opening}"), assistant("1"), user("Nothing.")],
        [system(REFLECT), user(f"{opening}\n\n{first}\n\nThe trial:\n> 1\nNothing.\n> 2\nNothing.\n\n{score}")],
        [rules, user(f"{second}\n\n{opening}")],
    ]
    assert [call.request.seed for call in calls] == [10, 10, 10, 11, 11, 11, 12]
    assert (trace.success, trace.trials, trace.ended, trace.spent.calls) == (True, 3, "passed", 7)
    kinds = [(step.trial, step.kind, step.score) for step in trace.steps if step.kind != "verdict"]
    assert kinds == [
        (0, "attempt", 0),
        (0, "reflection", None),
        (1, "attempt", 0),
        (1, "reflection", None),
        (2, "attempt", 1),
    ]


def test_step_no_reflection_after_the_last_trial():
    trace = wait(reflexion(scripted("1", "no", "2"), Lock(3, 9), Budget(), trials=2))
    assert (trace.success, trace.trials, trace.ended, trace.spent.calls) == (False, 2, "trials", 3)


@pytest.mark.parametrize("memory", [1, 2, 3])
def test_known_success_of_a_bounded_memory(memory):
    # Trial t excludes the last min(t, memory) guesses, all different: it fails with probability 1 - 1 / (K - that).
    codes, trials, runs = 8, 5, 600
    chance = 1 - np.prod([1 - 1 / (codes - min(t, memory)) for t in range(trials)])
    solved = 0
    for seed in range(runs):
        lm = Simulated([eliminator], seed=seed)
        solved += wait(reflexion(lm, Lock(3, codes), Budget(), trials=trials, memory=memory)).success
    low, high = binom.ppf([5e-5 / 3, 1 - 5e-5 / 3], runs, chance)  # three memories, error rate 1e-4 together
    assert low <= solved <= high


def test_limit_without_memory_it_is_retry():
    for seed in range(20):
        lm = Simulated([housekeeper(exploit=1.0, skill=0.9)], seed=seed)
        ours = wait(reflexion(lm, text_world(seed), Budget(), memory=0, seed=seed))
        assert ours == wait(retry(lm, text_world(seed), Budget(), seed=seed))


def test_limit_memory_of_all_trials_tries_no_code_twice():
    for seed in range(30):
        trace = wait(reflexion(Simulated([eliminator], seed=seed), Lock(seed % 6, 6), Budget(), trials=6, memory=6))
        assert trace.success


def test_contrast_a_stubborn_model_learns_from_a_reflection_and_not_by_retrying():
    # At temperature 0 the same prompt gives the same wrong guess for ever: only a changed prompt changes it.
    ours = wait(reflexion(Simulated([eliminator], seed=1), Lock(0, 5), Budget(), memory=5, temperature=0.0))
    again = wait(retry(Simulated([eliminator], seed=1), Lock(0, 5), Budget(), temperature=0.0))
    assert ours.success
    assert ours.trials > 1
    assert not again.success
    assert len(set(again.texts("attempt"))) == 1


def test_contrast_older_reflections_are_worth_something():
    # The last attempt alone excludes one code, a memory of three excludes three. K = 5 and five trials: the chances
    # are 0.747 and 0.9; over 500 runs each their difference has a standard error below 0.024, 5 of them above 0.03.
    def rate(memory):
        traces = [
            wait(reflexion(Simulated([eliminator], seed=s), Lock(2, 5), Budget(), trials=5, memory=memory))
            for s in range(500)
        ]
        return np.mean([trace.success for trace in traces])

    assert rate(3) - rate(1) > 0.03


@pytest.mark.parametrize("evaluator", [binary, scalar, words])
def test_battery_in_the_house(tmp_path, evaluator):
    lm = Simulated([housekeeper(exploit=0.5, skill=0.9)], seed=4)
    trace = wait(check_agent(partial(reflexion, trials=4, evaluator=evaluator), lm, text_world(seed=3), tmp_path))
    assert trace.trials > 1


def test_memory_is_bounded_in_every_prompt(tmp_path):
    def skill(messages, draw):
        return "A REFLECTION." if messages[0].content == REFLECT else "0"

    with Tape(tmp_path / "tape", Simulated([skill])) as tape:
        trace = wait(reflexion(tape, Lock(1, 9), Budget(), trials=8, memory=3))
    assert len(trace.texts("reflection")) == 7
    assert check_memory(tmp_path / "tape", "A REFLECTION.", 3) == 3
    with pytest.raises(AssertionError, match="3 times, at most 2"):
        check_memory(tmp_path / "tape", "A REFLECTION.", 2)
    assert check_memory(tmp_path / "tape", REMEMBER, 1) == 1


async def weighed(program, tests):
    """A stand-in for running programs: a test passes if the program has the word that it asserts."""
    return ["" if test.split("'")[1] in program else "it does not hold" for test in tests]


def test_own_tests_stop_a_run_that_the_truth_calls_failed():
    problem = CodingProblem("f", "Do it.", "def f():", {"a": "'gamma'"}, {"b": "'beta'"}, weighed)
    lm = scripted("nothing", "Here:\nassert 'alpha'\nassert that is", "Use alpha.", "alpha")
    trace = wait(reflexion(lm, problem, Budget(), evaluator=self_tests))
    assert trace.texts("verdict") == ["assert 'alpha': it does not hold", "All 1 own tests passed."]
    assert (trace.ended, trace.success, trace.spent.calls) == ("passed", False, 4)


def test_own_tests_that_are_none_pass_nothing():
    problem = CodingProblem("f", "Do it.", "def f():", {"a": "'alpha'"}, {}, weighed)
    trace = wait(
        reflexion(scripted("alpha", "I cannot think of a test."), problem, Budget(), trials=1, evaluator=self_tests)
    )
    assert (trace.ended, trace.success) == ("trials", True)


def test_the_last_score_of_a_trial_is_its_score():
    class Falling(Lock):
        def start(self):
            return Falling(self.code, self.codes, self.steps)

        async def step(self, action):
            self.left -= 1
            return Outcome("", self.left == 0, 1.0 if self.left else 0.25)

    trace = wait(reflexion(scripted("1", "2"), Falling(3, 9, steps=2), Budget(), trials=1, evaluator=scalar))
    assert trace.texts("verdict") == ["Your score is 0.25 of 1."]
    assert trace.ended == "trials"


def test_own_tests_need_a_task_with_programs():
    with pytest.raises(TypeError, match="not a TextWorld"):
        wait(reflexion(scripted(), text_world(0), Budget(), evaluator=self_tests))


def test_code_is_repaired_case_by_case():
    problem = problems()[0]
    trace = wait(reflexion(Simulated([programmer(1.0, skill=0.0)]), problem, Budget(), evaluator=words, memory=1))
    assert (trace.success, trace.trials) == (True, 2)
    assert trace.texts("reflection")[0].count("Mind the case") == 4


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="not 0 and 3"):
        wait(reflexion(scripted(), Lock(1, 2), Budget(), trials=0))
