"""Small coding problems with unit tests: the action is a program, the observation what the visible tests said.

A problem has *visible* tests, whose failures the agent is told, and *hidden* tests, which are the truth (`verify`). A
test is one assert statement with a name.

Programs are run in a process of their own: a fresh interpreter without site packages, in an empty folder that is then
deleted, with limits on processor time, memory, file size, open files and processes, and killed with its whole process
group after `timeout` seconds. **This is not a sandbox against malice.** It stops accidents: endless loops, exhausted
memory, a crash. A program that means harm can read the files that you can read, use the network, and, since tests run
in its process, look for the answers. Run models that you do not trust inside a container or a virtual machine.

    >>> from backchannel.lm.protocol import wait
    >>> problem = CodingProblem("double", "Return twice x.", "def double(x):", {"two": "double(2) == 4"}, {})
    >>> wait(problem.check("def double(x):\\n    return x * x", ["assert double(2) == 4", "assert double(3) == 6"]))
    ['assert double(3) == 6: it does not hold']
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from backchannel.lm.agent import Outcome

INSTRUCTIONS = "Write a Python function. Answer with the whole program, in a block of code, and nothing else."
HELD = ""  # the result of a test that holds

_HARNESS = """
import json, os, resource, sys
job = json.load(sys.stdin)
for name, limit in job["limits"].items():
    resource.setrlimit(getattr(resource, name), (limit, limit))
