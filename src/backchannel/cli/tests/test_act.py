"""`act` as a user and as a program meet it: files, pipes, one line at a time, and lines that cannot be decided."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from typer.testing import CliRunner

from backchannel.cli import act, app, learn, message
from backchannel.cli.act import CHUNK
from backchannel.decide.encoder import Encoder
from backchannel.decide.policyfile import Policy
from backchannel.ledger.log import key_of
from backchannel.online.lin_ts import lin_ts
from backchannel.online.thompson import thompson

assert all((act, learn))  # each registers its commands; a second one makes `act` a word to type
WAIT = 120  # seconds for one answer: far more than it takes, far less than for ever
SENTENCES = [
    (b"{", "expected a JSON object of context, options, id and time"),
    (b"[1]", "expected a JSON object of context, options, id and time"),
    (b'"\xff"', "expected a JSON object of context, options, id and time"),
    (b'{"context": ' + b"[" * 100_000, "expected a JSON object of context, options, id and time"),
    (b'{"context": {"devise": "phone"}}', "knows no context column 'devise'; the nearest are 'device'"),
    (b'{"contxt": {"device": "phone"}}', "unknown field `contxt`"),
    (b'{"device": "phone"}', "unknown field `device`"),
    (b'{"record": "feedback", "id": "f", "decision": "1"}', "'feedback' - at `$.record`"),
    (b'{"id": "x"}', "none of the 2 columns that the policy reads ('age', 'device')"),
    (b'{"context": {"age": "old"}}', "age must be a number, as in the log, not 'old'"),
    (b'{"context": {"age": 1e999}}', "Number out of range"),
    (b'{"context": {"age": 3}, "options": ["a", "e"]}', "never met the option 'e'"),
    (b'{"context": {"age": 3}, "id": 3}', "Expected `str | null`, got `int` - at `$.id`"),
]


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    encoder = Encoder(
        actions=["a", "b", "c"],
        numeric=["age"],
        mean=[30.0],
        scale=[10.0],
        categorical=["device"],
        columns=[{str(key_of("device", "phone")): 2}],
        others=[3],
        dimension=4,
        hashed=False,
        ragged=False,
    )
    given = {"arms": 3, "dimension": 4, "disjoint": True, "scale": 0.1, "regularisation": 0.25}
    Policy("lin_ts", "online", given, encoder, lin_ts(**given).state, "a log").save(folder / "lin_ts.policy")
    Policy("thompson", "online", {"arms": 3}, encoder, thompson(3).state, "a log").save(folder / "thompson.policy")
    return folder


def command(policies, *arguments, key="lin_ts"):
    return [sys.executable, "-m", "backchannel.cli", "act", "--policy", str(policies / f"{key}.policy"), *arguments]


def call(policies, *arguments, key="lin_ts", given=None):
    """(exit code, decisions, the sentence) without a process of its own."""
    arguments = ["act", "--policy", str(policies / f"{key}.policy"), *map(str, arguments)]
    result = CliRunner().invoke(app, arguments, input=given)
    error = result.exception
    said = message(error) if isinstance(error, (ValueError, OSError)) else result.stderr
    code = 2 if isinstance(error, (ValueError, OSError)) else result.exit_code
    return code, [json.loads(line) for line in result.stdout_bytes.splitlines()], said


def lines(n):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        row = {"id": f"r{i}", "context": {"age": int(rng.integers(20, 60)), "device": "phone"}}
        rows.append(json.dumps({**row, "options": ["c", "a"]} if i % 3 else row))
    return rows


class Partner:
    """A program at the other end of two pipes, that gives up after a while instead of waiting for ever."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.late = False

    def __enter__(self):
        return self

    def __exit__(self, *failed):
        self.process.kill()
        self.process.communicate()

    def say(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def hear(self):
        timer = threading.Timer(WAIT, self._give_up)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        assert not self.late, f"no answer in {WAIT} s"
        return json.loads(line)

    def _give_up(self):
        self.late = True
        self.process.kill()


@pytest.mark.parametrize("key", ["lin_ts", "thompson"])
def test_a_program_that_waits_for_each_answer_gets_it(policies, tmp_path, key):
    rows = lines(12)
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    with Partner(command(policies, "--seed", "3", key=key)) as partner:
        heard = []
        for row in rows[:4]:
            partner.say(row.encode() + b"\n")
            heard.append(partner.hear())
        partner.say("\n".join(rows[4:7]).encode() + b"\n" + rows[7].encode()[:9])  # three lines and a part of one
        heard += [partner.hear() for _ in range(3)]
        partner.say(rows[7].encode()[9:] + b"\n\n" + rows[8].encode() + b"\n")
        heard += [partner.hear() for _ in range(2)]
        rest, said = partner.process.communicate("\n".join(rows[9:]).encode(), timeout=WAIT)  # the last has no end
        heard += [json.loads(line) for line in rest.splitlines()]
        assert (partner.process.returncode, said) == (0, b"")
    code, decisions, _ = call(policies, tmp_path / "rows.jsonl", "--seed", 3, key=key)
    assert code == 0
    assert heard == decisions  # the very same draws, however the lines came
    assert [decision["id"] for decision in decisions] == [f"r{i}" for i in range(12)]


def test_a_partner_that_says_something_wrong_has_all_answers_before_it(policies):
    with Partner(command(policies)) as partner:
        partner.say(b'{"context": {"age": 3}}\n')
        assert partner.hear()["id"] == "1"
        partner.say(b'\n{"context": {"age": 3}}\n{"context": {"aeg": 3}}\n{"context": {"age": 3}}\n')
        rest, said = partner.process.communicate(timeout=WAIT)
        assert [json.loads(line)["id"] for line in rest.splitlines()] == ["3"]  # the number of its line
        assert partner.process.returncode == 2
        assert said.decode().count("\n") == 1
        assert b"standard input, line 4: the policy knows no context column 'aeg'; the nearest are 'age'" in said


@pytest.mark.parametrize(("bad", "words"), SENTENCES, ids=[words for _, words in SENTENCES])
def test_a_bad_line_is_named_and_those_before_it_are_answered(policies, tmp_path, bad, words):
    good = [row.encode() for row in lines(5)]
    text = b"\n".join([*good, b"", bad, good[0]])
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text)
    expected = call(policies, given=b"\n".join(good))[1]
    for arguments, given, name in (([path], None, str(path)), ([], text, "standard input")):
        code, decisions, said = call(policies, *arguments, given=given)
        assert code == 2
        assert decisions == expected
        assert said.startswith(f"{name}, line 7: ")
        assert words in said
        assert "\n" not in said


