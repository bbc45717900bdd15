"""The text world, the coding problems, and the skills that the simulated model has for them."""

import asyncio
import time

import pytest

from backchannel.lm.protocol import Message, system, user, wait
from backchannel.lm.simulated import Simulated
from backchannel.lm.skills import housekeeper, programmer
from backchannel.tasks.text_world import text_world
from backchannel.tasks.unit_tests import CodingProblem, code_in, problems, run_tests

PROMPT = [system("Write."), user("x")]


def place_of(world):
    return next((room, c) for room, own in world.rooms.items() for c in own if world.holds.get(c) == world.thing)


@pytest.mark.parametrize("seed", range(20))
def test_a_house_can_be_solved_in_five_steps_by_who_knows(seed):
    world = text_world(seed)
    room, container = place_of(world)
    plan = [
        f"go {room}",
        f"open {container}",
        f"take {world.thing}",
        f"go {world.table}",
        f"put {world.thing} on the table",
    ]
    episode = world.start()
    outcomes = [wait(episode.step(action)) for action in plan]
    assert [outcome.score for outcome in outcomes] == [0, 0, 0.5, 0.5, 1]
    assert [outcome.done for outcome in outcomes] == [False] * 4 + [True]
    assert wait(world.verify(plan))
    assert not wait(world.verify(plan[:-1]))
    with pytest.raises(ValueError, match="over"):
        wait(episode.step("go hall"))


def test_a_house_answers_no_to_what_cannot_be():
    world = text_world(3)
    room, container = place_of(world)
    other = next(r for r in world.rooms if r not in (room, world.table, next(iter(world.rooms))))
    episode = world._replace(steps=20).start()

    def do(action):
        return wait(episode.step(action)).text

    no = "That does not work here."
    assert do("open the window") == do("go nowhere") == do("") == no
    assert do(f"go {other}") == f"You are in the {other}."
    assert do(f"open {container}") == do(f"take {world.thing}") == do(f"put {world.thing} on the table") == no
    do(f"go {room}")
    assert do(f"take {world.thing}") == no  # not opened yet
    assert do(f"OPEN {container} ") == f"You open the {container}. You see a {world.thing}."
    do(f"go {other}")
    assert do(f"take {world.thing}") == no  # not beside it
    do(f"go {room}")
    assert do(f"take {world.thing}") == f"You take the {world.thing}."
    assert do(f"open {container}") == f"You open the {container}. It is empty."
    do(f"go {other}")
    assert do(f"put {world.thing} on the table") == "There is no table here."


def test_houses_are_a_function_of_the_seed():
    assert text_world(5) == text_world(5)
    assert len({text_world(seed).opening for seed in range(50)}) == 50
    with pytest.raises(ValueError, match="2 to 8 rooms"):
        text_world(0, rooms=9)
    with pytest.raises(ValueError, match="steps must be"):
        text_world(0, steps=0)


def test_every_kind_of_failure_is_told_apart():
    tests = ["assert f(1) == 1", "assert f(2) == 2, 'two'", "assert f(0)", "assert g()"]
    results = wait(run_tests("def f(x):\n    print('noise')\n    return 1 // x", tests))
    assert results == ["", "it does not hold (two)", "ZeroDivisionError: integer division or modulo by zero",
                       "NameError: name 'g' is not defined"]  # fmt: skip
    assert wait(run_tests("def f(:", ["assert f"]))[0].startswith("SyntaxError")
    assert wait(run_tests("raise SystemExit(0)", ["assert 1", "assert 0"])) == ["SystemExit: 0"] * 2
    assert wait(run_tests("import os\nos._exit(0)", ["assert 1"])) == ["the program ended before its tests"]
    assert wait(run_tests("", [])) == []


def test_endless_and_greedy_programs_are_ended():
    start = time.monotonic()
    assert wait(run_tests("while True: pass", ["assert 1"], timeout=1.0)) == ["no answer after 1 seconds"]
    assert time.monotonic() - start < 20
    assert wait(run_tests("x = bytearray(10**9)", ["assert 1"], memory=256 * 2**20)) == ["MemoryError: "]
    big = "open('big', 'wb').write(bytes(2**22))"
    assert wait(run_tests(big, ["assert 1"]))[0] != ""


def test_programs_leave_nothing_behind_and_see_no_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_MINE", "1")
    program = "import os\nopen('here', 'w').close()"
    tests = ["assert 'SECRET_OF_MINE' not in os.environ", "assert os.listdir('.') == ['here']"]
    assert wait(run_tests(program, tests)) == ["", ""]
    assert wait(run_tests("import os", ["assert os.listdir('.') == []"])) == [""]


def test_a_cancelled_check_kills_its_program(tmp_path):
    async def cancel():
        program = f"import time\nopen({str(tmp_path / 'alive')!r}, 'w').close()\ntime.sleep(2)\n"
        program += f"open({str(tmp_path / 'late')!r}, 'w').close()"
        running = asyncio.ensure_future(run_tests(program, ["assert 1"], timeout=30))
        while not (tmp_path / "alive").exists():
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        return running.cancelled()

    assert wait(cancel())
    time.sleep(2.2)
    assert not (tmp_path / "late").exists()