out = os.fdopen(os.dup(1), "w")
null = os.open(os.devnull, os.O_WRONLY)
os.dup2(null, 1)
os.dup2(null, 2)
def attempt(code, scope):
    try:
        exec(compile(code, "<program>", "exec"), scope)
        return ""
    except AssertionError as error:
        return "it does not hold" + (f" ({error})" if str(error) else "")
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
scope = {"__name__": "program"}
broken = attempt(job["program"], scope)
out.write(json.dumps([broken or attempt(test, scope) for test in job["tests"]]))
out.flush()
os._exit(0)
"""

Run = Callable[[str, Sequence[str]], Awaitable[list[str]]]


async def run_tests(program: str, tests: Sequence[str], timeout: float = 5.0, memory: int = 512 * 2**20) -> list[str]:
    """Run `program` and then each assert statement in a process of its own; for each test what went wrong, or "".

    Not a sandbox against malice: see the head of this file.

    Args:
        program: Python source.
        tests: assert statements; they share the program's names.
        timeout: seconds for everything; of processor time there is a second more, so that this limit is the first.
        memory: bytes of address space.
    """
    if sys.platform == "win32":
        raise OSError("programs are run under POSIX resource limits, which Windows does not have")
    seconds = int(timeout + 0.999) + 1
    limits = {"RLIMIT_CPU": seconds, "RLIMIT_AS": memory, "RLIMIT_FSIZE": 2**20, "RLIMIT_NOFILE": 32}
    job = json.dumps(
        {"program": program, "tests": list(tests), "limits": limits | {"RLIMIT_CORE": 0, "RLIMIT_NPROC": 0}}
    )
    with tempfile.TemporaryDirectory(prefix="backchannel-program-") as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _HARNESS),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        answer = b""
        try:
            answer, _ = await asyncio.wait_for(process.communicate(job.encode()), timeout)
            lost = "the program ended before its tests"
        except TimeoutError:
            lost = f"no answer after {timeout:g} seconds"
        finally:
            _kill_group(process.pid)
            await process.wait()
    try:
        results = json.loads(answer)
    except ValueError:
        return [lost] * len(tests)
    if not isinstance(results, list) or len(results) != len(tests):
        return ["the program wrote over its results"] * len(tests)
    return [str(result) for result in results]


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has ended, and left no children


class CodingProblem(NamedTuple):
    """A function to write. Tests are expressions that must be true, by name."""

    function: str
    about: str
    signature: str
    visible: Mapping[str, str]
    hidden: Mapping[str, str]
    run: Run = run_tests

    @property
    def instructions(self) -> str:
        """What an answer looks like."""
        return INSTRUCTIONS

    @property
    def opening(self) -> str:
        """The signature, and what the function is to do."""
        return f'{self.signature}\n    """{self.about}"""'

    def start(self) -> Submission:
        """A new episode: one program."""
        return Submission(self)

    async def check(self, program: str, tests: Sequence[str]) -> list[str]:
        """The tests (assert statements) that fail, each with what went wrong."""
        results = await self.run(code_in(program), tests)
        return [f"{test}: {why}" for test, why in zip(tests, results, strict=True) if why != HELD]

    async def verify(self, actions: Sequence[str]) -> bool:
        """Whether the last program passes all tests, visible and hidden."""
        tests = [f"assert {test}" for test in (*self.visible.values(), *self.hidden.values())]
        return bool(actions) and not await self.check(actions[-1], tests)


class Submission:
    """One episode: a program is handed in, and the visible tests are run."""

    def __init__(self, problem: CodingProblem) -> None:
        self.problem = problem

    async def step(self, action: str) -> Outcome:
        """Hand the program in. The score is the share of visible tests that pass."""
        tests = self.problem.visible
        results = await self.problem.run(code_in(action), [f"assert {test}" for test in tests.values()])
        failed = [
            f"FAILED {name}: {tests[name]}: {why}" for name, why in zip(tests, results, strict=True) if why != HELD
        ]
        score = 1 - len(failed) / len(tests) if tests else 1.0
        return Outcome("\n".join(failed) or f"All {len(tests)} visible tests passed.", True, score)


def code_in(text: str) -> str:
    """The first fenced block of code in `text`; all of it if there is none."""
    found = re.search(r"```(?:python)?[ \t]*\n(.*?)```", text, re.DOTALL)
    return found.group(1) if found else text


def problems(run: Run = run_tests) -> list[CodingProblem]:
    """The packaged problems, all small, each with a few cases that are easily forgotten."""
    return [CodingProblem(name, *rest, run=run) for name, rest in _PROBLEMS.items()]


_PROBLEMS: dict[str, tuple[str, str, dict[str, str], dict[str, str]]] = {
    "median": (
        "Return the median of a list of numbers, leaving out None; None if there is no number.",
        "def median(values):",
        {
            "ordinary": "median([1, 2, 3]) == 2",
            "gaps": "median([None, None, 3]) == 3",
            "empty": "median([]) is None",
            "even": "median([1, 2, 3, 4]) == 2.5",
            "unsorted": "median([9, 1, 5]) == 5",
        },
        {"only gaps": "median([None]) is None", "two": "median([5, 1]) == 3", "long": "median([7, 3, 9, 1, 5]) == 5"},
    ),
    "clip": (
        "Return x limited to [low, high]; the bounds may come in either order; None stays as it is.",
        "def clip(x, low, high):",
        {
            "ordinary": "clip(2, 1, 3) == 2",
            "below": "clip(0, 1, 3) == 1",
            "above": "clip(9, 1, 3) == 3",
            "swapped": "clip(9, 3, 1) == 3",
            "missing": "clip(None, 1, 3) is None",
        },
        {"inside swapped": "clip(2, 3, 1) == 2", "low swapped": "clip(-5, 3, 1) == 1", "edge": "clip(1, 1, 1) == 1"},
    ),
    "initials": (
        "Return the initials of a name in capitals, each followed by a full stop; spaces and hyphens part names.",
        "def initials(name):",
        {
            "ordinary": "initials('Ada Lovelace') == 'A.L.'",
            "lower": "initials('ada lovelace') == 'A.L.'",
            "spaces": "initials('  Ada   Lovelace ') == 'A.L.'",
            "hyphen": "initials('Jean-Luc Picard') == 'J.L.P.'",
            "missing": "initials(None) == ''",
        },
        {
            "nothing": "initials('') == ''",
            "one": "initials('plato') == 'P.'",
            "all": "initials(' jean-luc  p ') == 'J.L.P.'",
        },
    ),
    "runs": (
        "Return the lengths of runs of equal letters as [first letter, length]; case does not tell letters apart.",
        "def runs(items):",
        {
            "ordinary": "runs('aab') == [['a', 2], ['b', 1]]",
            "empty": "runs('') == []",
            "case": "runs('aAb') == [['a', 2], ['b', 1]]",
            "missing": "runs(None) == []",
            "iterator": "runs(iter('aab')) == [['a', 2], ['b', 1]]",
        },
        {"one": "runs('x') == [['x', 1]]", "mixed": "runs('AAbBB') == [['A', 2], ['b', 3]]"},
    ),
}
