"""The commands as a user types them; and bad input: one sentence, exit code 2, nothing half-written."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from backchannel.claim import Evidence, Table, at_most
from backchannel.cli import app, convert, learn, message, methods, policy, report, serve, workshop
from backchannel.decide.policyfile import load_policy

assert all((convert, learn, methods, policy, report, serve, workshop))  # each registers its commands
CSV = "action,reward,propensity\n"
ROWS = "".join(f"{'ab'[i % 2]},{int(i % 4 == 1)},0.5\n" for i in range(60))


def call(*arguments):
    """(exit code, standard output, the one sentence) without a process of its own."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    error = result.exception
    if isinstance(error, (ValueError, KeyError, OSError)):
        return 2, result.stdout, message(error)
    assert error is None or isinstance(error, SystemExit), repr(error)
    return result.exit_code, result.stdout, result.stderr


def test_help_is_light_and_quick():
    heavy = "[m for m in ('numba', 'jax', 'torch') if m in sys.modules]"
    program = f"import sys; from backchannel.cli import main\ntry: main()\nfinally: print({heavy}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for command in ("learn", "act", "convert", "find", "show", "claim", "report", "new", "policy", "serve"):
        assert command in done.stdout


def test_find_and_show():
    code, out, _ = call("find", "--feedback", "graph", "--json")
    found = json.loads(out)["methods"]
    assert code == 0
    assert {"exp3_ex", "exp3_g"} <= {entry["key"] for entry in found}
    assert {"row", "status"} <= set(found[0])
    code, out, _ = call("show", "exp3")
    assert "(11.6)" in out
    assert "exp3(arms: int" in out
    assert "Args:\n    arms:" in out
    assert "reflexion(lm: LanguageModel" in call("show", "reflexion")[1]
    code, _, said = call("show", "exp4")
    assert code == 2
    assert "did you mean exp3" in said
    assert call("find", "--feedback", "telepathy")[0] == 2


def test_claim_writes_its_evidence(tmp_path):
    code, out, _ = call("claim", "hedge", "--seed", 3, "--out", tmp_path, "--json")
    report = json.loads(out)["claims"][0]
    assert (code, report["holds"]) == (0, True)
    assert json.loads((tmp_path / "hedge.json").read_text())["runs"][0]["seed"] == 3
    assert (tmp_path / "hedge.png").stat().st_size > 5000


def test_a_claim_that_fails_is_said_and_the_others_go_on(tmp_path, monkeypatch):
    from backchannel.workshop import publish

    def run(family, key, seed, full):
        if key == "broken":
            raise ZeroDivisionError("no rounds")
        check = at_most("error", 0.1 if key == "good" else 3.0, 1.0, "never")
        evidence = Evidence("A statement.", [check], [Table("numbers", ["a", "b"], [[1, 2]])])
        return evidence, {"seed": seed, "holds": evidence.holds, "seconds": 1.5, "note": "", **_parts(evidence)}

    def _parts(evidence):
        return {name: msgspec.to_builtins(getattr(evidence, name)) for name in ("checks", "tables")}

    written = []
    monkeypatch.setattr(publish, "claims", lambda family: [(family, key) for key in ("broken", "good", "bad")])
    monkeypatch.setattr(publish, "run_seed", run)
    monkeypatch.setattr(publish, "write_evidence", lambda out, family, key, *_: written.append(key) or [out / key])
    code, out, _ = call("claim", "--family", "online", "--out", tmp_path)
    assert (code, written) == (1, ["good", "bad"])
    assert "broken failed: ZeroDivisionError: no rounds" in out
    assert out.endswith("1 of 3 hold, in 3 seconds\n")
    code, out, _ = call("claim", "--family", "online", "--out", tmp_path, "--json")
    reports = json.loads(out)["claims"]
    assert [report["holds"] for report in reports] == [False, True, False]
    assert reports[0]["failed"] == "ZeroDivisionError: no rounds"


def test_claim_says_before_the_work_that_it_cannot_write(tmp_path, monkeypatch):
    from backchannel.workshop import publish

    monkeypatch.setattr(publish, "run_seed", lambda *_: pytest.fail("it should not have begun"))
    (tmp_path / "a").write_text("")
    code, _, said = call("claim", "hedge", "--out", tmp_path / "a")
    assert (code, "a" in said and "exists" in said) == (2, True)


def test_a_table_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="the table 'numbers' has 2 columns and a row of 3 cells"):
        Table("numbers", ["a", "b"], [[1, 2, 3]])


def test_a_policy_that_has_learned_nothing(tmp_path):
    path = tmp_path / "a.policy"
    options = ("--option", "A", "--option", "B", "--set", "horizon=1000", "--set", "step_size=0.5")
    code, out, _ = call(
        "policy", "exp3", *options, "--context", "age", "--context", "device=phone,desktop", "--out", path
    )
    assert (code, out.strip()) == (0, f"{path}: exp3 over 2 options, which has learned nothing yet")
    policy = load_policy(path)
    assert policy.given == {"arms": 2, "horizon": 1000, "step_size": 0.5}
    assert (policy.encoder.numeric, policy.encoder.categorical) == (["age"], ["device"])
    code, _, said = call("policy", "exp3", "--option", "A", "--set", "horizon", "--out", tmp_path / "b.policy")
    assert (code, "--set takes NAME=VALUE, not 'horizon'" in said) == (2, True)
    assert not (tmp_path / "b.policy").exists()


