"""`align`, as it is typed: a model is tuned, judged and shown; what is wrong is one sentence."""

import inspect
import json

import pytest

torch = pytest.importorskip("torch", reason="align tunes models of torch")
pytest.importorskip("peft", reason="adapters are those of peft")

from typer.testing import CliRunner  # noqa: E402

from backchannel.align.load import load_model  # noqa: E402
from backchannel.align.write import write  # noqa: E402
from backchannel.card import find  # noqa: E402
from backchannel.cli import align, app, methods  # noqa: E402
from backchannel.cli.made import made  # noqa: E402
from backchannel.cli.options import reading_answers  # noqa: E402
from backchannel.lm.answers import Preference  # noqa: E402
from backchannel.testing.small_models import good_words, small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")
torch.set_num_threads(1)
COMMANDS = (align, methods)  # which register themselves
QUICK = [
    "--epochs",
    "2",
    "--micro",
    "8",
    "--learning-rate",
    "0.02",
    "--most",
    "6",
    "--answers",
    "8",
    "--held-out",
    "0.2",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model and with pairs."""
    folder = tmp_path_factory.mktemp("align")
    small_llama().save_pretrained(folder / "small")
    word_tokenizer().save_pretrained(folder / "small")
    write(word_pairs(80), folder / "pairs.jsonl")
    return folder


def _run(*words):
    torch.set_num_threads(1)
    return CliRunner().invoke(app, ["align", *map(str, words)])


def test_a_model_is_tuned_judged_and_shown(place, tmp_path):
    out = tmp_path / "out"
    judge = "backchannel.testing.small_models:good_words"
    found = _run("--model", place / "small", "--data", place / "pairs.jsonl", "--out", out, "--judge", judge, *QUICK)
    assert found.exit_code == 0, found.output
    assert "dpo on 64 examples, 8 steps" in found.output
    result = json.loads((out / "result.json").read_text())
    assert result["method"] == "dpo"
    assert result["after"]["accuracy"] > 0.6
    assert result["drawn"]["judge"] == judge
    assert result["drawn"]["samples"][0]["scores"][1] == good_words("", result["drawn"]["samples"][0]["after"])
    page = (out / "report.html").read_text()
    assert "Answers side by side" in page
    assert "Held-out pairs" in page
    tuned, _ = load_model(str(out / "model"))
    assert any("lora" in name for name, _ in tuned.named_parameters())


def test_arguments_reach_the_objective(place, tmp_path):
    how = ["--model", place / "small", "--data", place / "pairs.jsonl", *QUICK, "--json"]
    found = _run(*how, "--out", tmp_path / "a", "--method", "rdpo", "--set", "flip_rate=0.3", "--set", "beta=0.5")
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert said["arguments"] == {"flip_rate": 0.3, "beta": 0.5}
    for wrong, sentence in [
        (["--method", "rdpo", "--set", "gamma=1"], "--set takes flip_rate=..., beta=..., not 'gamma=1'"),
        (["--method", "rdpo", "--set", "beta=much"], "--set beta must be a number, true or false, not 'much'"),
        (["--method", "raft", "--set", "answers=2.5"], "--set answers must be of the kind int, which '2.5' is not"),
        (["--method", "p3o", "--set", "clipping=1"], "--set clipping must be one of separate, joint, not '1'"),
        (["--method", "rso", "--set", "loss=hing"], "loss must be one of sigmoid-norm, hinge-norm, hinge, not 'hing'"),
        (["--method", "rdpo", "--set", "flip_rate=0.7"], "flip_rate must lie in [0, 1/2), not 0.7"),
        (["--method", "ucb1"], "ucb1 is no objective of preference learning: --method list shows them"),
        (["--method", "dpoo"], "no method is called 'dpoo'; did you mean"),
        (["--judge", "nowhere:f"], "the judge 'nowhere:f' cannot be loaded"),
        (["--judge", "math:pi"], "the judge 'math:pi' is no function"),
        (["--judge", "math:exp", "--judge-url", "http://x"], "name one judge"),
        (["--batch", "9", "--micro", "2"], "batch must be a multiple of micro"),
    ]:
        found = _run(*how[:4], "--out", tmp_path / "b", *wrong)
        assert found.exit_code != 0
        assert sentence in str(found.exception), wrong
        assert not (tmp_path / "b").exists()


def test_every_method_is_made_with_its_own_defaults(place):
    for each in json.loads(_run("--method", "list", "--json").stdout):
        method, arguments = made(each["key"], [])
        found = find(each["key"])
        own = {name: each.default for name, each in inspect.signature(found.factory).parameters.items()}
        for name, value in own.items():
            expected = found.card.example[name] if value is inspect.Parameter.empty else value
            assert arguments.get(name) == expected, (found.key, name)
        assert hasattr(method, "select") or hasattr(method, "reads")
    rest_em, arguments = made("rest_em", ["cap=2"])
    assert arguments == {"answers": 32, "cap": 2, "passing": 1.0}
    assert rest_em.select(torch.zeros(3, 32), torch.Generator()).row.tolist() == []  # what is rejected is not imitated


def test_what_is_said_twice_is_refused():
    with pytest.raises(ValueError, match="--set names beta more than once"):
        made("dpo", ["beta=0.1", "beta=0.5"])
    with pytest.raises(ValueError, match="--column says twice what prompt is: prompt and chosen"):
        reading_answers(["prompt=prompt", "prompt=chosen"], None)


def test_words_are_arguments():
    for method, said in (("rso", "loss=hinge"), ("p3o", "clipping=separate"), ("vpo", "calibration=both")):
        name, _, word = said.partition("=")
        assert made(method, [said])[1][name] == word
    assert not made("rso", ["loss=hinge"])[0].objective.reference


@pytest.mark.parametrize(
    ("method", "words", "useless"),
    [
        ("dpo", ["--rounds", 3], "--rounds"),
        ("oaif", ["--save", 10, "--judge", "math:exp"], "--save"),
        ("bradley_terry", ["--judge", "math:exp", "--answers", 3], "--judge and --answers"),
        ("bradley_terry", ["--reward-model", "x", "--most", 128], "--reward-model and --most"),
        ("bradley_terry", ["--judge-url", "http://x", "--judge-model", "m"], "--judge-url and --judge-model"),
        ("dpo", ["--judge-model", "m"], None),
    ],
)
def test_options_of_no_use_are_refused(place, tmp_path, method, words, useless):
    how = ["--model", place / "small", "--data", place / "pairs.jsonl", "--out", tmp_path / "out", "--method", method]
    found = _run(*how, *words)
    alone = "--judge-model names a model of the service that --judge-url gives, which is missing"
    assert str(found.exception) == (f"{method} has no use for {useless}" if useless else alone)
    assert not (tmp_path / "out").exists()


def test_a_strength_below_a_half_is_for_the_other_answer(place, tmp_path):
    turned = [Preference(each.prompt, each.rejected, each.chosen, 0.1) for each in word_pairs(80)]
    write(turned, tmp_path / "turned.jsonl")
    how = ["--model", place / "small", "--data", tmp_path / "turned.jsonl", "--out", tmp_path / "out", *QUICK]
    found = _run(*how, "--method", "upo", "--answers", 0, "--json")
    assert found.exit_code == 0, found.output
    after = json.loads(found.stdout)["after"]
    assert sum(after["margins"]) < 0  # of the answers that are named as chosen
    assert after["accuracy"] > 0.6


def test_a_recipe_learns_from_answers_that_the_model_draws(place, tmp_path):
    how = ["--model", place / "small", "--data", place / "pairs.jsonl", *QUICK, "--method", "oaif", "--out"]
    found = _run(*how, tmp_path / "none")
    assert "name who judges them" in str(found.exception)
    judge = ["--judge", "backchannel.testing.small_models:good_words", "--rounds", "2", "--prompts", "16"]
    found = _run(*how, tmp_path / "none", *judge, "--group", "8", "--price", "0")
    assert str(found.exception) == "oaif has no use for --group and --price"
    rows = [json.loads(line) for line in (place / "pairs.jsonl").read_text().splitlines()]
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": each["prompt"]}) for each in rows))
    how[3] = tmp_path / "prompts.jsonl"
    found = _run(*how, tmp_path / "out", *judge, "--json")
    assert found.exit_code == 0, found.output
    said = json.loads(found.stdout)
    assert said["steps"] == 2 * 2
    assert said["drawn"]["divergence"] > 0
    assert "Held-out pairs" not in (tmp_path / "out" / "report.html").read_text()
    found = _run(*how, tmp_path / "out", *judge, "--resume")
    assert "--resume is for methods that learn from given records" in str(found.exception)
    found = _run(*how, tmp_path / "out", *judge)
    assert str(found.exception).endswith("holds a model of an earlier run: choose another folder")


def test_columns_have_other_names_and_texts_a_marker(place, tmp_path):
    pairs = [json.loads(line) for line in (place / "pairs.jsonl").read_text().splitlines()]
    renamed = [
        {"good": each["prompt"] + " :" + each["chosen"], "bad": each["prompt"] + " :" + each["rejected"]}
        for each in pairs
    ]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(each) + "\n" for each in renamed))
    how = ["--model", place / "small", "--out", tmp_path / "out", *QUICK, "--steps", 1, "--answers", 0]
    names = ["--column", "chosen=good", "--column", "rejected=bad", "--split", " :"]
    found = _run(*how, "--data", tmp_path / "other.jsonl", *names)
    assert found.exit_code == 0, found.output
    assert "dpo on 64 examples, 1 steps" in found.output


def test_bad_data_is_said_with_its_row_before_a_model_is_loaded(place, tmp_path):
    rows = [{"prompt": "w1", "chosen": " w2", "rejected": " w3"}, {"prompt": "w1", "chosen": " w2", "rejected": " w2"}]
    (tmp_path / "bad.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = _run("--model", place / "small", "--data", tmp_path / "bad.jsonl", "--out", tmp_path / "out")
    assert "chosen and rejected are the same" in str(found.exception)
    assert "2" in str(found.exception)
    found = _run("--model", tmp_path / "none", "--data", place / "pairs.jsonl", "--out", tmp_path / "out")
    assert found.exit_code != 0
    assert "there is no folder" in str(found.exception)


def test_the_list_of_objectives():
    found = _run("--method", "list", "--json")
    assert {"dpo", "cdpo", "rdpo"} <= {each["key"] for each in json.loads(found.stdout)}
