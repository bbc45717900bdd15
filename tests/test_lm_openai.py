"""The client of OpenAI-compatible services, against a server on this machine that misbehaves on request."""

import json
import logging
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from backchannel.lm.openai import OpenAICompatible
from backchannel.lm.protocol import LanguageModelError, Reply, system, user, wait
from backchannel.lm.tape import Tape

pytest.importorskip("httpx")
KEY = "sk-secret-0123456789"
GOOD = {
    "choices": [{"message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 2},
}


class Server(ThreadingHTTPServer):
    """Gives the answers of a list, in turn: (status, body, headers) or seconds to sleep."""

    daemon_threads = True

    def __init__(self, *answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.seen = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        answer = self.server.answers.pop(0)
        if isinstance(answer, float):
            time.sleep(answer)
            answer = (200, GOOD)
        status, content, *headers = answer
        if status == 0:
            self.close_connection = True  # hangs up without a word
            return
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        """Silent."""


class Waits(list):
    """A sleep that only notes how long."""

    async def __call__(self, seconds):
        self.append(seconds)


def test_sends_the_request_and_reads_the_answer():
    with Server((200, GOOD)) as server:
        lm = OpenAICompatible("small", base_url=server.url, key=KEY)
        messages = [system("Be kind."), user("Hi.")]
        reply = wait(lm.complete(messages, max_tokens=9, temperature=0.5, stop=["\n"], seed=4))
    assert reply == Reply("Hello.", 11, 2)
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {
        "model": "small",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}],
        "max_tokens": 9,
        "temperature": 0.5,
        "stop": ["\n"],
        "seed": 4,
    }


def test_sends_no_more_than_is_asked_and_counts_where_the_server_does_not():
    short = {"choices": [{"message": {"content": "123456"}, "finish_reason": "length"}]}
    with Server((200, short)) as server:
        reply = wait(OpenAICompatible("small", base_url=server.url + "/").complete([user("abc")]))
    assert reply == Reply("123456", 5, 2, "length")
    _, headers, body = server.seen[0]
    assert "Authorization" not in headers
    assert set(body) == {"model", "messages", "max_tokens", "temperature"}


def test_tries_again_with_doubling_waits():
    waits = Waits()
    with Server((429, {}), (500, "oops"), (503, {}), (0, ""), (200, GOOD)) as server:
        lm = OpenAICompatible("small", base_url=server.url, backoff=1.0, sleep=waits)
        assert wait(lm.complete([user("Hi.")])).text == "Hello."
    assert len(server.seen) == 5
    assert all(0.75 * 2**i <= seconds <= 1.25 * 2**i for i, seconds in enumerate(waits))
    assert len(waits) == 4


def test_waits_as_long_as_the_server_asks_up_to_a_minute():
    waits = Waits()
    answers = [
        (429, {}, ("Retry-After", "7")),
        (429, {}, ("Retry-After", "9999")),
        (429, {}, ("Retry-After", "Mon, 1 Jan")),
        (200, GOOD),
    ]
    with Server(*answers) as server:
        wait(OpenAICompatible("small", base_url=server.url, backoff=0.01, sleep=waits).complete([user("Hi.")]))
    assert waits[:2] == [7.0, 60.0]
    assert waits[2] < 0.1


def test_a_timeout_is_tried_again_and_then_said():
    waits = Waits()
    with Server(0.5, (200, GOOD)) as server:
        lm = OpenAICompatible("small", base_url=server.url, timeout=0.2, sleep=waits)
        assert wait(lm.complete([user("Hi.")])).text == "Hello."
    with Server(0.5) as server:
        lm = OpenAICompatible("small", base_url=server.url, timeout=0.2, tries=1)
        with pytest.raises(LanguageModelError, match=r"no answer within 0.2 seconds; gave up after 1 tries"):
            wait(lm.complete([user("Hi.")]))


def test_gives_up_with_the_last_trouble():
    with Server(*[(503, {"error": {"message": "over\nloaded"}})] * 3) as server:
        lm = OpenAICompatible("small", base_url=server.url, tries=3, sleep=Waits())
        with pytest.raises(LanguageModelError, match="answer 503: over loaded; gave up after 3 tries"):
            wait(lm.complete([user("Hi.")]))
    lm = OpenAICompatible("small", base_url=server.url, tries=2, sleep=Waits())  # nobody listens any more
    with pytest.raises(LanguageModelError, match="no connection"):
        wait(lm.complete([user("Hi.")]))


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refusal_is_not_tried_again(status):
    with Server((status, {"error": {"message": "no such model"}})) as server:
        with pytest.raises(LanguageModelError, match=f"answer {status}: no such model"):
            wait(OpenAICompatible("small", base_url=server.url).complete([user("Hi.")]))
        assert len(server.seen) == 1


@pytest.mark.parametrize("body", ["<html>", {}, {"choices": []}, {"choices": [{"message": None}]}, []])
def test_an_answer_that_is_none_is_an_error(body):
    with Server((200, body)) as server, pytest.raises(LanguageModelError, match="not a chat completion"):
        wait(OpenAICompatible("small", base_url=server.url).complete([user("Hi.")]))


def test_the_key_is_nowhere(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with Server((200, GOOD), (401, {"error": {"message": f"wrong key {KEY}"}})) as server:
        lm = OpenAICompatible("small", base_url=server.url, key=KEY)
        with Tape(tmp_path / "t", lm) as tape:
            wait(tape.complete([user("Hi.")]))
        with pytest.raises(LanguageModelError, match=r"wrong key \[key\]") as caught:
            wait(lm.complete([user("Hi.")]))
    assert KEY not in str(caught.value) + repr(lm) + caplog.text + (tmp_path / "t").read_text()
    assert wait(Tape(tmp_path / "t").complete([user("Hi.")])).text == "Hello."


def test_one_connection_for_many_calls_inside_async_with():
    async def two(url):
        async with OpenAICompatible("small", base_url=url) as lm:
            return [(await lm.complete([user(text)])).text for text in "ab"]

    with Server((200, GOOD), (200, GOOD)) as server:
        assert wait(two(server.url)) == ["Hello.", "Hello."]


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="tries must be at least 1"):
        OpenAICompatible("small", base_url="http://127.0.0.1", tries=0)