def test_hidden_tests_are_the_truth_and_visible_ones_are_told():
    problem = CodingProblem("f", "Twice.", "def f(x):", {"two": "f(2) == 4"}, {"three": "f(3) == 6"})
    outcome = wait(problem.start().step("```python\ndef f(x):\n    return x * x\n```"))
    assert (outcome.score, outcome.done, outcome.text) == (1.0, True, "All 1 visible tests passed.")
    assert not wait(problem.verify(["def f(x): return x * x"]))
    assert wait(problem.verify(["nonsense", "def f(x): return x + x"]))
    assert not wait(problem.verify([]))
    outcome = wait(problem.start().step("def f(x): return 0"))
    assert (outcome.score, outcome.text) == (0.0, "FAILED two: f(2) == 4: it does not hold")


def test_code_is_taken_from_its_block():
    assert code_in("Sure:\n```python\na = 1\n```\nand\n```\nb\n```") == "a = 1\n"
    assert code_in("a = 1") == "a = 1"


def test_the_programmer_knows_every_problem_and_each_case_matters():
    for problem in problems():
        prompt = [system(problem.instructions), user(problem.opening)]
        best = wait(Simulated([programmer(0.0, skill=1.0)]).complete(prompt)).text
        assert wait(problem.verify([best])), problem.function
        outcome = wait(problem.start().step(wait(Simulated([programmer(0.0, skill=0.0)]).complete(prompt)).text))
        assert outcome.text.count("FAILED") == 4, (problem.function, outcome.text)
        tests = wait(
            Simulated([programmer(0.0, skill=1.0)]).complete([system("Write assert lines."), *prompt[1:]])
        ).text
        assert wait(problem.check(best, tests.split("\n"))) == []


def rate(skill, prompt, wanted, runs=400):
    lm = Simulated([skill])
    return sum(wanted in wait(lm.complete(prompt, temperature=1.0, seed=i)).text for i in range(runs)) / runs


def test_notes_are_used_with_the_stated_probability():
    # 400 draws: five standard deviations of the share are below 0.125.
    world = text_world(0)
    room, container = place_of(world)
    notes = f"[1] The {world.thing} is in the {container}.\n\n"
    prompt = [system(world.instructions), user(notes + world.opening)]
    unaided = 1 / len(world.rooms)
    wanted = f"go {room}" if room != next(iter(world.rooms)) else "open"
    for q in (0.0, 0.5, 1.0):
        assert abs(rate(housekeeper(q), prompt, wanted) - (q + (1 - q) * unaided)) < 0.125
    problem = problems()[0]
    prompt = [system(problem.instructions), user("[1] Mind the case empty.\n\n" + problem.opening)]
    for q in (0.0, 0.5, 1.0):
        assert abs(rate(programmer(q, skill=0.2), prompt, "if not values") - (q + (1 - q) * 0.2)) < 0.125


def test_reflections_are_right_with_the_stated_probability():
    world = text_world(2)
    container = place_of(world)[1]
    trial = f"You open the {container}. You see a {world.thing}."
    prompt = [system("Reflect."), user(f"{world.opening}\n\nThe trial:\n> x\n{trial}\n\nThe verdict:\nYou failed.")]
    right = f"The {world.thing} is in the {container}"
    assert rate(housekeeper(1.0), prompt, right) == 1
    assert abs(rate(housekeeper(1.0, insight=0.5), prompt, right) - (0.5 + 0.5 / 24)) < 0.125


def test_a_skill_reads_nothing_but_the_prompt():
    world = text_world(0)
    lm = Simulated([housekeeper(1.0)], seed=9)
    prompt = [system(world.instructions), user(world.opening)]
    before = wait(lm.complete(prompt, temperature=1.0, seed=1))
    notes = f"The {world.thing} is in the {place_of(world)[1]}.\n\n"
    wait(lm.complete([prompt[0], user(notes + world.opening)], temperature=1.0, seed=2))
    assert wait(lm.complete(prompt, temperature=1.0, seed=1)) == before


def test_replies_are_cut_at_stops_and_at_their_length():
    lm = Simulated([lambda messages, draw: "one two. three"])
    assert wait(lm.complete(PROMPT, stop=[". "])).text == "one two"
    cut = wait(lm.complete(PROMPT, max_tokens=2))
    assert (cut.text, cut.tokens_out, cut.ended) == ("one tw", 2, "length")
    with pytest.raises(Exception, match="has no skill for the prompt 'Hm'"):
        wait(Simulated([housekeeper(1.0), programmer(1.0)]).complete([Message("user", "Hm")]))
    with pytest.raises(ValueError, match="insight is a probability"):
        housekeeper(0.5, insight=2)