def test_a_file_of_many_chunks_is_decided_as_one_stream(policies, tmp_path):
    rows = lines(200)
    wide = json.dumps({"context": {"age": 30, "device": "x" * (2 * CHUNK)}})  # a line of more than one chunk
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*rows, wide, *rows]) + "\n")
    code, decisions, said = call(policies, path)
    assert (code, said) == (0, "")
    assert len(decisions) == 401
    assert decisions[200]["id"] == "201"
    assert decisions[:200] == call(policies, given="\n".join(rows).encode())[1]
    assert CHUNK > 65536


def test_a_logged_decision_is_a_request(policies):
    logged = {"record": "decision", "id": "d", "action": "b", "propensity": 0.2, "policy": "old", "time": 5.0}
    row = json.dumps({**logged, "context": {"age": 3, "device": "phone"}, "shown": True, "position": 2, "version": 1})
    code, (decision,), _ = call(policies, given=row.encode())
    assert code == 0
    assert (decision["id"], decision["policy"], decision["time"]) == ("d", "lin_ts", 5.0)
    assert "position" not in decision


def test_what_is_not_known_is_passed_over_where_it_is_asked_for(policies):
    row = b'{"shop": 7, "context": {"age": 30, "device": "phone", "zip": "8001"}}'
    assert call(policies, given=row)[0] == 2
    code, (decision,), _ = call(policies, "--ignore-unknown", given=row)
    assert code == 0
    assert decision["context"] == {"age": 30, "device": "phone", "zip": "8001"}
    plain = call(policies, given=b'{"context": {"age": 30, "device": "phone"}}')[1][0]
    assert (decision["action"], decision["propensity"]) == (plain["action"], plain["propensity"])
    code, decisions, said = call(policies, "--ignore-unknown", given=b'{"context": {"zip": "8001"}}')
    assert (code, decisions) == (2, [])
    assert "none of the 2 columns" in said


def test_a_policy_that_reads_no_context_needs_none(policies):
    code, decisions, _ = call(policies, key="thompson", given=b"{}\n{}\n")
    assert code == 0
    assert [decision["id"] for decision in decisions] == ["1", "2"]


def test_no_requests_are_no_decisions(policies):
    assert call(policies, given=b"") == (0, [], "")
    assert call(policies, given=b"\n \n\r\n") == (0, [], "")


def test_a_policy_that_is_none_is_one_sentence(policies, tmp_path):
    (tmp_path / "notes.policy").write_text("not a policy\n")
    code, decisions, said = call(tmp_path, key="notes", given=b"{}")
    assert (code, decisions) == (2, [])
    assert "notes.policy is not a file that backchannel wrote" in said
    assert "pickle" not in said
    code, _, said = call(tmp_path, key="none", given=b"{}")
    assert code == 2
    assert "none.policy: No such file" in said
    code, _, said = call(policies, tmp_path / "none.jsonl")
    assert code == 2
    assert "none.jsonl: No such file" in said


def test_a_reader_that_has_gone_is_told_nothing(policies, tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(lines(200)))
    inside, outside = os.pipe()
    os.close(inside)
    done = subprocess.run(
        command(policies, str(tmp_path / "rows.jsonl")), stdout=outside, stderr=subprocess.PIPE, check=False
    )
    os.close(outside)
    assert done.returncode != 0
    assert done.stderr == b""
