"""`align` and its judges, as they are typed: what cannot judge is said before anything is trained."""

import importlib.util
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

torch = pytest.importorskip("torch", reason="align tunes models of torch")
pytest.importorskip("peft", reason="adapters are those of peft")

from typer.testing import CliRunner  # noqa: E402

from backchannel.align.judges import tried  # noqa: E402
from backchannel.align.write import write  # noqa: E402
from backchannel.cli import align, app  # noqa: E402
from backchannel.cli.made import judged  # noqa: E402
from backchannel.testing.small_models import small_llama, word_pairs, word_tokenizer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`", "ignore:.*pin_memory")
torch.set_num_threads(1)
QUICK = ["--steps", "1", "--batch", "4", "--micro", "4", "--held-out", "0.2"]
SHORT = ["--most", "4", "--answers", "4"]
COMMANDS = (align,)  # which registers itself


@pytest.fixture(scope="module")
def how(tmp_path_factory):
    """A model and pairs, as options."""
    folder = tmp_path_factory.mktemp("align")
    small_llama().save_pretrained(folder / "small")
    word_tokenizer().save_pretrained(folder / "small")
    write(word_pairs(24), folder / "pairs.jsonl")
    return ["--model", folder / "small", "--data", folder / "pairs.jsonl", *QUICK]


def _run(*words):
    short = [] if "bradley_terry" in words else SHORT
    return CliRunner().invoke(app, ["align", *map(str, [*words, *short])])


@pytest.fixture
def service():
    """A service whose answer is `server.says`, and which keeps the headers that it got."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *given):
            pass

        def do_POST(self):
            server.heard.append(self.headers.get("authorization"))
            self.rfile.read(int(self.headers["content-length"]))
            code, said = server.says
            body = json.dumps(said).encode()
            self.send_response(code)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.heard, server.url = [], f"http://127.0.0.1:{server.server_port}/v1"
        server.says = 200, {"choices": [{"message": {"content": "TIE"}}]}
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_service_gets_the_key_of_the_environment_and_no_one_else_does(how, service, tmp_path, monkeypatch):
    monkeypatch.setenv("BACKCHANNEL_JUDGE_KEY", "a-secret")
    found = _run(*how, "--out", tmp_path / "out", "--judge-url", service.url, "--json")
    assert found.exit_code == 0, found.output
    assert set(service.heard) == {"Bearer a-secret"}
    assert json.loads(found.stdout)["drawn"]["wins"] == 0.5
    assert "a-secret" not in found.output + (tmp_path / "out" / "result.json").read_text()


def test_a_service_that_always_names_the_first_is_told_of_and_so_is_what_a_round_asks(how, service, tmp_path):
    service.says = 200, {"choices": [{"message": {"content": "A"}}]}
    more = ["--method", "oaif", "--rounds", 1, "--prompts", 3, "--set", "answers=3"]
    found = _run(*how, "--out", tmp_path / "out", "--judge-url", service.url, *more)
    assert found.exit_code == 0, found.output
    assert "a round asks the judge up to 18 questions: 3 prompts, 3 answers to each\n" in found.stderr
    turned = re.search(r"of (\d+) of (\d+) pairs the judge said something else when their order was", found.stdout)
    assert turned[1] == turned[2] != "0"


def test_a_service_that_refuses_ends_the_run_before_training(how, service, tmp_path, monkeypatch):
    monkeypatch.delenv("BACKCHANNEL_JUDGE_KEY", raising=False)
    service.says = 401, {"error": {"message": "no key"}}
    found = _run(*how, "--out", tmp_path / "out", "--judge-url", service.url, "--judge-model", "m")
    assert "the judge m said nothing of answers from before training: http" in str(found.exception)
    assert "answer 401: no key" in str(found.exception)
    assert service.heard == [None] * 3  # once each for three answers
    assert not (tmp_path / "out" / "model").exists()


def test_a_service_that_is_not_there_is_given_up_soon():
    waits = []

    async def sleep(seconds):
        waits.append(seconds)

    judge, _ = judged(None, None, "http://127.0.0.1:9/v1", "m")
    judge.lm._sleep = sleep
    with pytest.raises(ValueError, match="no connection"):
        tried(judge, "m", ["p"] * 9, list("abcdefghi"))
    assert sum(waits) < 30


def test_what_cannot_judge_is_said_before_a_model_is_loaded(how, tmp_path, monkeypatch):
    def said(*words):
        found = _run(*how, "--out", tmp_path / "out", *words)
        assert found.exit_code != 0
        assert not (tmp_path / "out").exists()
        return str(found.exception)

    assert said("--judge-url", "localhost:80") == "--judge-url begins with http:// or https://, unlike 'localhost:80'"
    assert "holds a language model, without a reward model's head" in said("--reward-model", how[1])
    (tmp_path / "empty").mkdir()
    assert "empty holds no model" in said("--reward-model", tmp_path / "empty")
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "httpx" else there(name, *more)
    )
    assert said("--judge-url", "http://x") == "--judge-url needs httpx: pip install 'backchannel[lm]'"


def test_a_reward_model_of_align_judges_by_its_folder_and_is_no_language_model(how, tmp_path):
    found = _run(*how, "--out", tmp_path / "rewards", "--method", "bradley_terry")
    assert found.exit_code == 0, found.output
    found = _run(*how, "--out", tmp_path / "tuned", "--reward-model", tmp_path / "rewards", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["drawn"]["scores"] is not None
    for words, sentence in [
        (["--reward-model", tmp_path / "tuned"], "holds the adapter of a language model"),
        (["--model", tmp_path / "rewards" / "model"], "holds the adapter of a reward model, which writes no answers"),
    ]:
        found = _run(*how, "--out", tmp_path / "out", *words)
        assert sentence in str(found.exception)