def test_learn_and_act(tmp_path):
    (tmp_path / "clicks.csv").write_text(
        "what,got,chance,age\n" + "".join(f"{'xy'[i % 2]},{int(i % 4 == 1)},0.5,{i % 7}\n" for i in range(200))
    )
    columns = ["--action", "what", "--reward", "got", "--propensity", "chance", "--context", "age"]
    code, out, said = call(
        "learn", tmp_path / "clicks.csv", *columns, "--policy", "thompson", "--out", tmp_path / "out", "--json"
    )
    assert code == 0, said
    learned = json.loads(out)
    assert learned["policies"][0]["key"] == "thompson"
    assert (tmp_path / "out" / "report.html").exists()
    (tmp_path / "contexts.jsonl").write_text('{"id": "v", "context": {"age": 3}}\n')
    command = [
        sys.executable,
        "-m",
        "backchannel.cli",
        "act",
        tmp_path / "contexts.jsonl",
        "--policy",
        tmp_path / "out" / "thompson.policy",
    ]
    decision = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert decision["id"] == "v"
    assert decision["action"] in ("x", "y")
    assert 0 < decision["propensity"] <= 1


def test_a_table_is_replayed(tmp_path):
    (tmp_path / "table.csv").write_text(
        "size,kind\n" + "".join(f"{i % 10},{'big' if i % 10 > 4 else 'small'}\n" for i in range(400))
    )
    arguments = [
        "--replay-supervised",
        tmp_path / "table.csv",
        "--label",
        "kind",
        "--policy",
        "lin_ucb",
        "--policy",
        "uniform",
    ]
    code, out, said = call("learn", *arguments, "--out", tmp_path / "out", "--json")
    assert code == 0, said
    policies = {p["key"]: p for p in json.loads(out)["policies"]}
    assert policies["uniform"]["true_value"] == pytest.approx(0.5)
    assert policies["lin_ucb"]["true_value"] > 0.9


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.csv", None, "missing.csv"),
        ("empty.csv", b"", "empty.csv"),
        ("header.csv", CSV.encode(), "header.csv"),
        ("column.csv", b"deed,reward\na,1\n", "action"),
        ("high.csv", (CSV + ROWS + "a,1,1.5\n").encode(), "row 61, column 'propensity'"),
        ("zero.csv", (CSV + ROWS + "a,1,0\n").encode(), "row 61, column 'propensity'"),
        ("text.csv", (CSV + ROWS + "a,yes,0.5\n").encode(), "reward"),
        ("cut.csv.gz", gzip.compress((CSV + ROWS * 500).encode())[:-400], "cut.csv.gz"),
        ("same.csv", (CSV + "a,3,0.5\nb,3,0.5\n" * 30).encode(), "every reward"),
    ],
)
def test_bad_logs_are_one_sentence(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, said = call("learn", tmp_path / name, "--policy", "ucb1", "--out", tmp_path / "out")
    assert code == 2
    assert words in said
    assert "\n" not in said.strip()
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--policy", "exp4"], "exp4"),
        (["--delay", "soon"], "30m"),
        (["--drop", "2"], "[0, 1)"),
        (["--budget", "-5"], "at least 1"),
        (["--reward", "got"], "--action"),
        (["--reward-range", "0", "0.5"], "outside the range"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path, arguments, words):
    (tmp_path / "log.csv").write_text(CSV + ROWS)
    code, _, said = call("learn", tmp_path / "log.csv", *arguments, "--out", tmp_path / "out")
    assert code == 2
    assert words in said


def test_out_must_be_a_folder_before_the_work_begins(tmp_path):
    (tmp_path / "log.csv").write_text(CSV + ROWS)
    (tmp_path / "out").write_text("a file")
    code, _, said = call("learn", tmp_path / "log.csv", "--out", tmp_path / "out")
    assert code == 2
    assert "out" in said


def test_new_writes_three_files_and_refuses_to_overwrite(tmp_path):
    (tmp_path / "online").mkdir()
    code, out, _ = call("new", "online", "my_method", "--package", tmp_path, "--json")
    assert code == 0
    written = [str(Path(path).relative_to(tmp_path / "online")) for path in json.loads(out)["written"]]
    three = ["my_method.py", "tests/test_my_method.py", "claims/my_method.py"]
    assert written == [*three, "tests/test_battery.py"]  # the first of a family brings the battery
    assert len(json.loads(call("new", "online", "other", "--package", tmp_path, "--json")[1])["written"]) == 3
    assert "def my_method(" in (tmp_path / "online" / "my_method.py").read_text()
    code, _, said = call("new", "online", "my_method", "--package", tmp_path)
    assert code == 2
    assert "exists already" in said
    assert call("new", "online", "My-Method", "--package", tmp_path)[0] == 2
    assert call("new", "nowhere", "my_method", "--package", tmp_path)[0] == 2
    code, _, said = call("new", "online", "my_method", "--package", tmp_path / "not" / "there")
    assert code == 2
    assert f"there is no folder {tmp_path / 'not' / 'there'}" in said
    assert not (tmp_path / "not").exists()
