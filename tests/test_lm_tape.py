"""Tapes: replay, resume, kill, damage."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from backchannel.lm.protocol import LanguageModelError, user, wait
from backchannel.lm.simulated import Simulated
from backchannel.lm.tape import NotOnTape, Tape, read_calls


def numbered():
    """A model that answers with how often it was asked: unlike a replay, it never repeats itself."""
    count = iter(range(1000))
    return Simulated([lambda messages, draw: f"answer {next(count)}"], name="numbered")


def ask(lm, text, **options):
    return wait(lm.complete([user(text)], **options)).text


def test_replays_exactly_and_offline(tmp_path):
    with Tape(tmp_path / "t", numbered()) as tape:
        said = [ask(tape, "a"), ask(tape, "b"), ask(tape, "a"), ask(tape, "a", seed=1), ask(tape, "a", stop=["x"])]
    assert said == [f"answer {i}" for i in range(5)]
    assert tape.recorded == 5
    offline = Tape(tmp_path / "t")
    assert offline.name == "numbered"
    again = [
        ask(offline, "b"),
        ask(offline, "a", stop=["x"]),
        ask(offline, "a"),
        ask(offline, "a"),
        ask(offline, "a", seed=1),
    ]
    assert again == ["answer 1", "answer 4", "answer 0", "answer 2", "answer 3"]  # in another order, the same answers
    assert (offline.replayed, offline.recorded) == (5, 0)


def test_says_what_is_not_on_the_tape(tmp_path):
    with Tape(tmp_path / "t", numbered()) as tape:
        ask(tape, "a")
    offline = Tape(tmp_path / "t")
    ask(offline, "a")
    with pytest.raises(
        NotOnTape, match=r"holds 1 calls, but not this one \(its asking number 2\), whose prompt ends in 'a'"
    ):
        ask(offline, "a")
    with pytest.raises(NotOnTape, match="'something else'"):
        ask(offline, "something else")
    for changed in ({"max_tokens": 9}, {"temperature": 0.5}, {"seed": 3}, {"stop": ["."]}):
        with pytest.raises(NotOnTape):
            ask(Tape(tmp_path / "t"), "a", **changed)


def test_goes_on_where_it_ended(tmp_path):
    with Tape(tmp_path / "t", numbered()) as tape:
        first = [ask(tape, "a"), ask(tape, "b")]
    with Tape(tmp_path / "t", numbered()) as tape:
        assert [ask(tape, "a"), ask(tape, "b"), ask(tape, "c")] == [*first, "answer 0"]
        assert (tape.replayed, tape.recorded) == (2, 1)
    assert [call.reply.text for call in read_calls(tmp_path / "t")] == [*first, "answer 0"]


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_torn_last_line_is_dropped_with_a_note(tmp_path, cut):
    path = tmp_path / "t"
    with Tape(path, numbered()) as tape:
        ask(tape, "a"), ask(tape, "b")
    path.write_bytes(path.read_bytes()[:-cut])
    offline = Tape(path)
    assert "dropped a torn last line" in offline.notes[0]
    assert ask(offline, "a") == "answer 0"
    with pytest.raises(NotOnTape):
        ask(offline, "b")
    with Tape(path, numbered()) as tape:  # recording again starts on a line of its own
        assert ask(tape, "b") == "answer 0"
    whole = Tape(path)
    assert (whole.notes, ask(whole, "a"), ask(whole, "b")) == ([], "answer 0", "answer 0")


def test_a_torn_head_is_written_again(tmp_path):
    (tmp_path / "t").write_bytes(b'{"record":"ta')
    with pytest.raises(ValueError, match="holds no tape"):
        Tape(tmp_path / "t")
    with Tape(tmp_path / "t", numbered()) as tape:
        ask(tape, "a")
    assert Tape(tmp_path / "t").name == "numbered"


def test_damage_in_the_middle_is_an_error_with_its_line(tmp_path):
    with Tape(tmp_path / "t", numbered()) as tape:
        ask(tape, "a"), ask(tape, "b")
    lines = (tmp_path / "t").read_bytes().split(b"\n")
    (tmp_path / "t").write_bytes(b"\n".join([lines[0], lines[1][:-9], *lines[2:]]))
    with pytest.raises(ValueError, match="line 2: not a line of a tape"):
        Tape(tmp_path / "t")
    (tmp_path / "t").write_bytes(b"\n".join([lines[0], lines[0], *lines[1:]]))
    with pytest.raises(ValueError, match="line 2: a tape has one head"):
        Tape(tmp_path / "t")


def test_another_model_is_refused(tmp_path):
    Tape(tmp_path / "t", numbered()).close()
    with pytest.raises(ValueError, match="recorded with the model 'numbered', not with 'other'"):
        Tape(tmp_path / "t", Simulated([], name="other"))
    with pytest.raises(FileNotFoundError, match="no tape at"):
        Tape(tmp_path / "none")


def test_calls_in_flight_keep_their_place(tmp_path):
    class Backwards:
        """The later it is asked, the sooner it answers."""

        name = "backwards"
        asked = 0

        async def complete(self, messages, **options):
            self.asked += 1
            number = self.asked
            await asyncio.sleep(0.05 / number)
            return await Simulated([lambda m, d: str(number)]).complete(messages)

    async def three(lm):
        return [reply.text for reply in await asyncio.gather(*(lm.complete([user("a")]) for _ in range(3)))]

    with Tape(tmp_path / "t", Backwards()) as tape:
        assert wait(three(tape)) == ["1", "2", "3"]
    assert [call.reply.text for call in read_calls(tmp_path / "t")] == ["3", "2", "1"]
    assert wait(three(Tape(tmp_path / "t"))) == ["1", "2", "3"]


def test_a_failed_call_is_not_on_the_tape_and_may_be_asked_again(tmp_path):
    answers = iter([None, "yes"])
    with Tape(tmp_path / "t", Simulated([lambda messages, draw: next(answers)])) as tape:
        with pytest.raises(LanguageModelError):
            ask(tape, "a")
        assert ask(tape, "a") == "yes"
    assert ask(Tape(tmp_path / "t"), "a") == "yes"


def test_a_kill_leaves_every_answer_so_far(tmp_path):
    script = (
        "import sys, time\n"
        "from backchannel.lm.protocol import user, wait\n"
        "from backchannel.lm.simulated import Simulated\n"
        "from backchannel.lm.tape import Tape\n"
        "tape = Tape(sys.argv[1], Simulated([lambda m, d: 'yes'], name='numbered'))\n"
        "for i in range(10**6):\n"
        "    wait(tape.complete([user(str(i))]))\n"
        "    print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "t")], stdout=subprocess.PIPE)
    with process:
        while int(process.stdout.readline()) < 20:
            time.sleep(0)
        os.kill(process.pid, signal.SIGKILL)
        answered = max([20, *(int(line) for line in process.stdout.read().split(b"\n")[:-1])])
    calls = read_calls(tmp_path / "t")
    assert len(calls) >= answered + 1
    assert [call.request.messages[0].content for call in calls] == [str(i) for i in range(len(calls))]


def test_a_closed_tape_does_not_record(tmp_path):
    tape = Tape(tmp_path / "t", numbered())
    tape.close()
    with pytest.raises(ValueError, match="is closed"):
        ask(tape, "a")
